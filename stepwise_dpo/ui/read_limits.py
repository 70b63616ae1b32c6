"""How much of one example the server's own process reads: whatever is longer is refused, and nothing is cut.

Memory grows with the square of a text's length, so without a limit a single request could have the server killed, and
everybody's runs with it. A run has limits of its own (`runs.limits`), and the command line reads what memory holds.
"""

from collections.abc import Sequence

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.faults import MAX_CHARACTERS

MAX_TOKENS = 2_048
"""Of a prompt and one side's steps together: less than 1 GiB of memory with the bundled models."""


def check_characters(what: str, prompt: str, steps: Sequence[str] = ()) -> None:
    """Refuse what is too long even to be tokenised.

    Args:
        what: the beginning of the message, up to the number, as in "prompt 3 has".
        prompt: the problem.
        steps: that answer it.

    Raises:
        DataError: they have more than MAX_CHARACTERS characters together.
    """
    count = len(prompt) + sum(map(len, steps))
    if count > MAX_CHARACTERS:
        raise DataError(_too_long(what, count, MAX_CHARACTERS, "characters"))


def check_tokens(what: str, count: int) -> None:
    """Refuse what takes too much memory.

    Args:
        what: the beginning of the message, up to the number, as in "prompt 3 has".
        count: tokens of everything that a model reads of it at once.

    Raises:
        DataError: they are more than MAX_TOKENS.
    """
    if count > MAX_TOKENS:
        raise DataError(_too_long(what, count, MAX_TOKENS, "tokens"))


def _too_long(what: str, count: int, limit: int, unit: str) -> str:
    return (
        f"{what} {count:,} {unit}, and the page and its API read at most {limit:,}; shorten it, or use the command "
        "line, which reads longer ones"
    )
