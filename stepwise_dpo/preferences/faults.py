"""How the faults of what enters as data are said: by field, with what stood there, and the limits that they name.

The rules themselves are pydantic models, see `row_models` and `checks`.
"""

import json
from collections.abc import Sequence

from stepwise_dpo.errors import DataError

MAX_STEPS = 1_000  # per side
MAX_CHARACTERS = 100_000  # per prompt or step
MAX_ID_CHARACTERS = 200
MAX_META_DEPTH = 20
MAX_META_VALUES = 10_000
MAX_REPORTED = 10  # problems that one error message lists
MAX_FAULTY_ROWS = 1_000  # of one file; where so many are wrong, the file is of another format
_SHOWN_RANGES = 3


def refuse(faults: list[str], source: str = "") -> None:
    """Raise the faults as one error; nothing happens without any.

    Args:
        faults: each by field, without a full stop.
        source: the file's name, at the start of each line.

    Raises:
        DataError: the first fault with the number of others on its line, up to MAX_REPORTED of them on lines of theirs.
    """
    if not faults:
        return
    first, *others = [f"{source}: {fault}" if source else fault for fault in faults[:MAX_REPORTED]]
    if len(faults) >= MAX_REPORTED:
        first += f" (and {MAX_REPORTED - 1} or more other problems)"
    elif others:
        first += f" (and {len(others)} other problem{'s' * (len(others) > 1)})"
    raise DataError("\n".join([first, *others]))


class RowFaults:
    """What is wrong in a file's rows; what is wrong with many rows in the same words is one problem.

    Args:
        unit: what a row is called, "row" or "line".
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._rows: dict[str, list[int]] = {}
        self._faulty = 0
        self._worst = 0

    def add(self, number: int, faults: list[str]) -> None:
        """Note the faults of one row; numbers rise from call to call."""
        self._faulty += bool(faults)
        self._worst = max(self._worst, len(faults))
        for fault in dict.fromkeys(faults):
            self._rows.setdefault(fault, []).append(number)

    @property
    def enough(self) -> bool:
        """Whether looking at further rows would tell little more."""
        return max(len(self._rows), self._worst) >= MAX_REPORTED or self._faulty >= MAX_FAULTY_ROWS

    def refuse(self, source: str) -> None:
        """Raise the faults as one error, as `refuse`, each with the rows that it holds for.

        Raises:
            DataError: there are any.
        """
        refuse([f"{self._places(numbers)}: {fault}" for fault, numbers in self._rows.items()], source)

    def _places(self, numbers: list[int]) -> str:
        """Say "row 3", or "rows 1-10, 12 and 14-20"; beyond three such ranges, how many rows more."""
        ranges: list[list[int]] = []
        for number in numbers:
            if ranges and ranges[-1][1] == number - 1:
                ranges[-1][1] = number
            else:
                ranges.append([number, number])
        shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:_SHOWN_RANGES]]
        if more := sum(last - first + 1 for first, last in ranges[_SHOWN_RANGES:]):
            shown.append(f"{more:,} more")
        if self._faulty >= MAX_FAULTY_ROWS:
            shown.append("perhaps others")  # nobody looked
        words = " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
        return f"{self._unit}{'s' * (words != str(numbers[0]))} {words}"


def path_of(parts: Sequence[str | int]) -> str:
    """Write where a value stands in a row: "chosen[2].text"."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{short(part)}" for part in parts)
    return path.removeprefix(".")


def unicode_faults(value: str, path: str) -> list[str]:
    """Say whether a text holds half a surrogate pair, which UTF-8 can't write."""
    if value.isascii():
        return []
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        lone = f"\\u{ord(value[error.start]):04x}"
        return [f"{path} must be valid Unicode; it has the lone surrogate {lone} at character {error.start}"]
    return []


def seen(value: object) -> str:
    """Say in a few words what stood there, as JSON spells it, in characters that every terminal can show."""
    if isinstance(value, str):
        return json.dumps(short(value))
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**24 else "an integer of 25 digits or more"
    return f"a {type(value).__name__}"


def short(text: str, limit: int = 40) -> str:
    """Cut a text, and write what a terminal can't show as its code."""
    return visible(text if len(text) <= limit else text[:limit] + "...")


def visible(text: str) -> str:
    """Write what a terminal can't show, or would obey, as its code."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
