"""`models train-reward` from the command line to a judge that scores."""

import itertools
import json
from pathlib import Path

import pytest

from stepwise_dpo.cli import main
from stepwise_dpo.errors import ConfigError, ModelError
from stepwise_dpo.learning.rewards import LLMRewardModel
from stepwise_dpo.preferences.formats import labelled_solutions, load_labelled_solutions
from stepwise_dpo.preferences.pairs import load_pairs, save_pairs
from stepwise_dpo.runs.reward_config import RewardTrainingConfig, make_reward_config
from stepwise_dpo.runs.reward_training import train_reward_model

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """24 pairs to train on and 8 others to measure on."""
    folder = tmp_path_factory.mktemp("data")
    pairs = load_pairs(DATA / "synthetic_prm.json")
    save_pairs(pairs[:24], folder / "train.json")
    save_pairs(pairs[24:32], folder / "eval.json")
    return folder


def command(data, output, *more, model="tiny"):
    return ["models", "train-reward", "--model", model, "--data", str(data / "train.json"), "--output-dir", str(output),
            "--max-steps", "5", *more]  # fmt: skip


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_from_pairs_to_a_judge_that_scores(data, tmp_path, capsys):
    judge = tmp_path / "judge"
    held_out = str(data / "eval.json")
    assert main(command(data, judge, "--head", "step_tag", "--tag", "#", "--eval-data", held_out)) == 0
    output = capsys.readouterr()
    assert f"On the held-out data {held_out}" in output.out
    assert "tuned on training data only" in output.out
    assert "48 solutions with" in output.err

    lines = read_lines(judge / "metrics.jsonl")
    assert [line["global_step"] for line in lines] == [1, 2, 3, 4, 5]
    assert all({"loss", "step_accuracy", "learning_rate", "grad_norm", "time"} <= line.keys() for line in lines)
    report = json.loads((judge / "report.json").read_text())
    assert report["measured_on"] == "held-out"
    assert report["data"]["eval"]["solutions"] == 16
    assert report["settings"]["head"] == "step_tag"
    for when in ("before", "after"):
        assert {"loss", "step_accuracy", "auroc", "process_bench/f1"} <= report[when].keys()
        for name, value in report[when].items():
            assert f"{value:.4g}" in output.out, name
        assert 0 < report["threshold"][when] < 1
    assert report["after"]["loss"] < report["before"]["loss"]

    # The folder knows how it judges, and the report's figures are this judge's.
    loaded = LLMRewardModel.from_pretrained(str(judge))
    assert (loaded.settings.head, loaded.settings.tag) == ("step_tag", "#")
    solutions, _ = load_labelled_solutions(held_out)
    scores = loaded.score_solutions([(solution.prompt, solution.steps) for solution in solutions], "probability")
    labels = [label for solution in solutions for label in solution.labels]
    hits = [(score > 0.5) == label for score, label in zip(itertools.chain(*scores), labels, strict=True)]
    assert sum(hits) / len(hits) == pytest.approx(report["after"]["step_accuracy"])
    arguments = ["score", "--data", held_out, "--reward-model", str(judge), "--output", str(tmp_path / "scores.jsonl")]
    assert main(arguments) == 0
    capsys.readouterr()

    # A second time into the same folder would mix two models.
    assert main(command(data, judge)) == 1
    assert "already holds something" in capsys.readouterr().err


def test_a_new_head_for_a_causal_model_from_stepwise_supervision(data, tmp_path, causal_folder, capsys):
    with pytest.raises(ConfigError, match="no token classification model"):
        LLMRewardModel.from_pretrained(str(causal_folder), head="token_classification")  # scoring refuses a random head
    rows = [
        {"prompt": s.prompt, "completions": list(s.steps), "labels": [*s.labels[:-1], None]}
        for s in labelled_solutions(load_pairs(data / "train.json"))
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    arguments = command(tmp_path, tmp_path / "judge", "--head", "token_classification", model=str(causal_folder))
    arguments[arguments.index("--data") + 1] += "l"
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert "it gets a new, untrained one" in output.err
    assert "1 repetitions left out" in output.err
    assert "On the training data" in output.out
    assert LLMRewardModel.from_pretrained(str(tmp_path / "judge")).head == "token_classification"

    # A model that has such a head keeps it.
    arguments = command(data, tmp_path / "next", "--head", "token_classification", model=str(tmp_path / "judge"))
    assert main(arguments) == 0
    assert "untrained" not in capsys.readouterr().err


def test_the_same_seed_gives_the_same_judge(data, tmp_path):
    config = make_reward_config(
        model="tiny", data=str(data / "train.json"), head="likelihood", token="mean", lm_weight=0.5, max_steps=2
    )
    reports = [train_reward_model(config, tmp_path / name) for name in "ab"]
    assert reports[0] == reports[1]
    assert reports[0]["measured_on"] == "training"
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    assert all("lm_loss" in line for line in read_lines(tmp_path / "a" / "metrics.jsonl"))


def test_held_out_prompts_that_are_not_held_out_are_said(data, tmp_path, capsys):
    assert main(command(data, tmp_path / "judge", "--head", "likelihood", "--eval-data", str(data / "train.json"))) == 0
    assert "warning: 24 prompts of" in capsys.readouterr().err


def test_one_class_only_is_warned_of(data, tmp_path, capsys):
    rows = [{"prompt": f"p{number}", "completions": ["a", "b"], "labels": [True, True]} for number in range(4)]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    assert main(command(tmp_path, tmp_path / "judge", "--head", "likelihood")) == 0
    output = capsys.readouterr()
    assert "says right; all that a judge can learn from it" in output.err
    assert "a threshold can't be tuned on 4 right and 0 wrong solutions" in output.err
    assert "auroc" not in output.out


@pytest.mark.parametrize(
    ("rows", "more", "code", "message"),
    [
        ([{"prompt": "p", "chosen": ["a"], "rejected": ["b"]}], [], 1, "none of its 2 steps has a label"),
        ([{"prompt": "p", "completions": ["a"], "labels": [-100]}], [], 1, "row 1: labels[0] must be true, false or"),
        (
            [{"prompt": "p", "completions": ["a"], "labels": [False]}],
            ["--lm-weight", "1"],
            1,
            "no training solution is",
        ),
        (None, [], 1, "No such file"),
        (None, ["--learning-rate", "0"], 2, "learning_rate: input should be greater than 0, not 0.0"),
        (None, ["--head", "liklihood"], 2, "did you mean likelihood?"),
        (None, ["--epoch", "1"], 2, "did you mean --epochs?"),
    ],
)
def test_what_is_refused(tmp_path, capsys, rows, more, code, message):
    if rows is not None:
        (tmp_path / "train.json").write_text(json.dumps(rows))
    try:
        result = main(command(tmp_path, tmp_path / "judge", *more))
    except SystemExit as exit:
        result = exit.code
    assert result == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_which_head_goes_with_what(data, tmp_path, capsys):
    for more, message in [
        (["--head", "likelihood", "--tag", "#"], "doesn't read tag"),
        (["--head", "token_classification"], "model 'tiny' can't have head 'token_classification'"),
    ]:
        assert main(command(data, tmp_path / "judge", *more)) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ModelError):
        train_reward_model(make_reward_config(model=str(tmp_path), data=str(data / "train.json")), tmp_path / "output")


def test_a_missing_setting_is_named():
    with pytest.raises(ConfigError, match=r"^'data' is missing$"):
        make_reward_config(model="tiny")
    assert make_reward_config(model="tiny", data="d") == RewardTrainingConfig(model="tiny", data="d")


def test_a_missing_option_says_what_it_takes(capsys):
    with pytest.raises(SystemExit) as end:
        main(["models", "train-reward", "--output-dir", "y"])
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "error: --model is missing: a bundled model, 'tiny', a local folder or a Hub id to start from; "
        "--data is missing: labelled steps: native pairs or TRL stepwise supervision\n"
    )
    with pytest.raises(SystemExit):
        main(["models", "train-reward", "--help"])
    usage = capsys.readouterr().out.partition("\n\n")[0]
    assert "--model TEXT" in usage
    assert "[--model TEXT]" not in usage
    assert "[--eval-data TEXT]" in usage
