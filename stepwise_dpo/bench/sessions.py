"""What many visitors at once do to the page: one real app.py, N simulated sessions, and what they lose or wait for.

Each session is a browser of its own, as far as the server can tell: it opens the page, polls it at the page's own pace,
edits an example of its own over and over, has its edit scored, reloads, and some of them queue runs. At the end each
comes back with its browser's secret and must find exactly what it wrote last.
"""

import asyncio
import json
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import httpx
import psutil

from stepwise_dpo.bench.browser import APP, Server
from stepwise_dpo.bench.connection import Connection, Layout
from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.directory import list_runs

SET = "onpolicy_prm.json"
THINK_SECONDS = (10.0, 20.0)
"""How long somebody looks before the next edit."""

MEMORY_SECONDS = 10.0
WARM_MINUTES = 0.5
"""When imports are done and caches filled, so that what grows from then on is a leak."""

RUN_SETTINGS = {
    "train-model": "tiny",
    "train-examples": 8,
    "train-held-out": 0,
    "train-max-steps": 4,
    "train-batch": 2,
}
_RUN_PATIENCE_SECONDS = 240.0


@dataclass(frozen=True)
class Plan:
    """What is simulated.

    Attributes:
        sessions: at once.
        minutes: how long.
        runs: how many of the sessions queue a run, all at once after the warm-up.
        public: whether the app is started for strangers.
        reload_seconds: how often each session loads its page anew.
        think_seconds: from one edit to the next, least and most.
    """

    sessions: int = 50
    minutes: float = 2.0
    runs: int = 10
    public: bool = False
    reload_seconds: float = 60.0
    think_seconds: tuple[float, float] = THINK_SECONDS


@dataclass(frozen=True)
class Memory:
    """Resident memory at one moment.

    Attributes:
        minute: since the first session.
        server: of the server's process, in bytes.
        tree: with its workers, in bytes.
    """

    minute: float
    server: int
    tree: int


@dataclass
class Result:
    """What came of it.

    Attributes:
        plan: what was simulated.
        requests: events answered, by kind.
        errors: what went wrong, in words, and how often.
        edits: examples saved.
        lost: sessions that didn't find their last edit or their run again, in words.
        polls: latencies of the question whether runs have moved, in seconds.
        looks: and where they have, from the question to their new state, in seconds.
        scorings: latencies of scoring an example that was never scored, in seconds.
        memory: in order of time.
        busy: share of the time in which the server's own process was at work, in cores.
        runs_done: runs that finished.
        runs_refused: runs that the full queue refused.
        out_of_turn: runs that began before one that was accepted earlier.
        waits: seconds from a run's acceptance to its first optimiser step, in order of acceptance.
    """

    plan: Plan
    requests: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    edits: int = 0
    lost: list[str] = field(default_factory=list)
    polls: list[float] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    scorings: list[float] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    busy: float = 0.0
    runs_done: int = 0
    runs_refused: int = 0
    out_of_turn: int = 0
    waits: list[float] = field(default_factory=list)


def run_sessions(plan: Plan, tell: Callable[[str], object] = lambda _: None) -> Result:
    """Start the app in a folder of its own and let the sessions at it.

    Args:
        plan: what is simulated.
        tell: told each minute in a line how it goes: half an hour may be cut off.

    Raises:
        RunError: there is no app.py beside the package, it doesn't start, or the page has changed.
    """
    if not APP.is_file():
        raise RunError("bench sessions needs app.py, which lies beside the package in a clone of the project")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ["--runs-dir", str(folder / "runs"), "--public" if plan.public else "--no-public"]
        app = Server(APP, options, folder=folder, log=folder / "app.log")
        try:
            app.wait()
            result = asyncio.run(_simulate(plan, app, tell))
            if app.process.poll() is not None:
                result.errors["the server ended"] += 1
            _judge_queue(result, folder / "runs")
            _read_log(result, app.log)
        finally:
            app.stop()
    return result


async def _simulate(plan: Plan, app: Server, tell: Callable[[str], object]) -> Result:
    result = Result(plan)
    started, server = time.monotonic(), psutil.Process(app.process.pid)
    used = server.cpu_times()
    watch = asyncio.create_task(_watch(result, server, started, tell))
    async with httpx.AsyncClient(verify=False, trust_env=False, timeout=60) as client:
        layout = Layout((await client.get(f"{app.url}/config")).json())
    end = started + plan.minutes * 60
    visitors = [_Visitor(number, plan, app.url, layout, result) for number in range(plan.sessions)]
    await asyncio.gather(*(visitor.stay(started, end) for visitor in visitors))
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    result.memory.append(_memory(server, started))
    now = server.cpu_times()
    result.busy = (now.user + now.system - used.user - used.system) / (time.monotonic() - started)
    # A few at a time: what is measured is over.
    for start in range(0, len(visitors), 8):
        await asyncio.gather(*(visitor.come_back() for visitor in visitors[start : start + 8]))
    return result


class _Visitor:
    """One browser: its secret, and what it wrote."""

    def __init__(self, number: int, plan: Plan, url: str, layout: Layout, result: Result) -> None:
        self.number, self.plan, self.url, self.layout, self.result = number, plan, url, layout, result
        self.secret: Any = ""
        self.prompt = ""  # of the last edit
        self.example = ""  # its id
        self.run = ""
        self.seed = 1000 + number
        self._random = random.Random(number)
        self._browser = layout.of_kind("browserstate")
        self._follow = layout.event(layout.id("address"), "follow")
        self._moved = layout.event(layout.id("pulse"), "moved")
        self._load = layout.event(0, "load")

    async def stay(self, started: float, end: float) -> None:
        """Use the page until the end, with a reload now and then."""
        await asyncio.sleep(self._random.uniform(0, min(5.0, self.plan.minutes * 6)))  # not all in one moment
        runs_at = started + min(WARM_MINUTES, self.plan.minutes / 4) * 60
        while time.monotonic() < end:
            page = await self._open()
            if page is None:
                await asyncio.sleep(1.0)
                continue
            until = min(end, time.monotonic() + self.plan.reload_seconds * self._random.uniform(0.5, 1.5))
            await asyncio.gather(self._poll(page, until), self._work(page, until, runs_at))
            await page.close()

    async def come_back(self) -> None:
        """Load the page once more and compare what is there with what was written."""
        page = await self._open({"set": SET, "example": self.example})
        if page is None:
            self.result.lost.append(f"session {self.number} could not come back")
            return
        if self.prompt:
            found = (page.value("data-editor") or {}).get("draft", {}).get("prompt")
            if found != self.prompt:
                self.result.lost.append(f"session {self.number} wrote {self.prompt!r} and found {found!r}")
        await page.close()
        if self.run:
            await self._find_run()

    async def _find_run(self) -> None:
        page = await self._open({"run": self.run})
        if page is None:
            self.result.lost.append(f"session {self.number} could not come back to its run")
            return
        deadline = time.monotonic() + _RUN_PATIENCE_SECONDS
        state = ""
        while time.monotonic() < deadline and state not in ("finished", "failed", "interrupted"):
            await self._ask(page)
            head = str(page.value("train-head"))
            state = head.partition('data-state="')[2].partition('"')[0]
        self.result.runs_done += state == "finished"
        if state != "finished":
            self.result.errors[f"a run ended as {state or 'unknown'}"] += 1
        seed = (await self._settings(page)).get("seed")
        if seed != self.seed:
            self.result.lost.append(f"session {self.number} started a run with seed {self.seed} and found {seed}")
        await page.close()

    async def _open(self, query: dict[str, str] | None = None) -> Connection | None:
        page = Connection(self.url, self.layout, query)
        try:
            await page.open()
            page.values[self._browser] = self.secret
            await page.fire(self._load)
        except (RunError, httpx.HTTPError) as problem:
            self._note("open", problem)
            await page.close()
            return None
        self.result.requests["open"] += 1
        self.secret = page.values[self._browser]
        return page

    async def _poll(self, page: Connection, until: float) -> None:
        while time.monotonic() < until:
            await self._ask(page)

    async def _ask(self, page: Connection) -> None:
        """Ask whether runs have moved, look if they have, and wait until the next question, as `pulse.js` does."""
        pulse, began, pace = page.value("pulse"), time.monotonic(), "idle"
        try:
            newest = await page.ask("pulse", "newest", pulse["visitor"])
            self.result.polls.append(time.monotonic() - began)
            self.result.requests["poll"] += 1
            pace = newest["pace"]
            if newest["standing"] != pulse["standing"]:
                await page.fire(self._moved)
                self.result.looks.append(time.monotonic() - began)
                self.result.requests["look"] += 1
        except RunError as problem:
            self._note("poll", problem)
        await asyncio.sleep(pulse[pace])

    async def _let_address_follow(self, page: Connection) -> None:
        try:
            await page.fire(self._follow)
            self.result.requests["follow"] += 1
        except RunError as problem:
            self._note("follow", problem)

    async def _work(self, page: Connection, until: float, runs_at: float) -> None:
        await self._fire(page, "choose", "data-table", "choose", {"key": str(self.number)})
        await self._let_address_follow(page)
        while True:
            if self.number < self.plan.runs and not self.run and time.monotonic() >= runs_at:
                await self._start_run(page)
            pause = self._random.uniform(*self.plan.think_seconds)
            if time.monotonic() + pause >= until:
                break
            await asyncio.sleep(pause)
            await self._edit(page)
            await self._let_address_follow(page)
            began = time.monotonic()
            answer = await self._fire(page, "score", "rewards-list", "choose", {"key": str(self.number)})
            if answer is not None:
                if 'class="value' in str(page.value("rewards-rows")):
                    self.result.scorings.append(time.monotonic() - began)
                else:
                    self._note("score", RunError(f"no values in {page.value('rewards-message')}"))
        await asyncio.sleep(max(0.0, until - time.monotonic()))

    async def _edit(self, page: Connection) -> None:
        shown = page.value("data-editor")
        if not shown or shown.get("index") != self.number:
            self._note("edit", RunError("another example is open than was chosen"))
            return
        prompt = f"Session {self.number}, edit {self.result.edits}. {shown['draft']['prompt'][-200:]}"
        sent = {"key": shown["key"], "index": shown["index"], "draft": {**shown["draft"], "prompt": prompt}}
        answer = await self._fire(page, "edit", "data-editor", "save", sent)
        if answer is not None:
            self.result.edits += 1
            self.prompt, self.example = prompt, shown["key"].partition("\n")[2]
            if page.value("data-editor")["draft"]["prompt"] != prompt:
                self._note("edit", RunError(f"the answer shows another text: {page.value('data-message')}"))

    async def _start_run(self, page: Connection) -> None:
        for elem_id, value in {**RUN_SETTINGS, "train-seed": self.seed}.items():
            page.values[self.layout.id(elem_id)] = value
        if await self._fire(page, "start", "train-start", "click") is None:
            return
        message = str(page.value("train-message"))
        if "error" in message:
            self.result.runs_refused += "limit" in message or "allowed" in message
            self._note("start", RunError(message))
            return
        settings = await self._settings(page)
        self.run = str(settings.get("run", ""))
        if settings.get("seed") != self.seed:
            self.result.lost.append(f"session {self.number} started a run and was shown {settings}")

    async def _settings(self, page: Connection) -> dict[str, Any]:
        """Read back the opened run's id and seed."""
        answer = await self._fire(page, "settings", "export-yaml", "click")
        if not answer or not answer[0]:
            return {}
        file = json.loads(answer[0])
        lines = dict(line.split(": ", 1) for line in file["text"].splitlines() if ": " in line)
        return {"run": file["name"].removesuffix(".yaml"), "seed": int(lines["seed"])}

    async def _fire(
        self, page: Connection, kind: str, elem_id: str, event: str, data: object = None
    ) -> list[Any] | None:
        try:
            answer = await page.fire(self.layout.event(self.layout.id(elem_id), event), data)
        except RunError as problem:
            self._note(kind, problem)
            return None
        self.result.requests[kind] += 1
        return answer

    def _note(self, kind: str, problem: Exception) -> None:
        self.result.errors[f"{kind}: {str(problem)[:300]}"] += 1


async def _watch(result: Result, server: psutil.Process, started: float, tell: Callable[[str], object]) -> None:
    told = -1
    while True:
        memory = _memory(server, started)
        result.memory.append(memory)
        if int(memory.minute) > told:
            told = int(memory.minute)
            tell(
                f"{memory.minute:5.1f} min: {len(result.polls):,} polls, {sum(result.errors.values())} errors, server "
                f"{memory.server / 2**20:.0f} MiB, {memory.tree / 2**20:.0f} MiB with its workers"
            )
        await asyncio.sleep(MEMORY_SECONDS)


def _memory(server: psutil.Process, started: float) -> Memory:
    own = server.memory_info().rss
    others = 0
    for child in server.children(recursive=True):
        try:
            others += child.memory_info().rss
        except psutil.Error:
            continue  # it has just ended
    return Memory((time.monotonic() - started) / 60, own, own + others)


def _judge_queue(result: Result, runs_dir: Path) -> None:
    """Compare the order in which runs were accepted with that of their first optimiser steps."""
    begun = []
    for run in list_runs(runs_dir):
        records = [record for record in run.metrics()[0] if "loss" in record]
        accepted = (run.path / "config.json").stat().st_mtime
        if records:
            begun.append((accepted, records[0]["time"]))
    begun.sort()
    result.waits = [first - accepted for accepted, first in begun]
    result.out_of_turn = sum(
        any(later[1] < first for later in begun[place + 1 :]) for place, (_, first) in enumerate(begun)
    )


def _read_log(result: Result, log: Path) -> None:
    """Count the server's own tracebacks: what failed without telling anybody."""
    count = log.read_text(errors="replace").count("Traceback (most recent call last)")
    if count:
        tail = log.read_text(errors="replace")[-1500:]
        result.errors[f"traceback in the server's log; its end: {tail}"] += count


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least this share of them doesn't exceed; 0 where there are none."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)] if ranked else 0.0


def table_lines(result: Result) -> Iterator[str]:
    """Lay the result out as lines: name, value, what it is."""
    plan = result.plan
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in result.requests.most_common())
    yield _line("sessions", f"{plan.sessions}", f"for {plan.minutes:g} min, {'public' if plan.public else 'local'}")
    yield _line("requests", f"{sum(result.requests.values()):,}", kinds)
    yield _line("errors", f"{sum(result.errors.values())}", "must be 0")
    for words, count in result.errors.most_common(8):
        yield f"    {count} x {words}"
    yield _line("lost updates", f"{len(result.lost)}", f"must be 0; {result.edits:,} edits were saved")
    for words in result.lost[:8]:
        yield f"    {words}"
    for name, values in (("poll", result.polls), ("look", result.looks), ("scoring", result.scorings)):
        for words, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0)):
            yield _line(f"{name}, {words}", f"{percentile(values, share) * 1000:.0f} ms", f"of {len(values):,}")
    yield _line("server", f"{result.busy:.2f} cores", "its own process, on average")
    waits = f"first step after {', '.join(f'{wait:.0f}' for wait in result.waits)} s" if result.waits else ""
    yield _line("runs", f"{result.runs_done}", f"finished, {result.runs_refused} refused; {waits}")
    yield _line("runs out of turn", f"{result.out_of_turn}", "began before one that was accepted earlier")
    for memory in _milestones(result.memory, plan.minutes):
        words = f"server; {memory.tree / 2**20:.0f} MiB with its workers"
        yield _line(f"memory at {memory.minute:.1f} min", f"{memory.server / 2**20:.0f} MiB", words)


def _milestones(memory: Sequence[Memory], minutes: float) -> list[Memory]:
    """The start, the end of the warm-up, every fifth minute, and the end."""
    if not memory:
        return []
    times = [min(WARM_MINUTES, minutes / 4), *range(5, int(minutes) + 1, 5)]
    chosen = [next((known for known in memory if known.minute >= at), memory[-1]) for at in times]
    return list(dict.fromkeys([memory[0], *chosen, memory[-1]]))


def _line(name: str, value: str, words: str) -> str:
    return f"{name:24}{value:>12}  {words}"


def as_json(result: Result) -> dict[str, Any]:
    """The figures for a file: latencies in seconds as percentiles, memory in bytes."""
    known = {each.name: getattr(result, each.name) for each in fields(result)}
    for name in ("polls", "scorings"):
        values = known[name]
        known[name] = {"count": len(values), **{f"p{p}": percentile(values, p / 100) for p in (50, 95, 99, 100)}}
    return {**known, "plan": asdict(result.plan), "memory": [asdict(memory) for memory in result.memory]}
