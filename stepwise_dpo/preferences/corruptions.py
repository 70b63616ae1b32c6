"""Plausible mistakes in the solution of a problem, with the truth about each step of the result.

off_by_one        a result is one too high or too low
wrong_carry       the ten that is carried or borrowed gets lost
wrong_operation   another operation is carried out on the right numbers
dropped_step      an operation is left out; what follows works with the number from before it
swapped_steps     two operations are applied in the wrong order, each to the number at hand (not merely written down
                  in another order), so that the answer is wrong
wrong_conclusion  every operation is right, the answer isn't what they yield
carried_error     a number is misread in the first half, and at least two steps carry that on

In all of them the steps after the mistake go on faithfully with the wrong value, and the answer is wrong. A step is
labelled True iff neither it nor any step that its numbers come from is mistaken: so faithful steps after a mistake are
False (and listed as carried), while a later step on untouched numbers is True.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from stepwise_dpo.preferences.programs import Computation, Extreme, Op, Operand, Ref, refs, run, value

OFF_BY_ONE = "off_by_one"
WRONG_CARRY = "wrong_carry"
WRONG_OPERATION = "wrong_operation"
DROPPED_STEP = "dropped_step"
SWAPPED_STEPS = "swapped_steps"
WRONG_CONCLUSION = "wrong_conclusion"
CARRIED_ERROR = "carried_error"


class Mistaken(NamedTuple):
    """A wrong solution: its computations and answer, and the truth about its steps (the answer is the last step)."""

    computations: tuple[Computation, ...]
    answer: int
    labels: tuple[bool, ...]
    carried: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Mistake:
    """A way to go wrong: operations to carry out instead, slips in their results, and which of them are to blame.

    `wrong` holds the operations that are mistaken in themselves (len(ops) stands for the answer); `blamed` those of
    them that a reader would point at: the others repeat what the blamed one did.
    """

    ops: Sequence[Op]
    wrong: frozenset[int]
    slips: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    final: Operand | None = None
    answer: int | None = None
    blamed: frozenset[int] | None = None


_Proposals: TypeAlias = Callable[[random.Random, Sequence[Op], Sequence[Computation]], Iterator[_Mistake]]


def corrupt(
    rng: random.Random, ops: Sequence[Op], correct: Sequence[Computation], corruption: str, limit: int
) -> Mistaken | None:
    """Make one mistake of the given kind in a correct solution.

    Args:
        rng: chooses among the possible mistakes.
        ops: what the problem demands.
        correct: their results.
        corruption: one of CORRUPTIONS.
        limit: the largest result that a wrong solution may contain (the smallest is 1).

    Returns:
        None if the problem leaves no room for such a mistake.
    """
    for mistake in _PROPOSALS[corruption](rng, ops, correct):
        mistaken = _carry_out(mistake, limit)
        if mistaken is not None and _is_clear(mistaken, correct):
            return mistaken
    return None


def _carry_out(mistake: _Mistake, limit: int) -> Mistaken | None:
    computations = run(mistake.ops, limit, mistake.slips)
    if computations is None:
        return None
    end = len(mistake.ops)
    final = Ref(end - 1) if mistake.final is None else mistake.final
    answer = value(final, [c.result for c in computations]) if mistake.answer is None else mistake.answer
    tainted: set[int] = set()
    for i, op in enumerate(mistake.ops):
        if i in mistake.wrong or tainted.intersection((*refs(op.left), *refs(op.right))):
            tainted.add(i)
    if end in mistake.wrong or tainted.intersection(refs(final)):
        tainted.add(end)
    blamed = mistake.wrong if mistake.blamed is None else mistake.blamed
    labels = tuple(i not in tainted for i in range(end + 1))
    return Mistaken(tuple(computations), answer, labels, tuple(sorted(tainted - blamed)))


def _is_clear(mistaken: Mistaken, correct: Sequence[Computation]) -> bool:
    """Whether the mistake shows: a wrong answer, no wrong step that reads like a right one, and no change before it."""
    first = mistaken.labels.index(False)
    right = {computation.key() for computation in correct}
    return (
        mistaken.answer != correct[-1].result
        and mistaken.computations[:first] == tuple(correct[:first])
        and all(
            label or computation.key() not in right
            for computation, label in zip(mistaken.computations, mistaken.labels, strict=False)
        )
    )


def _shuffled(rng: random.Random, items: Sequence[int]) -> list[int]:
    order = list(items)
    rng.shuffle(order)
    return order


# ------------------------------------------------------------------------- proposals: mistakes of a kind, in any order


def _off_by_one(rng: random.Random, ops: Sequence[Op], correct: Sequence[Computation]) -> Iterator[_Mistake]:
    for i in _shuffled(rng, range(len(ops))):
        for slip in _shuffled(rng, (-1, 1)):
            yield _Mistake(ops, frozenset({i}), slips={i: correct[i].result + slip})


def _wrong_carry(rng: random.Random, ops: Sequence[Op], correct: Sequence[Computation]) -> Iterator[_Mistake]:
    for i in _shuffled(rng, range(len(ops))):
        a, symbol, b, result = correct[i]
        units = {"+": a % 10 + b % 10, "-": a % 10 - b % 10, "*": (a % 10) * (b % 10), "/": 0}[symbol]
        # units // 10 is the carry, -1 for a borrow. Products of single digits are known by heart: nothing is carried.
        if units // 10 and not (symbol == "*" and max(a, b) < 10):
            yield _Mistake(ops, frozenset({i}), slips={i: result - units // 10 * 10})


def _wrong_operation(rng: random.Random, ops: Sequence[Op], correct: Sequence[Computation]) -> Iterator[_Mistake]:
    confused = {"+": "-*", "-": "+", "*": "+/", "/": "-*"}
    for i in _shuffled(rng, range(len(ops))):
        for symbol in confused[ops[i].symbol]:
            changed = [*ops[:i], Op(symbol, ops[i].left, ops[i].right), *ops[i + 1 :]]
            yield _Mistake(changed, frozenset({i}))


def _dropped_step(rng: random.Random, ops: Sequence[Op], correct: Sequence[Computation]) -> Iterator[_Mistake]:
    for i in _shuffled(rng, range(len(ops))):
        before = _before(ops[i])
        users = [j for j, op in enumerate(ops) if i in (*refs(op.left), *refs(op.right))]
        kept = [
            Op(op.symbol, _without(op.left, i, before), _without(op.right, i, before))
            for j, op in enumerate(ops)
            if j != i
        ]
        if users:
            wrong = [j - 1 for j in users]
            yield _Mistake(kept, frozenset(wrong), blamed=frozenset(wrong[:1]))
        elif i == len(ops) - 1:
            yield _Mistake(kept, frozenset({len(kept)}), final=before)


def _swapped_steps(rng: random.Random, ops: Sequence[Op], correct: Sequence[Computation]) -> Iterator[_Mistake]:
    for i in _shuffled(rng, range(len(ops) - 1)):
        first, second = ops[i], ops[i + 1]
        before = _before(first)
        if (second.left == Ref(i)) != (second.right == Ref(i)):
            early = Op(
                second.symbol,
                before if second.left == Ref(i) else second.left,
                before if second.right == Ref(i) else second.right,
            )
            late = (
                Op(first.symbol, Ref(i), first.right) if first.left == before else Op(first.symbol, first.left, Ref(i))
            )
            yield _Mistake([*ops[:i], early, late, *ops[i + 2 :]], frozenset({i, i + 1}))


def _wrong_conclusion(rng: random.Random, ops: Sequence[Op], correct: Sequence[Computation]) -> Iterator[_Mistake]:
    answer = correct[-1].result
    # An earlier result is given as the answer; or a slip of the pen.
    earlier = [c.result for c in correct[:-1]]
    slips = [_misread(answer, way) for way in range(3)]
    for wrong in (*_shuffled(rng, earlier), *slips) if rng.randrange(2) else (*_shuffled(rng, slips), *earlier):
        yield _Mistake(ops, frozenset({len(ops)}), answer=wrong)


def _carried_error(rng: random.Random, ops: Sequence[Op], correct: Sequence[Computation]) -> Iterator[_Mistake]:
    for i in _shuffled(rng, range((len(ops) + 1) // 2)):
        op = ops[i]
        for way in _shuffled(rng, range(3)):
            if isinstance(op.left, int):
                changed = Op(op.symbol, _misread(op.left, way), op.right)
            elif isinstance(op.right, int):
                changed = Op(op.symbol, op.left, _misread(op.right, way))
            else:
                continue
            # With a later operation that uses it, at least two steps carry the error: that one and the answer.
            if any(i in (*refs(later.left), *refs(later.right)) for later in ops[i + 1 :]):
                yield _Mistake([*ops[:i], changed, *ops[i + 1 :]], frozenset({i}))


def _before(op: Op) -> Operand:
    """Return the operand that is there before the operation: an earlier result if there is one, else the left one."""
    return op.right if isinstance(op.left, int) and not isinstance(op.right, int) else op.left


def _without(operand: Operand, dropped: int, before: Operand) -> Operand:
    """Rewrite an operand for a program without one operation, taking what was there before for its result."""
    if isinstance(operand, Extreme):
        parts = tuple(_without(part, dropped, before) for part in operand.of)
        return Extreme(operand.largest, tuple(part for part in parts if not isinstance(part, Extreme)))
    if not isinstance(operand, Ref) or operand.index < dropped:
        return operand
    return before if operand.index == dropped else Ref(operand.index - 1)


def _misread(number: int, way: int) -> int:
    """Misread a number in one of three ways: its last two digits exchanged, or 10 more, or (if it is small) 1 more."""
    last, next_to_last = number % 10, number // 10 % 10
    if way == 0 and last and next_to_last and last != next_to_last:
        return number - next_to_last * 10 - last + last * 10 + next_to_last
    return number + 10 if way == 1 and number > 9 else number + 1


_PROPOSALS: dict[str, _Proposals] = {
    OFF_BY_ONE: _off_by_one,
    WRONG_CARRY: _wrong_carry,
    WRONG_OPERATION: _wrong_operation,
    DROPPED_STEP: _dropped_step,
    SWAPPED_STEPS: _swapped_steps,
    WRONG_CONCLUSION: _wrong_conclusion,
    CARRIED_ERROR: _carried_error,
}
CORRUPTIONS = tuple(_PROPOSALS)
