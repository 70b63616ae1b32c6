import re
from dataclasses import replace

import pytest
import yaml

from stepwise_dpo.errors import ConfigError, DataError
from stepwise_dpo.learning.names import DATA_DIR
from stepwise_dpo.preferences.pairs import PreferencePair, Step, save_pairs
from stepwise_dpo.runs.config import PRESETS, make_config
from stepwise_dpo.runs.directory import list_runs
from stepwise_dpo.runs.own_runs import OwnRuns
from stepwise_dpo.runs.pace import Pace
from stepwise_dpo.runs.supervisor import Supervisor
from stepwise_dpo.ui import train_form, train_words, welcome
from stepwise_dpo.ui.library import HELD_OUT_SETS, ExampleSet, Library
from stepwise_dpo.ui.page import build_app, bundled_library
from stepwise_dpo.ui.train_form import Form

PAIR = PreferencePair("p", [Step("a", True)], [Step("b", False)], "1")
FORM = Form(
    *("demo-dpo", "tiny", "tiny", 2, 1, "", 3, 0, 2, 0.001, 0.1, 42, 1024),
    *("sigmoid", "mean", "sum", "train", "centered", False, ""),
)


def library(*pairs):
    return Library((ExampleSet("s", pairs), ExampleSet("other", (PAIR,) * 3)), "s")


def numbered(count):
    return tuple(replace(PAIR, id=str(number)) for number in range(count))


def config_of(form=FORM, **more):
    return make_config(train_form.settings_of(form, 1, False), {"data": "x.json", **more})


# ------------------------------------------------------------------------------------------------- form to settings


def test_what_is_compared_on_comes_from_another_set_or_is_what_follows():
    pairs = library(*numbered(4))
    train, held_out, name = train_form.split(pairs, FORM)
    assert ([pair.id for pair in train], [pair.id for pair in held_out], name) == (["0", "1"], ["2"], "s")
    train, held_out, name = train_form.split(pairs, FORM._replace(held_out=2, held_out_set="other"))
    assert ([pair.id for pair in train], len(held_out), name) == (["0", "1"], 2, "other")


def test_slow_models_answer_few_problems():
    assert train_form.settings_of(FORM, 50, False)["generate"] == 50
    assert train_form.settings_of(FORM._replace(model="google/flan-t5-small"), 50, False)["generate"] == 8
    assert train_form.settings_of(FORM, 0, False)["generate"] == 8  # of the training examples


def test_settings_of_the_form():
    config = config_of()
    assert (config.loss, config.loss_type, config.max_steps, config.reward_model) == ("dpo", ["sigmoid"], None, None)
    imitating = config_of(FORM._replace(loss="demo", loss_type="hinge"))
    assert (imitating.loss, imitating.loss_type) == ("dpo", ["hinge", "sft"])
    stepwise = config_of(FORM._replace(loss="demo-stepwise", anchor=True))
    assert (stepwise.reward_model, stepwise.likelihood, stepwise.anchor_to_reference) == ("tiny", "mean", True)


def test_other_settings_reach_what_has_no_field():
    config = config_of(FORM._replace(other="warmup_steps: 10\nweight_decay: 1e-2\nlr_schedule: cosine"))
    assert (config.warmup_steps, config.weight_decay, config.lr_schedule) == (10, 0.01, "cosine")
    with pytest.raises(ConfigError, match="did you mean 'warmup_steps'"):
        config_of(FORM._replace(other="warmup: 10\nwarmup_stepz: 3"))
    for text, message in (
        ("data: /etc/passwd", "data is what the form above says"),
        ("model: tiny", "model is what"),
        ("just words", "a name, a colon and a value"),
        ("a: [", "a name, a colon and a value"),
        ("weight_decay: much", "must be a number"),
        ("x: 1\n" * 2_000, "at most 4000 characters"),
        (None, "must be a text"),
    ):
        with pytest.raises(ConfigError, match=message):
            config_of(FORM._replace(other=text))
    with pytest.raises(ConfigError, match="public page"):
        train_form.settings_of(FORM._replace(other="warmup_steps: 10"), 1, True)


def test_a_loss_brings_its_own_rate_unless_somebody_typed_one():
    assert train_form.own_value("demo-stepwise", "learning_rate", 1e-4) == 3e-6
    assert train_form.own_value("demo-dpo", "learning_rate", 3e-6) == 2e-5
    assert train_form.own_value("demo-dpo", "learning_rate", 0.5) == 0.5
    assert train_form.own_value("demo-dpo", "beta", 2.0) == 3.0
    assert train_form.own_value("demo-stepwise", "beta", 2.0) == 2.0  # has none


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "sft"},
        {"loss": ["demo"]},
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
        {"loss_type": "mse"},
        {"other": "loss: dpo"},
        {"loss": "demo-stepwise", "aggregation": "median"},
        {"loss": "demo-stepwise", "aggregation": "product"},
        {"loss": "demo-stepwise", "nonpositive": None},
    ],
)
def test_what_is_out_of_range_is_refused_before_anything_is_written(tmp_path, change):
    with pytest.raises(ConfigError):
        train_form.start_run(OwnRuns(Supervisor(tmp_path / "runs")), library(PAIR), FORM._replace(**change), False)
    assert not (tmp_path / "runs").exists()


def test_a_public_page_limits_the_steps(tmp_path):
    with pytest.raises(ConfigError, match="at most 500 steps"):
        train_form.start_run(OwnRuns(Supervisor(tmp_path / "runs")), library(PAIR), FORM._replace(epochs=501), True)
    assert list_runs(tmp_path / "runs") == []


# ------------------------------------------------------------------------------------------------- before the click


def words(form, pace=None, pairs=40):
    return train_words.plan_words(train_words.plan(library(*numbered(pairs)), form, False), pace)


def test_the_form_names_its_data():
    both = Library((*library(*numbered(40)).sets, ExampleSet("other.json", tuple(numbered(5)))), "set.json")
    both = both.opened(both.names[0])
    name = both.names[0]
    form = FORM._replace(examples=30, held_out=3, held_out_set="other.json")
    assert train_words.data_words(both, form) == f"Trains on the first 30 of {name}; held out are 3 of other.json."
    form = FORM._replace(examples=450, held_out=120, held_out_set=name)
    assert train_words.data_words(both, form) == (
        f"Trains on all 40 of {name}. None are left to hold out, so it is compared on these: choose another set under "
        "More options."
    )
    form = FORM._replace(examples=40, held_out=0)
    assert train_words.data_words(both, form).endswith("None are held out, so it is compared on these.")
    assert train_words.data_words(both, FORM._replace(examples=None)) == ""


def test_bundled_models_and_problems_that_they_dont_know():
    own = Library((*library(*numbered(40)).sets, *bundled_library(DATA_DIR).sets), "s")
    form = train_form.demo_form()
    words = train_words.unknown_words(own, form)
    assert words.startswith("“policy” knows the bundled kinds of problems only, and none of these is one")
    stepwise = form._replace(loss="demo-stepwise", reward_model="reward")
    assert train_words.unknown_words(own, stepwise).startswith("“policy” and “reward” know the")
    assert train_words.unknown_words(own, stepwise._replace(model="google/flan-t5-small")).startswith("“reward” knows")
    assert train_words.unknown_words(own, form._replace(model="tiny")) == ""  # which knows nothing, and says so
    assert train_words.unknown_words(own.opened("synthetic_prm.json"), form) == ""
    assert train_words.unknown_words(own, form._replace(examples=None)) == ""


def test_problems_that_are_both_trained_on_and_held_out_are_counted():
    pairs = [replace(pair, prompt=f"What is {i % 6}?") for i, pair in enumerate(numbered(10))]
    own = library(*pairs)
    form = FORM._replace(examples=6, held_out=4, held_out_set="")
    assert train_words.overlap_words(own, form).startswith("All held-out examples are on problems that are trained on")
    assert train_words.overlap_words(own, form._replace(examples=4, held_out=6)).startswith(
        "Of the 6 held-out examples, 4 are on"
    )
    assert train_words.overlap_words(own, form._replace(examples=4, held_out=2)) == ""
    assert train_words.overlap_words(own, form._replace(held_out=0)) == ""
    assert train_words.overlap_words(own, form._replace(examples=None)) == ""


def test_own_examples_compared_on_the_bundled_ones_are_said_to_be(tmp_path):
    own = Library((*library(*numbered(40)).sets, *bundled_library(DATA_DIR).sets), "s")
    form = FORM._replace(held_out=3, held_out_set=HELD_OUT_SETS[0])
    words = train_words.bundled_words(own, form)
    assert words.startswith("Compared on onpolicy_heldout_prm.json: the bundled problems, not yours.")
    labels = [getattr(block, "label", None) for block in build_app(tmp_path).blocks.values()]
    assert re.search("“(.+)”", words).group(1) in labels
    assert "More options" in labels
    elsewhere = [form._replace(held_out_set="other"), form._replace(held_out_set=""), form._replace(held_out=0)]
    assert [train_words.bundled_words(own, other) for other in elsewhere] == ["", "", ""]
    assert train_words.bundled_words(own.opened("synthetic_prm.json"), form) == ""
    assert train_words.bundled_words(own, form._replace(examples=None)) == ""


def test_a_part_of_a_visitors_own_set_can_be_held_out():
    def different(count, each=1):
        return [replace(pair, prompt=f"What is {int(pair.id) // each}?") for pair in numbered(count)]

    own = Library((*library(*different(42)).sets, *bundled_library(DATA_DIR).sets), "s")
    form = FORM._replace(examples=450, held_out=300, held_out_set=HELD_OUT_SETS[0])
    assert train_words.own_parts(own, form) == (34, 8)
    divided = form._replace(examples=34, held_out=8, held_out_set="")
    train, held_out, name = train_form.split(own, divided)
    assert (len(train), len(held_out), name) == (34, 8, "s")
    assert train_words.own_parts(own, form._replace(held_out_set="")) == (34, 8)  # all are trained on, none is left
    assert train_words.own_parts(own, form._replace(examples=20)) == (20, 8)  # no more than was asked for
    many = Library((*library(*different(2000)).sets, *bundled_library(DATA_DIR).sets), "s")
    assert train_words.own_parts(many, form._replace(examples=5000)) == (1700, 300)
    assert train_words.own_parts(library(*different(42, each=3)), form._replace(held_out_set="")) == (33, 8)
    mixed = [replace(pair, prompt=f"What is {int(pair.id) % 3}?") for pair in numbered(42)]
    assert train_words.own_parts(library(*mixed), form._replace(held_out_set="")) is None
    for done in (divided, form._replace(held_out_set="other"), form._replace(examples=None)):
        assert train_words.own_parts(own, done) is None
    assert train_words.own_parts(own.opened("synthetic_prm.json"), form) is None
    assert train_words.own_parts(library(*different(9)), form._replace(held_out_set="")) is None


def test_the_page_trains_as_the_presets_do():
    for name in ("demo", "demo-dpo", "demo-stepwise"):
        wanted = make_config(PRESETS[name])
        form = train_form.demo_form()._replace(
            loss=name, learning_rate=wanted.learning_rate, beta=wanted.beta, max_length=wanted.max_length
        )
        places = {"data": wanted.data, "eval_data": wanted.eval_data}
        got = make_config(train_form.settings_of(form, train_form.DEMO_HELD_OUT, False), places)
        assert got == wanted.model_copy(update={"save_steps": train_form.SAVE_STEPS})


def test_the_button_says_what_it_does():
    assert words(FORM._replace(examples=40, batch_size=4)).button == "Train 30 steps"
    assert words(FORM._replace(max_steps=1)).button == "Train 1 step"


def test_what_can_not_be_trained_is_refused_before_the_click_with_the_reason():
    for change, reason in (
        ({"epochs": None}, "epochs: give a number"),
        ({"other": "nonsense"}, "write a name, a colon and a value"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"examples": 0}, "train on at least one example"),
    ):
        with pytest.raises(ConfigError, match=reason):
            words(FORM._replace(**change))
    with pytest.raises(ConfigError, match="this example set is empty"):
        words(FORM, pairs=0)
    assert train_words.plan(library(PAIR), FORM._replace(epochs=501), False).steps == 501
    with pytest.raises(ConfigError, match="at most 500 steps"):
        train_words.plan(library(PAIR), FORM._replace(epochs=501), True)


def test_time_is_told_only_where_a_run_has_told_it():
    form = FORM._replace(examples=40, batch_size=4, model="google/flan-t5-small")
    assert words(form).estimate == "30 optimiser steps of 4 pairs · time unknown until the first run of this model"
    # 30 steps x 4 pairs x 0.5 s, and 10 s around them
    assert "about 1 min 10 s" in words(form, Pace("a", 0.5, 10.0)).estimate
    assert "about 1 min 0 s" in words(form, Pace("a", 0.5, None)).estimate
    # Of the same steps, longer pairs take longer.
    characters = train_words.plan(library(*numbered(40)), form, False).characters
    assert "about 2 min 0 s" in words(form, Pace("a", 0.5, None, characters / 2)).estimate


def test_a_guess_counts_answers_and_a_measured_pace_holds_them():
    both = [config_of(model="policy", generate=number) for number in (0, 100)]
    few, many = (train_words.estimate(config, 10, None).seconds for config in both)
    assert many - few == pytest.approx(200 * train_words.ANSWER_SECONDS)
    few, many = (train_words.estimate(config, 10, Pace("a", 0.5, 10.0)).seconds for config in both)
    assert many == few


def test_the_first_steps_promise_what_the_form_estimates():
    bundled = bundled_library(DATA_DIR)
    estimate = train_words.plan_words(train_words.plan(bundled, train_form.demo_form(), False), None).estimate
    promise = re.search(r"training on 450 mistakes, (about .+), with live curves", welcome.build().value).group(1)
    assert estimate.endswith(f"{promise}; not measured here yet")


# ------------------------------------------------------------------------------------------------- into the form


@pytest.mark.parametrize("name", ["demo", "phase1", "phase2"])
def test_a_preset_fills_the_form_with_what_the_command_would_do(name):
    """The form and `train --preset` agree in all that the preset says."""
    library, form = train_form.preset_form(name, bundled_library(DATA_DIR))
    _, held_out, _ = train_form.split(library, form)
    config = make_config(train_form.settings_of(form, len(held_out), False), {"data": "x"})
    wanted = make_config(PRESETS[name])
    for field in ("loss", "loss_type", "model", "reward_model", "epochs", "learning_rate", "batch_size", "beta"):
        assert getattr(config, field) == getattr(wanted, field), field
    assert library.open_name == wanted.data.rsplit("/", 1)[-1]
    assert config.generate == wanted.generate


def test_a_preset_without_its_examples_says_so():
    with pytest.raises(ConfigError, match=r"trains on synthetic_prm\.json"):
        train_form.preset_form("phase1", library(PAIR))
    with pytest.raises(ConfigError, match="no preset"):
        train_form.preset_form("phase9", library(PAIR))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss_type": ["hinge", "sft"], "beta": 0.3, "max_steps": 9},
        {"loss_type": ["sigmoid", "ipo", "sft"], "label_smoothing": 0.1},
        {"reward_model": "tiny", "warmup_steps": 3, "lr_schedule": "cosine", "generate": 0},
        {"loss": "stepwise", "reward_model": "tiny", "aggregation": "min", "anchor_to_reference": True},
        {
            "loss": "stepwise",
            "train_reward_model": True,
            "reward_template": "{step}: right?\n{right}",
            "precision": "bfloat16",
        },
        {
            "loss": "stepwise",
            "reward_value": "probability",
            "aggregation": "product",
            "likelihood": "sum",
            "eval_steps": 5,
        },
    ],
)
def test_a_runs_configuration_comes_back_from_the_form_unchanged(tmp_path, settings):
    pairs = numbered(6)
    save_pairs(pairs[:4], tmp_path / "train.json")
    save_pairs(pairs[4:], tmp_path / "held.json")
    places = {"data": str(tmp_path / "train.json"), "eval_data": str(tmp_path / "held.json")}
    config = make_config({"model": "tiny", **settings, **places})
    # The examples are known under another name; what follows them in that set is what was compared on.
    for known, open_name, held_out_set in ((library(*pairs), "s", ""), (library(PAIR), "train.json", "held.json")):
        opened, form = train_form.form_of(config, known)
        assert (opened.open_name, form.held_out_set) == (open_name, held_out_set)
        train, held_out, _ = train_form.split(opened, form)
        assert (tuple(train), tuple(held_out)) == (pairs[:4], pairs[4:])
        # When frozen models score, and how often it is saved, changes no figure.
        same = config.model_copy(update={"frozen_scores": "as_needed", "save_steps": train_form.SAVE_STEPS})
        assert make_config(train_form.settings_of(form, len(held_out), False), places) == same


def test_training_and_held_out_examples_may_be_the_same_ones(tmp_path):
    pairs = numbered(4)
    save_pairs(pairs, tmp_path / "all.json")
    place = str(tmp_path / "all.json")
    opened, form = train_form.form_of(
        make_config({"model": "tiny", "data": place, "eval_data": place}), library(*pairs)
    )
    train, held_out, _ = train_form.split(opened, form)
    assert (tuple(train), tuple(held_out)) == (pairs, pairs)


def test_examples_that_are_gone_are_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.json"):
        train_form.form_of(make_config({"data": str(tmp_path / "gone.json")}), library(PAIR))


def test_other_settings_are_written_as_yaml(tmp_path):
    save_pairs([PAIR], tmp_path / "x.json")
    settings = {"model": "tiny", "data": str(tmp_path / "x.json"), "warmup_steps": 3, "group_by_length": True}
    _, form = train_form.form_of(make_config(settings), library(PAIR))
    assert yaml.safe_load(form.other) == {"warmup_steps": 3}
