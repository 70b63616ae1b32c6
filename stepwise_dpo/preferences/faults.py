"""What is checked of everything that enters as data, and how its faults are said: by field, with what stood there.

By hand, and not by pydantic models as settings and arguments of the API are: each of a model's errors would have to be
found again and said in these words, and a model sees neither a key that is given twice nor which character is no text.
"""

import difflib
import json
import math
from collections.abc import Sequence
from typing import Any

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

    def add(self, number: int, faults: list[str]) -> None:
        """Note the faults of one row; numbers rise from call to call."""
        self._faulty += bool(faults)
        for fault in dict.fromkeys(faults):
            self._rows.setdefault(fault, []).append(number)

    @property
    def enough(self) -> bool:
        """Whether looking at further rows would tell little more."""
        return len(self._rows) >= MAX_REPORTED or self._faulty >= MAX_FAULTY_ROWS

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


def key_faults(row: dict[str, Any], known: tuple[str, ...], required: int, path: str) -> list[str]:
    """Say which keys of an object are unknown, missing (of the first `required` known ones) or given twice."""
    faults = []
    unknown = [key for key in row if key not in known]
    for key in unknown[:MAX_REPORTED]:
        near = difflib.get_close_matches(key.lower()[:50], [k for k in known if k not in row], 1)
        advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        faults.append(f"{path}{short(key)}: unknown key; {advice}")
    faults += [f"{path}{key} is missing" for key in known[:required] if key not in row]
    faults += [f"{path}{short(key)} is given twice" for key in getattr(row, "repeated", ())]
    return faults


def text_faults(value: object, path: str) -> list[str]:
    """Say what is wrong with a prompt's or a step's text."""
    if not isinstance(value, str) or not value.strip():
        return [f"{path} must be a non-blank string, not {seen(value)}"]
    if len(value) > MAX_CHARACTERS:
        return [f"{path} must have at most {MAX_CHARACTERS:,} characters, not {len(value):,}: {seen(value)}"]
    return unicode_faults(value, path)


def label_faults(value: object, path: str) -> list[str]:
    """Say what is wrong with a step's label."""
    if value is None or isinstance(value, bool):
        return []
    return [f"{path} must be true, false or null, not {seen(value)}"]


def count_faults(steps: Sequence[object], path: str) -> list[str]:
    """Say whether a side has too few or too many steps."""
    if 1 <= len(steps) <= MAX_STEPS:
        return []
    return [f"{path} must have 1 to {MAX_STEPS:,} steps, not {len(steps):,}"]


def id_faults(value: object) -> list[str]:
    """Say what is wrong with a pair's id."""
    if not isinstance(value, str) or len(value) > MAX_ID_CHARACTERS:
        return [f"id must be a string of at most {MAX_ID_CHARACTERS} characters, not {seen(value)}"]
    return unicode_faults(value, "id")


def meta_faults(meta: object) -> list[str]:
    """Say what is wrong with a pair's meta, at every depth of it."""
    if not isinstance(meta, dict):
        return [f"meta must be an object, not {seen(meta)}"]
    faults = []
    visited = 0
    waiting: list[tuple[object, str, int]] = [(meta, "meta", 0)]
    while waiting:
        value, path, depth = waiting.pop()
        visited += 1
        faults += _value_faults(value, path)
        if isinstance(value, (dict, list)):
            if depth == MAX_META_DEPTH:
                return [*faults, f"meta must be nested at most {MAX_META_DEPTH} levels deep"]
            if visited + len(waiting) + len(value) > MAX_META_VALUES:
                return [*faults, f"meta must hold at most {MAX_META_VALUES:,} values"]
            parts = (
                [(item, f"{path}[{i}]") for i, item in enumerate(value)]
                if isinstance(value, list)
                else [(item, f"{path}.{short(str(key))}") for key, item in value.items()]
            )
            waiting += [(item, place, depth + 1) for item, place in reversed(parts)]
    return faults


def _value_faults(value: object, path: str) -> list[str]:
    """Check one value of meta, without what it contains."""
    if isinstance(value, str):
        return unicode_faults(value, path)
    if isinstance(value, float):
        return [] if math.isfinite(value) else [f"{path} must be a finite number, not {value}"]
    if isinstance(value, int):
        # What 64 bits hold is what the JSON readers downstream agree on.
        fits = -(2**63) <= value < 2**64
        return [] if fits else [f"{path} must be an integer within 64 bits, not {seen(value)}"]
    if isinstance(value, dict):
        faults = [f"{path}.{short(key)} is given twice" for key in getattr(value, "repeated", ())]
        for key in value:
            if not isinstance(key, str):
                faults.append(f"{path} must have strings as keys, not {seen(key)}")
            else:
                faults += unicode_faults(key, f"a key of {path}")
        return faults
    return [] if value is None or isinstance(value, list) else [f"{path} must be JSON, not {seen(value)}"]


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
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
