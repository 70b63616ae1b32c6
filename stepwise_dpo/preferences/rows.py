"""Files of rows: a JSON list, or JSON Lines. What a row means is not known here."""

import io
import json
import os
import stat
from collections import Counter
from typing import Any, NamedTuple

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.bad_bytes import place_of
from stepwise_dpo.preferences.faults import seen, short

MAX_BYTES = 64 * 2**20
MAX_PAIRS = 100_000


class Rows(NamedTuple):
    """Rows with their numbers from 1 (in JSON Lines the line's), and what one is called: "row" or "line"."""

    unit: str
    numbered: list[tuple[int, Any]]


def read_rows(path: str | os.PathLike[str]) -> Rows:
    """Read a .json or .jsonl file.

    Raises:
        DataError: the file can't be read (missing, a folder, no permission, too large), or as parse_rows.
    """
    refuse_null_byte(path)
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise DataError(f"{path}: is a folder; expected a .json or .jsonl file")
        # Opening a pipe would wait for ever for someone to write to it.
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: is not a regular file; expected a .json or .jsonl file")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)  # one more than allowed is enough to refuse a larger file
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from error
    return parse_rows(data, os.fspath(path))


def parse_rows(data: bytes | str, source: str) -> Rows:
    """Parse the text of a file.

    Args:
        data: at most MAX_BYTES of UTF-8, with or without a byte order mark; 1 to MAX_PAIRS rows.
        source: the file's name: it starts each message, and .jsonl at its end means one row per line.

    Raises:
        DataError: too large, not UTF-8 (with row and field where they can be known), not JSON (with the line), no list,
            or no rows or too many.
    """
    text = _decoded(data, source)
    if _is_lines(source):
        # StringIO, because splitlines would also split at U+2028, which JSON allows within a string.
        lines = [(i, line.strip()) for i, line in enumerate(io.StringIO(text, newline="\n"), 1) if line.strip()]
        check_row_count(len(lines), source)
        return Rows("line", [(i, parse_json(line, f"{source}: line {i}")) for i, line in lines])
    if not text.strip():
        raise DataError(f"{source}: the file is empty; expected a JSON list of rows")
    rows = parse_json(text, source)
    if not isinstance(rows, list):
        raise DataError(f"{source}: expected a JSON list of rows, not {seen(rows)}")
    check_row_count(len(rows), source)
    return Rows("row", list(enumerate(rows, 1)))


def _is_lines(source: str) -> bool:
    return source.lower().endswith(".jsonl")


def _decoded(data: bytes | str, source: str) -> str:
    if len(data) > MAX_BYTES:
        raise DataError(f"{source}: is larger than {MAX_BYTES // 2**20} MiB")
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        place = place_of(data, error.start, _is_lines(source), first_digits)
        byte = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        if place.row is None or _is_lines(source):
            where = f"line {place.line}"
        else:
            where, byte = f"row {place.row}", f"{byte}, line {place.line}"
        what = f"{place.field} is" if place.field else "is"
        raise DataError(f"{source}: {where}: {what} not UTF-8 text ({byte})") from error


def first_digits(digits: str) -> int:
    """Read an integer's first 26 digits.

    Beyond 64 bits an integer is refused later, with its place. Its first digits are enough for that, and converting all
    of them would take quadratic time.
    """
    return int(digits[:26])


def parse_json(text: str, where: str, **hooks: Any) -> Any:
    """Parse JSON into Object, list and scalars.

    Python's own parser, not a faster and stricter one: only it shows repeated keys, and because it lets NaN, 1e999 and
    lone surrogates through, whoever checks a row can name the field that holds them.

    Args:
        text: of the file, or of a line.
        where: it stands, at the start of each message.
        hooks: of `json.loads`, which read numbers; by default `first_digits` reads integers.

    Raises:
        DataError: it isn't JSON, or nested deeper than Python reads.
    """
    try:
        return json.loads(text, object_pairs_hook=Object, **{"parse_int": first_digits, **hooks})
    except json.JSONDecodeError as error:
        hint = ""
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            hint = "; if it has one row per line, its name must end in .jsonl"
        line = f"line {error.lineno} " if "\n" in text else ""
        raise DataError(f"{where}: is not JSON: {error.msg} at {line}column {error.colno}{hint}") from error
    except RecursionError:
        raise DataError(f"{where}: is nested too deeply") from None


class Object(dict[str, Any]):
    """A JSON object that remembers which of its keys were given twice.

    Attributes:
        repeated: those keys.
    """

    repeated: tuple[str, ...] = ()  # of the class, since a file has a million objects without

    def __init__(self, items: list[tuple[str, Any]]) -> None:
        super().__init__(items)
        if len(self) < len(items):
            self.repeated = tuple(key for key, count in Counter(key for key, _ in items).items() if count > 1)


def check_row_count(count: int, source: str) -> None:
    """Refuse no rows, and too many.

    Raises:
        DataError: not 1 to MAX_PAIRS.
    """
    if not 1 <= count <= MAX_PAIRS:
        raise DataError(f"{source}: has {count:,} rows; expected 1 to {MAX_PAIRS:,}")


def refuse_null_byte(path: str | os.PathLike[str]) -> None:
    """Refuse the one bad path that Python reports as a bare ValueError.

    Raises:
        DataError: the path holds a null byte.
    """
    if "\0" in os.fspath(path):
        raise DataError(f"{short(os.fspath(path))}: a path can't contain a null byte")
