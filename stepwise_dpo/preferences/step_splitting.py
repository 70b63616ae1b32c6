"""How a solution given as one text becomes steps. The only place where text is split."""

import re
from collections.abc import Iterable

from stepwise_dpo.errors import DataError

_STEP_MARKER = re.compile(r"(?<!\S)(?=Step \d+\s*:)", re.IGNORECASE)


def split_steps(text: str, separator: str = "\n") -> list[str]:
    """Split a solution given as one string into its non-blank steps, stripped.

    White space around the separator doesn't matter. Text without the separator splits before "Step 1:", "Step 2:"
    markers (which stay in the steps); failing that it is one step.

    Raises:
        DataError: the separator is empty.
    """
    if not separator:
        raise DataError("separator must not be empty")
    pieces = _non_blank(text.split(separator.strip() or separator))
    return pieces if len(pieces) > 1 else _non_blank(p for piece in pieces for p in _STEP_MARKER.split(piece))


def _non_blank(pieces: Iterable[str]) -> list[str]:
    return [piece.strip() for piece in pieces if piece.strip()]
