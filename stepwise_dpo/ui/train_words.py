"""Before the click on Train: what the form would train and compare on, its steps and time, and what is odd in it."""

from typing import NamedTuple

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.learning.names import BUNDLED, POLICY, TINY
from stepwise_dpo.preferences.checker import is_known
from stepwise_dpo.preferences.statistics import mean_characters
from stepwise_dpo.runs.config import PRESETS, RunConfig, make_config, planned_steps
from stepwise_dpo.runs.pace import Pace
from stepwise_dpo.ui.library import BUNDLED_SETS, Library
from stepwise_dpo.ui.text import counted, duration
from stepwise_dpo.ui.train_form import DEMO_EXAMPLES, DEMO_HELD_OUT, Form, check_size, settings_of, split, whole

HELD_OUT_LABEL = "Examples to compare on are"

LOOKED_AT = 200
"""The first examples of a set, which say whether its problems are of the bundled kinds."""

FEWEST_TO_DIVIDE = 10
"""Of a visitor's own examples: of fewer, a fifth says nothing."""

UNKNOWN_TIME = "time unknown until the first run of this model"

_DEMO_CHARACTERS = 257.0  # of a pair of onpolicy_prm.json, on average
BUILT_IN_PACES = {
    POLICY: Pace("", 0.3 / 8, 7.0, _DEMO_CHARACTERS),
    TINY: Pace("", 0.15 / 8, 5.0, _DEMO_CHARACTERS),
}
"""Of the bundled models, in seconds on two cores: what is said before a run of this machine is known. The demo's step
of 8 pairs takes about 0.3 s, one of the tiny model half as long; the rest is loading and the held-out pairs."""
ANSWER_SECONDS = 0.03
"""Of one of them, for a problem, before or after."""


class PlanWords(NamedTuple):
    """What the form says before the click."""

    button: str
    estimate: str


class Plan(NamedTuple):
    """The run's configuration, its optimiser steps, and the characters of one of its training pairs on average."""

    config: RunConfig
    steps: int
    characters: float


def plan(library: Library, form: Form, public: bool) -> Plan:
    """Read the form as far as steps and time depend on it.

    Raises:
        ConfigError: what has to be changed in the form or the examples.
    """
    train_pairs, held_out, _ = split(library, form)
    config = make_config(settings_of(form, len(held_out), public), {"data": "unwritten"})
    if public:
        check_size(config, len(train_pairs), len(held_out))
    return Plan(config, planned_steps(config, len(train_pairs)), mean_characters(train_pairs))


def data_words(library: Library, form: Form) -> str:
    """Say what the form trains and compares on; "" if that is not usable yet."""
    try:
        train, held_out, name = split(library, form)
        asked = whole(form.held_out, "examples to compare on")
    except ConfigError:
        return ""
    opened = library.current.name
    words = f"Trains on {_share(len(train), len(library.current.pairs))} of {opened}"
    if held_out:
        return f"{words}; held out are {len(held_out):,} of {name}."
    if asked:
        return f"{words}. None are left to hold out, so it is compared on these: choose another set under More options."
    return f"{words}. None are held out, so it is compared on these."


def bundled_words(library: Library, form: Form) -> str:
    """Say that one's own examples are compared on the project's, whose problems may be others; "" where they aren't."""
    try:
        _, held_out, name = split(library, form)
    except ConfigError:
        return ""
    if not held_out or name not in BUNDLED_SETS or library.current.name in BUNDLED_SETS:
        return ""
    part = "hold out a part of them here, or " if own_parts(library, form) else ""
    return (
        f"Compared on {name}: the bundled problems, not yours. For yours, {part}choose another set at "
        f"“{HELD_OUT_LABEL}” under More options."
    )


def own_parts(library: Library, form: Form) -> tuple[int, int] | None:
    """Divide a visitor's own set: no more examples to train on than the form says, and a fifth to hold out.

    None where the form holds out such, or both parts would have problems in common.
    """
    opened, pairs = library.current.name, library.current.pairs
    try:
        train, held_out, name = split(library, form)
    except ConfigError:
        return None
    if opened in BUNDLED_SETS or len(pairs) < FEWEST_TO_DIVIDE or (held_out and name not in BUNDLED_SETS):
        return None
    count = min(len(pairs) // 5, DEMO_HELD_OUT)
    cut = min(len(train), len(pairs) - count)
    while cut > 1 and pairs[cut].prompt == pairs[cut - 1].prompt:
        cut -= 1  # examples of one problem stay together
    trained_on = {pair.prompt for pair in pairs[:cut]}
    return None if any(pair.prompt in trained_on for pair in pairs[cut : cut + count]) else (cut, count)


def unknown_words(library: Library, form: Form) -> str:
    """Say that a bundled model is asked about problems it knows nothing of; "" where it knows one of the first."""
    try:
        pairs, _, _ = split(library, form)
    except ConfigError:
        return ""
    judged = form.loss == "demo-stepwise"
    names = [name for name in dict.fromkeys((form.model, form.reward_model if judged else None)) if name in BUNDLED]
    if not names or any(is_known(pair.prompt) for pair in pairs[:LOOKED_AT]):
        return ""
    which = " and ".join(f"“{name}”" for name in names)
    return (
        f"{which} know{'s' if len(names) == 1 else ''} the bundled kinds of problems only, and none of these is one: "
        "what is trained and measured so says little. Choose models that know such text."
    )


def overlap_words(library: Library, form: Form) -> str:
    """Say how many of the held-out examples are on problems that are trained on too; "" where none is."""
    try:
        train, held_out, _ = split(library, form)
    except ConfigError:
        return ""
    prompts = {pair.prompt for pair in train}
    shared = sum(pair.prompt in prompts for pair in held_out)
    if not shared:
        return ""
    if shared == len(held_out):
        return (
            "All held-out examples are on problems that are trained on: what is measured says nothing about new ones."
        )
    return (
        f"Of the {len(held_out):,} held-out examples, {shared:,} {'is' if shared == 1 else 'are'} on problems that are "
        "trained on too: what is measured says that much less about new ones."
    )


def _share(count: int, of: int) -> str:
    return f"all {of:,}" if count == of else f"the first {count:,}"


class Estimate(NamedTuple):
    """How long a run takes, in seconds; `measured` where a run of this machine says so, else it is a guess."""

    seconds: float
    measured: bool


def estimate(config: RunConfig, steps: int, pace: Pace | None, characters: float | None = None) -> Estimate | None:
    """Estimate a run's time; None where nothing is known.

    Args:
        config: of the run.
        steps: optimiser steps.
        pace: of an earlier run of the same model, if there is one; else that of the bundled models on two cores.
        characters: of a training pair on average; None if they are as long as the earlier run's.
    """
    known = pace or BUILT_IN_PACES.get(config.model)
    if known is None:
        return None
    seconds = known.seconds(steps, config.batch_size * config.gradient_accumulation, characters)
    return Estimate(seconds + (2 * config.generate * ANSWER_SECONDS if pace is None else 0.0), pace is not None)


def demo_words() -> str:
    """Say how long the quick demo takes where nothing was measured, as the Train form does: "about … on two cores"."""
    config = make_config(PRESETS["demo"])
    guess = estimate(config, planned_steps(config, DEMO_EXAMPLES), None)
    assert guess is not None  # the demo's model comes with the project
    return _guessed(guess)


def plan_words(planned: Plan, pace: Pace | None) -> PlanWords:
    """Say on the button what it will do, and beside it how long that takes."""
    config, steps, characters = planned
    pairs = config.batch_size * config.gradient_accumulation
    words = f"{counted(steps, 'optimiser step')} of {counted(pairs, 'pair')}"
    known = estimate(config, steps, pace, characters)
    if known is None:
        time = UNKNOWN_TIME
    elif known.measured:
        time = f"about {duration(known.seconds)}, judged by the last run"
    else:
        time = f"{_guessed(known)}; not measured here yet"
    return PlanWords(f"Train {counted(steps, 'step')}", f"{words} · {time}")


def _guessed(guess: Estimate) -> str:
    return f"about {_roughly(guess.seconds)} on two cores"


def _roughly(seconds: float) -> str:
    """Write a duration no finer than a guess is: 20 s, 3 min, 2 h."""
    if seconds < 45:
        return f"{max(10, round(seconds, -1)):.0f} s"
    return f"{max(1, round(seconds / 60))} min" if seconds < 5400 else f"{round(seconds / 3600):,} h"
