"""What a preference example is: a prompt with a chosen and a rejected list of steps, and its JSON form.

Native row       {"prompt": str, "chosen": [str | {"text": str, "label"?: bool | null}], "rejected": [...],
                  "id"?: str, "meta"?: object}
Historic row     the same with "chosen" and "rejected" as one string each; `split_steps` makes the steps.
File             a JSON list of rows, or one row per line when the name ends in .jsonl; UTF-8.

What dump_pairs writes, parse_pairs reads back equal; a pair without an id is the one exception: reading numbers it.
Foreign formats are not known here.
"""

import difflib
import io
import json
import math
import os
import re
import secrets
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from stepwise_dpo.errors import DataError

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

MAX_BYTES = 64 * 2**20
MAX_PAIRS = 100_000
MAX_STEPS = 1_000  # per side
MAX_CHARACTERS = 100_000  # per prompt or step
MAX_ID_CHARACTERS = 200
MAX_META_DEPTH = 20
MAX_META_VALUES = 10_000
MAX_REPORTED = 10  # problems that one error message lists

_PAIR_KEYS = ("prompt", "chosen", "rejected", "id", "meta")
_STEP_KEYS = ("text", "label")
_STEP_MARKER = re.compile(r"(?<!\S)(?=Step \d+\s*:)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Step:
    """One reasoning step: non-blank text and, where known, whether it is right (True) or wrong (False).

    Raises:
        DataError: the text is blank, longer than MAX_CHARACTERS or not valid Unicode; the label is neither bool nor
            None (0 and 1 are refused: in the field's data sets they mean different things).
    """

    text: str
    label: bool | None = None

    def __post_init__(self) -> None:
        """Check both fields."""
        _refuse(_text_faults(self.text, "text") + _label_faults(self.label, "label"))


@dataclass(frozen=True, slots=True, init=False)
class PreferencePair:
    """A prompt with the steps of a chosen and of a rejected solution (1 to MAX_STEPS each).

    `id` is "" where none was given; `meta` is free JSON for whoever made the pair, with finite numbers only.

    Raises:
        DataError: a field is empty, of another type or out of its limits.
    """

    prompt: str
    chosen: tuple[Step, ...]
    rejected: tuple[Step, ...]
    id: str = ""
    meta: dict[str, JSON] = field(default_factory=dict, hash=False)

    def __init__(
        self,
        prompt: str,
        chosen: Iterable[Step],
        rejected: Iterable[Step],
        id: str = "",
        meta: Mapping[str, JSON] | None = None,
    ) -> None:
        faults = _text_faults(prompt, "prompt")
        for name, value in (("chosen", chosen), ("rejected", rejected)):
            if isinstance(value, str) or not isinstance(value, Iterable):
                faults.append(f"{name} must be a sequence of Step, not {_seen(value)}")
                continue
            steps = tuple(value)
            wrong = [i for i, step in enumerate(steps) if not isinstance(step, Step)]
            faults += _count_faults(steps, name) + [f"{name}[{i}] must be a Step, not {_seen(steps[i])}" for i in wrong]
            object.__setattr__(self, name, steps)
        meta = {} if meta is None else dict(meta) if isinstance(meta, Mapping) else meta
        _refuse(faults + _id_faults(id) + _meta_faults(meta))
        object.__setattr__(self, "prompt", prompt)
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "meta", meta)

    def problems(self) -> list[str]:
        """Say what is odd about this pair without being an error, in sentences for people (steps counted from 1)."""
        found = []
        shared = divergence(self)
        if [s.text for s in self.chosen] == [s.text for s in self.rejected]:
            found.append("chosen and rejected are identical, so there is nothing to prefer")
        elif shared == min(len(self.chosen), len(self.rejected)):
            shorter = "rejected" if len(self.rejected) == shared else "chosen"
            found.append(f"{shorter} is only the beginning of the other side (its first {shared} steps)")
        found += [f"chosen step {i} is labelled wrong" for i, s in enumerate(self.chosen, 1) if s.label is False]
        if all(s.label for s in self.rejected):
            found.append("every rejected step is labelled right, so the labels don't say what is wrong with it")
        for i in range(shared):
            if {self.chosen[i].label, self.rejected[i].label} == {True, False}:
                found.append(f"step {i + 1}, the same on both sides, is labelled right on one and wrong on the other")
        return found


def first_error(steps: Sequence[Step]) -> int | None:
    """Index (from 0) of the first step labelled wrong; None where no step is."""
    return next((i for i, step in enumerate(steps) if step.label is False), None)


def divergence(pair: PreferencePair) -> int:
    """Index (from 0) of the first step whose text differs; the shorter side's length if the other continues it."""
    sides = zip(pair.chosen, pair.rejected, strict=False)
    differing = (i for i, (a, b) in enumerate(sides) if a.text != b.text)
    return next(differing, min(len(pair.chosen), len(pair.rejected)))


def split_steps(text: str, separator: str = "\n") -> list[str]:
    """Split a solution given as one string into its non-blank steps, stripped. The only place where text is split.

    White space around the separator doesn't matter. Text without the separator splits before "Step 1:", "Step 2:"
    markers (which stay in the steps); failing that it is one step.

    Raises:
        DataError: the separator is empty.
    """
    if not separator:
        raise DataError("separator must not be empty")
    pieces = _non_blank(text.split(separator.strip() or separator))
    return pieces if len(pieces) > 1 else _non_blank(p for piece in pieces for p in _STEP_MARKER.split(piece))


def parse_pairs(data: bytes | str, source: str) -> list[PreferencePair]:
    """Read pairs from the text of a file.

    Args:
        data: at most MAX_BYTES of UTF-8, with or without a byte order mark; 1 to MAX_PAIRS rows.
        source: the file's name: it starts each message, and .jsonl at its end means one row per line.

    Returns:
        The pairs in file order. A row without an id gets its number (from 1; in JSON Lines the line's number).

    Raises:
        DataError: up to MAX_REPORTED problems by row and field, the first of them on the message's first line.
    """
    text = _decoded(data, source)
    if source.lower().endswith(".jsonl"):
        # StringIO, because splitlines would also split at U+2028, which JSON allows within a string.
        lines = [(i, line.strip()) for i, line in enumerate(io.StringIO(text, newline="\n"), 1) if line.strip()]
        _limit_rows(len(lines), source)
        numbered = [(i, _parsed(line, f"{source}: line {i}")) for i, line in lines]
        return _pairs(numbered, source, "line")
    if not text.strip():
        raise DataError(f"{source}: the file is empty; expected a JSON list of rows")
    rows = _parsed(text, source)
    if not isinstance(rows, list):
        raise DataError(f"{source}: expected a JSON list of rows, not {_seen(rows)}")
    _limit_rows(len(rows), source)
    return _pairs(list(enumerate(rows, 1)), source, "row")


def load_pairs(path: str | os.PathLike[str]) -> list[PreferencePair]:
    """Read a .json or .jsonl file of pairs; see parse_pairs.

    Raises:
        DataError: the file can't be read (missing, a folder, no permission, too large) or its content isn't usable.
    """
    _refuse_null_byte(path)
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise DataError(f"{path}: is a folder; expected a .json or .jsonl file")
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: is not a regular file")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)  # one more than allowed is enough to refuse a larger file
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from error
    return parse_pairs(data, os.fspath(path))


def dump_pairs(pairs: Sequence[PreferencePair]) -> str:
    """Write pairs as a JSON list in the native format, a line per step; a missing label, id or meta is left out.

    Raises:
        DataError: two pairs have the same id, there are none or too many, or the text is larger than MAX_BYTES, so
            that it couldn't be read back.
    """
    _limit_rows(len(pairs), "the pairs")
    _check_ids([(i, pair.id or str(i)) for i, pair in enumerate(pairs, 1)], "the pairs", "row")
    rows = []
    for pair in pairs:
        record = _record(pair)
        fields = [
            f'    "{key}": [\n' + ",\n".join(f"      {_compact(step)}" for step in value) + "\n    ]"
            if isinstance(value, list)
            else f'    "{key}": {_compact(value)}'
            for key, value in record.items()
        ]
        rows.append("  {\n" + ",\n".join(fields) + "\n  }")
    text = "[\n" + ",\n".join(rows) + "\n]\n"
    if len(text.encode()) > MAX_BYTES:
        raise DataError(f"the pairs: would take more than {MAX_BYTES // 2**20} MiB")
    return text


def save_pairs(pairs: Sequence[PreferencePair], path: str | os.PathLike[str]) -> None:
    """Write pairs to a file that is replaced at once, as JSON Lines if its name ends in .jsonl, else as dump_pairs.

    Raises:
        DataError: as dump_pairs, or the file can't be written; an earlier file is then untouched.
    """
    _refuse_null_byte(path)
    target = Path(path)
    text = dump_pairs(pairs)
    if target.suffix.lower() == ".jsonl":
        text = "".join(_compact(_record(pair)) + "\n" for pair in pairs)
    # A sibling, because os.replace is atomic only within one file system; a random name, because two may save at once.
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.tmp")
    try:
        try:
            with open(temporary, "x", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{target}: can't be written: {error.strerror}") from error


# ------------------------------------------------------------------------------------------------------------ reading


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its keys were given twice."""

    def __init__(self, items: list[tuple[str, Any]]) -> None:
        super().__init__(items)
        self.repeated: list[str] = []
        if len(self) < len(items):
            self.repeated = [key for key, count in Counter(key for key, _ in items).items() if count > 1]


def _decoded(data: bytes | str, source: str) -> str:
    if len(data) > MAX_BYTES:
        raise DataError(f"{source}: is larger than {MAX_BYTES // 2**20} MiB")
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise DataError(
            f"{source}: line {line}: is not UTF-8 text (byte 0x{byte:02x} at offset {error.start})"
        ) from error


def _parsed(text: str, where: str) -> Any:
    """Parse JSON into _Object, list and scalars.

    Python's own parser, not a faster and stricter one: only it shows repeated keys, and because it lets NaN, 1e999 and
    lone surrogates through, the checks below can name the row and the field that holds them.
    """
    try:
        return json.loads(text, object_pairs_hook=_Object, parse_int=_integer)
    except json.JSONDecodeError as error:
        hint = ""
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            hint = "; if it has one row per line, its name must end in .jsonl"
        line = f"line {error.lineno} " if "\n" in text else ""
        raise DataError(f"{where}: is not JSON: {error.msg} at {line}column {error.colno}{hint}") from error
    except RecursionError:
        raise DataError(f"{where}: is nested too deeply") from None


def _integer(digits: str) -> int:
    # Beyond 64 bits an integer is refused later, with its place. Its first digits are enough for that, and converting
    # all of them would take quadratic time.
    return int(digits[:26])


def _limit_rows(count: int, source: str) -> None:
    if not 1 <= count <= MAX_PAIRS:
        raise DataError(f"{source}: has {count:,} rows; expected 1 to {MAX_PAIRS:,}")


def _pairs(rows: list[tuple[int, Any]], source: str, unit: str) -> list[PreferencePair]:
    pairs: list[PreferencePair] = []
    faults: list[str] = []
    for number, row in rows:
        found = _row_faults(row)
        faults += [f"{unit} {number}: {fault}" for fault in found]
        if len(faults) >= MAX_REPORTED:
            break
        if not found:
            pairs.append(_pair(row, number))
    _refuse(faults, source)
    _check_ids([(number, pair.id) for (number, _), pair in zip(rows, pairs, strict=True)], source, unit)
    return pairs


def _pair(row: dict[str, Any], number: int) -> PreferencePair:
    """Build the pair from a row in which _row_faults found nothing."""
    chosen, rejected = (
        [Step(item) if isinstance(item, str) else Step(item["text"], item.get("label")) for item in _items(row[side])]
        for side in ("chosen", "rejected")
    )
    return PreferencePair(row["prompt"], chosen, rejected, row.get("id") or str(number), row.get("meta"))


def _items(side: str | list[Any]) -> list[Any]:
    return list(split_steps(side)) if isinstance(side, str) else side


def _check_ids(ids: list[tuple[int, str]], source: str, unit: str) -> None:
    first: dict[str, int] = {}
    faults = []
    for number, id_ in ids:
        if id_ in first:
            faults.append(f"{unit} {number}: id {_seen(id_)} must be unique, but {unit} {first[id_]} has it too")
        first.setdefault(id_, number)
    _refuse(faults, source)


# ------------------------------------------------------------------------------------------------------------- checks


def _row_faults(row: Any) -> list[str]:
    if not isinstance(row, dict):
        return [f"must be an object with {', '.join(_PAIR_KEYS[:3])}, not {_seen(row)}"]
    faults = _key_faults(row, _PAIR_KEYS, required=3, path="")
    if "prompt" in row:
        faults += _text_faults(row["prompt"], "prompt")
    for side in ("chosen", "rejected"):
        if side in row:
            faults += _side_faults(row[side], side)
    if row.get("id") is not None:
        faults += _id_faults(row["id"])
    if row.get("meta") is not None:
        faults += _meta_faults(row["meta"])
    return faults


def _side_faults(side: Any, path: str) -> list[str]:
    if not isinstance(side, (str, list)):
        return [f"{path} must be a list of steps or a string, not {_seen(side)}"]
    items = _items(side)
    faults = _count_faults(items, path)
    for i, item in enumerate(items[:MAX_STEPS]):
        place = f"{path}[{i}]"
        if isinstance(item, dict):
            faults += _key_faults(item, _STEP_KEYS, required=1, path=f"{place}.")
            if "text" in item:
                faults += _text_faults(item["text"], f"{place}.text")
            faults += _label_faults(item.get("label"), f"{place}.label")
        elif isinstance(item, str):
            faults += _text_faults(item, place)
        else:
            faults.append(f"{place} must be a string or an object with text, not {_seen(item)}")
    return faults


def _key_faults(row: dict[str, Any], known: tuple[str, ...], required: int, path: str) -> list[str]:
    faults = []
    unknown = [key for key in row if key not in known]
    for key in unknown[:MAX_REPORTED]:
        near = difflib.get_close_matches(key.lower()[:50], [k for k in known if k not in row], 1)
        advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        faults.append(f"{path}{_short(key)}: unknown key; {advice}")
    faults += [f"{path}{key} is missing" for key in known[:required] if key not in row]
    faults += [f"{path}{_short(key)} is given twice" for key in getattr(row, "repeated", ())]
    return faults


def _text_faults(value: object, path: str) -> list[str]:
    if not isinstance(value, str) or not value.strip():
        return [f"{path} must be a non-blank string, not {_seen(value)}"]
    if len(value) > MAX_CHARACTERS:
        return [f"{path} must have at most {MAX_CHARACTERS:,} characters, not {len(value):,}: {_seen(value)}"]
    return _unicode_faults(value, path)


def _unicode_faults(value: str, path: str) -> list[str]:
    if value.isascii():
        return []
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        lone = f"\\u{ord(value[error.start]):04x}"
        return [f"{path} must be valid Unicode; it has the lone surrogate {lone} at character {error.start}"]
    return []


def _label_faults(value: object, path: str) -> list[str]:
    if value is None or isinstance(value, bool):
        return []
    return [f"{path} must be true, false or null, not {_seen(value)}"]


def _count_faults(steps: Sequence[object], path: str) -> list[str]:
    if 1 <= len(steps) <= MAX_STEPS:
        return []
    return [f"{path} must have 1 to {MAX_STEPS:,} steps, not {len(steps):,}"]


def _id_faults(value: object) -> list[str]:
    if not isinstance(value, str) or len(value) > MAX_ID_CHARACTERS:
        return [f"id must be a string of at most {MAX_ID_CHARACTERS} characters, not {_seen(value)}"]
    return _unicode_faults(value, "id")


def _meta_faults(meta: object) -> list[str]:
    if not isinstance(meta, dict):
        return [f"meta must be an object, not {_seen(meta)}"]
    faults = []
    seen = 0
    waiting: list[tuple[object, str, int]] = [(meta, "meta", 0)]
    while waiting:
        value, path, depth = waiting.pop()
        seen += 1
        faults += _value_faults(value, path)
        if isinstance(value, (dict, list)):
            if depth == MAX_META_DEPTH:
                return [*faults, f"meta must be nested at most {MAX_META_DEPTH} levels deep"]
            if seen + len(waiting) + len(value) > MAX_META_VALUES:
                return [*faults, f"meta must hold at most {MAX_META_VALUES:,} values"]
            parts = (
                [(item, f"{path}[{i}]") for i, item in enumerate(value)]
                if isinstance(value, list)
                else [(item, f"{path}.{_short(str(key))}") for key, item in value.items()]
            )
            waiting += [(item, place, depth + 1) for item, place in reversed(parts)]
    return faults


def _value_faults(value: object, path: str) -> list[str]:
    """Check one value of meta, without what it contains."""
    if isinstance(value, str):
        return _unicode_faults(value, path)
    if isinstance(value, float):
        return [] if math.isfinite(value) else [f"{path} must be a finite number, not {value}"]
    if isinstance(value, int):
        # What 64 bits hold is what the JSON readers downstream agree on.
        fits = -(2**63) <= value < 2**64
        return [] if fits else [f"{path} must be an integer within 64 bits, not {_seen(value)}"]
    if isinstance(value, dict):
        faults = [f"{path}.{_short(key)} is given twice" for key in getattr(value, "repeated", ())]
        for key in value:
            if not isinstance(key, str):
                faults.append(f"{path} must have strings as keys, not {_seen(key)}")
            else:
                faults += _unicode_faults(key, f"a key of {path}")
        return faults
    return [] if value is None or isinstance(value, list) else [f"{path} must be JSON, not {_seen(value)}"]


def _refuse(faults: list[str], source: str = "") -> None:
    if not faults:
        return
    first, *others = [f"{source}: {fault}" if source else fault for fault in faults[:MAX_REPORTED]]
    if len(faults) >= MAX_REPORTED:
        first += f" (and {MAX_REPORTED - 1} or more other problems)"
    elif others:
        first += f" (and {len(others)} other problem{'s' * (len(others) > 1)})"
    raise DataError("\n".join([first, *others]))


def _seen(value: object) -> str:
    """Say in a few words what stood there, as JSON spells it, in characters that every terminal can show."""
    if isinstance(value, str):
        return json.dumps(_short(value))
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


def _short(text: str, limit: int = 40) -> str:
    cut = text if len(text) <= limit else text[:limit] + "..."
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in cut)


def _non_blank(pieces: Iterable[str]) -> list[str]:
    return [piece.strip() for piece in pieces if piece.strip()]


# ------------------------------------------------------------------------------------------------------------ writing


def _refuse_null_byte(path: str | os.PathLike[str]) -> None:
    # The one bad path that Python reports as a bare ValueError.
    if "\0" in os.fspath(path):
        raise DataError(f"{_short(os.fspath(path))}: a path can't contain a null byte")


def _record(pair: PreferencePair) -> dict[str, JSON]:
    record: dict[str, JSON] = {"id": pair.id} if pair.id else {}
    record["prompt"] = pair.prompt
    for side, steps in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        record[side] = [{"text": s.text} if s.label is None else {"text": s.text, "label": s.label} for s in steps]
    if pair.meta:
        record["meta"] = pair.meta
    return record


def _compact(value: JSON) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
