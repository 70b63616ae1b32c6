import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from stepwise_dpo.errors import ConfigError, DataError
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory, RunStatus
from stepwise_dpo.runs.supervisor import Supervisor
from stepwise_dpo.ui import compare_tab, data_tab, runs_view, train_tab
from stepwise_dpo.ui.components import error, list_html, notes
from stepwise_dpo.ui.library import ExampleSet, Library, draft_of
from stepwise_dpo.ui.page import bundled_library

ROOT = Path(__file__).parents[2]
HOSTILE = "<img src=x onerror=alert(1)> ${alert(1)} {{x}} `x` \u202eabc"
PAIR = PreferencePair(
    HOSTILE,
    [Step("same", True), Step(HOSTILE, True)],
    [Step("same", True), Step("wrong", False), Step("later", False)],
    "1",
)
LIBRARY = Library((ExampleSet("set", (PAIR,)),), "set")


def harmless(html):
    return "<img" not in html and "\u202e" not in html


def event(**data):
    return SimpleNamespace(_data=data)


# --------------------------------------------------------------------------------------------------------------- data


def test_lists_and_messages_escape():
    listing = data_tab.list_view(LIBRARY, 0, "")
    assert harmless(listing)
    assert 'aria-current="true"' in listing
    assert harmless(list_html(HOSTILE, [], "", HOSTILE))
    assert harmless(error(HOSTILE) + notes([HOSTILE], HOSTILE))
    assert error("") == ""


@pytest.mark.parametrize("key", ["-1", "1", "x", "", "9" * 5000, "\u0661", None, 0, {"a": 1}])
def test_a_wrong_index_from_the_browser_is_the_first_example(key):
    assert data_tab.chosen_index(LIBRARY, event(key=key)) == 0
    assert data_tab.chosen_index(LIBRARY, SimpleNamespace(_data=None)) == 0


def test_saving_a_draft():
    draft = draft_of(PAIR) | {"prompt": "changed"}
    key = data_tab.example_key(LIBRARY, 0)
    library, index = data_tab.save_draft(LIBRARY, {"key": key, "index": 0, "draft": draft})
    assert (index, library.current.pairs[0].prompt) == (0, "changed")
    for sent in (None, {}, {"index": True}, {"index": 5, "key": key}, {"index": 0, "key": "other", "draft": draft}):
        with pytest.raises(DataError):
            data_tab.save_draft(LIBRARY, sent)


def test_a_bad_upload_leaves_everything(tmp_path):
    for name, content in (("a.json", "{"), ("b.json", "[]"), ("c.json", '[{"prompt": "p"}]')):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=name):
            data_tab.read_upload(LIBRARY, tmp_path / name)
    (tmp_path / "good.jsonl").write_text(json.dumps({"prompt": "p", "chosen": ["a"], "rejected": ["b"]}) + "\n")
    assert data_tab.read_upload(LIBRARY, tmp_path / "good.jsonl").open_name == "good.jsonl"


def test_an_empty_set_says_what_to_do():
    empty = Library((ExampleSet("new", ()),), "new")
    assert "Add example" in data_tab.remarks_view(empty, 0)
    assert "draft" not in data_tab.editor_value(empty, 0)


def test_missing_bundled_data_is_no_obstacle(tmp_path):
    assert bundled_library(tmp_path).current.pairs == ()


# -------------------------------------------------------------------------------------------------------------- train

FORM = train_tab.Form(
    *("demo-dpo", "tiny", "tiny", 2, 1, "", 3, 0, 2, 0.001, 0.1, 42, 1024),
    *("mean", "sum", "train", "centered"),
)


def library(*pairs):
    return Library((ExampleSet("s", pairs), ExampleSet("other", (PAIR,) * 3)), "s")


def test_what_is_compared_on_comes_from_another_set_or_is_what_follows():
    pairs = library(*[replace(PAIR, id=str(number)) for number in range(4)])
    train, held_out, name = train_tab.split(pairs, FORM)
    assert ([pair.id for pair in train], [pair.id for pair in held_out], name) == (["0", "1"], ["2"], "s")
    train, held_out, name = train_tab.split(pairs, FORM._replace(held_out=2, held_out_set="other"))
    assert ([pair.id for pair in train], len(held_out), name) == (["0", "1"], 2, "other")


def test_slow_models_answer_few_problems():
    assert train_tab.settings_of(FORM, 50, False)["generate"] == 50
    assert train_tab.settings_of(FORM._replace(model="google/flan-t5-small"), 50, False)["generate"] == 8


def test_settings_of_the_form():
    config = make_config(train_tab.settings_of(FORM, 1, False), {"data": "x.json"})
    assert (config.loss, config.loss_type, config.max_steps, config.reward_model) == ("dpo", ["sigmoid"], None, None)
    imitating = make_config(train_tab.settings_of(FORM._replace(loss="demo"), 1, False), {"data": "x.json"})
    assert (imitating.loss, imitating.loss_type) == ("dpo", ["sigmoid", "sft"])
    stepwise = make_config(train_tab.settings_of(FORM._replace(loss="demo-stepwise"), 1, False), {"data": "x.json"})
    assert (stepwise.reward_model, stepwise.likelihood) == ("tiny", "mean")


def test_a_loss_brings_its_own_rate_unless_somebody_typed_one():
    assert train_tab.own_value("demo-stepwise", "learning_rate", 1e-4) == 3e-6
    assert train_tab.own_value("demo-dpo", "learning_rate", 3e-6) == 2e-5
    assert train_tab.own_value("demo-dpo", "learning_rate", 0.5) == 0.5
    assert train_tab.own_value("demo-dpo", "beta", 2.0) == 3.0
    assert train_tab.own_value("demo-stepwise", "beta", 2.0) == 2.0  # has none


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "sft"},
        {"epochs": float("nan")},
        {"epochs": -1},
        {"batch_size": 0},
        {"batch_size": 10**9},
        {"learning_rate": "much"},
        {"learning_rate": -1},
        {"beta": 0},
        {"seed": 1.5},
        {"examples": 0},
        {"held_out": -1},
        {"held_out_set": "none.json"},
        {"model": ""},
        {"loss": "demo-stepwise", "aggregation": "median"},
        {"loss": "demo-stepwise", "aggregation": "product"},
        {"loss": "demo-stepwise", "nonpositive": None},
    ],
)
def test_what_is_out_of_range_is_refused_before_anything_is_written(tmp_path, change):
    with pytest.raises(ConfigError):
        train_tab.start_run(Supervisor(tmp_path / "runs"), library(PAIR), FORM._replace(**change), False)
    assert not (tmp_path / "runs").exists()


def test_the_same_examples_are_written_once(tmp_path):
    first = train_tab.write_examples(tmp_path, "../my set.json", [PAIR])
    assert first == train_tab.write_examples(tmp_path, "../my set.json", [PAIR])
    assert first.parent == tmp_path
    assert first.name.startswith("my-set-1-")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("numbers", "steps"), [((40, 3, None, 4), 30), ((41, 1, 0, 4), 11), ((5, 0.5, None, 2), 2), ((40, 3, 7, 4), 7)]
)
def test_planned_steps(numbers, steps):
    assert train_tab.planned_steps(*numbers) == steps


def test_the_button_says_what_it_does():
    pairs = library(*[PAIR] * 40)
    assert train_tab.button_words(pairs, FORM._replace(examples=40, batch_size=4)) == "Train 30 steps"
    assert train_tab.button_words(pairs, FORM._replace(max_steps=1)) == "Train 1 step"
    assert train_tab.button_words(pairs, FORM._replace(epochs=None)) == "Train"
    assert train_tab.button_words(library(), FORM) == "Train"


@pytest.fixture
def run(tmp_path):
    directory = RunDirectory(tmp_path / "20261122-153000-stepwise-1a2b")
    directory.create(
        make_config(
            {"data": "/secret/place/pairs.json", "model": "<img src=x>", "loss": "stepwise", "reward_model": "tiny"}
        )
    )
    return directory


def test_a_failed_run_says_why(run, tmp_path):
    run.write_status(RunStatus("failed", started=time.time(), error="<img src=x> broke"))
    run.events.write_text("0%|\r50%|\r100%|\nTraceback <b>\n")
    view = runs_view.find(runs_view.look(Supervisor(tmp_path)), "")
    html = runs_view.head_html(view, [])
    assert "The run failed" in html
    assert "&lt;img src=x&gt; broke" in html
    assert "100%|\nTraceback &lt;b&gt;" in html
    assert "50%" not in html
    assert "/secret" not in html
    assert "<img" not in html + runs_view.runs_html([view], view) + runs_view.chip_html([view], [])


def test_progress_and_time_left(run, tmp_path):
    view = runs_view.RunView(run, RunStatus("running", global_step=20, max_steps=50, phase="training"), False)
    records = [{"global_step": n, "time": 100 + 2 * n, "loss": 0.1} for n in range(1, 21)]
    assert runs_view.progress_words(view, records) == "20 / 50 · 1 min 0 s left"
    assert runs_view.progress_words(view, records[:1]) == "20 / 50"
    assert view._replace(stop_requested=True).state == "stopping"
    assert runs_view.seconds_left([], 5) is None


def test_nothing_is_sent_when_nothing_changed(run, tmp_path):
    supervisor = Supervisor(tmp_path)
    run.write_status(RunStatus("finished", started=time.time()))
    first = train_tab.updates(supervisor, "")
    assert first[0] != train_tab.updates(Supervisor(tmp_path / "none"), "")[0]
    again = train_tab.updates(supervisor, "", first[0])
    assert all(isinstance(value, dict) and value["__type__"] == "update" and len(value) == 1 for value in again)
    run.append_metrics({"global_step": 1, "loss": 0.5})
    assert train_tab.updates(supervisor, "", first[0])[0] != first[0]


# ------------------------------------------------------------------------------------------------------------ compare

RECORD = {
    "id": "1",
    "prompt": HOSTILE,
    "model_output": HOSTILE,
    "before_model_output": "",
    "chosen_score": -1.0,
    "rejected_score": -1.5,
    "before_chosen_score": -2.0,
    "before_rejected_score": -1.0,
    "preferred": "chosen",
    "before_preferred": "rejected",
    "answer": {"steps": [HOSTILE], "complete": True, "process_rewards": None, "solved": True},
    "before_answer": {"steps": [], "complete": False, "process_rewards": None, "solved": None},
    "chosen_steps": ["same", HOSTILE],
    "chosen_labels": [True, None],
    "rejected_steps": ["same", "wrong"],
    "rejected_labels": [True, False],
    "chosen_step_logratios": [0.5, 2.0],
    "rejected_step_logratios": [0.5, -1.0],
}


def test_comparison_of_an_example():
    html = compare_tab.example_html(RECORD)
    assert harmless(html)
    assert "+2.00" in html
    assert "+3.00" in html  # 2.5 - (-0.5)
    assert "−1.000 → +0.500" in html
    assert "cut off at the token limit" in html
    assert harmless(compare_tab.flipped_html([RECORD]) + compare_tab.examples_html([RECORD], 0))


def test_nothing_flipped():
    assert "Nothing flipped" in compare_tab.flipped_html([RECORD | {"before_preferred": "chosen"}])


def test_numbers_before_and_after():
    before = {"preference_accuracy": 0.5, "mean_margin": -0.1, "logps/chosen": -300.0, "logps/rejected": -310.0}
    after = {"preference_accuracy": 0.75, "mean_margin": 0.2, "logps/chosen": -280.0, "logps/rejected": -330.0}
    html = compare_tab.numbers_table(before, after)
    assert "50%" in html
    assert "+25</b> points" in html
    assert "+0.300" in html
    assert "Solve rate" not in html


# ---------------------------------------------------------------------------------------------------------------- app


def test_building_the_page_imports_no_torch():
    code = (
        "import sys, app; print(sorted({'torch', 'transformers', 'trl'} & set(sys.modules)), type(app.demo).__name__)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "--not-our-option"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert result.stdout.strip() == "[] Blocks"


def test_an_unknown_option_is_an_error():
    result = subprocess.run(
        [sys.executable, "app.py", "--prot", "1"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 2
    assert "--prot" in result.stderr
