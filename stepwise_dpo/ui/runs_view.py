"""What the page says about runs: their names, states, progress, configuration and failures, all read from disk."""

import os
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.checkpoints import noted_at_start
from stepwise_dpo.runs.config import RunConfig
from stepwise_dpo.runs.directory import RunDirectory, RunStatus
from stepwise_dpo.runs.discarding import is_discarded
from stepwise_dpo.runs.own_runs import OwnRuns
from stepwise_dpo.ui.colours import LOSS_COLOURS, MUTED, on_dark
from stepwise_dpo.ui.components import note, notes, what
from stepwise_dpo.ui.curves import Curves
from stepwise_dpo.ui.text import MINUS, duration, plain, shown

LOSS_NAMES = {"dpo": "DPO", "imitation": "DPO + imitation", "sft": "Imitation", "stepwise": "Step-wise"}
"""What the page calls losses, by `loss_of`."""

STATE_WORDS = {
    "queued": "queued",
    "starting": "starting",
    "running": "running",
    "stopping": "stopping",
    "finished": "finished",
    "stopped": "stopped",
    "interrupted": "interrupted",
    "failed": "failed",
}
LOG_LINES = 12
LOG_BYTES = 8_000
KEPT_LOSSES = 2_000


class RunView(NamedTuple):
    """One run with its status at one moment.

    Attributes:
        run: its directory.
        status: where it stands.
        stop_requested: whether somebody asked it to stop.
        discarded: whether somebody asked for it to be deleted.
        loss: see `loss_of`; "" where its configuration can't be read.
    """

    run: RunDirectory
    status: RunStatus
    stop_requested: bool
    discarded: bool = False
    loss: str = ""

    @property
    def kept(self) -> bool:
        """Whether it has left a model."""
        return (self.run.final / "config.json").is_file()

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
        if self.status.active and self.stop_requested:
            return "stopping"
        words = STATE_WORDS[self.status.state]
        return words if self.status.state != "stopped" else f"{words}, {'kept' if self.kept else 'nothing kept'}"

    @property
    def progress(self) -> float:
        """The share of optimiser steps done, 0 to 1."""
        return min(1.0, self.status.global_step / self.status.max_steps) if self.status.max_steps else 0.0

    @property
    def dot(self) -> str:
        """CSS that colours dots and bars like the run's loss, on light pages and on dark ones."""
        colour = LOSS_COLOURS.get(self.loss, MUTED)
        return f"--dot:{colour};--dot-dark:{on_dark(colour)}"


def look(own: OwnRuns) -> list[RunView]:
    """Read somebody's runs, the newest first; one that can't be read has failed."""
    views = []
    for run in own.runs():
        try:
            views.append(RunView(run, own.status_or_damage(run), run.stop_requested(), is_discarded(run), _loss(run)))
        except RunError:
            continue  # it has just been deleted
    return views


def loss_of(config: RunConfig) -> str:
    """Say which loss a run minimises: a key of `LOSS_NAMES`.

    "imitation" is DPO with TRL's "sft" beside it, which raises the chosen answer's own likelihood; "sft" is that alone.
    """
    if config.loss != "dpo" or "sft" not in config.loss_type:
        return config.loss
    return "imitation" if len(config.loss_type) > 1 else "sft"


def _loss(run: RunDirectory) -> str:
    try:
        written = os.stat(run.path / "config.json")
        return _saved_loss(run.path, written.st_mtime_ns)
    except (OSError, RunError):
        return ""


@lru_cache(KEPT_LOSSES)
def _saved_loss(path: Path, written: int) -> str:
    """Read the loss once for each time that the configuration was written: all runs are looked at every moment."""
    return loss_of(RunDirectory(path).config())


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
    if status.active and status.global_step >= status.max_steps:
        return f"{words} · finishing"  # what is held out is evaluated once more
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


def head_html(view: RunView | None, curves: Curves, result: str = "", title: str = "", change: str = "") -> str:
    """Write what stands above the curves: name, state, progress, result (`title` on the pointer), error, notes."""
    if view is None:
        return (
            '<div class="run-head"><h2>No run yet</h2><span class="result">Press “Train”: the curves appear here while '
            "it runs.</span></div>"
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
    # Its line is there from the start, so that the charts below don't move when it comes.
    line = "What it changed is said here at its end." if status.active else ""
    if result:
        changed = f": <b>{shown(change)}</b>" if change else ""
        line = f'<span title="{plain(title)}">{shown(result)}{changed}</span> {what("run_result", "what-run-result")}'
    parts.append(f'<span class="result">{line}</span></div>')
    if status.state in ("failed", "interrupted"):
        parts.append(_failure(view))
    elif status.state == "stopped" and status.error:
        parts.append(note(f"{status.error[:1].upper()}{status.error[1:]}."))
    parts.append(notes(_noted(view), "Noted when it began"))
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


def _noted(view: RunView) -> list[str]:
    try:
        noted = noted_at_start(view.run)
    except RunError as damage:
        noted = [str(damage)]
    return [f"{words[:1].upper()}{words[1:]}." for words in noted]


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
