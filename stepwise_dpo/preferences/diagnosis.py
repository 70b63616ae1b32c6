"""Say in words what is wrong with a step, as far as its text, the prompt and the steps before it show.

For readers of a report: a judge that misses an error is understood only with the kind of the error beside it. Where the
checker knows the problem it decides; elsewhere only what arithmetic alone shows is said.
"""

import re
from collections.abc import Sequence

from stepwise_dpo.preferences.checker import (
    Calculation,
    check_solution,
    is_known,
    open_steps,
    read_calculation,
    stated_answer,
)

_WHOLE_NUMBER = re.compile(r"[0-9]+")


def describe_step(prompt: str, steps: Sequence[str], index: int) -> str:
    """Describe one step of a solution.

    Args:
        prompt: the problem, of any kind.
        steps: the solution's steps.
        index: of the step, from 0.

    Returns:
        One clause without a full stop, such as "it is miscalculated: 6 + 89 is 95".
    """
    calculation = read_calculation(steps[index])
    if calculation is not None and not calculation.is_right:
        value = "undefined" if calculation.value is None else calculation.value
        return f"it is miscalculated: {calculation.expression} is {value}"
    known = is_known(prompt)
    if known and check_solution(prompt, steps)[index]:
        # A likelihood divides its probability among all that could come next.
        others = open_steps(prompt, steps[:index]) - 1
        return "it is right by the checker" + (
            f", as {others} other{'s' * (others > 1)} would be here" if others > 0 else ""
        )
    if calculation is not None:
        foreign = _foreign_numbers(prompt, steps[:index], calculation)
        if foreign:
            return f"it calculates rightly, with {' and '.join(map(str, foreign))} from nowhere"
        if known:
            return "it calculates rightly, with numbers that are there, but nothing in the problem asks for it here"
        return "it calculates rightly; whether the problem asks for it, the checker can't say"
    answer = stated_answer(steps[index])
    if answer is not None:
        if _last_result(steps[:index]) == answer:
            return "it repeats the result before it, which is not the answer" if known else "it repeats the last result"
        return "it states another number than the result before it"
    return "it is no calculation that the checker can read"


def _foreign_numbers(prompt: str, previous: Sequence[str], calculation: Calculation) -> list[int]:
    """The operands that are neither in the prompt nor results of earlier steps."""
    known = {int(number) for number in _WHOLE_NUMBER.findall(prompt)}
    known |= {made.result for step in previous if (made := read_calculation(step)) is not None}
    # "twice" and "half" write no digit.
    known.add(2)
    return [number for number in dict.fromkeys((calculation.left, calculation.right)) if number not in known]


def _last_result(previous: Sequence[str]) -> int | None:
    results = [made.result for step in previous if (made := read_calculation(step)) is not None]
    return results[-1] if results else None
