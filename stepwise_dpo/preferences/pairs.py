"""What a preference example is: a prompt with a chosen and a rejected list of steps, and its JSON form.

Native row       {"prompt": str, "chosen": [str | {"text": str, "label"?: bool | null}], "rejected": [...],
                  "id"?: str, "meta"?: object}
Historic row     the same with "chosen" and "rejected" as one string each; `split_steps` makes the steps.
File             a JSON list of rows, or one row per line when the name ends in .jsonl; UTF-8.

What dump_pairs writes, parse_pairs reads back equal; a pair without an id is the one exception: reading numbers it.
Foreign formats are not known here.
"""

import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.checks import checked, count_faults, id_faults, label_faults, meta_faults, text_faults
from stepwise_dpo.preferences.faults import RowFaults, refuse, seen, short
from stepwise_dpo.preferences.row_models import PairRow, StepRow
from stepwise_dpo.preferences.rows import MAX_BYTES, Rows, check_row_count, parse_rows, read_rows, refuse_null_byte

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

_NEEDED = ("prompt", "chosen", "rejected")

_Made = TypeVar("_Made")


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
        refuse(text_faults(self.text, "text") + label_faults(self.label, "label"))


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
        faults = text_faults(prompt, "prompt")
        for name, value in (("chosen", chosen), ("rejected", rejected)):
            if isinstance(value, str) or not isinstance(value, Iterable):
                faults.append(f"{name} must be a sequence of Step, not {seen(value)}")
                continue
            steps = tuple(value)
            wrong = [i for i, step in enumerate(steps) if not isinstance(step, Step)]
            faults += count_faults(steps, name) + [f"{name}[{i}] must be a Step, not {seen(steps[i])}" for i in wrong]
            object.__setattr__(self, name, steps)
        meta = {} if meta is None else dict(meta) if isinstance(meta, Mapping) else meta
        refuse(faults + id_faults(id) + meta_faults(meta))
        object.__setattr__(self, "prompt", prompt)
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "meta", meta)

    @property
    def name(self) -> str:
        """How messages call this pair: by its id, or by the beginning of its prompt where it has none."""
        return self.id or self.prompt[:80]

    def problems(self) -> list[str]:
        """Say what is odd about this pair without being an error, in sentences for people (steps counted from 1)."""
        return [remark.words for remark in remarks(self)]


class Remark(NamedTuple):
    """Something odd about a pair, and where.

    Attributes:
        side: "chosen" or "rejected"; "" for both.
        step: index from 0; None where no single step is meant.
        words: a sentence that is complete without its place.
    """

    side: str
    step: int | None
    words: str


def remarks(pair: PreferencePair) -> list[Remark]:
    """Find what is odd about a pair without being an error."""
    found = []
    shared = divergence(pair)
    if [s.text for s in pair.chosen] == [s.text for s in pair.rejected]:
        found.append(Remark("", None, "chosen and rejected are identical, so there is nothing to prefer"))
    elif shared == min(len(pair.chosen), len(pair.rejected)):
        shorter = "rejected" if len(pair.rejected) == shared else "chosen"
        words = f"{shorter} is only the beginning of the other side (its first {shared} steps)"
        found.append(Remark(shorter, None, words))
    found += [
        Remark("chosen", i, f"chosen step {i + 1} is labelled wrong")
        for i, step in enumerate(pair.chosen)
        if step.label is False
    ]
    if all(s.label for s in pair.rejected):
        words = "every rejected step is labelled right, so the labels don't say what is wrong with it"
        found.append(Remark("rejected", None, words))
    for i in range(shared):
        if {pair.chosen[i].label, pair.rejected[i].label} == {True, False}:
            words = f"step {i + 1}, the same on both sides, is labelled right on one and wrong on the other"
            found.append(Remark("", i, words))
    return found


def first_error(steps: Sequence[Step]) -> int | None:
    """Index (from 0) of the first step labelled wrong; None where no step is."""
    return next((i for i, step in enumerate(steps) if step.label is False), None)


def divergence(pair: PreferencePair) -> int:
    """Index (from 0) of the first step whose text differs; the shorter side's length if the other continues it."""
    sides = zip(pair.chosen, pair.rejected, strict=False)
    differing = (i for i, (a, b) in enumerate(sides) if a.text != b.text)
    return next(differing, min(len(pair.chosen), len(pair.rejected)))


def parse_pairs(data: bytes | str, source: str) -> list[PreferencePair]:
    """Read pairs from the text of a file.

    Args:
        data: at most MAX_BYTES of UTF-8, with or without a byte order mark; 1 to MAX_PAIRS rows.
        source: the file's name: it starts each message, and .jsonl at its end means one row per line.

    Returns:
        The pairs in file order. A row without an id gets its number (from 1; in JSON Lines the line's number).

    Raises:
        DataError: up to MAX_REPORTED different problems by rows and field, the first on the message's first line.
    """
    return _pairs(parse_rows(data, source), source)


def load_pairs(path: str | os.PathLike[str]) -> list[PreferencePair]:
    """Read a .json or .jsonl file of pairs; see parse_pairs.

    Raises:
        DataError: the file can't be read (missing, a folder, no permission, too large) or its content isn't usable.
    """
    return _pairs(read_rows(path), os.fspath(path))


def dump_pairs(pairs: Sequence[PreferencePair]) -> str:
    """Write pairs as a JSON list in the native format, a line per step; a missing label, id or meta is left out.

    Raises:
        DataError: two pairs have the same id, there are none or too many, or the text is larger than MAX_BYTES, so
            that it couldn't be read back.
    """
    check_row_count(len(pairs), "the pairs")
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


def dump_lines(pairs: Iterable[PreferencePair]) -> str:
    """Write pairs as JSON Lines in the native format, a line per pair; nothing is checked."""
    return "".join(_compact(_record(pair)) + "\n" for pair in pairs)


def save_pairs(pairs: Sequence[PreferencePair], path: str | os.PathLike[str]) -> None:
    """Write pairs to a file that is replaced at once, as JSON Lines if its name ends in .jsonl, else as dump_pairs.

    Raises:
        DataError: as dump_pairs, or the file can't be written; an earlier file is then untouched.
    """
    refuse_null_byte(path)
    target = Path(path)
    text = dump_pairs(pairs)
    if target.suffix.lower() == ".jsonl":
        text = dump_lines(pairs)
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


def _pairs(rows: Rows, source: str) -> list[PreferencePair]:
    unit, numbered = rows
    pairs: list[PreferencePair] = []
    faults = RowFaults(unit)
    for number, row in numbered:
        found = pair_row(row)
        if isinstance(found, PairRow):
            pairs.append(pair_of_row(found, number))
            continue
        faults.add(number, found)
        if faults.enough:
            break
    faults.refuse(source)
    _check_ids([(number, pair.id) for (number, _), pair in zip(numbered, pairs, strict=True)], source, unit)
    return pairs


def pair_of_row(row: PairRow, number: int) -> PreferencePair:
    """Build the pair of a validated row; without an id it gets the number as one."""
    return _unchecked(
        PreferencePair,
        prompt=row.prompt,
        chosen=_steps(row.chosen),
        rejected=_steps(row.rejected),
        id=row.id or str(number),
        meta=dict(row.meta or {}),
    )


def _steps(side: Sequence[str | StepRow]) -> tuple[Step, ...]:
    return tuple(
        _unchecked(Step, text=step, label=None)
        if isinstance(step, str)
        else _unchecked(Step, text=step.text, label=step.label)
        for step in side
    )


def _unchecked(kind: type[_Made], **fields: object) -> _Made:
    """Make a frozen dataclass of fields that its model has validated, without validating them once more."""
    made = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def _check_ids(ids: list[tuple[int, str]], source: str, unit: str) -> None:
    first: dict[str, int] = {}
    faults = []
    for number, id_ in ids:
        if id_ in first:
            faults.append(f"{unit} {number}: id {seen(id_)} must be unique, but {unit} {first[id_]} has it too")
        first.setdefault(id_, number)
    refuse(faults, source)


def is_stepwise(row: object) -> bool:
    """Whether a row is meant as TRL's stepwise supervision rather than as a pair."""
    return (
        isinstance(row, dict) and ("completions" in row or "labels" in row) and not {"chosen", "rejected"} & row.keys()
    )


def pair_row(row: Any) -> PairRow | list[str]:
    """Validate a native or historic row, which may be anything that JSON holds.

    Returns:
        The row as its model, or what is wrong with it by field.
    """
    needed = ", ".join(_NEEDED)
    if not isinstance(row, dict):
        return [f"must be an object with {needed}, not {seen(row)}"]
    if is_stepwise(row):
        return [
            "is TRL's stepwise supervision (completions with labels), which only models train-reward reads; a pair has "
            f"{needed}"
        ]
    if not any(key in row for key in _NEEDED):
        keys = ", ".join(short(key) for key in list(row)[:5]) or "nothing"
        return [f"must have {needed}, and has {keys}"]
    return checked(PairRow, row)


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
