"""The command line, mostly in this process; where exit code and traceback matter, in a process of its own."""

import csv
import json
import math
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from stepwise_dpo.cli import build_parser, main
from stepwise_dpo.cli.output import report_table
from stepwise_dpo.learning.loading import load_policy
from stepwise_dpo.learning.rewards import LLMRewardModel
from stepwise_dpo.learning.tokenization import StepTokenizer
from stepwise_dpo.preferences.pairs import PreferencePair, Step, load_pairs, save_pairs
from stepwise_dpo.preferences.synthetic import draw_solution
from stepwise_dpo.runs.checkpoints import noted_at_start
from stepwise_dpo.runs.config import RunConfig, make_config
from stepwise_dpo.runs.directory import RunDirectory


@pytest.fixture
def data(pairs, tmp_path):
    save_pairs(pairs[:2], tmp_path / "pairs.json")
    return str(tmp_path / "pairs.json")


@pytest.fixture(params=["flan_t5_small_folder", "causal_folder"])
def model(request):
    return str(request.getfixturevalue(request.param))


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def formula(policy, judge, pairs):
    """Phase 2's loss, written once more from the training log: one row at a time, a plain forward each."""
    steps = StepTokenizer(policy.tokenizer, policy.is_encoder_decoder)
    losses = []
    for pair in pairs:
        reward, ll = {}, {}
        for side in ("chosen", "rejected"):
            solution = getattr(pair, side)
            reward[side] = judge.score(pair.prompt, [step.text for step in solution], "centered").sum()
            prompt, (ids, _) = steps.encode_prompt(pair.prompt), steps.encode_steps(solution)
            if policy.is_encoder_decoder:
                logits = policy.model(input_ids=torch.tensor([prompt]), labels=torch.tensor([ids])).logits[0]
            else:
                logits = policy.model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            ll[side] = logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].mean()
        preference = reward["chosen"] - reward["rejected"]
        losses.append(-torch.nn.functional.logsigmoid(preference * (ll["chosen"] - ll["rejected"])))
    return torch.stack(losses).mean().item()


def test_phase_1_end_to_end(model, data, tmp_path, capsys):
    arguments = ["train", "--preset", "phase1", "--model", model, "--data", data, "--output-dir", str(tmp_path / "run"),
                 "--generate", "1", "--max-new-tokens", "8"]  # fmt: skip
    assert main(arguments) == 0
    run = RunDirectory(tmp_path / "run")
    losses = [record["loss"] for record in run.metrics()[0]]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[-1] < losses[0]
    assert len(losses) == 3  # two pairs, batch 2, three epochs
    assert run.status().state == "finished"
    assert run.report()["after"]["mean_margin"] > run.report()["before"]["mean_margin"]
    assert "preference_accuracy" in capsys.readouterr().out

    # final/ is an ordinary checkpoint: the Auto classes alone load it, and it is the trained model.
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    AutoTokenizer.from_pretrained(run.final)
    auto_class = AutoModelForSeq2SeqLM if "flan" in model else AutoModelForCausalLM
    loaded = auto_class.from_pretrained(run.final, trust_remote_code=False, use_safetensors=True)
    original = load_policy(model).model
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in original.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(loaded.parameters(), original.parameters(), strict=True))
    assert {file.suffix for file in run.final.iterdir()} <= {".safetensors", ".json", ".model", ".jinja"}

    # Scoring works with it, too.
    scores = tmp_path / "scores.jsonl"
    assert main(["score", "--data", data, "--reward-model", str(run.final), "--output", str(scores)]) == 0
    assert [record["id"] for record in read_lines(scores)] == [pair.id for pair in load_pairs(data)]

    # The same directory again is refused, and compare works on it without another word.
    capsys.readouterr()
    assert main(arguments) == 1
    assert "already holds a run" in capsys.readouterr().err
    assert main(["compare", "--run", str(run.path), "--generate", "1", "--max-new-tokens", "8"]) == 0
    rows = list(csv.DictReader((run.path / "inference_results.csv").open(encoding="utf-8")))
    assert {"prompt", "model_output", "chosen_score", "rejected_score", "preferred"} <= rows[0].keys()
    records = read_lines(run.path / "inference_results.jsonl")
    for row, record, pair in zip(rows, records, load_pairs(data), strict=True):
        assert row["prompt"] == record["prompt"] == pair.prompt
        expected = "chosen" if float(row["chosen_score"]) > float(row["rejected_score"]) else "rejected"
        assert row["preferred"] == record["preferred"] == expected
        assert len(record["chosen_step_logratios"]) == len(pair.chosen)
    assert sum(sum(record["chosen_step_logratios"]) - sum(record["rejected_step_logratios"]) for record in records) > 0


def test_phase_2_starts_at_the_formula(model, data, tmp_path):
    expected = formula(load_policy(model), LLMRewardModel.from_pretrained(model), load_pairs(data))
    assert main(["train", "--preset", "phase2", "--model", model, "--reward-model", model, "--data", data,
                 "--output-dir", str(tmp_path / "run"), "--generate", "0", "--max-steps", "2"]) == 0  # fmt: skip
    run = RunDirectory(tmp_path / "run")
    records, _ = run.metrics()
    assert records[0]["loss"] == pytest.approx(expected, rel=1e-5)
    assert {"process_rewards/preference", "process_rewards/negative_fraction"} <= records[0].keys()
    assert (run.final / "model.safetensors").is_file()
    rewards = run.rewards()
    assert (rewards["value"], rewards["aggregation"], rewards["scoring"]) == ("centered", "sum", "verbalizer")
    assert sum(row["preference"] for row in rewards["pairs"]) / 2 == pytest.approx(
        records[0]["process_rewards/preference"], abs=1e-5
    )
    load_policy(str(run.final))


def test_evaluation_lines_and_examples(data, tmp_path, pairs):
    save_pairs(pairs[2:7], tmp_path / "eval.json")
    arguments = ["--data", data, "--eval-data", str(tmp_path / "eval.json"), "--output-dir", str(tmp_path / "run")]
    models = ["--model", "tiny", "--reward-model", "tiny"]
    assert main(["train", *models, *arguments, "--epochs", "2", "--generate", "2"]) == 0
    records, _ = RunDirectory(tmp_path / "run").metrics()
    evaluations = [record for record in records if "eval_loss" in record]
    assert [record["global_step"] for record in evaluations] == [1, 2]  # after each epoch
    assert all(isinstance(value, (int, float)) for record in records for value in record.values())
    assert {"eval_rewards/margins", "eval_step_logratios/chosen", "eval_process_rewards/preference"} <= evaluations[
        0
    ].keys()
    examples = RunDirectory(tmp_path / "run").examples()
    assert [example["id"] for example in examples] == [pair.id for pair in pairs[2:7]]
    assert examples[0]["answer"] is not None
    assert examples[3]["answer"] is None


def test_the_trained_reward_model_is_saved(data, tmp_path):
    assert main(["train", "--loss", "stepwise", "--model", "tiny", "--reward-model", "tiny", "--train-reward-model",
                 "--data", data, "--output-dir", str(tmp_path / "run"), "--generate", "0"]) == 0  # fmt: skip
    trained = load_policy(str(tmp_path / "run" / "reward_model")).model
    assert any(
        not torch.equal(a, b) for a, b in zip(trained.parameters(), load_policy("tiny").model.parameters(), strict=True)
    )

    # compare judges with it, not with the one that the run started from.
    assert main(["compare", "--run", str(tmp_path / "run"), "--generate", "0"]) == 0
    (record, _) = read_lines(tmp_path / "run" / "inference_results.jsonl")
    judge = LLMRewardModel.from_pretrained(str(tmp_path / "run" / "reward_model"))
    (expected, _) = judge.score_pairs(load_pairs(data))
    assert record["chosen_process_rewards"] == pytest.approx(expected.chosen, abs=1e-5)


def test_a_bundled_policy_on_problems_that_it_does_not_know(pairs, tmp_path, capsys):
    strange = PreferencePair("How many eggs are left?", [Step("16 - 7 = 9")], [Step("16 - 7 = 8")])
    for name, examples in (("strange", [strange]), ("mixed", [pairs[0], strange])):
        save_pairs(examples, tmp_path / f"{name}.json")
        arguments = ["--data", str(tmp_path / f"{name}.json"), "--output-dir", str(tmp_path / name)]
        assert main(["train", "--model", "policy", *arguments, "--max-steps", "1", "--generate", "0"]) == 0
        told = [line for line in capsys.readouterr().err.splitlines() if "the bundled kinds of problems only" in line]
        assert len(told) == (name == "strange")
        noted = noted_at_start(RunDirectory(tmp_path / name))  # the page shows it
        assert [f"warning: {words}" for words in noted] == told


def test_a_solve_rate_says_of_how_many_answers_it_is():
    figures = {"pairs": 8.0, "solve_rate": 0.75, "answers": 4.0}
    lines = report_table({"before": figures, "after": {**figures, "solve_rate": 0.5}}).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["pairs", "8", "8"],
        ["solve_rate,", "of", "4", "answers", "0.75", "0.5"],
    ]
    assert len({len(line) for line in lines}) == 1
    change = {"solve_rate": -0.25, "solve_rate/low": -0.5, "solve_rate/high": 0.125}
    lines = report_table({"before": figures, "after": {**figures, "solve_rate": 0.5}, "change": change}).splitlines()
    assert lines[0].split() == ["before", "after", "change", "95%", "interval"]
    assert lines[1].split() == ["pairs", "8", "8"]
    assert lines[2].split()[4:] == ["0.75", "0.5", "-0.25", "-0.5", "to", "+0.125"]
    for seen, told in ((0, False), (3, True)):
        table = report_table({key: {"pairs": 8.0, "trained_on": seen} for key in ("before", "after")})
        assert ("pairs on trained problems              3           3" in table) == told


def test_before_and_after_are_measured_alike(data, tmp_path, causal_folder):
    """A learning rate of 0 changes nothing, also where training computes in another precision."""
    for name, model in (("causal", str(causal_folder)), ("tiny", "tiny")):
        run = RunDirectory(tmp_path / name)
        arguments = ["--model", model, "--data", data, "--precision", "bfloat16", "--learning-rate", "0"]
        assert main(["train", *arguments, "--max-steps", "1", "--generate", "0", "--output-dir", str(run.path)]) == 0
        assert run.report()["before"] == run.report()["after"]
        assert not any(run.report()["change"].values())
        for example in run.examples():
            assert not any(example["chosen_step_logratios"] + example["rejected_step_logratios"])
            assert example["in_training"]
        assert run.report()["after"]["trained_on"] == run.report()["after"]["pairs"] > 0


def test_what_a_run_is_compared_on_is_said(data, tmp_path, capsys):
    few = ["--preset", "demo", "--data", data, "--model", "tiny", "--max-steps", "1", "--generate", "0"]
    for name, more, held_out in (("preset", [], "onpolicy_heldout_prm.json"), ("own", ["--eval-data", data], data)):
        assert main(["train", *few, *more, "--output-dir", str(tmp_path / name)]) == 0
        told = capsys.readouterr()
        assert ("which the preset names" in told.err) == (name == "preset")
        (line,) = [line for line in told.out.splitlines() if line.startswith("compared on ")]
        assert line.endswith(held_out)


def train_for_ever(data, run):
    """A run that has begun, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stepwise_dpo", "train", "--model", "tiny", "--data", data, "--epochs", "9999",
         "--generate", "0", "--output-dir", str(run.path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Tests in the background of a shell ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not run.metrics()[0]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return process


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_first_signal_keeps_what_is_there(data, tmp_path, number, name):
    run = RunDirectory(tmp_path / "run")
    process = train_for_ever(data, run)
    process.send_signal(number)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert f"stopping after this optimiser step; {name} again" in errors
    assert f"train --resume {run.path}" in said
    assert run.status().state == "stopped"
    assert (run.final / "model.safetensors").is_file()
    assert list(run.path.glob("checkpoint-*"))


def test_repeated_signals_leave_an_honest_status(data, monkeypatch, tmp_path):
    """A scheduler repeats its SIGTERM, also while the run writes how it ended."""
    run = RunDirectory(tmp_path / "run")
    heard = []

    def step_end(journal, *arguments, **_):
        for number in (signal.SIGTERM, signal.SIGTERM):
            signal.raise_signal(number)
            heard.append(run.stop_requested())

    def write_last_status(directory, status):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        directory.write_status(status)

    monkeypatch.setattr("stepwise_dpo.runs.journal.Journal.on_step_end", step_end)
    monkeypatch.setattr(RunDirectory, "write_last_status", write_last_status)
    arguments = ["--model", "tiny", "--data", data, "--generate", "0", "--output-dir", str(run.path)]
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["train", *arguments]) == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [True]  # the second one ended the run at once
    assert run.status().state == "interrupted"
    assert run.status().error == "interrupted by Ctrl-C or SIGTERM"


def test_settings_from_a_file_are_overridden_by_options(data, tmp_path):
    (tmp_path / "run.yaml").write_text(
        f"preset: phase2\nmodel: tiny\nreward_model: tiny\ndata: {data}\nepochs: 1\nlearning_rate: 1e-4\ngenerate: 0\n"
        f"output_dir: {tmp_path / 'run'}\n"
    )
    assert main(["train", "--config", str(tmp_path / "run.yaml"), "--learning-rate", "2e-4"]) == 0
    config = RunDirectory(tmp_path / "run").config()
    assert (config.loss, config.epochs, config.learning_rate, config.batch_size) == ("stepwise", 1.0, 2e-4, 2)


@pytest.mark.parametrize("value", ["probability", "centered", "log_odds"])
def test_score(value, data, tmp_path):
    out = tmp_path / "scores.jsonl"
    assert main(["score", "--data", data, "--reward-model", "tiny", "--value", value, "--output", str(out)]) == 0
    judge = LLMRewardModel.from_pretrained("tiny")
    records = read_lines(out)
    for record, pair in zip(records, load_pairs(data), strict=True):
        assert list(record) == ["id", "prompt", "chosen", "rejected", "preference"]
        assert (record["id"], record["prompt"]) == (pair.id, pair.prompt)
        for side in ("chosen", "rejected"):
            expected = judge.score(pair.prompt, [step.text for step in getattr(pair, side)], value)
            assert record[side] == pytest.approx(expected.tolist(), abs=1e-5)
        assert record["preference"] == pytest.approx(sum(record["chosen"]) - sum(record["rejected"]), abs=1e-5)


def test_compare_two_models_with_a_judge(data, tmp_path, causal_folder):
    assert main(["compare", "--before", "tiny", "--after", str(causal_folder), "--data", data, "--reward-model", "tiny",
                 "--output-dir", str(tmp_path / "out"), "--max-new-tokens", "5"]) == 0  # fmt: skip
    (first, _) = read_lines(tmp_path / "out" / "inference_results.jsonl")
    assert len(first["answer"]["process_rewards"]) == len(first["answer"]["steps"])
    assert len(first["chosen_process_rewards"]) == len(first["chosen_steps"])


@pytest.mark.parametrize(
    "words",
    [
        ["score", "--reward-model", "tiny", "--data", "{data}", "--output", "{data}"],
        ["evaluate", "reward", "--data", "{data}", "--json", "{data}"],
        ["data", "convert", "{data}", "--format", "trl-preference", "--output", "{data}"],
        ["data", "generate", "--n", "3", "--avoid", "{data}", "--output", "{data}"],
    ],
)
def test_no_result_is_written_over_what_is_read(words, data, capsys):
    before = Path(data).read_text()
    assert main([word.format(data=data) for word in words]) == 2
    assert "is what the command reads" in capsys.readouterr().err
    assert Path(data).read_text() == before


def test_a_run_without_a_model_is_not_compared(data, tmp_path, capsys):
    RunDirectory(tmp_path / "run").create(make_config({"model": "tiny", "data": data}))
    assert main(["compare", "--run", str(tmp_path / "run")]) == 1
    assert "has no trained model to compare" in capsys.readouterr().err


def test_a_run_writes_over_nobodys_files(data, tmp_path, capsys):
    own = tmp_path / "folder" / "examples.jsonl"
    own.parent.mkdir()
    own.write_text(Path(data).read_text())
    assert main(["train", "--model", "tiny", "--data", data, "--output-dir", str(own.parent)]) == 1
    assert "holds 'examples.jsonl', which a run would write over" in capsys.readouterr().err
    assert [path.name for path in own.parent.iterdir()] == ["examples.jsonl"]


def test_text_that_a_spreadsheet_would_run_is_disarmed(tmp_path, pairs):
    from stepwise_dpo.preferences.pairs import PreferencePair

    pair = PreferencePair(prompt='=HYPERLINK("x")', chosen=pairs[0].chosen, rejected=pairs[0].rejected)
    save_pairs([pair], tmp_path / "pairs.json")
    assert main(["compare", "--before", "tiny", "--after", "tiny", "--data", str(tmp_path / "pairs.json"),
                 "--output-dir", str(tmp_path), "--max-new-tokens", "2"]) == 0  # fmt: skip
    (row,) = csv.DictReader((tmp_path / "inference_results.csv").open(encoding="utf-8"))
    assert row["prompt"] == "'" + pair.prompt
    assert float(row["chosen_score"]) < 0  # numbers stay numbers
    assert row["preferred"] in ("chosen", "rejected")


def test_data_convert_to_what_trl_reads(data, tmp_path, capsys):
    pairs = load_pairs(data)
    for kind, rows in (("trl-preference", 2), ("trl-stepwise", 4)):
        output = tmp_path / f"{kind}.jsonl"
        assert main(["data", "convert", data, "--format", kind, "--output", str(output)]) == 0
        assert len(read_lines(output)) == rows
        assert capsys.readouterr().out == f"{rows} rows written to {output}\n"
    first = read_lines(tmp_path / "trl-preference.jsonl")[0]
    assert first["chosen"].split("\n") == [step.text for step in pairs[0].chosen]
    first = read_lines(tmp_path / "trl-stepwise.jsonl")[0]
    assert first["labels"] == [step.label for step in pairs[0].chosen]
    both = ["data", "convert", data, "--eval-data", data, "--format", "trl-stepwise", "--output", str(tmp_path / "x")]
    assert main(both) == 2
    assert "writes one file" in capsys.readouterr().err


def test_data_convert_leaves_a_folder_of_others_alone(data, tmp_path, capsys):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("mine")
    assert main(["data", "convert", data, "--output", str(folder)]) == 2
    assert "holds other files than a DatasetDict; name a new folder" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["chapter.txt"]
    for _ in range(2):  # its own, it may replace
        assert main(["data", "convert", data, "--output", str(tmp_path / "set")]) == 0


def test_data_split(tmp_path, capsys):
    train, held_out = tmp_path / "train.json", tmp_path / "held_out.json"
    places = ["--output", str(train), "--held-out-output", str(held_out)]
    assert main(["data", "split", "data/heldout_prm.json", "--held-out", "0.25", *places]) == 0
    assert "90 pairs written to" in capsys.readouterr().out
    assert (len(load_pairs(train)), len(load_pairs(held_out))) == (90, 30)
    assert main(["data", "split", "data/heldout_prm.json", "--held-out", "1", *places]) == 1
    assert "the held-out share must be above 0 and below 1" in capsys.readouterr().err
    assert main(["data", "split", "data/heldout_prm.json", "--output", "x.json", "--held-out-output", "./x.json"]) == 2
    assert "name two files" in capsys.readouterr().err


def test_data_on_policy_with_a_mistake_in_every_problem(tmp_path):
    kinds = {"chosen": [], "each": ["--every-problem"]}
    for name, options in kinds.items():
        arguments = ["--n", "6", "--seed", "3", "--output", str(tmp_path / f"{name}.json"), *options]
        assert main(["data", "on-policy", *arguments]) == 0
    drawn = [draw_solution(3, index).prompt for index in range(6)]
    chosen, each = ([pair.prompt for pair in load_pairs(tmp_path / f"{name}.json")] for name in kinds)
    assert each == drawn
    assert chosen != drawn  # the policy solves some of them


def test_data_generate_validate_convert(tmp_path, capsys):
    from datasets import load_from_disk

    pairs, other = tmp_path / "pairs.json", tmp_path / "other.json"
    assert main(["data", "generate", "--n", "20", "--seed", "5", "--output", str(pairs)]) == 0
    assert main(["data", "generate", "--n", "5", "--seed", "6", "--output", str(other), "--avoid", str(pairs),
                 "--families", "chain", "--steps", "3", "4", "--max-number", "50"]) == 0  # fmt: skip
    rows = json.loads(pairs.read_text())
    assert len(rows) == 20
    assert set(rows[0]["chosen"][0]) == {"text", "label"}
    assert main(["data", "validate", str(pairs)]) == 0
    assert "20 pairs are valid" in capsys.readouterr().out
    assert (
        main(["data", "convert", "--data", str(pairs), "--eval-data", str(other), "--output", str(tmp_path / "set")])
        == 0
    )
    dataset = load_from_disk(str(tmp_path / "set"))
    assert {name: len(split) for name, split in dataset.items()} == {"train": 20, "test": 5}
    assert dataset["train"][0]["prompt"] == rows[0]["prompt"]


def test_validate_knows_trls_stepwise_supervision(tmp_path, capsys):
    file = tmp_path / "steps.jsonl"
    good = {"prompt": "p", "completions": ["a", "b"], "labels": [True, False]}
    file.write_text("\n".join(json.dumps(row) for row in (good, good)))
    assert main(["data", "validate", str(file)]) == 0
    said = capsys.readouterr().out
    assert "1 solutions of TRL's stepwise supervision are valid: 2 to 2 steps, 2 of 2 steps labelled, 1 rep" in said
    assert main(["score", "--data", str(file), "--output", str(tmp_path / "out")]) == 1
    assert "lines 1-2: is TRL's stepwise supervision" in capsys.readouterr().err
    file.write_text("\n".join(json.dumps(row) for row in (good, good | {"labels": [True]}, good | {"prompt": ""})))
    assert main(["data", "validate", str(file)]) == 1
    said = capsys.readouterr().err
    assert "line 2: labels must have one entry" in said
    assert "line 3: prompt" in said
    file.write_text('{"question": "q", "answer": "a"}')
    assert main(["data", "validate", str(file)]) == 1
    assert "line 1: must have prompt, chosen, rejected, and has question, answer" in capsys.readouterr().err


def test_validate_names_the_place(tmp_path, capsys):
    file = tmp_path / "bad.json"
    file.write_text('[{"prompt": "p", "chosen": ["a"], "rejected": ["b", {"text": "c", "label": 1}]}]')
    assert main(["data", "validate", str(file)]) == 1
    assert re.search(r"bad\.json.*row 1.*rejected\[1\]\.label", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "--lerning-rate", "1"], 2, "unknown option --lerning-rate; did you mean --learning-rate?"),
        (["train", "--loss", "dop"], 2, "did you mean dpo?"),
        (["trian"], 2, "did you mean train?"),
        (["data", "genrate"], 2, "did you mean generate?"),
        (["train", "--epochs", "many"], 2, "--epochs"),
        (["train", "--data", "{data}", "--learning-rate", "nan"], 2, "learning_rate: input should be a finite number"),
        (["train", "--data", "{data}", "--max-length", "1000000000"], 2, "less than or equal to 1000000"),
        (["models", "train-reward", "--model", "tiny", "--data", "{data}", "--output-dir", "{tmp}/r", "--lm-weight",
          "inf"], 2, "finite"),
        (["models", "pretrain", "policy", "--output-dir", "{tmp}/p", "--solve-rate", "nan"], 2, "a finite number"),
        (["train", "--data", "nowhere.json", "--output-dir", "{tmp}/run"], 1, "nowhere.json"),
        (["train", "--model", "tiny"], 2, "'data' is missing"),
        (["train", "--config", "{tmp}/nowhere.yaml"], 2, "can't be read"),
        (["train", "--data", "{data}", "--loss-type", "hing"], 2, "did you mean hinge?"),
        (["train", "--data", "{data}", "--nonpositive", "skip"], 2, "only loss 'stepwise' reads --nonpositive"),
        (["train", "--data", "{data}", "--loss-type", "exo_pair"], 2, "needs a label_smoothing"),
        (["data", "convert", "{data}", "--output", "{data}"], 2, "can't be written"),
        (["train", "--data", "{data}", "--model", "./nowhere", "--output-dir", "{tmp}/run"], 1, "no such folder"),
        (["train", "--data", "{data}", "--model", "tiny", "--max-length", "9", "--output-dir", "{tmp}/run"], 1,
         "more than the maximum length of 9"),
        (["score", "--data", "{data}", "--reward-model", "tiny", "--output", "{data}/x"], 2, "can't be written"),
        (["score", "--data", "{data}", "--reward-model", "tiny", "--output", "{tmp}/x", "--aggregation", "product"], 2,
         "'product' needs reward value 'probability'"),
        (["compare", "--before", "tiny"], 2, "--after is missing"),
        (["compare", "--run", "{tmp}"], 1, "is not a run directory"),
        (["data", "validate"], 2, "name one data file"),
        (["data", "generate", "--n", "0", "--output", "x"], 2, "must be at least 1"),
        (["data", "generate", "--n", "5", "--families", "chian", "--output", "{tmp}/x"], 1, "chain"),
    ],
)  # fmt: skip
def test_mistakes_get_one_line(arguments, code, message, data, tmp_path, capsys):
    arguments = [argument.format(tmp=tmp_path, data=data) for argument in arguments]
    try:
        result = main(arguments)
    except SystemExit as error:  # argparse's own way out
        result = error.code
    assert result == code
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("[")]  # phases of a run
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def test_the_hub_model_without_a_network(data, tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "stepwise_dpo", "train", "--preset", "phase1", "--data", data, "--output-dir",
         str(tmp_path / "run")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert "'google/flan-t5-small' is not on this machine" in process.stderr
    assert "'policy'" in process.stderr


def test_help_is_quick_to_import_and_complete():
    process = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "stepwise_dpo", "train", "--help"], capture_output=True, text=True
    )
    assert process.returncode == 0
    assert not re.search(r"\| +(torch|gradio|trl|transformers)$", process.stderr, re.MULTILINE)
    from stepwise_dpo.runs.config import RunConfig

    for name in RunConfig.model_fields:
        assert "--" + name.replace("_", "-") in process.stdout


@pytest.mark.parametrize("name", RunConfig.model_fields)
def test_every_setting_is_an_option_that_can_be_given(name):
    option = "--" + name.replace("_", "-")
    words = [option, *OPTION_WORDS.get(name, ["1"])]
    if RunConfig.model_fields[name].annotation is bool:
        words = [option]
    options = build_parser().parse_args(["train", *words])
    value = getattr(options, name)
    assert make_config({"loss": "stepwise", "data": "x", "reward_value": "probability"}, {name: value})


OPTION_WORDS = {
    "loss": ["stepwise"],
    "loss_type": ["hinge", "sft"],
    "label_smoothing": ["0.1"],
    "lr_schedule": ["cosine"],
    "max_length": ["64"],
    "precision": ["float32"],
    "frozen_scores": ["ahead"],
    "likelihood": ["sum"],
    "aggregation": ["until_error"],
    "nonpositive": ["skip"],
    "reward_value": ["log_odds"],
    "reward_head": ["likelihood"],
    "reward_token": ["mean"],
}
