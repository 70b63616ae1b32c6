"""Names in place of paths: what Gradio keeps for a visitor has a random name outside, and its path inside.

Gradio answers an upload with the path of its copy, which tells where that lies and how the visitor called it, and
expects the path back with the event that reads it. Of a file for a download it tells the path as well.
"""

import json
import os
import re
import secrets
import threading
from collections.abc import Callable
from urllib.parse import quote

from gradio.route_utils import API_PREFIX
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepwise_dpo.learning.bounded_cache import BoundedCache
from stepwise_dpo.ui.request_bodies import UPLOAD

MAX_UPLOADS = 100_000
MAX_DOWNLOADS = 100
"""Names that are kept, those used last: of more files than come in the hour for which one lies there."""

QUICK_BYTES = 64 * 2**10
"""A request of more is read in a thread, so that others are answered."""

NOWHERE = "held-unknown"
"""The path of a file that was never sent; Gradio refuses it as one that wasn't uploaded."""

_PREFIX = "held-"
_FILE_DATA = "gradio.FileData"
_FILE = re.compile(rf"{API_PREFIX}/file[=/]")


class FileNames:
    """Which random name stands for which path; for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uploads = BoundedCache[str, str](MAX_UPLOADS, lambda name, path: 1)
        self._downloads: dict[str, str] = {}

    @property
    def downloads(self) -> dict[str, str]:
        """The names of files for downloads, by path."""
        with self._lock:
            return self._downloads.copy()

    def take_in(self, path: str) -> str:
        """Name a file that a visitor has sent."""
        name = _PREFIX + secrets.token_hex(16)
        with self._lock:
            self._uploads.put(name, path)
        return name

    def offer(self, path: str) -> None:
        """Name a file for a download; how it is called, the app has chosen, and who saves it would miss that."""
        new = f"{_PREFIX}{secrets.token_hex(16)}/{os.path.basename(path)}"
        with self._lock:
            self._downloads[path] = self._downloads.pop(path, new)
            if len(self._downloads) > MAX_DOWNLOADS:
                del self._downloads[next(iter(self._downloads))]

    def path(self, name: str) -> str | None:
        """Find the path behind a name."""
        with self._lock:
            offered = (path for path, own in self._downloads.items() if own == name)
            return self._uploads.get(name) or next(offered, None)


FILES = FileNames()
"""Of this process: Gradio's folder is one for all its pages."""


class HiddenPaths:
    """ASGI middleware that puts names for paths into answers, and paths for names into requests.

    Only by its name is a file served, or read for an event. A request that names a file has to be JSON and to come
    whole, in one message, as `CheckedBodies` passes it on.

    Args:
        app: what answers.
        folder: in which Gradio keeps files; no refusal names it.
        names: of the files.
    """

    def __init__(self, app: ASGIApp, folder: str, names: FileNames = FILES) -> None:
        self._app, self._names = app, names
        self._folders = {os.path.realpath(folder), os.path.abspath(folder)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif asked := _FILE.search(scope["path"]):
            path = self._names.path(scope["path"][asked.end() :])
            if path is None or not os.path.isfile(path):  # or it has been deleted
                await PlainTextResponse("no such file", status_code=404)(scope, receive, send)
                return
            place = scope["path"][: asked.end()] + path
            # At several ranges at once Gradio fails; a server may send the whole instead (RFC 9110, 14.2).
            headers = [(name, value) for name, value in scope["headers"] if name != b"range" or b"," not in value]
            asked_for = {**scope, "path": place, "raw_path": quote(place).encode(), "headers": headers}
            await self._app(asked_for, receive, send)
        elif scope["path"].endswith(UPLOAD):
            await self._app(scope, receive, _changing(send, self._uploaded, self._refused))
        else:
            await self._app(scope, self._receiving(receive), _changing(send, self._answered, self._refused))

    def _uploaded(self, answer: bytes) -> bytes:
        """Name the files that an upload is answered with, a list of paths; an error is none."""
        paths = json.loads(answer or b"null")
        return json.dumps([self._names.take_in(path) for path in paths]).encode() if type(paths) is list else answer

    def _answered(self, answer: bytes) -> bytes:
        """Name the files for downloads, as they stand in JSON or in an address in it."""
        for path, name in self._names.downloads.items():
            for spell in (_in_json, _in_plain_json, quote):
                answer = answer.replace(spell(path).encode(), spell(name).encode())
        return answer

    def _refused(self, answer: bytes) -> bytes:
        """Gradio's refusals repeat what a request said, with the paths that this has put there."""
        for folder in self._folders:
            for spell in (_in_json, _in_plain_json):
                answer = answer.replace(spell(folder).encode(), b"uploads")
        return answer

    def _receiving(self, receive: Receive) -> Receive:
        async def receive_paths() -> Message:
            message = await receive()
            body: bytes = message.get("body", b"")
            if _FILE_DATA.encode() not in body:
                return message
            changed = self._asked(body) if len(body) <= QUICK_BYTES else await run_in_threadpool(self._asked, body)
            return {**message, "body": changed}

        return receive_paths

    def _asked(self, body: bytes) -> bytes:
        """Put paths to the files among an event's inputs; nowhere else does a name mean anything."""
        sent = json.loads(body)
        inputs = sent.get("data") if isinstance(sent, dict) else None
        for value in inputs if isinstance(inputs, list) else ():
            if _is_file(value):
                value["path"] = self._names.path(value["path"]) or NOWHERE
        return json.dumps(sent).encode()


def _changing(send: Send, change: Callable[[bytes], bytes], refuse: Callable[[bytes], bytes]) -> Send:
    """Give what sends an answer that is changed: a stream's messages as they come, other JSON once it is whole."""
    start: Message = {}
    parts: list[bytes] = []
    kind = ""

    async def send_changed(message: Message) -> None:
        nonlocal start, kind
        if message["type"] == "http.response.start":
            kind = Headers(raw=message["headers"]).get("content-type", "").partition(";")[0]
            if kind == "application/json":
                start = message
                return
        elif message["type"] == "http.response.body" and kind == "text/event-stream":
            message = {**message, "body": change(message.get("body", b""))}
        elif message["type"] == "http.response.body" and kind == "application/json":
            parts.append(message.get("body", b""))
            if message.get("more_body", False):
                return
            body = (change if start["status"] < 400 else refuse)(b"".join(parts))
            headers = MutableHeaders(scope=start)
            if "content-length" in headers:
                headers["content-length"] = str(len(body))
            await send(start)
            message = {"type": "http.response.body", "body": body}
        await send(message)

    return send_changed


def _is_file(value: object) -> bool:
    """Whether Gradio takes an event's input for a file."""
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        return False
    meta = value.get("meta")
    return isinstance(meta, dict) and meta.get("_type") == _FILE_DATA


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _in_plain_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
