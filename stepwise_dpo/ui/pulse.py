"""How an open page hears that its visitor's runs have moved: a small question, asked many times a minute."""

import hashlib
import secrets
import time
from typing import Any

import gradio as gr

from stepwise_dpo.ui.components import asset
from stepwise_dpo.ui.run_reader import RunReader
from stepwise_dpo.ui.runs_view import file_size

LOCAL_SECONDS, PUBLIC_SECONDS, SPACE_SECONDS = 0.25, 0.8, 2.5  # Spaces answer 429 to a faster poll
IDLE, BEGINNING = 2, 0.4
"""Times as long from one question to the next, where no run is at work, and where one has just begun."""

SETTLING_SECONDS = 3.0
"""A run that has just begun goes through its phases faster than a page looks, and the look that brings its first point
would have to wait for those at the phases."""

_SERVER = secrets.token_hex(8)
"""Another one after a restart: what a page knows is old then, and it looks, and finds out that its state is gone."""


def build(reader: RunReader, seconds: float) -> gr.HTML:
    """Make the component that asks.

    Its `moved` event says that there is something to look at, its `ended` event that a run has ended (or that one which
    had is gone), on whatever tab its visitor is.

    Args:
        reader: of the page's runs.
        seconds: from an answer to the next question, while a run is at work.
    """

    def newest(visitor: object) -> dict[str, Any]:
        return newest_of(reader, visitor if isinstance(visitor, str) else "")

    return gr.HTML(
        None,
        html_template="",
        js_on_load=asset("pulse.js"),
        server_functions=[newest],
        elem_id="pulse",
        padding=False,
    )


def beat(reader: RunReader, visitor: str, seconds: float) -> dict[str, Any]:
    """Write the component's value, before the runs are looked at: what ends a look, and lets the page ask again."""
    newest = newest_of(reader, visitor)
    sooner = BEGINNING if seconds < SPACE_SECONDS else 1
    pauses = {"seconds": seconds, "idle": IDLE * seconds, "beginning": sooner * seconds}
    return {
        "visitor": visitor, "standing": newest["standing"], "over": newest["over"], **pauses, "stamp": time.time()
    }  # fmt: skip


def newest_of(reader: RunReader, visitor: str) -> dict[str, Any]:
    """Say where a visitor's runs stand.

    {"standing": another one once that has changed, "pace": which pause comes before the next question, "over": another
    one once a run has ended}.
    All that changes without somebody's click is in it: states, phases, and what a run at work has written. The look at
    the runs may be a little old, see `RunReader.recent_views`.
    """
    views = reader.recent_views(visitor)
    standing: list[object] = [_SERVER]
    beginning = False
    for view in views:
        written = file_size(view.run.path / "metrics.jsonl") if view.status.active else None
        standing += [view.run.id, written]
        settling = written == 0 and view.status.age <= SETTLING_SECONDS and view.status.state != "queued"
        beginning = beginning or settling
        if not settling or view.stop_requested:
            standing += [view.state, view.status.phase]
    over = [view.run.id for view in views if not view.status.active]
    pace = "beginning" if beginning else "seconds" if len(over) < len(views) else "idle"
    return {"standing": _digest(standing), "pace": pace, "over": _digest(over)}


def _digest(listed: list[Any]) -> str:
    return hashlib.sha256(repr(listed).encode()).hexdigest()[:16]
