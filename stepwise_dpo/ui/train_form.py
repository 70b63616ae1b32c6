"""The Train form without its widgets: what it holds becomes a run's settings, and a run's settings fill it again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.learning.names import POLICY, TINY
from stepwise_dpo.preferences.pairs import PreferencePair, load_pairs
from stepwise_dpo.runs.config import PRESETS, RunConfig, make_config, parse_settings, planned_steps
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.example_files import example_file, example_folder, write_examples
from stepwise_dpo.runs.limits import check_public
from stepwise_dpo.runs.own_runs import OwnRuns
from stepwise_dpo.ui.judges import JUDGES, POLICIES, check_model_name
from stepwise_dpo.ui.library import HELD_OUT_SETS, ExampleSet, Library

LOSSES = [("DPO + imitation", "demo"), ("DPO", "demo-dpo"), ("Step-wise", "demo-stepwise")]
"""What the form offers, by the preset that says what it is."""

DEMO_EXAMPLES, DEMO_HELD_OUT = 450, 300

MANY_ANSWERS, FEW_ANSWERS = 300, 8
"""The most held-out problems that a model answers before and after, one that writes fast and one that doesn't."""

SAVE_STEPS = 50
"""Optimiser steps between checkpoints of the small models; those of large ones take gigabytes."""

MAX_OTHER = 4_000
_SAME = ("epochs", "batch_size", "learning_rate", "beta", "seed", "max_length")
_SAME_STEPWISE = ("reward_model", "likelihood", "aggregation", "nonpositive", "reward_value")
_OWN_FIELDS = ("loss", "model", "data", "eval_data")


class Form(NamedTuple):
    """What the form holds, in the order of its components; nothing of it is trusted."""

    loss: object
    model: object
    reward_model: object
    examples: object
    held_out: object
    held_out_set: object
    epochs: object
    max_steps: object
    batch_size: object
    learning_rate: object
    beta: object
    seed: object
    max_length: object
    loss_type: object
    likelihood: object
    aggregation: object
    nonpositive: object
    reward_value: object
    anchor: object
    other: object


def demo_form() -> Form:
    """What the form begins with, so that the first click shows something."""
    demo, blank = PRESETS["demo"], _defaults()
    return Form(
        *("demo", demo["model"], JUDGES[0], DEMO_EXAMPLES, DEMO_HELD_OUT, HELD_OUT_SETS[0]),
        *(demo["epochs"], 0, demo["batch_size"], demo["learning_rate"], demo["beta"], blank["seed"]),
        *(blank["max_length"], "sigmoid", blank["likelihood"], blank["aggregation"], blank["nonpositive"]),
        *(blank["reward_value"], False, ""),
    )


# ------------------------------------------------------------------------------------------- from the form to a run


def start_run(own: OwnRuns, library: Library, form: Form, public: bool) -> RunDirectory:
    """Check the form, write the examples beside the runs and start.

    Raises:
        StepwiseDPOError: what has to be changed in the form or the examples.
    """
    train_pairs, held_out, held_out_name = split(library, form)
    settings = settings_of(form, len(held_out), public)
    train_set, held_out_set = ExampleSet(library.current.name, train_pairs), ExampleSet(held_out_name, held_out)
    return start_on(own, settings, train_set, held_out_set, public)


def start_on(
    own: OwnRuns, settings: Mapping[str, Any], train_set: ExampleSet, held_out: ExampleSet, public: bool
) -> RunDirectory:
    """Write examples beside the runs and start a run on them.

    Args:
        own: whose run it becomes.
        settings: of the run, without data.
        train_set: what to train on.
        held_out: what to compare on; may be empty.
        public: whether limits hold.

    Raises:
        StepwiseDPOError: what has to be changed in the settings or the examples, or no run may start now.
    """
    folder = example_folder(own.runs_dir)
    # What is refused leaves nothing behind.
    config = make_config(settings, {"data": str(folder)})
    if public:
        check_size(config, len(train_set.pairs), len(held_out.pairs))
    sets = {"data": train_set, "eval_data": held_out}
    files = {key: example_file(folder, of.name, of.pairs) for key, of in sets.items() if of.pairs}

    def write() -> None:
        for key, path in files.items():
            write_examples(path, sets[key].pairs)

    return own.start(make_config(settings, {key: str(path) for key, path in files.items()}), write)


def start_again(own: OwnRuns, run_id: object, public: bool) -> RunDirectory:
    """Start a run with the very configuration of another.

    Raises:
        StepwiseDPOError: there is no such run, its examples are gone, or no run may start now.
    """
    config = own.run(run_id).config()
    if public:
        held_out = load_pairs(config.eval_data) if config.eval_data else ()
        check_size(config, len(load_pairs(config.data)), len(held_out))
    return own.start(config)


def check_size(config: RunConfig, examples: int, held_out: int) -> None:
    """Refuse a run that is too much for a page that strangers share.

    Args:
        config: what the visitor asks for.
        examples: pairs to train on.
        held_out: pairs to compare on.

    Raises:
        ConfigError: naming the limit.
    """
    check_public(config, examples=examples, held_out=held_out, steps=planned_steps(config, examples))


def settings_of(form: Form, held_out: int, public: bool) -> dict[str, Any]:
    """Write the form as a run's settings; the values' ranges are checked by `make_config`.

    Args:
        form: what the browser sent.
        held_out: how many examples there are to compare on.
        public: whether models come from the lists only.
    """
    model = check_model_name(form.model, POLICIES, public)
    # Anything else than one of the form's choices is left to `make_config`, which says what there is.
    loss = PRESETS[str(form.loss)]["loss"] if form.loss in [key for _, key in LOSSES] else form.loss
    settings: dict[str, Any] = {
        "loss": loss,
        "model": model,
        "epochs": _number(form.epochs, "epochs"),
        "max_steps": whole(form.max_steps, "steps at most") or None,
        "batch_size": whole(form.batch_size, "batch"),
        "learning_rate": _number(form.learning_rate, "learning rate"),
        "beta": _number(form.beta, "beta"),
        "seed": whole(form.seed, "seed"),
        "max_length": whole(form.max_length, "longest example"),
        # The small models answer in no time.
        "generate": min(held_out or FEW_ANSWERS, MANY_ANSWERS if model in (POLICY, TINY) else FEW_ANSWERS),
        # The values are the same, and the first step comes at once.
        "frozen_scores": "as_needed",
    }
    if model in (POLICY, TINY):
        settings["save_steps"] = SAVE_STEPS  # a run whose server ends goes on from there
        settings["group_by_length"] = True  # as the demo's presets do: short examples are mostly padding else
    if loss == "stepwise":
        settings |= {
            "reward_model": check_model_name(form.reward_model, JUDGES, public),
            "likelihood": form.likelihood,
            "aggregation": form.aggregation,
            "nonpositive": form.nonpositive,
            "reward_value": form.reward_value,
            "anchor_to_reference": bool(form.anchor),
        }
    elif loss == "dpo":
        settings["loss_type"] = [form.loss_type, "sft"] if form.loss == "demo" else [form.loss_type]
    other = other_settings(form.other)
    if public and other:
        raise ConfigError("on this public page there are no other settings than those of the form; clear that field")
    return settings | other


def other_settings(text: object) -> dict[str, Any]:
    """Read the field for everything that has none of its own: a `name: value` on each line, as in a run's YAML.

    Raises:
        ConfigError: it isn't that, or sets what another field of the form says.
    """
    if not isinstance(text, str) or len(text) > MAX_OTHER:
        raise ConfigError(f"other settings must be a text of at most {MAX_OTHER} characters")
    try:
        read = parse_settings(text, "other settings")
    except ConfigError as problem:
        if "must be a number" in str(problem):
            raise
        raise ConfigError("other settings: write a name, a colon and a value on each line") from problem
    for name in read:
        if name in _OWN_FIELDS:
            raise ConfigError(f"other settings: {name} is what the form above says; leave it out here")
    return read


def split(library: Library, form: Form) -> tuple[tuple[PreferencePair, ...], tuple[PreferencePair, ...], str]:
    """Take the first examples of the open set to train on, and those to compare on.

    Returns:
        pairs to train on; pairs to compare on, which are the first of the set that the form names, or the next of the
            open one (also when it names that: nobody shall compare on what was trained on); the name of their set.

    Raises:
        ConfigError: there are none, the numbers are not usable, or there is no such set.
    """
    pairs = library.current.pairs
    if not pairs:
        raise ConfigError("this example set is empty; add or load examples in the Data tab")
    train, held_out = whole(form.examples, "examples to train on"), whole(form.held_out, "examples to compare on")
    if train < 1 or held_out < 0:
        raise ConfigError("train on at least one example, and compare on none or more")
    if form.held_out_set in ("", library.current.name):
        return pairs[:train], pairs[train : train + held_out], library.current.name
    for known in library.sets:
        if known.name == form.held_out_set:
            return pairs[:train], known.pairs[:held_out], known.name
    raise ConfigError(f"there is no example set {str(form.held_out_set)[:80]!r} to compare on; choose another")


# ------------------------------------------------------------------------------------------- into the form


def own_value(loss: str, name: str, value: object) -> object:
    """Give a loss's own value of a setting where the form still holds another loss's; what somebody typed stays."""
    own = {key: PRESETS[key].get(name) for _, key in LOSSES}
    return own[loss] if own.get(loss) is not None and value in own.values() else value


def preset_form(name: str, library: Library) -> tuple[Library, Form]:
    """Fill the form with one of the configuration's presets, and open the examples that it names.

    Raises:
        ConfigError: no such preset, or the page lacks its examples.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(f"there is no preset {str(name)[:80]!r}")
    if name == "demo":
        return _opened(library, PRESETS["demo"]["data"]), demo_form()
    settings = PRESETS[name]
    library = _opened(library, settings["data"])
    form = demo_form()._replace(
        loss="demo-stepwise" if settings["loss"] == "stepwise" else "demo-dpo",
        model=settings["model"],
        reward_model=settings.get("reward_model", JUDGES[0]),
        examples=len(library.current.pairs),
        held_out=0,
        held_out_set="",
        **{key: settings.get(key, _defaults()[key]) for key in ("epochs", "batch_size", "learning_rate", "beta")},
    )
    return library, form


def form_of(config: RunConfig, library: Library) -> tuple[Library, Form]:
    """Fill the form so that it says what a run's configuration says; what has no field goes to the other settings.

    Returns:
        the library, in which the run's examples are open, as a new set if no set begins with them; the form.

    Raises:
        StepwiseDPOError: the examples can't be read any more.
    """
    pairs = tuple(load_pairs(config.data))
    library = _with_examples(library, config.data, pairs)
    held_out_set, held_out = "", 0
    if config.eval_data:
        held = tuple(load_pairs(config.eval_data))
        held_out = len(held)
        if library.current.pairs[len(pairs) : len(pairs) + held_out] != held:
            opened = library.current.name
            library = _with_examples(library, config.eval_data, held, besides=opened)
            held_out_set = library.current.name
            library = library.opened(opened)
    stepwise = config.loss == "stepwise"
    imitates = len(config.loss_type) == 2 and config.loss_type[1] == "sft"
    form = demo_form()._replace(
        loss="demo-stepwise" if stepwise else "demo" if imitates else "demo-dpo",
        model=config.model,
        examples=len(pairs),
        held_out=held_out,
        held_out_set=held_out_set,
        max_steps=config.max_steps or 0,
        loss_type=config.loss_type[0],
        **{key: getattr(config, key) for key in _SAME},
    )
    if stepwise:
        form = form._replace(anchor=config.anchor_to_reference, **{key: getattr(config, key) for key in _SAME_STEPWISE})
    said = make_config(settings_of(form, held_out, False), {"data": config.data, "eval_data": config.eval_data})
    # When frozen models score changes no value; the page has them score when they are needed.
    wanted = config.model_dump() | {"frozen_scores": said.frozen_scores}
    wanted["save_steps"] = config.save_steps or said.save_steps
    rest = {name: wanted[name] for name, value in said.model_dump().items() if wanted[name] != value}
    other = yaml.safe_dump(rest, sort_keys=False, allow_unicode=True) if rest else ""
    return library, form._replace(other=other)


def _with_examples(
    library: Library, place: str, pairs: tuple[PreferencePair, ...], besides: str | None = None
) -> Library:
    """Open the set that begins with these pairs, other than `besides`; a new one of that name if there is none."""
    for known in library.sets:
        if known.name != besides and known.pairs[: len(pairs)] == pairs:
            return library.opened(known.name)
    return library.added(Path(place).name, list(pairs))


def _opened(library: Library, place: str) -> Library:
    name = Path(place).name
    if name not in library.names:
        raise ConfigError(f"this preset trains on {name}, which this page doesn't have; load it in the Data tab")
    return library.opened(name)


def _defaults() -> Mapping[str, Any]:
    return {name: field.get_default() for name, field in RunConfig.model_fields.items()}


def _number(value: object, name: str) -> float:
    # Not isfinite, which fails at an integer that no float holds.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        raise ConfigError(f"{name}: give a number")
    return float(value)


def whole(value: object, name: str) -> int:
    """Read a whole number of the form.

    Raises:
        ConfigError: it isn't one, naming the field.
    """
    number = _number(value, name)
    if number != int(number):
        raise ConfigError(f"{name}: give a whole number, not {value}")
    return int(number)
