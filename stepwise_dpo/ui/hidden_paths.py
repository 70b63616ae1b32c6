"""Names in place of paths: what Gradio keeps for a visitor is called by a random name outside, and by its path inside.

Gradio answers an upload with the path of its copy, which tells where that lies and how the visitor called it, and
expects the path back with the call that reads the file; of a file for a download it tells the path as well.
"""

import json
import os
import re
import secrets
from urllib.parse import quote, unquote

from gradio.route_utils import API_PREFIX
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepwise_dpo.ui.request_bodies import UPLOAD

MAX_NAMES = 10_000
"""Names that are remembered, the newest ones: of an hour's files, which is how long they lie there, and many more."""

_FILE = re.compile(rf"{API_PREFIX}/file[=/]")
_NAME = re.compile(rb"held-[0-9a-f]{32}")


class HiddenPaths:
    """ASGI middleware that puts names for paths into answers, and paths for names into requests.

    A file is served by its name only. A body that names a file must come whole, in one message, as `CheckedBodies`
    passes it on.

    Args:
        app: what answers.
        folder: in which Gradio keeps files.
    """

    def __init__(self, app: ASGIApp, folder: str) -> None:
        self._app = app
        self._paths: dict[str, str] = {}  # by name, without what may follow it after a slash
        self._names: dict[str, str] = {}
        places = {folder, os.path.abspath(folder), os.path.realpath(folder)}
        # As they stand at the beginning of a JSON string, or in an address in one.
        spellings = {
            spelling for place in places for spelling in (_in_json(place), _in_json(place, ascii=False), quote(place))
        }
        self._spellings = [spelling.encode() for spelling in spellings]
        kept = "|".join(re.escape(spelling) for spelling in sorted(spellings, key=len, reverse=True))
        self._kept = re.compile(rf'(?:(?<=")|(?P<address>file=))(?:{kept})(?:[^"\\]|\\.)*'.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if asked := _FILE.search(scope["path"]):
            path = self._paths.get(scope["path"][asked.end() :].partition("/")[0])
            if path is None:
                await PlainTextResponse("no such file", status_code=404)(scope, receive, send)
                return
            place = scope["path"][: asked.end()] + path
            scope = {**scope, "path": place, "raw_path": quote(place).encode()}
        is_upload = scope["path"].endswith(UPLOAD)

        async def receive_paths() -> Message:
            message = await receive()
            body = message.get("body", b"")
            return message if is_upload or b"held-" not in body else {**message, "body": self._with_paths(body)}

        await self._app(scope, receive_paths, self._hiding(send, is_upload))

    def _hiding(self, send: Send, is_upload: bool) -> Send:
        """Give what sends an answer with names in it: a stream's messages as they come, other JSON once it is whole."""
        start: Message = {}
        parts: list[bytes] = []
        kind = ""

        async def send_names(message: Message) -> None:
            nonlocal start, kind
            if message["type"] == "http.response.start":
                kind = Headers(raw=message["headers"]).get("content-type", "").partition(";")[0]
                if kind == "application/json":
                    start = message
                    return
            elif message["type"] == "http.response.body" and kind == "text/event-stream":
                message = {**message, "body": self._with_names(message.get("body", b""), is_upload)}
            elif message["type"] == "http.response.body" and kind == "application/json":
                parts.append(message.get("body", b""))
                if message.get("more_body", False):
                    return
                body = self._with_names(b"".join(parts), is_upload)
                headers = MutableHeaders(scope=start)
                if "content-length" in headers:
                    headers["content-length"] = str(len(body))
                await send(start)
                message = {"type": "http.response.body", "body": body}
            await send(message)

        return send_names

    def _with_names(self, body: bytes, is_upload: bool) -> bytes:
        if not any(spelling in body for spelling in self._spellings):  # as in nearly all: much faster than the pattern
            return body

        def name(found: re.Match[bytes]) -> bytes:
            spelling: str = json.loads(b'"' + found[0] + b'"')
            if found["address"] is None:
                return _in_json(self._name_of(spelling, is_upload)).encode()
            return found["address"] + quote(self._name_of(unquote(spelling[len("file=") :]), is_upload)).encode()

        return self._kept.sub(name, body)

    def _name_of(self, path: str, is_upload: bool) -> str:
        """Name a file; how one for a download is called, the app has chosen, and who saves it would miss it."""
        if path not in self._names:
            if len(self._names) >= MAX_NAMES:
                oldest = self._names.pop(next(iter(self._names)))
                del self._paths[oldest.partition("/")[0]]
            name = f"held-{secrets.token_hex(16)}"
            self._paths[name] = path
            self._names[path] = name if is_upload else f"{name}/{os.path.basename(path)}"
        return self._names[path]

    def _with_paths(self, body: bytes) -> bytes:
        def path(found: re.Match[bytes]) -> bytes:
            known = self._paths.get(found[0].decode())
            return found[0] if known is None else _in_json(known).encode()

        return _NAME.sub(path, body)


def _in_json(text: str, ascii: bool = True) -> str:
    return json.dumps(text, ensure_ascii=ascii)[1:-1]
