"""Any problem and solution that somebody types, judged step by step."""

from typing import NamedTuple

from stepwise_dpo.errors import DataError
from stepwise_dpo.learning.names import REWARD
from stepwise_dpo.preferences.checker import is_known
from stepwise_dpo.preferences.faults import MAX_STEPS
from stepwise_dpo.preferences.pairs import Step
from stepwise_dpo.ui.components import coloured, empty_state, note, solution, what
from stepwise_dpo.ui.judges import SCALES
from stepwise_dpo.ui.text import signed
from stepwise_dpo.ui.waterfall import AGGREGATIONS, aggregated, first_below

MAX_CHARACTERS = 8_000
"""Of both fields together: every key stroke is judged."""

EXAMPLE = ("Find k if (k - 30) / 5 = 11.", "11 * 5 = 55\n55 + 30 = 75\nAnswer: 75")


class Typed(NamedTuple):
    """A problem and the steps that solve it."""

    prompt: str
    steps: list[Step]


def read_typed(problem: object, text: object) -> Typed | None:
    """Read both fields: a step is a line that isn't blank.

    Returns:
        None while one of them is empty.

    Raises:
        DataError: they are too long, or hold what isn't text.
    """
    if not isinstance(problem, str) or not isinstance(text, str):
        raise DataError("the problem and the solution must be text")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not problem.strip() or not lines:
        return None
    length = len(problem) + len(text)
    if length > MAX_CHARACTERS:
        raise DataError(
            f"these are {length:,} characters, and at most {MAX_CHARACTERS:,} are judged while you type; shorten "
            "them, or load them as an example in the Data tab"
        )
    if len(lines) > MAX_STEPS:
        raise DataError(f"a solution has at most {MAX_STEPS} steps, and this one has {len(lines)} lines")
    return Typed(problem.strip(), [Step(line) for line in lines])


def nothing_typed() -> str:
    """Say what to do."""
    return empty_state("Nothing to judge yet", "Write a problem, and a solution with one step per line.")


def typed_html(typed: Typed, values: list[float], scale_name: str, aggregation: str, judge: str) -> str:
    """Write the steps with their process rewards.

    Args:
        typed: what was judged.
        values: of each step.
        scale_name: one of `SCALES`.
        aggregation: one of `AGGREGATIONS`.
        judge: the reward model's name.
    """
    scale = SCALES[scale_name]
    far = scale.reach or max(map(abs, values)) or 1.0
    total = aggregated(values, aggregation, scale.centre)
    number = coloured(total) if scale.signed else f"<b>{total:.2f}</b>"
    rows = solution(
        "Your solution",
        typed.steps,
        values,
        sum_html=f"{AGGREGATIONS[aggregation].lower()} {number}{what('process_reward')}",
        position=far,
        centre=scale.centre,
        with_sign=scale.signed,
    )
    wrong = first_below(values, scale.centre)
    if wrong < 0:
        verdict = "The judge doubts no step."
    else:
        written = signed(values[wrong]) if scale.signed else f"{values[wrong]:.2f}"
        verdict = f"The judge doubts step {wrong + 1} first ({written})."
    stranger = ""
    if judge == REWARD and not is_known(typed.prompt):
        stranger = note(
            "“reward” knows the bundled kinds of problems only. This isn't one of them: its scores mean little."
        )
    return f'<div class="example">{rows}<p class="verdict">{verdict}</p>{stranger}</div>'
