"""Judge the steps of a solution to a generated problem from the prompt's text alone.

Nothing here knows how a solution was made. The demanded operations are read from the prompt; a step counts if it states
one of them, with the right numbers and the right result, at a time when all numbers it needs are known from the prompt
or from earlier right steps. So the demanded operations may come in any workable order, + and * may have their operands
exchanged, and a step that carries on a wrong value, uses one that isn't there yet, or repeats a step already made is
wrong.

Other operations are wrong steps, even where they lead to the right answer: a percentage is taken as a division and then
a multiplication (30% of 80 as 80 / 10, then 8 * 3), a sum is added up as its parts are named, an equation is undone
from the outside. The beginning of another way can't be told from a mistake: 80 * 3 is also what is left when the
division is forgotten. Whether the last answer is right, however it was found, `solves` says.

A step is "a + b = c" (or - * /), the last one "Answer: c". Spacing, capitals and a full stop don't matter.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.families import recover
from stepwise_dpo.preferences.programs import Extreme, Op, Operand, refs

_NUMBER = r"(-?[0-9]{1,15})"
_STEP = re.compile(rf"\s*{_NUMBER}\s*([+\-*/])\s*{_NUMBER}\s*=\s*{_NUMBER}\s*\.?\s*")
_ANSWER = re.compile(rf"\s*answer\s*:\s*{_NUMBER}\s*\.?\s*", re.IGNORECASE)


class Calculation(NamedTuple):
    """A step that states "left symbol right = result", rightly or not."""

    left: int
    symbol: str
    right: int
    result: int

    @property
    def expression(self) -> str:
        """What is calculated, as text."""
        return f"{self.left} {self.symbol} {self.right}"

    @property
    def value(self) -> Fraction | None:
        """What it really makes; None for a division by zero."""
        return _calculated(self.left, self.symbol, self.right)

    @property
    def is_right(self) -> bool:
        """Whether the stated result is the real one."""
        return self.value == self.result


def read_calculation(step: str) -> Calculation | None:
    """Read a step's calculation; None if it is none."""
    match = _STEP.fullmatch(step)
    return match and Calculation(int(match[1]), match[2], int(match[3]), int(match[4]))


def stated_answer(step: str) -> int | None:
    """Read the number of an answer's step; None if it is none."""
    match = _ANSWER.fullmatch(step)
    return int(match[1]) if match else None


def is_known(prompt: str) -> bool:
    """Whether a prompt is of a known family and has a whole-number solution."""
    ops = recover(prompt)
    return ops is not None and _solution(ops) is not None


def check_solution(prompt: str, steps: Sequence[str]) -> list[bool]:
    """Judge each step of a solution, which may be any text.

    Args:
        prompt: a problem of one of the families.
        steps: the solution's steps.

    Returns:
        For each step whether it is right for this problem. Operations that the problem doesn't demand are wrong, even
        on another way to the right answer. The answer's step is right only after all demanded operations; whatever
        follows the answer is wrong.

    Raises:
        DataError: the prompt is of no known family, or has no whole-number solution.
    """
    ops, answer = _problem(prompt)
    return _judged(ops, answer, steps)[0]


def open_steps(prompt: str, steps: Sequence[str]) -> int:
    """Count the calculations that could rightly come next after these steps, whatever else they hold.

    Raises:
        DataError: the prompt is of no known family, or has no whole-number solution.
    """
    ops, answer = _problem(prompt)
    known = _judged(ops, answer, steps)[1]
    return sum(_is_ready(i, op, known) for i, op in enumerate(ops))


def _judged(ops: Sequence[Op], answer: int, steps: Sequence[str]) -> tuple[list[bool], dict[int, int]]:
    """Whether each step is right, and the results of the operations that the right ones carried out."""
    known: dict[int, int] = {}
    verdicts = []
    answered = False
    for step in steps:
        if (stated := stated_answer(step)) is not None:
            verdicts.append(not answered and len(known) == len(ops) and stated == answer)
            answered = True
            continue
        made = None if answered else _made(step, ops, known)
        if made is not None:
            known[made[0]] = made[1]
        verdicts.append(made is not None)
    return verdicts, known


def solves(prompt: str, steps: Sequence[str]) -> bool:
    """Whether the last answer that a solution states is the right one, however it was found.

    Raises:
        DataError: the prompt is of no known family, or has no whole-number solution.
    """
    _, answer = _problem(prompt)
    stated = [number for step in steps if (number := stated_answer(step)) is not None]
    return bool(stated) and stated[-1] == answer


def _problem(prompt: str) -> tuple[Sequence[Op], int]:
    ops = recover(prompt)
    shown = prompt if len(prompt) <= 60 else prompt[:60] + "..."
    if ops is None:
        raise DataError(f"prompt {shown!r} is of no known problem family, so its steps can't be checked")
    answer = _solution(ops)
    if answer is None:
        raise DataError(f"prompt {shown!r} has no solution in whole numbers, so its steps can't be checked")
    return ops, answer


def _made(step: str, ops: Sequence[Op], known: dict[int, int]) -> tuple[int, int] | None:
    """Return which open operation a step carries out rightly, with its result."""
    calculation = read_calculation(step)
    if calculation is None or not calculation.is_right:
        return None
    a, symbol, b, result = calculation
    for i, op in enumerate(ops):
        if op.symbol == symbol and _is_ready(i, op, known):
            wanted = (_resolved(op.left, known), _resolved(op.right, known))
            if (a, b) == wanted or (symbol in "+*" and (b, a) == wanted):
                return i, result
    return None


def _is_ready(index: int, op: Op, known: dict[int, int]) -> bool:
    """Whether an operation is still to be done, and all that it needs is known."""
    return index not in known and known.keys() >= {*refs(op.left), *refs(op.right)}


def _solution(ops: Sequence[Op]) -> int | None:
    known: dict[int, int] = {}
    for i, op in enumerate(ops):
        result = _calculated(_resolved(op.left, known), op.symbol, _resolved(op.right, known))
        if result is None or result.denominator != 1:
            return None
        known[i] = int(result)
    return known[len(ops) - 1]


def _calculated(a: int, symbol: str, b: int) -> Fraction | None:
    if symbol == "/":
        return Fraction(a, b) if b else None
    return Fraction({"+": a + b, "-": a - b, "*": a * b}[symbol])


def _resolved(operand: Operand, known: dict[int, int]) -> int:
    if isinstance(operand, int):
        return operand
    if isinstance(operand, Extreme):
        values = [_resolved(part, known) for part in operand.of]
        return max(values) if operand.largest else min(values)
    return known[operand.index]
