"""The arithmetic behind a generated problem: operations on its numbers and on the results of earlier operations."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, TypeAlias


@dataclass(frozen=True, slots=True)
class Ref:
    """The result of an earlier operation, by its index (from 0)."""

    index: int


@dataclass(frozen=True, slots=True)
class Extreme:
    """The largest or the smallest of several values."""

    largest: bool
    of: tuple[int | Ref, ...]


Operand: TypeAlias = int | Ref | Extreme


@dataclass(frozen=True, slots=True)
class Op:
    """One operation that the problem demands; `symbol` is + - * or /, and / only where it leaves no remainder."""

    symbol: str
    left: Operand
    right: Operand


class Computation(NamedTuple):
    """An operation as written down, right or wrong."""

    left: int
    symbol: str
    right: int
    result: int

    def __str__(self) -> str:
        """Spell it as a step: 15 + 13 = 28."""
        return f"{self.left} {self.symbol} {self.right} = {self.result}"

    def key(self) -> tuple[str, int, int, int]:
        """Return what stays the same when the operands of + or * change places."""
        a, b = sorted((self.left, self.right)) if self.symbol in "+*" else (self.left, self.right)
        return self.symbol, a, b, self.result


def refs(operand: Operand) -> Iterator[int]:
    """Yield the indices of the operations whose results the operand needs."""
    for part in operand.of if isinstance(operand, Extreme) else (operand,):
        if isinstance(part, Ref):
            yield part.index


def value(operand: Operand, results: Sequence[int]) -> int:
    """Value of an operand, given the results of the earlier operations."""
    if isinstance(operand, Extreme):
        values = [value(part, results) for part in operand.of]
        return max(values) if operand.largest else min(values)
    return results[operand.index] if isinstance(operand, Ref) else operand


def run(ops: Sequence[Op], limit: int, slips: Mapping[int, int] = MappingProxyType({})) -> list[Computation] | None:
    """Carry out the operations in order.

    Args:
        ops: refer to earlier ones only.
        limit: the largest result allowed; the smallest is 1.
        slips: wrong results by operation index; later operations go on with them.

    Returns:
        One computation per operation; None if a result is out of range or a division leaves a remainder.
    """
    written: list[Computation] = []
    results: list[int] = []
    for i, op in enumerate(ops):
        a, b = value(op.left, results), value(op.right, results)
        if op.symbol == "/" and a % b:
            return None
        right = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[op.symbol]
        results.append(slips.get(i, right))
        written.append(Computation(a, op.symbol, b, results[-1]))
        if not 1 <= results[-1] <= limit:
            return None
    return written
