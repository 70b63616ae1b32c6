"""Where the first byte stands that is no UTF-8: the row and the field of it, for the message that refuses the file."""

import json
import re
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

from stepwise_dpo.preferences.faults import short

_SPACE = re.compile(r"[ \t\r\n]*")


class Place(NamedTuple):
    """Of a byte in a file of rows.

    Attributes:
        line: of the file, from 1.
        row: from 1, in JSON Lines the line; None where the text before the byte doesn't tell.
        field: as messages call it, like "chosen[0].text"; "" where the byte is in none, or the row isn't JSON.
    """

    line: int
    row: int | None
    field: str


def place_of(data: bytes, at: int, is_lines: bool, parse_int: Callable[[str], int]) -> Place:
    """Find the row and the field that a byte belongs to.

    Args:
        data: a file's bytes, UTF-8 up to the byte.
        at: the byte's offset.
        is_lines: whether the file has one row per line, else it is a JSON list.
        parse_int: reads an integer of any length in no time.
    """
    line = data.count(b"\n", 0, at) + 1
    before = data[:at].decode("utf-8").removeprefix("\ufeff")
    # No JSON begins like this, so it is found in a string or ends the parsing.
    mark = "\ufffd" + secrets.token_hex(16)
    after = mark + data[at:].decode("utf-8", "replace")
    decoder = json.JSONDecoder(object_pairs_hook=_Members, parse_int=parse_int)
    if is_lines:
        start = before.rfind("\n") + 1
        text = before[start:] + after[: after.find("\n")] if "\n" in after else before[start:] + after
        found = _row_at(decoder, text, _skip(text, 0), len(before) - start)
        return Place(line, line, _field_with(mark, found[0]) if found else "")
    text = before + after
    position, number = _skip(text, 0), 0
    if text[position] != "[":
        return Place(line, None, "")
    while text[position] == ("," if number else "["):
        number, position = number + 1, _skip(text, position + 1)
        found = _row_at(decoder, text, position, len(before))
        if found is None:
            break
        row, end = found
        if end > len(before):
            return Place(line, number, _field_with(mark, row))
        position = _skip(text, end)
    return Place(line, None, "")


class _Members(list[tuple[str, Any]]):
    """An object's keys and values as they stand there, also those that are given twice."""


def _skip(text: str, position: int) -> int:
    """Go on behind white space; there always is something, the mark at the latest."""
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _row_at(decoder: json.JSONDecoder, text: str, position: int, at: int) -> tuple[Any, int] | None:
    """Parse the row that begins at a position, and say where it ends; None where no row does, or a broken one.

    A row that the byte itself breaks is given without its content.
    """
    try:
        return decoder.raw_decode(text, position)
    except json.JSONDecodeError as error:
        # A string without an end is reported where it begins, and goes on beyond the byte.
        is_here = at <= error.pos or error.msg.startswith("Unterminated string")
        return (None, len(text)) if position < at and is_here else None
    except RecursionError:
        return None


def _field_with(mark: str, row: Any) -> str:
    """Name the field whose text, or one of whose keys, holds the mark."""
    waiting = [(row, "")]
    while waiting:
        value, path = waiting.pop()
        if isinstance(value, str) and mark in value:
            return path
        if isinstance(value, _Members):
            if any(mark in key for key, _ in value):
                return f"a key of {path}" if path else "a key"
            waiting += [(item, f"{path}.{short(key)}" if path else short(key)) for key, item in value]
        elif isinstance(value, list):
            waiting += [(item, f"{path}[{i}]") for i, item in enumerate(value)]
    return ""
