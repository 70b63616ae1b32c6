"""What the page says about runs: their names, states, progress, configuration and failures, all read from disk."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.config import RunConfig
from stepwise_dpo.runs.directory import RunDirectory, RunStatus
from stepwise_dpo.runs.discarding import is_discarded
from stepwise_dpo.runs.own_runs import OwnRuns
from stepwise_dpo.ui.colours import LOSS_COLOURS, MUTED
from stepwise_dpo.ui.components import Item, list_html
from stepwise_dpo.ui.curves import Curves
from stepwise_dpo.ui.text import MINUS, counted, duration, plain, shown

LOSS_NAMES = {"dpo": "DPO", "stepwise": "Step-wise"}
STATE_WORDS = {
    "queued": "queued",
    "starting": "starting",
    "running": "running",
    "stopping": "stopping",
    "finished": "finished",
    "stopped": "stopped, kept",
    "interrupted": "interrupted",
    "failed": "failed",
}
LOG_LINES = 12
LOG_BYTES = 8_000


class RunView(NamedTuple):
    """One run with its status at one moment."""

    run: RunDirectory
    status: RunStatus
    stop_requested: bool
    discarded: bool = False

    @property
    def loss(self) -> str:
        """The loss, as the run's id tells it."""
        return next((loss for loss in LOSS_COLOURS if f"-{loss}-" in self.run.id), "")

    @property
    def name(self) -> str:
        """Loss and time of the start, for people; the id itself where it tells no time."""
        try:
            started = time.strptime(self.run.id[:15], "%Y%m%d-%H%M%S")
        except ValueError:
            return self.run.id
        return f"{LOSS_NAMES.get(self.loss, 'Run')} · {time.strftime('%d %b %H:%M:%S', started).lstrip('0')}"

    @property
    def state(self) -> str:
        """The state in words; stopping from the moment somebody asked for it."""
        if self.discarded:
            return "being discarded"
        return "stopping" if self.status.active and self.stop_requested else STATE_WORDS[self.status.state]

    @property
    def progress(self) -> float:
        """The share of optimiser steps done, 0 to 1."""
        return min(1.0, self.status.global_step / self.status.max_steps) if self.status.max_steps else 0.0

    @property
    def dot(self) -> str:
        """CSS that colours dots and bars like the run's loss."""
        return f"--dot:{LOSS_COLOURS.get(self.loss, MUTED)}"


def look(own: OwnRuns) -> list[RunView]:
    """Read somebody's runs, the newest first; one that can't be read is left out."""
    views = []
    for run in own.runs():
        try:
            views.append(RunView(run, own.status(run), run.stop_requested(), is_discarded(run)))
        except RunError:
            continue
    return views


def find(views: Sequence[RunView], run_id: object) -> RunView | None:
    """Find the run that a session has chosen; where it has chosen none, one at work, one that waits, or the newest."""
    chosen = next((view for view in views if view.run.id == run_id), None)
    active = [view for view in views if view.status.active]
    working = next((view for view in active if view.status.state != "queued"), None)
    return chosen or working or next(iter(active or views), None)


def signature(views: Sequence[RunView], current: RunView | None) -> tuple[object, ...]:
    """Everything that makes the page look different, cheap to read: equal signatures, nothing to update."""
    listed = tuple((view.run.id, view.state) for view in views)
    if current is None:
        return (listed,)
    return (listed, current.run.id, current.status.updated, file_size(current.run.path / "metrics.jsonl"))


def chip_html(views: Sequence[RunView], curves: Curves) -> str:
    """Write the chip that every tab shows: the active run, or the newest."""
    view = find(views, None)
    if view is None:
        return ""
    parts = [f'<span class="dot" style="{view.dot}"></span><span class="name">{shown(view.name)}</span>']
    if view.status.active:
        parts.append(f'<span class="bar" style="{view.dot}"><i style="width:{view.progress:.0%}"></i></span>')
        parts.append(f"<span>{shown(progress_words(view, curves))}</span>")
    else:
        parts.append(_state_html(view))
    label = plain(f"Open run {view.name}")
    button = f'<button type="button" class="chip" data-key="{plain(view.run.id)}" aria-label="{label}">'
    return f"{button}{''.join(parts)}</button>"


def progress_words(view: RunView, curves: Curves) -> str:
    """Say how far a run is: what it does before its first step, then steps and the time that is left."""
    status = view.status
    if not status.max_steps or (status.active and status.phase not in ("", "training")):
        return view.state if view.stop_requested or view.discarded else status.phase or view.state
    words = f"{status.global_step:,} / {status.max_steps:,}"
    left = seconds_left(curves, status.max_steps)
    return f"{words} · {duration(left)} left" if status.active and left is not None else words


def seconds_left(curves: Curves, max_steps: int) -> float | None:
    """Estimate the time to the last step from the pace of the last 20; None before the second."""
    steps, times = curves.points("time")
    steps, times = steps[-20:], times[-20:]
    if len(steps) < 2:
        return None
    pace = (times[-1] - times[0]) / max(1.0, steps[-1] - steps[0])
    return float(pace * (max_steps - steps[-1]))


def runs_html(views: Sequence[RunView], current: RunView | None) -> str:
    """List the runs."""
    items = []
    for view in views:
        steps = f" · {counted(view.status.global_step, 'step')}" if view.status.global_step else ""
        sub = f'<span class="dot" style="{view.dot}"></span>{_state_html(view)}{steps}'
        items.append(Item(view.run.id, view.name, sub))
    return list_html(counted(len(views), "run"), items, current.run.id if current else "", "Runs")


def head_html(view: RunView | None, curves: Curves, result: str = "") -> str:
    """Write what stands above the curves: name, state, progress, result, error."""
    if view is None:
        return (
            '<div class="run-head"><h2>No run yet</h2><span>Press “Train”: the curves appear here while it runs.'
            "</span></div>"
        )
    status = view.status
    parts = [
        f'<div class="run-head" data-state="{plain(view.state)}"><h2>{shown(view.name)}</h2>'
        f'<span class="state"><span class="dot" style="{view.dot}"></span>{shown(view.state)}</span>'
    ]
    if status.max_steps:
        parts.append(f'<span class="bar" style="{view.dot}"><i style="width:{view.progress:.0%}"></i></span>')
    if status.active or status.max_steps:
        parts.append(f"<span>{shown(progress_words(view, curves))}</span>")
    if status.active and status.phase == "training" and not curves.count("loss"):
        parts.append("<span>waiting for the first step</span>")
    if result:
        parts.append(f"<span>held out: {shown(result)}</span>")
    parts.append("</div>")
    if status.state in ("failed", "interrupted"):
        parts.append(_failure(view))
    return "".join(parts)


def config_html(config: RunConfig) -> str:
    """List a run's saved configuration."""
    rows = [
        f"<dt>{shown(name)}</dt><dd>{shown(setting(name, value))}</dd>"
        for name, value in config.model_dump().items()
        if value is not None
    ]
    return f'<dl class="config">{"".join(rows)}</dl>'


def setting(name: str, value: object) -> str:
    """Write a setting's value; of data files only the name, not where they are."""
    if value is None:
        return "–"
    if name in ("data", "eval_data"):
        return os.path.basename(str(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}".replace("-", MINUS)
    return " + ".join(map(str, value)) if isinstance(value, list) else str(value)


def _state_html(view: RunView) -> str:
    warns = ' class="warn"' if view.status.state in ("failed", "interrupted") else ""
    return f"<span{warns}>{shown(view.state)}</span>"


def _failure(view: RunView) -> str:
    log = "\n".join(last_lines(view.run.events))
    shown_log = f"<pre>{shown(log)}</pre>" if log else ""
    reason = view.status.error or "no reason was written"
    heading = "The run failed" if view.status.state == "failed" else "The run was interrupted"
    return f'<div class="message error" role="alert"><b>{heading}:</b> {shown(reason)}{shown_log}</div>'


def last_lines(path: Path) -> list[str]:
    """Read the end of a log; a progress bar that was redrawn counts as one line."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file_size(path) - LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.split("\n")]
    return [line for line in lines if line][-LOG_LINES:]


def file_size(path: Path) -> int:
    """How many bytes a file has; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
