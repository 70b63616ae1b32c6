"""A browser's side of the page's events without a browser: fifty Chromiums would measure themselves.

    POST /gradio_api/component_server             a question to a component; answers at once
    POST /gradio_api/queue/join                   an event with the values of its inputs; answers with its id
    GET  /gradio_api/queue/data?session_hash=     server-sent events, open while events are pending
    GET  /gradio_api/heartbeat/<session_hash>     open as long as the page is

Values of components are kept as a browser keeps them: what an event returns is what the next one sends. Gradio's own
Python client can't do this: it has no state of the page, and calls only what has a name.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import httpx

from stepwise_dpo.errors import RunError

ANSWER_SECONDS = 120.0
"""The longest that an answer may take before it counts as none."""


class Event(NamedTuple):
    """What the page does when something happens.

    Attributes:
        number: Gradio's `fn_index`.
        target: id of the component that it happens to; None for what follows another event.
        inputs: ids of the components whose values are sent.
        outputs: ids of the components that get values.
        after: the number of the event that this one follows; None where it follows none.
    """

    number: int
    target: int | None
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    after: int | None


class Layout:
    """The page's components and events, from its `/config`.

    Args:
        config: as the server sent it.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.prefix = str(config["api_prefix"])
        self._components = {part["id"]: part for part in config["components"]}
        self._ids = {part["props"].get("elem_id"): part["id"] for part in config["components"]}
        self._events = [(part, _event(part)) for part in config["dependencies"]]
        self.values = {number: part["props"].get("value") for number, part in self._components.items()}

    def id(self, elem_id: str) -> int:
        """A component's number, by its id in the page.

        Raises:
            RunError: the page has none.
        """
        if elem_id not in self._ids:
            raise RunError(f"the page has no component #{elem_id}; the bench has to follow the page's changes")
        return int(self._ids[elem_id])

    def of_kind(self, kind: str) -> int:
        """The number of the first component of a kind, such as "browserstate"."""
        return int(next(number for number, part in self._components.items() if part["type"] == kind))

    def event(self, target: int, kind: str) -> Event:
        """What happens on an event of a component.

        Args:
            target: the component's number; 0 is the page.
            kind: "click", "change" …

        Raises:
            RunError: nothing does.
        """
        for part, event in self._events:
            if [target, kind] in part["targets"] and part.get("backend_fn"):
                return event
        raise RunError(f"nothing happens on {kind} of component {target}; the bench has to follow the page's changes")

    def following(self, event: Event) -> list[Event]:
        """What the page does when an event has been answered."""
        return [other for part, other in self._events if other.after == event.number and part.get("backend_fn")]

    def changing(self, numbers: list[int]) -> list[Event]:
        """What happens when the server says that these states have changed."""
        return [other for part, other in self._events for number in numbers if [number, "change"] in part["targets"]]


def _event(part: Mapping[str, Any]) -> Event:
    target = part["targets"][0][0] if part["targets"] else None
    return Event(part["id"], target, tuple(part["inputs"]), tuple(part["outputs"]), part.get("trigger_after"))


class Connection:
    """One open page.

    Args:
        url: of the server.
        layout: of the page.
        query: of the address that is opened.
    """

    def __init__(self, url: str, layout: Layout, query: Mapping[str, str] | None = None) -> None:
        self.layout = layout
        self.session = secrets.token_hex(8)
        self.values = dict(layout.values)
        self._query = dict(query or {})
        self._client = httpx.AsyncClient(base_url=url, timeout=ANSWER_SECONDS, verify=False, trust_env=False)
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._early: dict[str, dict[str, Any]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._reader: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Get the page and keep its heartbeat."""
        (await self._client.get("/")).raise_for_status()
        self._tasks.append(asyncio.create_task(self._beat()))

    async def close(self) -> None:
        """Leave, as a closed tab does."""
        for task in [*self._tasks, *([self._reader] if self._reader else [])]:
            task.cancel()
            with suppress(asyncio.CancelledError, httpx.HTTPError):
                await task
        await self._client.aclose()

    async def fire(self, event: Event, data: object = None) -> list[Any]:
        """Let an event happen and everything that the page does because of it.

        Args:
            event: one of the layout's.
            data: what the component says about it.

        Returns:
            what the server returned for the event's outputs.

        Raises:
            RunError: the server refused it, failed, or didn't answer.
        """
        output = await self._answer(event, data)
        returned: list[Any] = output["data"]
        for number, value in zip(event.outputs, returned, strict=True):
            self._keep(number, value)
        for other in [*self.layout.changing(output.get("changed_state_ids") or []), *self.layout.following(event)]:
            await self.fire(other)
        return returned

    async def ask(self, elem_id: str, question: str, data: object) -> Any:
        """Call a component's server function.

        Raises:
            RunError: the server refused it, failed, or didn't answer.
        """
        body = {
            "data": data,
            "fn_name": question,
            "component_id": self.layout.id(elem_id),
            "session_hash": self.session,
        }
        try:
            answer = await self._post("component_server", body)
            answer.raise_for_status()
        except (httpx.HTTPError, TimeoutError) as problem:
            raise RunError(f"{elem_id} was not answered: {problem!r}") from problem
        return answer.json()

    def value(self, elem_id: str) -> Any:
        """What a component shows."""
        return self.values[self.layout.id(elem_id)]

    def _keep(self, number: int, value: Any) -> None:
        if isinstance(value, dict) and value.get("__type__") == "update":
            if "value" not in value:
                return
            value = value["value"]
        self.values[number] = value

    async def _answer(self, event: Event, data: object) -> dict[str, Any]:
        body = {
            "data": [self.values.get(number) for number in event.inputs],
            "event_data": data,
            "fn_index": event.number,
            "trigger_id": event.target,
            "session_hash": self.session,
        }
        try:
            answer = await self._post("queue/join", body)
            answer.raise_for_status()
            waiting = self._wait_for(str(answer.json()["event_id"]))
            message = await asyncio.wait_for(waiting, ANSWER_SECONDS)
        except (httpx.HTTPError, TimeoutError) as problem:
            raise RunError(f"event {event.number} was not answered: {problem!r}") from problem
        output = message.get("output") or {}
        if not message.get("success") or "data" not in output:
            raise RunError(f"event {event.number} failed: {output.get('error') or message}")
        return dict(output)

    async def _post(self, place: str, body: dict[str, Any]) -> httpx.Response:
        place = f"{self.layout.prefix}/{place}"
        try:
            return await self._client.post(place, json=body, params=self._query)
        except (httpx.ReadError, httpx.RemoteProtocolError):
            # The server closed an idle connection at the moment in which it was used again; browsers try anew as well.
            return await self._client.post(place, json=body, params=self._query)

    def _wait_for(self, event_id: str) -> asyncio.Future[dict[str, Any]]:
        waiting: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        if event_id in self._early:
            waiting.set_result(self._early.pop(event_id))
            return waiting
        self._waiting[event_id] = waiting
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        return waiting

    async def _read(self) -> None:
        """Read answers while any is missing; the server ends a stream when it believes that none is."""
        try:
            while self._waiting:
                async for message in self._messages(f"/queue/data?session_hash={self.session}"):
                    if message.get("msg") == "process_completed":
                        event_id = str(message["event_id"])
                        waiting = self._waiting.pop(event_id, None)
                        if waiting is None:
                            self._early[event_id] = message  # faster than the answer to its own request
                        elif not waiting.done():
                            waiting.set_result(message)
                    elif message.get("msg") == "unexpected_error":
                        raise RunError(f"the stream of answers broke: {message.get('message')}")
        except (httpx.HTTPError, RunError) as problem:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(RunError(f"the stream of answers broke: {problem!r}"))
            self._waiting.clear()

    async def _beat(self) -> None:
        with suppress(httpx.HTTPError):
            async for _ in self._messages(f"/heartbeat/{self.session}"):
                pass

    async def _messages(self, path: str) -> AsyncIterator[dict[str, Any]]:
        async with self._client.stream("GET", self.layout.prefix + path, timeout=httpx.Timeout(None)) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    yield json.loads(line[6:])
