"""What the Train tab shows while runs come and go: each look at the runs sends only what has changed since the last."""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import orjson

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.checkpoints import refuse_to_resume
from stepwise_dpo.runs.config import RunConfig
from stepwise_dpo.runs.export import accelerate_command, command, portable
from stepwise_dpo.ui.components import error, plots_value
from stepwise_dpo.ui.curves import Curves
from stepwise_dpo.ui.run_reader import RunReader
from stepwise_dpo.ui.run_table import Choice, chosen_views, result_of, table_value
from stepwise_dpo.ui.runs_view import RunView, chip_html, config_html, find, head_html, signature
from stepwise_dpo.ui.text import shown
from stepwise_dpo.ui.training_figures import training_charts


class Actions(NamedTuple):
    """Which buttons the opened run has, in the order of the page; Discard and Delete ask before they do it."""

    stop: bool
    discard: bool
    resume: bool
    again: bool
    load: bool
    delete: bool

    @classmethod
    def of(cls, view: RunView | None) -> "Actions":
        """Say what can be done with a run in its state."""
        if view is None:
            return cls(False, False, False, False, False, False)
        active = view.status.active
        try:
            resumable = not active and refuse_to_resume(view.run) is None
        except RunError:  # damaged
            resumable = False
        return cls(active, active and not view.discarded, resumable, not active, True, not active)


class Live(NamedTuple):
    """The values of the live components, in the order of the page's outputs.

    `run` is the run that is shown: another one than was chosen where that is gone.
    """

    run: str
    chip: str
    head: str
    charts: str
    take_along: str
    table: dict[str, Any]
    stop: Any
    discard: Any
    resume: Any
    again: Any
    load: Any
    delete: Any
    exports: Any
    archive: Any


Seen = Mapping[str, object]
"""What a session was sent last: a digest for each live component, and the signature of what they were made from."""


def updates(reader: RunReader, visitor: str, run_id: object, choice: Choice, seen: Seen | None = None) -> list[Any]:
    """Look at the runs and write what the live components show.

    Args:
        reader: of the page's runs.
        visitor: who looks.
        run_id: the run that the session has chosen.
        choice: what it has chosen in the table.
        seen: what the last look returned first; what was sent then isn't sent again.

    Returns:
        what to give as `seen` next time, then a value for each field of `Live`.
    """
    views = reader.views(visitor)
    current = find(views, run_id)
    now = _made_from(views, current, choice)
    if seen is not None and seen.get("signature") == now:
        return [gr.skip()] * (1 + len(Live._fields))
    values = _live(reader, views, current, choice)._asdict()
    digests = {name: _digest(value) for name, value in values.items()}
    sent = [value if seen is None or seen.get(name) != digests[name] else gr.skip() for name, value in values.items()]
    return [{**digests, "signature": now}, *sent]


def _made_from(views: list[RunView], current: RunView | None, choice: Choice) -> tuple[object, ...]:
    """Everything that makes the live components look different."""
    drawn = chosen_views(views, current, choice)
    return (*signature(views, current), *[signature([view], view) for view in drawn], choice)


def forget(seen: Seen | None, *names: str) -> Seen | None:
    """Forget what was sent to some components, so that the browser's own change there is confirmed or taken back."""
    return None if seen is None else {name: value for name, value in seen.items() if name not in (*names, "signature")}


def _live(reader: RunReader, views: list[RunView], current: RunView | None, choice: Choice) -> Live:
    newest = find(views, None)
    actions = Actions.of(current)
    stopping = current is not None and (current.stop_requested or current.discarded)
    drawn = [reader.drawn(view) for view in chosen_views(views, current, choice)]
    # A run that ended before its first step has nothing to draw, and what came of it is said above.
    ended = current is not None and not current.status.active
    charts = [] if ended and not any(run.curves.count("loss") for run in drawn) else training_charts(drawn)
    return Live(
        run=current.run.id if current else "",
        chip=chip_html(views, reader.curves(newest.run)) if newest else "",
        head=(
            head_html(current, reader.curves(current.run), *result_of(reader.facts(current)))
            if current
            else head_html(None, Curves())
        ),
        charts=plots_value(charts),
        take_along=take_along_html(current, reader.public) if current else "",
        # The stamp makes the browser hear of it also where it only has to take back a tick of its own.
        table={**table_value(reader, views, current, choice), "stamp": time.time()},
        stop=gr.update(
            visible=actions.stop, interactive=not stopping, value="Stopping…" if stopping else "Stop and keep"
        ),
        discard=gr.update(visible=actions.discard),
        resume=gr.update(visible=actions.resume),
        again=gr.update(visible=actions.again),
        load=gr.update(visible=actions.load),
        delete=gr.update(visible=actions.delete),
        exports=gr.update(visible=current is not None),
        archive=gr.update(visible=current is not None and current.kept),
    )


def take_along_html(view: RunView, public: bool) -> str:
    """Write a run's saved configuration and the commands that repeat it."""
    try:
        config = view.run.config()
    except RunError as problem:
        return error(str(problem))
    named = named_for_reader(config, public)
    place = f"runs/{view.run.id}-again"
    return (
        _code("Repeat it here", "", command(named, place))
        + _code(
            "Run it on a machine with several GPUs",
            "The batch size is that of each process. For more machines add --machine_rank and --main_process_ip.",
            accelerate_command(named, place),
        )
        + f'<h3 class="take">Configuration of this run</h3>{config_html(config)}'
    )


def named_for_reader(config: RunConfig, public: bool) -> RunConfig:
    """Name a configuration's files as its reader can use them: relative to where the page was started, if below it.

    Args:
        config: with absolute paths.
        public: whether the reader is a stranger, who gets file names only.
    """
    if public:
        return portable(config)
    places = {}
    for name in ("data", "eval_data"):
        value = getattr(config, name)
        if value and Path(value).is_relative_to(Path.cwd()):
            places[name] = str(Path(value).relative_to(Path.cwd()))
    return config.model_copy(update=places)


def _code(title: str, hint: str, text: str) -> str:
    words = f'<p class="hint">{shown(hint)}</p>' if hint else ""
    return (
        f'<h3 class="take">{shown(title)}<button type="button" class="copy" aria-label="Copy: {shown(title)}">Copy'
        f'</button></h3>{words}<pre class="code" tabindex="0">{shown(text)}</pre>'
    )


def _digest(value: object) -> str:
    if isinstance(value, dict):
        value = {name: part for name, part in value.items() if name != "stamp"}
    return hashlib.sha256(orjson.dumps(value)).hexdigest()
