"""What can be shown of every step: which quantity, before or after which run, and how steps are aggregated.

Pure: everything here follows from what was chosen and from scores that exist already.
"""

import math
from typing import NamedTuple

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.runs.config import check_aggregation
from stepwise_dpo.ui.judges import SCALES, Scale
from stepwise_dpo.ui.step_scores import PairScores, Source
from stepwise_dpo.ui.text import MINUS
from stepwise_dpo.ui.waterfall import AGGREGATIONS

POLICY_VIEW = "policy"

QUANTITIES = {
    "centered": "Process reward",
    "probability": "Probability",
    "log_odds": "Log-odds",
    POLICY_VIEW: "Policy log-prob / ratio",
}
WHENS = {"before": "Before", "after": "After", "difference": f"After {MINUS} before"}

Sides = tuple[list[float], list[float]]

NO_RUN = "There is no trained policy yet. Train one in the Train tab; when its run has finished, it appears here."
FROZEN = (
    "This run trained the policy, not the reward model: the process rewards are the same before and after. What "
    "training changed is the log-likelihood gap below, and the policy's log-ratios."
)
FROZEN_DIFFERENCE = (
    "The reward model was not trained by this run, so there is no difference of process rewards. “Policy log-prob / "
    "ratio” shows what training changed, step by step."
)


class Look(NamedTuple):
    """What somebody has chosen to see.

    Attributes:
        quantity: one of `QUANTITIES`; the first three are scales of the process reward.
        when: one of `WHENS`.
        aggregation: one of `AGGREGATIONS`, for process rewards.
    """

    quantity: str = "centered"
    when: str = "before"
    aggregation: str = "sum"

    @property
    def of_policy(self) -> bool:
        """Whether it shows the policy and not the judge."""
        return self.quantity == POLICY_VIEW

    @property
    def scale(self) -> Scale:
        """Neutral value, bounds and sign of the numbers; a difference is centred at 0 and has no bounds."""
        if self.of_policy:
            return Scale(0.0, None, True, "nats")
        known = SCALES[self.quantity]
        return Scale(0.0, None, True, known.words) if self.when == "difference" else known

    @property
    def adds_up_by(self) -> str:
        """How the numbers of the steps become one: log-probabilities always add up."""
        return "sum" if self.of_policy else self.aggregation

    @property
    def result(self) -> str:
        """What chosen minus rejected is called."""
        if not self.of_policy:
            return "preference" if self.when != "difference" else "change of preference"
        return "log-ratio gap" if self.when == "difference" else "gap"


class Cast(NamedTuple):
    """The models that take part.

    Attributes:
        judge: the chosen reward model.
        trained_judge: the one that the run trained; None where it didn't.
        policy: the run's base policy, or the bundled one.
        trained: the run's trained policy; None without a run.
        run: what the page calls the run; "" without one.
        beta: of a DPO run; None for other losses.
        remark: what is worth knowing about the models; "" for nothing.
    """

    judge: Source
    trained_judge: Source | None
    policy: Source
    trained: Source | None
    run: str = ""
    beta: float | None = None
    remark: str = ""


class Plan(NamedTuple):
    """Whose scores a view needs.

    Attributes:
        shown: whose numbers stand in the rows; None where there is nothing to show.
        minus: whose are subtracted; None for nobody's.
        note: a remark on the view.
        missing: in place of the rows, what is missing; "" where nothing is.
    """

    shown: Source | None
    minus: Source | None = None
    note: str = ""
    missing: str = ""


def read_look(quantity: object, when: object, aggregation: object) -> Look:
    """Check what a browser sent.

    Raises:
        ConfigError: one of them is not on offer, or they don't go together.
    """
    for value, known, name in (
        (quantity, QUANTITIES, "quantity"),
        (when, WHENS, "moment"),
        (aggregation, AGGREGATIONS, "aggregation"),
    ):
        if not isinstance(value, str) or value not in known:
            raise ConfigError(f"the {name} must be one of {', '.join(known)}, not {str(value)[:40]!r}")
    look = Look(str(quantity), str(when), str(aggregation))
    if not look.of_policy:
        check_aggregation(look.aggregation, look.quantity)
    return look


def plan(look: Look, cast: Cast) -> Plan:
    """Decide whose scores a view shows."""
    if look.when == "before":
        return Plan(cast.policy if look.of_policy else cast.judge)
    if cast.trained is None:
        return Plan(None, missing=NO_RUN)
    if look.of_policy:
        return Plan(cast.trained, cast.policy if look.when == "difference" else None)
    if cast.trained_judge is None:
        if look.when == "difference":
            return Plan(None, missing=FROZEN_DIFFERENCE)
        return Plan(cast.judge, note=FROZEN)
    return Plan(cast.trained_judge, cast.judge if look.when == "difference" else None)


def numbers(scores: PairScores, quantity: str) -> Sides:
    """Bring a source's numbers to the scale of a view: log-odds x become p = sigmoid(x) or 2p - 1 = tanh(x / 2)."""

    def on_scale(value: float) -> float:
        if quantity == "centered":
            return math.tanh(value / 2)
        if quantity == "probability":
            return (1 + math.tanh(value / 2)) / 2
        return value

    return [on_scale(x) for x in scores.chosen], [on_scale(x) for x in scores.rejected]


def view_numbers(look: Look, shown: PairScores, minus: PairScores | None) -> Sides:
    """Give the numbers of a view: what is shown, minus what is subtracted."""
    sides = numbers(shown, look.quantity)
    if minus is None:
        return sides
    before = numbers(minus, look.quantity)
    chosen, rejected = ([a - b for a, b in zip(*both, strict=True)] for both in zip(sides, before, strict=True))
    return chosen, rejected


def reach(scale: Scale, compared: list[Sides]) -> float:
    """Distance from the neutral value to the full colour: the scale's own, or the largest value of all compared."""
    if scale.reach is not None:
        return scale.reach
    return max((abs(value) for sides in compared for side in sides for value in side), default=1.0) or 1.0


def stepwise_loss(preference: float, gap: float) -> float:
    """-log sigmoid(preference * gap), see `losses.stepwise_loss`; in nats, exact for large numbers too."""
    return softplus(-preference * gap)


def softplus(x: float) -> float:
    """log(1 + e^x) without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def unit_words(look: Look, cast: Cast) -> str:
    """Say what the numbers in the rows are."""
    if not look.of_policy:
        words = f"Process reward, {look.scale.words}"
        return f"{words}, after {MINUS} before" if look.when == "difference" else words
    if look.when == "difference":
        implicit = f"; times β = {cast.beta:g} it is the implicit reward" if cast.beta is not None else ""
        return f"Log-ratio of each step, log π after {MINUS} log π before, in nats{implicit}"
    return f"Log-probability of each step {look.when} training, in nats; the log-ratio is after {MINUS} before"
