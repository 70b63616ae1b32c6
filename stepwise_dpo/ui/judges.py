"""Reward models that the page has loaded, kept for the next request. torch is imported by the first one."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.learning.names import HUB_DEFAULT, POLICY, REWARD, TINY
from stepwise_dpo.preferences.pairs import PreferencePair
from stepwise_dpo.runs.limits import check_public_model
from stepwise_dpo.ui.library import SIDES
from stepwise_dpo.ui.loaded_models import LoadedModels, in_turns
from stepwise_dpo.ui.read_limits import check_characters, check_tokens

if TYPE_CHECKING:
    from stepwise_dpo.learning.head_settings import HeadSettings
    from stepwise_dpo.learning.heads import Row
    from stepwise_dpo.learning.rewards import LLMRewardModel, RewardValue

KEPT = 2

CACHED_TOKENS = 1_000_000
"""Of the sequences whose scores a judge remembers, 40 MB: every key stroke in the page's free text is one more."""

POLICIES = (POLICY, HUB_DEFAULT, TINY)
"""What the page offers to train."""

JUDGES = (REWARD, HUB_DEFAULT, TINY)
"""What it offers as reward model."""

POLICY_NOTES = {
    POLICY: "“policy” comes with the project: 4 million weights that solve about half of the bundled problems.",
    HUB_DEFAULT: "77 million weights from the Hugging Face Hub: a first use downloads 300 MB, and an optimiser step "
    "takes seconds here.",
    TINY: "“tiny” is built in: 0.2 million random weights, one token per byte, trained by nobody. It shows how "
    "training works; what it prefers afterwards says nothing about real models.",
}

JUDGE_NOTES = {
    REWARD: "“reward” comes with the project: it knows the bundled kinds of problems. A step's score is the lowest "
    "probability of a token in it, so a step that carries an earlier error on faithfully looks right.",
    HUB_DEFAULT: "Nobody trained this model to judge, and a prompted small model can't: even prompted 8B models reach "
    "an F1 of 5 in 100 (ProcessBench). Train one with “models train-reward”.",
    TINY: "The judge is the built-in tiny model: 0.2 million random weights, never trained. Its scores are noise and "
    "show only how this page works; choose “reward” for scores that mean something.",
}


class Scale(NamedTuple):
    """How a reward value is read.

    Attributes:
        centre: the neutral value, which has no colour.
        reach: distance from there to the full colour; None where values have no bounds.
        signed: whether a value has a sign.
        words: what the number is.
    """

    centre: float
    reach: float | None
    signed: bool
    words: str


SCALES = {
    "centered": Scale(0.0, 1.0, True, "2p − 1, from −1 to 1"),
    "probability": Scale(0.5, 0.5, False, "p, the judge's probability of “right”"),
    "log_odds": Scale(0.0, None, True, "ln p − ln (1 − p), in nats"),
}


class Judges:
    """Loads reward models once and scores with one at a time, since a model's cache is not made for two threads."""

    def __init__(self) -> None:
        self._models = LoadedModels(_load_judge, KEPT)
        self._scoring = threading.Lock()

    def settings(self, name: str) -> "HeadSettings":
        """How a model scores: its head with the words, the tag or the rule that belong to it.

        Raises:
            StepwiseDPOError: the model can't be loaded.
        """
        return self._models.get(name).settings

    def ready(self, name: str) -> bool:
        """Whether scoring with this model needs no loading worth a button; those in the box never do."""
        return name in (REWARD, TINY) or name in self._models

    def score(self, name: str, pairs: Sequence[PreferencePair], value: str) -> list[tuple[list[float], list[float]]]:
        """Score every step of pairs.

        Returns:
            (chosen, rejected) of each pair.

        Raises:
            StepwiseDPOError: the model can't be loaded, or a step can't be read by it, or an example is too long for it
                or for `read_limits`; that is found before any is scored.
        """
        scale = _checked(value)
        model = self._models.get(name)
        for part in in_turns(pairs):
            with self._scoring:
                _check_pairs(model, part)
        scored = []
        for part in in_turns(pairs):
            with self._scoring:
                scored += [(rewards.chosen, rewards.rejected) for rewards in model.score_pairs(part, scale)]
        return scored

    def score_solutions(
        self, name: str, solutions: Sequence[tuple[str, Sequence[str]]], value: str
    ) -> list[list[float]]:
        """Score every step of solutions, each a prompt with its steps.

        Raises:
            StepwiseDPOError: as `score`.
        """
        scale = _checked(value)
        model = self._models.get(name)
        with self._scoring:
            _check_solutions(model, solutions)
            return model.score_solutions(solutions, scale)


def _load_judge(name: str) -> "LLMRewardModel":
    from stepwise_dpo.learning.rewards import LLMRewardModel

    return LLMRewardModel.from_pretrained(name, cached_tokens=CACHED_TOKENS)


def _check_pairs(model: "LLMRewardModel", pairs: Sequence[PreferencePair]) -> None:
    """Raise DataError for the first pair that can't be scored here."""
    for pair in pairs:
        together = [f"example {pair.name!r}, {side}: prompt and steps together have" for side in SIDES]
        for what, steps in zip(together, (pair.chosen, pair.rejected), strict=True):
            check_characters(what, pair.prompt, [step.text for step in steps])
        for what, rows in zip(together, model.pair_rows(pair), strict=True):
            _check_rows(what, rows)


def _check_solutions(model: "LLMRewardModel", solutions: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Raise DataError for the first solution that can't be scored here."""
    for number, (prompt, steps) in enumerate(solutions, 1):
        what = f"solution {number}: prompt and steps together have"
        check_characters(what, prompt, steps)
        _check_rows(what, model.rows(prompt, steps))


def _check_rows(what: str, rows: "Sequence[Row]") -> None:
    check_tokens(what, max(len(row.prompt_ids) + len(row.ids) for row in rows))


def _checked(value: str) -> "RewardValue":
    if value not in SCALES:
        raise ConfigError(f"a reward's scale must be one of {', '.join(SCALES)}, not {value!r}")
    scale: RewardValue = value  # type: ignore[assignment]  # checked above
    return scale


def check_model_name(name: object, allowed: Sequence[str], public: bool) -> str:
    """Check the name of a model that came from a browser.

    Raises:
        ConfigError: it is empty or far too long, or, on a public page, not one of those on offer: nobody from outside
            chooses what this machine downloads or which of its folders it reads.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > 300:
        raise ConfigError(
            f"name a model: {POLICY}, {REWARD}, {TINY}, a local folder, or a Hub id such as {HUB_DEFAULT}"
        )
    if public:
        check_public_model(name.strip(), allowed)
    return name.strip()
