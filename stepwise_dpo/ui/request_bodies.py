"""What a request sends, read once before Gradio reads it: Gradio's parser can't say what these checks refuse.

Of a key that stands twice in an object it keeps the last value and loses the other without a word; it takes NaN for a
number, which JSON doesn't have; of a deeply nested value it only says that there was an error; and it takes as much as
somebody sends. It reads JSON whatever a request is labelled as, so all are checked but what goes to the one place that
takes files. Uploads are no JSON: their size is limited, and `data_actions.read_upload` reads what they hold.
"""

import math
from typing import Any

from gradio.route_utils import API_PREFIX
from starlette.concurrency import run_in_threadpool
from starlette.formparsers import MultiPartException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.faults import MAX_META_DEPTH, short
from stepwise_dpo.preferences.rows import MAX_BYTES, Object, parse_json

MAX_DEPTH = MAX_META_DEPTH + 12
"""Lists and objects within each other: rows in a call's arguments, with the deepest meta that they may have."""

MAX_DIGITS = 1_000
"""Of an integer: Python refuses to read some thousands, and no number that anything here takes has more than twenty."""

_QUICK_BYTES = 64 * 2**10
"""So much is checked in less than a millisecond or two; more is left to a thread, so that others are answered."""

MAX_UPLOAD = MAX_BYTES + 2**20
"""Bytes of an upload: one file and its name. Gradio limits each file, but not how many there are, nor the fields."""

UPLOAD = f"{API_PREFIX}/upload"
"""The one place that takes files; its requests are no JSON."""

_CONTAINERS = (Object, list)
_WHERE = "the request"


class CheckedBodies:
    """ASGI middleware that refuses a request whose JSON is not usable; its answer says why, as {"detail": why}.

    Args:
        app: what answers all others.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if scope["path"].endswith(UPLOAD):  # what stands before it is the app's own place on its host
            await self._app(scope, _limited(receive), send)
            return
        body = await _read(receive)
        if body is None:  # whoever asked is gone
            return
        try:
            if len(body) <= _QUICK_BYTES:
                check_body(body)
            else:
                await run_in_threadpool(check_body, body)
        except DataError as problem:
            status = 413 if len(body) > MAX_BYTES else 400
            await JSONResponse({"detail": str(problem)}, status_code=status)(scope, receive, send)
            return
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, receive_again, send)


def check_body(body: bytes) -> None:
    """Refuse what a parser would lose, or fail at, or make of no JSON.

    Args:
        body: of a request; blank where it sends nothing.

    Raises:
        DataError: too large; not JSON in UTF-8; nested too deeply; an integer of over MAX_DIGITS; with its place, a
            key that is given twice, or a number that isn't finite.
    """
    if len(body) > MAX_BYTES:
        raise DataError(f"{_WHERE} is larger than {MAX_BYTES // 2**20} MiB; send less at once")
    if not body.strip():
        return
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{_WHERE}: is not UTF-8 text (byte 0x{body[error.start]:02x} at offset {error.start})"
        ) from error
    infinite = False

    def read_float(digits: str) -> float:
        nonlocal infinite
        value = float(digits)
        infinite = infinite or not math.isfinite(value)
        return value

    sent = parse_json(text, _WHERE, parse_int=_integer, parse_float=read_float, parse_constant=read_float)
    level, depth, twice = [sent], 0, False
    while level:
        if depth > MAX_DEPTH:
            raise DataError(f"{_WHERE}: is nested more than {MAX_DEPTH} levels deep")
        inner: list[Any] = []
        for value in level:
            if type(value) is Object:
                twice = twice or value.repeated != ()
                inner += [item for item in value.values() if type(item) in _CONTAINERS]
            elif type(value) is list:
                inner += [item for item in value if type(item) in _CONTAINERS]
        level, depth = inner, depth + 1
    if twice or infinite:
        raise DataError(f"{_WHERE}: {_first_fault(sent)}")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise DataError(f"{_WHERE}: has an integer of {len(digits):,} digits; at most {MAX_DIGITS:,} are read")
    return int(digits)


def _first_fault(sent: Any) -> str:
    """Say of the first repeated key, or number that isn't finite, where it stands: data[0][1].prompt."""
    waiting = [(sent, "")]
    while waiting:
        value, path = waiting.pop()
        parts: list[tuple[Any, str]] = []
        if isinstance(value, float) and not math.isfinite(value):
            return f"{path or 'it'} must be a finite number, not {value}"
        if isinstance(value, Object):
            names = {key: f"{path}.{short(key)}".lstrip(".") for key in value}
            if value.repeated:
                return f"{names[value.repeated[0]]} is given twice; leave one out"
            parts = [(item, names[key]) for key, item in value.items()]
        elif isinstance(value, list):
            parts = [(item, f"{path}[{i}]") for i, item in enumerate(value)]
        waiting += reversed(parts)
    raise AssertionError("a fault that was seen while reading")


def _limited(receive: Receive) -> Receive:
    """Let an upload through until it is too large; Gradio removes what it has written, and answers with status 413."""
    size = 0

    async def receive_some() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size <= MAX_UPLOAD:
            return message
        while message.get("more_body", False):  # as `_read` does, and for the same reason
            message = await receive()
        raise MultiPartException(f"The upload exceeds the maximum allowed size of {MAX_UPLOAD} bytes.")

    return receive_some


async def _read(receive: Receive) -> bytes | None:
    """Read a request's body, of one that is too large a part that shows it; None where the connection is lost.

    The rest is read as well, though not kept: whoever is still sending doesn't see an answer.
    """
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part, more = message.get("body", b""), message.get("more_body", False)
        if size <= MAX_BYTES:
            parts.append(part)
            size += len(part)
    return b"".join(parts)
