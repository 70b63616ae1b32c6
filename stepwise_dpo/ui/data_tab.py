"""Data: choose, upload or generate a set; find an example in the table; edit it step by step; download.

What the buttons do is in `data_actions`, as functions without Gradio; here is the layout, and which event does what.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from stepwise_dpo.errors import DataError
from stepwise_dpo.ui import data_actions as actions
from stepwise_dpo.ui.components import (
    Shared,
    clicks,
    download_js,
    editor,
    error,
    examples_table,
    html,
    note,
    plots,
    what,
)
from stepwise_dpo.ui.data_generator import generator
from stepwise_dpo.ui.data_views import (
    editor_value,
    history_button,
    looked_at,
    remarks_view,
    settle_button,
    settled,
    statistics_view,
    undoable,
)
from stepwise_dpo.ui.draft_check import check_draft, count_tokens, is_on_disk, token_models
from stepwise_dpo.ui.examples_table import FILTERS, Arrangement, rearranged, table_html
from stepwise_dpo.ui.kept_form import model_of
from stepwise_dpo.ui.library import Library
from stepwise_dpo.ui.policies import Policies
from stepwise_dpo.ui.recipe import read_recipe
from stepwise_dpo.ui.workspace import Workspace

KEYS = (
    "In a step: Ctrl+Enter splits at the caret, Alt+Enter inserts, Alt+↑ ↓ moves, Backspace at its start merges. "
    "Ctrl+Z takes back, Ctrl+S saves."
)

LOST = (
    "The server has let go of this page, which happens when it is restarted, so nothing was changed. The page loads "
    "itself again now, with what you had typed."
)


class DataTab(NamedTuple):
    """What the rest of the page needs of the tab.

    Attributes:
        open_set: the choice of the open set, which is set wherever this tab opens another one.
        let_open: lets another dropdown of sets open one as well; takes it, and what says why a set can't be opened, and
            returns the event.
    """

    open_set: gr.Dropdown
    let_open: Callable[[gr.Dropdown, gr.HTML], Any]


def build(
    shared: Shared,
    tab: gr.Tab,
    workspace: Workspace,
    policies: Policies,
    public: bool = False,
    tell: Callable[[str], str] = str,
) -> DataTab:
    """Lay out the tab and connect its events.

    Args:
        shared: the states of a session.
        tab: the tab itself.
        workspace: keeps what visitors change; knows the bundled sets.
        policies: count tokens.
        public: whether strangers use the page, so that generating has a lower limit.
        tell: writes an error as a visitor may read it.
    """
    bundled = workspace.bundled

    def check(sent: Any) -> Any:
        return check_draft(sent)

    def tokens(sent: Any) -> Any:
        counted = count_tokens(policies.token_counts, is_on_disk, sent, public)
        return {"problem": tell(counted["problem"])} if "problem" in counted else counted

    with gr.Row(elem_classes="split", elem_id="data-split"):
        with gr.Column(elem_classes="choose"):
            chosen_set = gr.Dropdown(
                label="Example set",
                choices=bundled.names,
                value=bundled.open_name,
                elem_id="data-set",
                filterable=False,
            )
            settle = gr.Button("Restore the bundled examples", size="sm", visible=False, elem_id="data-settle")
            html('<p class="hint">Upload JSON or JSON Lines</p>')
            upload = gr.File(
                label="Upload JSON or JSON Lines",
                file_types=[".json", ".jsonl"],
                height=96,
                elem_id="data-upload",
            )
            form = generator(bundled, public)
            with gr.Accordion("Download", open=False, elem_id="data-downloads"):
                html('<p class="hint">All examples of the open set, saved changes included.</p>')
                downloads = {
                    "native": gr.Button("Download JSON", size="sm", elem_id="data-download"),
                    "trl-preference": gr.Button(
                        "Download TRL preference", size="sm", elem_id="data-download-preference"
                    ),
                    "trl-stepwise": gr.Button("Download TRL stepwise", size="sm", elem_id="data-download-stepwise"),
                }
            # Where somebody who works on the left looks: what came of an upload, a recipe, a download.
            set_message = html(elem_id="data-set-message")
            download_file = gr.Textbox(visible=False)
        with gr.Column(elem_classes="look"):
            with gr.Row(elem_id="data-find"):
                search = gr.Textbox(
                    "",  # without a value the browser's first question would hold none
                    label="Search",
                    placeholder="words in prompt or steps",
                    elem_id="data-search",
                    max_lines=1,
                    scale=3,
                )
                narrow = gr.Dropdown(
                    [(title, key) for key, (title, _) in FILTERS.items()],
                    value="all",
                    label="Show",
                    filterable=False,
                    elem_id="data-filter",
                    scale=1,
                )
            table = examples_table(table_html(bundled, 0, "", "all", Arrangement()), elem_id="data-table")
            with gr.Row(elem_id="data-buttons"):
                add = gr.Button("Add example", size="sm", elem_id="data-add")
                duplicate = gr.Button("Duplicate", size="sm", elem_id="data-duplicate")
                delete = gr.Button("Delete example", size="sm", elem_id="data-delete")
                undo = gr.Button("Undo", size="sm", elem_id="data-undo")
                redo = gr.Button("Redo", size="sm", elem_id="data-redo")
            message = html(elem_id="data-message")
            steps = editor(elem_id="data-editor", server_functions=[check, tokens])
            remarks = html(elem_id="data-remarks")
            html(
                f'<p class="hint editor-help"><span class="keys">{KEYS}</span> Where the sides diverge '
                f"{what('divergence')} Tokens {what('tokens')}</p>"
            )
            with gr.Accordion("Statistics of this set", open=False, elem_id="data-statistics") as folded:
                numbers = html(elem_id="data-numbers")
                charts = plots(elem_id="data-charts")

    # One after the other: two changes that ran at once would both start from the same library, and one be lost; and a
    # choice made during a save would be undone by the save's answer.
    in_order: dict[str, Any] = {"concurrency_id": "data-changes", "concurrency_limit": 1}

    def models(kept: object) -> list[str]:
        return token_models(model_of(kept), public)

    arrangement, unfolded, arrival = gr.State(Arrangement()), gr.State(False), gr.State(None)
    states = [shared.visitor, shared.library, shared.selected]
    looks = [search, narrow, arrangement]
    figures = [numbers, charts]
    view = [chosen_set, form.avoid, settle, table, steps, remarks, undo, redo, *figures]
    context = [*states, *looks, unfolded, shared.kept_form]

    def show(
        library: Library,
        selected: int,
        query: str,
        filter: str,
        order: Arrangement,
        open_: bool,
        kept: object,
        forget: Sequence[str] = (),
    ) -> list[Any]:
        return [
            gr.Dropdown(choices=library.names, value=library.open_name),
            gr.Dropdown(choices=library.names),
            settle_button(library, bundled),
            table_html(library, selected, str(query or ""), str(filter), order),
            editor_value(library, selected, models(kept), forget),
            remarks_view(library),
            history_button("Undo", undoable(library)),
            history_button("Redo", library.current.future[-1].change if library.current.future else ""),
            *(statistics_view(library) if open_ else [gr.skip()] * len(figures)),
        ]

    def on_show(_: str, library: Library, selected: int, *rest: Any) -> list[Any]:
        return show(library, actions.valid_index(library, selected), *rest)

    def on_arrive(
        _: str, library: Library, selected: int, query: str, filter: str, order: Any, open_: bool, kept: object
    ) -> list[Any]:
        # A link may lead to an example on a later page.
        result = actions.Outcome(library, actions.valid_index(library, selected), "")
        looked = looked_at(result, str(query or ""), str(filter), order)
        return [*differing(looked, (query, filter, order)), *show(library, result.selected, *looked, open_, kept)]

    everything = [shared.library, shared.selected, *looks, *view]

    def bind(
        listener: Callable[..., Any],
        act: Callable[..., actions.Outcome | None],
        extra: Sequence[Any] = (),
        also: Sequence[Any] = (),
        said_in: gr.HTML = message,
        **options: Any,
    ) -> Any:
        """Let an event do an action: run it, keep the result on disk, show it.

        Args:
            listener: of the event.
            act: takes library, selected index, the values of `extra` and the event's data; may raise DataError, and
                returns None where there is nothing to do.
            extra: components whose values it needs.
            also: components that are emptied.
            said_in: where the message belongs; the tab's other ones are over.
            options: of the listener.
        """
        others = [place for place in (message, set_message) if place is not said_in]

        def said(text: str) -> list[str]:
            return [text, *[""] * len(others)]

        def on_event(
            event: gr.EventData, visitor: str, library: Library, selected: int, query: str, filter: str, order: Any,
            open_: bool, kept_form: object, *more: Any,
        ) -> list[Any]:  # fmt: skip
            emptied: list[None] = [None] * len(also)
            unchanged = [gr.skip()] * len(everything)
            if not visitor:
                return [*unchanged, *said(error(LOST)), *emptied]
            try:
                result = act(library, actions.valid_index(library, selected), *more, event._data)
            except DataError as problem:
                return [*unchanged, *said(error(str(problem))), *emptied]
            if result is None:
                return [*unchanged, gr.skip(), *[gr.skip()] * len(others), *emptied]
            try:
                kept = workspace.save(visitor, result.library, library) if result.library is not library else []
                words = note("\n".join([result.message, *kept]).strip())
            except DataError as problem:
                words = error(f"{result.message} But {problem}")
            looked = looked_at(result, str(query or ""), str(filter), order)
            changed = differing(looked, (query, filter, order))
            shown_now = show(result.library, result.selected, *looked, open_, kept_form, result.forget)
            return [result.library, result.selected, *changed, *shown_now, *said(words), *emptied]

        outputs = [*everything, said_in, *others, *also]
        return listener(on_event, [*context, *extra], outputs, show_progress="hidden", **in_order, **options)

    def let_open(field: gr.Dropdown, said_in: gr.HTML) -> Any:
        return bind(field.input, lambda library, _, name, __: actions.open_set(library, name), [field], said_in=said_in)

    # Reading a large file or generating takes seconds, in which other changes go on: it makes a new set aside, and
    # only putting that into the library waits its turn.
    def on_upload(path: object) -> list[Any]:
        return aside(lambda: actions.read_upload(Path(str(path))))

    def on_generate(library: Library, *fields: object) -> list[Any]:
        return aside(lambda: actions.generate(library, read_recipe(public, *fields)))

    read = upload.upload(on_upload, upload, [arrival, set_message], show_progress="minimal")
    made = form.button.click(on_generate, [shared.library, *form.fields], [arrival, set_message])
    for prepared, also in ((read, [arrival, upload]), (made, [arrival])):
        bind(
            prepared.then,
            lambda library, _, new, __: new and actions.adopt(library, new),
            [arrival],
            also,
            said_in=set_message,
        )
    let_open(chosen_set, set_message)
    bind(settle.click, lambda library, *_: settled(library, bundled), said_in=set_message)
    bind(steps.save, lambda library, _, sent: actions.save(library, sent))
    bind(add.click, lambda library, *_: actions.add(library))
    bind(duplicate.click, lambda library, selected, _: actions.duplicate(library, selected))
    bind(delete.click, lambda library, selected, _: actions.delete(library, selected))
    bind(undo.click, lambda library, selected, _: actions.undo(library, selected), trigger_mode="multiple")
    bind(redo.click, lambda library, selected, _: actions.redo(library, selected), trigger_mode="multiple")

    def on_find(
        _: str, library: Library, selected: int, query: str, filter: str, order: Arrangement, *__: Any
    ) -> list[Any]:
        order = order._replace(page=0)
        return [order, table_html(library, selected, str(query or ""), str(filter), order)]

    def on_look(
        library: Library, selected: int, query: str, filter: str, order: Arrangement, event: gr.EventData
    ) -> list[Any]:
        order = rearranged(order, event._data)
        return [order, table_html(library, selected, str(query or ""), str(filter), order)]

    def on_choose(
        library: Library, query: str, filter: str, order: Arrangement, kept: object, event: gr.EventData
    ) -> list[Any]:
        selected = actions.chosen_index(library, event._data)
        if isinstance(event._data, dict) and "example" in event._data:
            # It may be on another page, or left out by the search.
            looked = looked_at(actions.Outcome(library, selected, ""), str(query or ""), str(filter), order)
            table_now = table_html(library, selected, *looked)
            moved = differing(looked, (query, filter, order))
            return [selected, *moved, table_now, editor_value(library, selected, models(kept)), ""]
        return [selected, *[gr.skip()] * 4, editor_value(library, selected, models(kept)), ""]

    def on_unfold(library: Library) -> list[Any]:
        return [True, *statistics_view(library)]

    quietly: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
    shared.arrived.change(on_arrive, context, [*looks, *view], show_progress="hidden")
    tab.select(on_show, context, view, show_progress="hidden")
    # Not .input, which a paste does not fire.
    for field in (search, narrow):
        field.change(on_find, context, [arrangement, table], **quietly)
    clicked = clicks("data-table")
    table.look(on_look, [*states[1:], *looks], [arrangement, table], **clicked)
    chosen = [shared.selected, *looks, table, steps, message]
    table.choose(on_choose, [shared.library, *looks, shared.kept_form], chosen, **clicks("data-changes"))
    folded.expand(on_unfold, shared.library, [unfolded, *figures], show_progress="hidden")
    folded.collapse(lambda: False, None, unfolded, show_progress="hidden")
    for kind, button in downloads.items():
        # The text travels to the browser and becomes a file there: a path returned from here would be copied into
        # Gradio's cache, where everyone who knows its name can read it.
        button.click(_download(kind), shared.library, [download_file, set_message], show_progress="hidden").success(
            None, download_file, None, js=download_js()
        )
    return DataTab(chosen_set, let_open)


def differing(now: Sequence[Any], before: Sequence[Any]) -> list[Any]:
    """Leave alone what stays as it is: a field that is set to its own value loses what is typed into it meanwhile."""
    return [new if new != old else gr.skip() for new, old in zip(now, before, strict=True)]


def aside(make: Callable[[], actions.NewSet]) -> list[Any]:
    """Make a new set, or say in the left column why that is not possible."""
    try:
        return [make(), ""]
    except DataError as problem:
        return [None, error(f"{problem}\nYour examples are unchanged.")]


def _download(kind: str) -> Callable[[Library], list[Any]]:
    def on_download(library: Library) -> list[Any]:
        try:
            file = actions.download(library, kind)
        except DataError as problem:
            return ["", error(str(problem))]
        return [json.dumps({"name": file.name, "text": file.text}), note(file.message)]

    return on_download
