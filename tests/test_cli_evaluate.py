"""`evaluate reward` and `evaluate policy`, in this process."""

import json

import pytest

from stepwise_dpo.cli import main
from stepwise_dpo.cli.evaluation_tables import policy_table, reward_table
from stepwise_dpo.learning.loading import load_policy
from stepwise_dpo.learning.policy_benchmark import policy_report, run_policy
from stepwise_dpo.learning.reward_benchmark import judge_pairs, reward_report, tuned_threshold
from stepwise_dpo.learning.rewards import LLMRewardModel
from stepwise_dpo.preferences.pairs import PreferencePair, Step, save_pairs


@pytest.fixture
def files(pairs, tmp_path):
    """Data to measure on and data to tune on, which share a prompt."""
    save_pairs(pairs[:4], tmp_path / "data.json")
    save_pairs(pairs[3:8], tmp_path / "tune.json")
    save_pairs([PreferencePair("p", [Step("a")], [Step("b")])], tmp_path / "unlabelled.json")
    return tmp_path


def test_evaluate_reward(files, pairs, capsys):
    assert main(["evaluate", "reward", "--reward-model", "tiny", "--data", str(files / "data.json"), "--tune-data",
                 str(files / "tune.json"), "--json", str(files / "out.json")]) == 0  # fmt: skip
    written = json.loads((files / "out.json").read_text(encoding="utf-8"))
    judge = LLMRewardModel.from_pretrained("tiny")
    threshold = tuned_threshold(judge_pairs(judge, pairs[3:8]))
    report = reward_report(judge_pairs(judge, pairs[:4]), threshold)
    assert {"process_bench", "auroc", "calibration", "intervals", "per_family", "mistakes"} <= written.keys()
    assert set(written["process_bench"]) == {"acc1", "acc2", "f1"}
    assert written["threshold"] == pytest.approx(threshold)
    assert written["auroc"] == pytest.approx(report["auroc"])
    assert written["process_bench"] == pytest.approx(report["process_bench"])
    assert (written["model"], written["head"]) == ("tiny", judge.settings.head)
    assert written["prompts_shared_with_tuning"] == 1
    assert written["seconds"] > 0
    output = capsys.readouterr().out
    assert f"tuned on {files / 'tune.json'}" in output
    assert "1 of 4 prompts are in the tuning data too" in output
    assert "ProcessBench F1 (%)" in output
    assert "off_by_one" in output


def test_charts_need_no_network(files):
    assert main(["evaluate", "reward", "--reward-model", "tiny", "--data", str(files / "data.json"), "--threshold",
                 "0.5", "--figures", str(files / "charts")]) == 0  # fmt: skip
    names = {path.name for path in (files / "charts").iterdir()}
    assert names == {
        "calibration.html", "scores.html", "f1_per_family.html", "f1_per_corruption.html", "plotly.min.js"
    }  # fmt: skip
    page = (files / "charts" / "calibration.html").read_text(encoding="utf-8")
    assert 'src="plotly.min.js"' in page
    assert '"showSendToCloud": false' in page
    assert "https://cdn" not in page
    assert "Calibration" in page


def test_evaluate_policy(files, pairs, capsys):
    assert main(["evaluate", "policy", "--model", "tiny", "--data", str(files / "data.json"), "--samples", "5",
                 "--max-new-tokens", "6", "--limit", "3", "--json", str(files / "out.json"), "--figures",
                 str(files / "charts")]) == 0  # fmt: skip
    written = json.loads((files / "out.json").read_text(encoding="utf-8"))
    report = policy_report(run_policy(load_policy("tiny"), pairs[:3], samples=5, max_new_tokens=6), [1, 4])
    for name in ("solve_rate", "pass_at_k", "counts", "intervals", "preference_accuracy"):
        assert written[name] == report[name]
    assert written["solve_rate"] == 0
    assert list(written["pass_at_k"]) == ["1", "4"]  # 8 is more than five samples allow
    assert (files / "charts" / "solve_rate.html").is_file()
    output = capsys.readouterr().out
    assert "solve rate, greedy" in output
    assert "pass@4 of 5 samples" in output


def test_prompts_that_the_checker_does_not_know_give_what_needs_no_checker(tmp_path, capsys):
    pairs = [PreferencePair(f"p{i}", [Step("a")], [Step("b" * i)], id=f"s{i}") for i in range(1, 4)]
    save_pairs(pairs, tmp_path / "mine.json")
    assert main(["evaluate", "policy", "--model", "tiny", "--data", str(tmp_path / "mine.json"), "--samples", "1",
                 "--json", str(tmp_path / "out.json"), "--figures", str(tmp_path / "charts")]) == 0  # fmt: skip
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert written["solve_rate"] is written["step_accuracy"] is written["complete"] is None
    assert written["pass_at_k"] == {"1": None}
    assert written["counts"]["unknown"] == 3
    low, high = written["intervals"]["mean_margin"]
    assert low < written["mean_margin"] < high
    assert (tmp_path / "charts" / "solve_rate.html").is_file()
    lines = capsys.readouterr().out.splitlines()
    for name in ("solve_rate", "step_accuracy"):
        assert f"no {name}: the checker knows none of these prompts" in lines
    (line,) = [line for line in lines if line.startswith("mean margin")]
    assert f"{low:.3f} to {high:.3f}" in line


def test_without_samples_there_is_no_pass_at_k(files, capsys):
    arguments = ["evaluate", "policy", "--model", "tiny", "--data", str(files / "data.json"), "--max-new-tokens", "3"]
    assert main(arguments) == 0
    assert "pass@" not in capsys.readouterr().out


def test_an_installation_without_the_data(files, monkeypatch, capsys):
    monkeypatch.setattr("stepwise_dpo.cli.evaluate.TUNE_DATA", files / "nowhere.json")
    assert main(["evaluate", "reward", "--reward-model", "tiny", "--data", str(files / "data.json")]) == 2
    assert "give --tune-data or --threshold" in capsys.readouterr().err


FIGURES = {
    "process_bench": {"acc1": 50.0, "acc2": None, "f1": None},
    "auroc": 0.875,
    "preference_accuracy": 0.5,
    "counts": {"pairs": 2, "solutions": 3, "right": 0, "wrong": 3, "unlabelled": 1, "steps": 7},
    "intervals": {
        "acc1": [10.0, 90.0],
        "acc2": None,
        "f1": None,
        "auroc": None,
        "preference_accuracy": [0.0, 1.0],
        "prm_score": None,
        "auroc_all_steps": [0.5, 1.0],
    },
}


def mistake(kind, true, predicted):
    steps = {
        f"{name}_step": None if index < 0 else "1 + 1 = 3" for name, index in (("true", true), ("predicted", predicted))
    }
    scores = {
        f"{name}_step_score": None if index < 0 else 0.25 for name, index in (("true", true), ("predicted", predicted))
    }
    places = {"true": true, "predicted": predicted, **steps, **scores}
    return {"id": "a", "side": "rejected", "kind": kind, "reason": "step 1 is odd", **places}


def test_reward_table():
    report = {
        **FIGURES,
        "prm_score": None,
        "auroc_all_steps": 0.75,
        "calibration": None,
        "undefined": {"acc2": "no labelled solution is right throughout"},
        "per_family": {"chain": FIGURES},
        "per_corruption": {},
        "mistakes": [mistake("missed", 2, -1), *[mistake("too early", 1, 0)] * 9],
    }
    lines = [" ".join(line.split()) for line in reward_table(report).splitlines()]
    assert lines[0] == "2 pairs: 0 right and 3 wrong solutions; 1 without labels are left out"
    assert "acc1, wrong solutions (%) 50.0 10.0 to 90.0" in lines
    assert "acc2, right solutions (%) –" in lines
    assert "no acc2: no labelled solution is right throughout" in lines
    assert "chain 2 – 50.0 – 0.875 0.500" in lines
    assert "10 mistakes (1 missed, 9 too early):" in lines
    # Steps count from 1 for people.
    assert "a rejected, missed: wrong is step 3, '1 + 1 = 3' (0.25); called wrong none" in lines
    assert lines.count("step 1 is odd") == 8
    assert lines[-1] == "… and 2 more"
    assert reward_table({**report, "mistakes": []}).endswith("no mistakes")
    # Names come from a user's file: a terminal must not obey them.
    odd = {**mistake("missed", 0, -1), "id": "\x1b[2J", "reason": "\x07"}
    table = reward_table({**report, "per_corruption": {"\x1b[31mred\n": FIGURES}, "mistakes": [odd]})
    assert [line for line in table.splitlines() if not line.isprintable()] == []
    assert "\n\\u001b[31mred\\u000a  " in table
    assert "  \\u001b[2J rejected, missed" in table


def test_policy_table_names_unknown_prompts(pairs):
    names = ["s0", "\x1b[2J", "s2", "s3", "s4", "s5"]
    strangers = [PreferencePair(f"p{name}", [Step("a")], [Step("b")], id=name) for name in names]
    report = policy_report(run_policy(load_policy("tiny"), [pairs[0], *strangers], max_new_tokens=2))
    lines = policy_table(report).splitlines()
    assert lines[0] == "1 different prompts of 7 pairs"
    assert lines[1].endswith("their prompts: 6 pairs (s0, \\u001b[2J, s2, s3, s4, …)")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["reward", "--reward-model", "tiny", "--data", "{tmp}/unlabelled.json"], 1, "is labelled"),
        (["reward", "--reward-model", "tiny", "--data", "{tmp}/data.json", "--tune-data", "{tmp}/unlabelled.json"], 1,
         "0 right and 0 wrong solutions"),
        (["reward", "--reward-model", "tiny", "--data", "{tmp}/data.json", "--tune-data", "nowhere.json"], 1,
         "nowhere.json"),
        (["reward", "--reward-model", "tiny", "--data", "{tmp}/data.json", "--threshold", "1.5"], 2, "between 0 and 1"),
        (["reward", "--reward-model", "tiny", "--data", "{tmp}/data.json", "--threshold", "x"], 2, "must be a number"),
        (["reward", "--reward-model", "tiny", "--data", "{tmp}/data.json", "--threshold", "0.5", "--json",
          "{tmp}/data.json/x"], 2, "can't be written"),
        (["policy", "--model", "tiny", "--data", "{tmp}/data.json", "--k", "4"], 2, "--k 4 needs --samples"),
        (["policy", "--model", "tiny", "--data", "{tmp}/data.json", "--samples", "2", "--k", "4"], 2, "at least 4"),
        (["policy", "--model", "tiny", "--data", "{tmp}/data.json", "--temperature", "0"], 2, "must be at least 0.001"),
        (["polcy"], 2, "did you mean policy?"),
    ],
)  # fmt: skip
def test_mistakes_get_one_line(arguments, code, message, files, capsys):
    arguments = ["evaluate", *(argument.format(tmp=files) for argument in arguments)]
    try:
        result = main(arguments)
    except SystemExit as error:  # argparse's own way out
        result = error.code
    assert result == code
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["policy", "--seed", "99999999999999999999"], "must be at most 4,294,967,295"),
        (["policy", "--limit", "1000000001"], "must be at most 1,000,000,000"),
        (["policy", "--limit", "9" * 5000], "must be a whole number, not '9999"),
        (["policy", "--samples", "1", "--temperature", "nan"], "must be a finite number, not nan"),
        (["reward", "--threshold", "inf"], "must be a finite number, not inf"),
        (["policy", "--samples", "1", "--temperature", "1e-39"], "must be at least 0.001"),
        (["reward", "--json", "FOLDER"], "is a folder; name a file"),
        (["policy", "--json", "/proc/nowhere/x.json"], "can't be written"),
    ],
)
def test_what_cannot_work_is_refused_before_the_work(files, arguments, words, capsys):
    command = ["evaluate", *[str(files) if word == "FOLDER" else word for word in arguments]]
    try:
        code = main([*command, "--data", str(files / "data.json")])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert words in capsys.readouterr().err
