"""Train: a form that starts a run in its own process, live curves of one run or several, and the table of all runs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr

from stepwise_dpo.errors import StepwiseDPOError
from stepwise_dpo.runs.checkpoints import BEGINS_AGAIN
from stepwise_dpo.runs.notes import write_note
from stepwise_dpo.runs.own_runs import OwnRuns
from stepwise_dpo.ui.components import Shared, clicks, copyable, error, html, note, plots, run_table
from stepwise_dpo.ui.data_tab import DataTab
from stepwise_dpo.ui.library import Library
from stepwise_dpo.ui.run_exports import build_exports
from stepwise_dpo.ui.run_reader import RunReader
from stepwise_dpo.ui.run_table import Choice, overlay
from stepwise_dpo.ui.runs_view import RunView, find, look
from stepwise_dpo.ui.train_fields import Fields, build_fields, fill
from stepwise_dpo.ui.train_form import Form, form_of, start_again, start_run
from stepwise_dpo.ui.train_live import Live, Seen, forget, updates

_FOCUS_KEEP = "() => setTimeout(() => document.querySelector('#train-keep')?.focus(), 50)"
SHOW_RUN = """() => setTimeout(() => {
    const oneColumn = matchMedia('(max-width: 900px)').matches;
    document.querySelector('#train-head')?.scrollIntoView(oneColumn || { block: 'nearest' });
}, 50)"""
"""Where the page is one column, the opened run is far below what was tapped; else it may be above the window."""

_SHOW_STARTED = f"() => {{ if (!document.querySelector('#train-message .error')) ({SHOW_RUN})(); }}"
_TO_FORM = "() => document.querySelector('#train-preset')?.scrollIntoView({ block: 'nearest' })"


class TrainTab(NamedTuple):
    """What the page needs to show where runs stand: a function that looks, its inputs, its outputs."""

    look: Callable[..., list[Any]]
    inputs: list[Any]
    outputs: list[Any]


def build(shared: Shared, tab: gr.Tab, reader: RunReader, chip: gr.HTML, asking: gr.HTML, data: DataTab) -> TrainTab:
    """Lay out the tab and connect its events.

    Args:
        shared: the states of a session.
        tab: the tab itself.
        reader: of the page's runs.
        chip: the page's, updated with the rest.
        asking: the page's pulse, which hears that a run has ended.
        data: opens the set that the form trains on.
    """
    public = reader.public
    with gr.Row(elem_classes="split", elem_id="train-split"):
        with gr.Column(elem_classes="choose", elem_id="train-form"):
            fields = build_fields(shared, tab, reader, data)
        with gr.Column(elem_classes="look"):
            head = html(elem_id="train-head")
            with gr.Row(elem_classes="run-actions"):
                stop = _button("Stop and keep", "train-stop")
                discarding = _button("Discard…", "train-discard")
                resume = _button("Resume", "train-resume")
                again = _button("Run again", "train-again")
                load = _button("Load into form", "train-load")
                delete = _button("Delete…", "train-delete")
            with gr.Row(visible=False, elem_id="train-confirm") as confirm:
                question = html()
                do_it = gr.Button("Delete", size="sm", variant="stop", min_width=90, elem_id="train-do-it")
                keep = gr.Button("Keep", size="sm", min_width=90, elem_id="train-keep")
            message = html(elem_id="run-message")
            charts = plots(elem_id="train-charts")
            with gr.Accordion(
                "Take it along: model, metrics, commands, configuration",
                open=False,
                visible=False,
                elem_id="train-exports",
            ) as exports:
                archive = build_exports(shared, reader, message)
                take_along = copyable(elem_id="train-take-along")
    table = run_table(elem_id="train-runs")
    choice, seen, asked = gr.State(Choice()), gr.State(None), gr.State(None)
    live = [shared.run_id, chip, head, charts, take_along, table, stop, discarding, resume, again, load]
    live += [delete, exports, archive]
    assert len(live) == len(Live._fields)
    everything = [seen, *live]
    state = [shared.visitor, shared.run_id, choice, seen]

    def look_again(visitor: str, run_id: object, choice: Choice, seen: Seen | None) -> list[Any]:
        return updates(reader, visitor, run_id, choice, seen)

    def on_start(visitor: str, library: Library, choice: Choice, *values: object) -> list[Any]:
        try:
            run = start_run(reader.own(visitor), library, Form(*values), public)
        except StepwiseDPOError as problem:
            return [error(str(problem)), gr.skip(), *[gr.skip()] * len(everything)]
        choice = choice._replace(page=0)
        return ["", choice, *updates(reader, visitor, run.id, choice)]

    def on_stop(visitor: str, run_id: str, choice: Choice, seen: Seen | None) -> list[Any]:
        said = _attempt(lambda: reader.own(visitor).stop(run_id))
        return [said, *updates(reader, visitor, run_id, choice, seen)]

    def on_ask_discard(visitor: str, run_id: str) -> list[Any]:
        return _ask(
            reader.own(visitor),
            run_id,
            "discard",
            "Discard",
            "It is stopped, and its curves and its model are deleted.",
        )

    def on_ask_delete(visitor: str, run_id: str) -> list[Any]:
        return _ask(reader.own(visitor), run_id, "delete", "Delete", "Its curves and its model are deleted.")

    def on_do_it(
        asked: tuple[str, str] | None, visitor: str, run_id: str, choice: Choice, seen: Seen | None
    ) -> list[Any]:
        said = ""
        if asked is not None:
            said = _attempt(lambda: _act(reader.own(visitor), *asked))
        return [gr.update(visible=False), None, said, *updates(reader, visitor, run_id, choice, seen)]

    def on_keep() -> list[Any]:
        return [gr.update(visible=False), None]

    def on_resume(visitor: str, run_id: str, choice: Choice, seen: Seen | None) -> list[Any]:
        said = _resume(reader.own(visitor), run_id)
        return [said, *updates(reader, visitor, run_id, choice, seen)]

    def on_again(visitor: str, run_id: str, choice: Choice, seen: Seen | None) -> list[Any]:
        return run_again(visitor, run_id, choice, seen)

    def run_again(visitor: str, run_id: str, choice: Choice, seen: Seen | None) -> list[Any]:
        try:
            run = start_again(reader.own(visitor), run_id, public)
        except StepwiseDPOError as problem:
            return [error(str(problem)), gr.skip(), *[gr.skip()] * len(everything)]
        choice = choice._replace(page=0)
        return ["", choice, *updates(reader, visitor, run.id, choice, seen)]

    def on_load(visitor: str, library: Library, run_id: str) -> list[Any]:
        return load_into_form(reader.own(visitor), library, run_id, fields)

    def on_open(visitor: str, choice: Choice, seen: Seen | None, event: gr.EventData) -> list[Any]:
        return [gr.update(visible=False), None, "", *updates(reader, visitor, _sent(event, "key"), choice, seen)]

    def on_overlay(visitor: str, run_id: str, choice: Choice, seen: Seen | None, event: gr.EventData) -> list[Any]:
        said = ""
        try:
            choice = overlay(choice, _sent(event, "key"), bool(_sent(event, "on")), run_id)
        except ValueError as problem:
            said = error(str(problem))
        return [said, choice, *updates(reader, visitor, run_id, choice, forget(seen, "table"))]

    def on_turn(visitor: str, run_id: str, choice: Choice, seen: Seen | None, event: gr.EventData) -> list[Any]:
        page = _sent(event, "page")
        choice = choice._replace(page=max(0, page) if type(page) is int else 0)
        return [choice, *updates(reader, visitor, run_id, choice, seen)]

    def on_note(visitor: str, run_id: str, choice: Choice, seen: Seen | None, event: gr.EventData) -> list[Any]:
        key, text = _sent(event, "key"), _sent(event, "text")
        said = _attempt(lambda: write_note(reader.own(visitor).run(key), text))
        return [said, *updates(reader, visitor, run_id, choice, forget(seen))]

    def on_act(
        library: Library, visitor: str, run_id: str, choice: Choice, seen: Seen | None, event: gr.EventData
    ) -> list[Any]:
        key, act = str(_sent(event, "key")), _sent(event, "act")
        unchanged = [gr.skip()] * (2 + len(fields.filled))  # library, the form's message, the form
        if act == "load":
            return [
                *load_into_form(reader.own(visitor), library, key, fields),
                gr.skip(),
                gr.skip(),
                *[gr.skip()] * len(everything),
            ]
        if act == "again":
            return [*unchanged, *run_again(visitor, key, choice, seen)]
        said = _attempt(lambda: _act(reader.own(visitor), "delete", key)) if act == "delete" else ""
        return [*unchanged, said, choice, *updates(reader, visitor, run_id, choice, seen)]

    hidden: dict[str, Any] = {"show_progress": "hidden"}
    clicked = clicks("train-table")
    planned = ([shared.library, *fields.form], fields.planned)
    filled = [shared.library, fields.message, *fields.filled]
    fields.start.click(
        on_start,
        [shared.visitor, shared.library, choice, *fields.form],
        [fields.message, choice, *everything],
        **hidden,
    ).then(None, None, None, js=_SHOW_STARTED)
    stop.click(on_stop, state, [message, *everything], **hidden)
    for button, ask in ((discarding, on_ask_discard), (delete, on_ask_delete)):
        button.click(ask, state[:2], [confirm, asked, question, do_it], **hidden).then(None, None, None, js=_FOCUS_KEEP)
    do_it.click(on_do_it, [asked, *state], [confirm, asked, message, *everything], **hidden)
    keep.click(on_keep, None, [confirm, asked], **hidden)
    resume.click(on_resume, state, [message, *everything], **hidden)
    again.click(on_again, state, [message, choice, *everything], **hidden)
    changing: dict[str, Any] = {
        **hidden,
        "concurrency_id": "data-changes",
    }  # of the library, as the Data tab's edits are
    load.click(on_load, [shared.visitor, shared.library, shared.run_id], filled, **changing).then(
        fields.plan, *planned, js=_TO_FORM, **hidden
    )
    table.open(on_open, [shared.visitor, choice, seen], [confirm, asked, message, *everything], **clicked)
    table.overlay(on_overlay, state, [message, choice, *everything], **clicked)
    table.turn(on_turn, state, [choice, *everything], **clicked)
    table.note(on_note, state, [message, *everything], **clicked)
    table.act(on_act, [shared.library, *state], [*filled, message, choice, *everything], **changing).then(
        fields.plan, *planned, **hidden
    )
    asking.ended(fields.plan, *planned, **hidden)  # it may be the first whose pace is known
    return TrainTab(look_again, state, everything)


def load_into_form(own: OwnRuns, library: Library, run_id: str, fields: Fields) -> list[Any]:
    """Write a run's configuration into the form: [library, the form's message, what `fill` fills]."""
    try:
        config = own.run(run_id).config()
        library, form = form_of(config, library)
    except StepwiseDPOError as problem:
        return [gr.skip(), error(str(problem)), *[gr.skip()] * len(fields.filled)]
    said = f"The form holds the configuration of {run_id}; its examples, {library.current.name}, are open."
    return [library, note(said), *fill(library, form)]


def _act(own: OwnRuns, act: str, run_id: str) -> None:
    if act == "discard":
        own.discard(run_id)
    else:
        own.delete(run_id)


def _ask(own: OwnRuns, run_id: str, act: str, verb: str, what_happens: str) -> list[Any]:
    """Ask before something is lost: [the row, what is asked about, the question, the button]."""
    view: RunView | None = find(look(own), run_id)
    if view is None or view.run.id != run_id:
        return [gr.update(visible=False), None, "", gr.skip()]
    question = note(f"{verb} the run {view.name}? {what_happens}")
    return [gr.update(visible=True), (act, run_id), question, gr.update(value=verb)]


def _attempt(act: Callable[[], object]) -> str:
    """Do something; "" or what went wrong, for the page."""
    try:
        act()
    except StepwiseDPOError as problem:
        return error(str(problem))
    return ""


def _resume(own: OwnRuns, run_id: str) -> str:
    """Go on with a run; what is worth knowing about that, or what went wrong, for the page."""
    try:
        begins_again = not own.run(run_id).checkpoints()
        own.resume(run_id)
    except StepwiseDPOError as problem:
        return error(str(problem))
    return note(f"{BEGINS_AGAIN[:1].upper()}{BEGINS_AGAIN[1:]}.") if begins_again else ""


def _sent(event: gr.EventData, name: str) -> object:
    """What the browser sent with an event; it can be anything."""
    return event._data.get(name) if isinstance(event._data, dict) else None


def _button(text: str, elem_id: str) -> gr.Button:
    return gr.Button(text, size="sm", visible=False, min_width=90, elem_id=elem_id)
