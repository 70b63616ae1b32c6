import os
from typing import get_args

import pytest
from pydantic import ValidationError

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.runs.config import PRESETS, RunConfig, make_config, planned_steps, preset_settings, read_config_file
from stepwise_dpo.runs.reward_config import RewardTrainingConfig, make_reward_config

DATA = {"data": "pairs.json"}


def test_later_layers_win():
    config = make_config(PRESETS["phase2"], {"epochs": 1, "reward_model": "tiny"}, {**DATA, "seed": 7})
    assert (config.loss, config.epochs, config.batch_size, config.seed) == ("stepwise", 1.0, 2, 7)


@pytest.mark.parametrize("name", ["phase1", "phase2"])
def test_presets_are_the_phases_of_the_training_log(name):
    config = make_config(PRESETS[name], DATA)
    assert (config.epochs, config.learning_rate, config.batch_size) == (3, 5e-5, 2)
    assert config.loss == {"phase1": "dpo", "phase2": "stepwise"}[name]
    assert config.model == "google/flan-t5-small"
    assert config.reward_model == {"phase1": None, "phase2": "google/flan-t5-small"}[name]


def test_the_bundled_models_are_the_default():
    assert make_config(DATA).model == "policy"
    assert make_config(DATA).reward_model is None
    assert make_config({"loss": "stepwise"}, DATA).reward_model == "reward"
    assert make_config(preset_settings("demo", "stepwise")).reward_model == "reward"


def test_the_demo_has_a_learning_rate_for_each_loss():
    assert preset_settings("demo") == preset_settings("demo", "dpo") == PRESETS["demo"]
    assert preset_settings("demo", "stepwise") == PRESETS["demo-stepwise"]
    assert PRESETS["demo-stepwise"]["learning_rate"] < PRESETS["demo-dpo"]["learning_rate"]
    assert preset_settings("phase1", "stepwise") == PRESETS["phase1"]  # the option overrides it, as any
    for name in PRESETS:
        make_config(PRESETS[name])


def test_a_preset_leaves_the_check_of_the_loss_to_the_configuration():
    with pytest.raises(ConfigError, match="loss: input should be"):
        make_config(preset_settings("demo", ["stepwise"]), {"loss": ["stepwise"]})
    with pytest.raises(ConfigError, match="unknown preset 'demos'; there are phase1"):
        preset_settings("demos")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lerning_rate": 1.0}, "unknown setting 'lerning_rate'; did you mean 'learning_rate'?"),
        ({"zzz": 1}, "unknown setting 'zzz'"),
        ({"learning_rate": float("nan")}, "learning_rate: .*not nan"),
        ({"learning_rate": float("inf")}, "learning_rate: .*not inf"),
        ({"epochs": -1}, "epochs: .*greater than 0, not -1"),
        ({"batch_size": 0}, "batch_size: .*not 0"),
        ({"batch_size": True}, "batch_size: .*not True"),
        ({"batch_size": "2"}, "batch_size: .*not '2'"),
        ({"loss": "both"}, "loss: .*'dpo' or 'stepwise', not 'both'"),
        ({"loss": "stepwise", "reward_model": None}, "needs a reward_model"),
        ({"loss_type": []}, "loss_type"),
        ({"train_reward_model": True}, "train_reward_model needs loss 'stepwise'"),
        ({"aggregation": "product"}, "'product' needs reward value 'probability'"),
        ({"max_new_tokens": 10**9}, "max_new_tokens: .*less than or equal to 4096"),
        ({"max_length": 10**9}, "max_length: .*less than or equal to 1000000, not 1000000000"),
        ({"learning_rate": 1e21}, "learning_rate: .*less than or equal to 10{20}, not 1e"),
        ({"learning_rate": -1e-5}, "learning_rate: .*greater than or equal to 0"),
        ({"epochs": 10**6}, "epochs: .*less than or equal to 10000"),
        ({"batch_size": 10**9}, "batch_size: .*less than or equal to 4096"),
        ({"gradient_accumulation": 10**9}, "gradient_accumulation: .*less than or equal to 4096"),
        ({"data": "x" * 5_000}, "data: .*at most 4096 characters"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ConfigError, match=message) as error:
        make_config(DATA, settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [RunConfig, RewardTrainingConfig])
def test_every_number_and_every_text_has_a_limit_and_no_number_is_nan(kind):
    """Also a setting that somebody adds later."""
    make = make_config if kind is RunConfig else lambda settings: make_reward_config(**settings)
    needed = {"data": "d.json"} if kind is RunConfig else {"model": "m", "data": "d.json"}
    numbers = 0
    for name, field in kind.model_fields.items():
        types = {field.annotation, *get_args(field.annotation)}
        if types & {int, float}:
            numbers += 1
            for value in (10**400, -(10**400), 1e300, -1e300, float("nan"), float("inf"), float("-inf")):
                with pytest.raises(ConfigError, match=f"^{name}: "):
                    make({**needed, name: value})
        elif str in types:
            with pytest.raises(ConfigError, match=f"^{name}: .*at most"):
                make({**needed, name: "x" * 100_000})
    assert numbers > 4


def test_missing_data():
    with pytest.raises(ConfigError, match="'data' is missing"):
        make_config({})


def test_a_config_never_changes():
    with pytest.raises(ValidationError):
        make_config(DATA).seed = 1


def test_what_is_saved_reads_back_equal():
    config = make_config(DATA, {"loss_type": ["hinge", "sft"], "learning_rate": 1e-7})
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_yaml(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("data: pairs.json\nlearning_rate: 5e-5\nepochs: 2\nloss_type: [hinge]\n")
    config = make_config(read_config_file(file))
    assert (config.learning_rate, config.epochs, config.loss_type) == (5e-5, 2.0, ["hinge"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: d.json\nlearning_rate: .nan\n", "learning_rate: input should be a finite number, not nan"),
        ("data: d.json\nbeta: inf\n", "beta: input should be a finite number, not inf"),
        ("- a\n- b\n", "must be a list of 'name: value' lines"),
        ("a: [", "isn't valid YAML"),
        ("seed: 1\nloss: dpo\nseed: 2\n", "gives 'seed' twice"),
        ("learning_rate: fast\n", "learning_rate must be a number, not 'fast'"),
        ("!!python/object/apply:os.system ['true']", "isn't valid YAML"),
    ],
)
def test_bad_yaml(tmp_path, text, message):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        make_config(read_config_file(tmp_path / "run.yaml"))


def test_an_empty_file_says_nothing(tmp_path):
    (tmp_path / "run.yaml").write_text("")
    assert read_config_file(tmp_path / "run.yaml") == {}


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match="can't be read"):
        read_config_file(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("loss", ["dpo", "stepwise"])
def test_what_the_other_loss_reads_may_stay_in_a_form(tmp_path, loss):
    """The trainer refuses what it wouldn't read; a form sends all fields, whichever loss is chosen."""
    from stepwise_dpo.runs.training import training_arguments

    settings = {"loss_type": ["hinge"], "label_smoothing": 0.1, "likelihood": "sum", "nonpositive": "skip"}
    arguments = training_arguments(make_config({"data": "d.json", "loss": loss, **settings}), tmp_path)
    read = {
        "dpo": {"loss_type": ["hinge"], "label_smoothing": 0.0, "likelihood": "mean", "nonpositive": "train"},
        "stepwise": {"loss_type": ["sigmoid"], "label_smoothing": 0.0, "likelihood": "sum", "nonpositive": "skip"},
    }[loss]
    assert {name: getattr(arguments, name) for name in read} == read
    robust = make_config({"data": "d.json", **settings, "loss_type": ["robust"]})
    assert training_arguments(robust, tmp_path).label_smoothing == 0.1


@pytest.mark.parametrize(
    ("examples", "processes", "settings", "steps"),
    [
        (40, 1, {"epochs": 3, "batch_size": 4}, 30),
        (41, 1, {"epochs": 1, "batch_size": 4}, 11),
        (41, 2, {"epochs": 1, "batch_size": 4}, 6),
        (5, 1, {"epochs": 0.5, "batch_size": 2}, 2),
        (40, 1, {"epochs": 3, "batch_size": 4, "max_steps": 7}, 7),
        (10, 1, {"epochs": 1, "batch_size": 2, "gradient_accumulation": 4}, 2),
    ],
)
def test_planned_steps(examples, processes, settings, steps):
    assert planned_steps(make_config({"data": "x", **settings}), examples, processes) == steps


def test_a_configuration_that_is_no_file_or_far_too_long_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"^configuration '[^']*pipe' is not a regular file$"):
        read_config_file(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="can't be read"):
        read_config_file("a\0b")
    with pytest.raises(ConfigError, match="can't be read"):
        read_config_file(tmp_path)
    (tmp_path / "long.yaml").write_text("seed: 1  # " + "x" * 100_000)
    with pytest.raises(ConfigError, match="longer than 100,000 characters"):
        read_config_file(tmp_path / "long.yaml")


def test_many_problems_are_counted():
    with pytest.raises(ConfigError) as problem:
        make_config({"data": "x"}, {f"sead{number}": 1 for number in range(20_000)})
    assert "unknown setting 'sead0'; did you mean 'seed'?" in str(problem.value)
    assert str(problem.value).endswith("; and 19,990 more")
    assert len(str(problem.value)) < 2_000
