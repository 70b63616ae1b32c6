"""Data: choose, upload or generate a set; find an example in the table; edit it step by step; download.

What the buttons do is in `data_actions`, as functions without Gradio; here is the layout, and which event does what.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.statistics import statistics
from stepwise_dpo.preferences.synthetic import CORRUPTIONS, FAMILIES
from stepwise_dpo.ui import data_actions as actions
from stepwise_dpo.ui.components import (
    Shared,
    editor,
    empty_state,
    error,
    examples_table,
    html,
    note,
    notes,
    plots,
    plots_value,
    stats,
    what,
)
from stepwise_dpo.ui.data_figures import statistics_charts
from stepwise_dpo.ui.draft_check import TOKEN_MODELS, check_draft, count_tokens, is_on_disk
from stepwise_dpo.ui.examples_table import FILTERS, Arrangement, example_key, page_with, rearranged, table_html
from stepwise_dpo.ui.library import Library, draft_of
from stepwise_dpo.ui.policies import Policies
from stepwise_dpo.ui.text import counted
from stepwise_dpo.ui.workspace import Workspace

HELD_OUT = "heldout_prm.json"
KEYS = (
    "In a step: Ctrl+Enter splits at the caret, Alt+Enter inserts, Alt+↑ ↓ moves, Backspace at its start merges. "
    "Ctrl+Z takes back, Ctrl+S saves."
)

_DOWNLOAD_JS = """
(file) => {
  const { name, text } = JSON.parse(file);
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
"""


@dataclass(frozen=True)
class DataTab:
    """What the page needs of the tab to show a visitor's own things when it loads.

    Attributes:
        show: takes the values of `inputs` and writes those of `view`.
        inputs: states and fields.
        view: all that depends on the library.
        message: where what could not be read back is said.
    """

    show: Callable[..., list[Any]]
    inputs: list[Any]
    view: list[Any]
    message: gr.HTML


def build(
    shared: Shared, tab: gr.Tab, workspace: Workspace, policies: Policies | None = None, public: bool = False
) -> DataTab:
    """Lay out the tab and connect its events.

    Args:
        shared: the states of a session.
        tab: the tab itself.
        workspace: keeps what visitors change; knows the bundled sets.
        policies: count tokens.
        public: whether strangers use the page, so that generating has a lower limit.
    """
    policies = policies or Policies()
    bundled = workspace.bundled

    def check(sent: Any) -> Any:
        return check_draft(sent)

    def tokens(sent: Any) -> Any:
        return count_tokens(policies.token_counts, is_on_disk, sent)

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
            html('<p class="hint">Your own: JSON or JSON Lines, up to 64 MiB</p>')
            upload = gr.File(
                label="Upload JSON or JSON Lines",
                file_types=[".json", ".jsonl"],
                height=96,
                elem_id="data-upload",
            )
            recipe, generate = _generator(bundled, public)
            avoid = recipe[-1]
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
                    label="Search", placeholder="words in prompt or steps", elem_id="data-search", max_lines=1, scale=3
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

    arrangement, unfolded = gr.State(Arrangement()), gr.State(False)
    states = [shared.visitor, shared.library, shared.selected]
    looks = [search, narrow, arrangement]
    figures = [numbers, charts]
    view = [chosen_set, avoid, settle, table, steps, remarks, undo, redo, *figures]
    context = [*states, *looks, unfolded]

    def show(
        library: Library,
        selected: int,
        query: str,
        filter: str,
        order: Arrangement,
        open_: bool,
        forget: Sequence[str] = (),
    ) -> list[Any]:
        return [
            gr.Dropdown(choices=library.names, value=library.open_name),
            gr.Dropdown(choices=library.names),
            settle_button(library, bundled),
            table_html(library, selected, str(query), str(filter), order),
            editor_value(library, selected, forget),
            remarks_view(library),
            history_button("Undo", undoable(library)),
            history_button("Redo", library.current.future[-1].change if library.current.future else ""),
            *(statistics_view(library) if open_ else [gr.skip()] * len(figures)),
        ]

    def on_show(_: str, library: Library, selected: int, *rest: Any) -> list[Any]:
        return show(library, actions.valid_index(library, selected), *rest)

    everything = [shared.library, shared.selected, *looks, *view, message, set_message]

    def bind(
        listener: Callable[..., Any],
        act: Callable[..., actions.Outcome],
        extra: Sequence[Any] = (),
        also: Sequence[Any] = (),
        on_left: bool = False,
        **options: Any,
    ) -> None:
        """Let an event do an action: run it, keep the result on disk, show it.

        Args:
            listener: of the event.
            act: takes library, selected index, the values of `extra` and the event's data; may raise DataError.
            extra: components whose values it needs.
            also: components that are emptied.
            on_left: whether the message belongs to the left column.
            options: of the listener.
        """

        def said(text: str) -> list[str]:
            return ["", text] if on_left else [text, ""]

        def on_event(
            event: gr.EventData, visitor: str, library: Library, selected: int, query: str, filter: str, order: Any,
            open_: bool, *more: Any,
        ) -> list[Any]:  # fmt: skip
            emptied: list[None] = [None] * len(also)
            try:
                result = act(library, actions.valid_index(library, selected), *more, event._data)
                kept = workspace.save(visitor, result.library, library) if result.library is not library else []
            except DataError as problem:
                return [*[gr.skip()] * (len(everything) - 2), *said(error(str(problem))), *emptied]
            looked = looked_at(result, str(query), str(filter), order)
            changed = [
                now if now != was else gr.skip() for now, was in zip(looked, (query, filter, order), strict=True)
            ]
            shown_now = show(result.library, result.selected, *looked, open_, result.forget)
            words = "\n".join([result.message, *kept]).strip()
            return [result.library, result.selected, *changed, *shown_now, *said(note(words)), *emptied]

        listener(on_event, [*context, *extra], [*everything, *also], show_progress="hidden", **options)

    in_order: dict[str, Any] = {"trigger_mode": "multiple", "concurrency_limit": 1}  # every click counts
    bind(chosen_set.input, lambda library, _, name, __: actions.open_set(library, name), [chosen_set], on_left=True)
    bind(
        upload.upload,
        lambda library, _, path, __: actions.upload(library, Path(str(path))),
        [upload],
        also=[upload],
        on_left=True,
    )
    bind(
        generate.click,
        lambda library, _, *form: actions.generate(library, actions.Recipe(*form[:-1]), public),
        recipe,
        on_left=True,
    )
    bind(settle.click, lambda library, *_: settled(library, bundled), on_left=True)
    bind(steps.save, lambda library, _, sent: actions.save(library, sent))
    bind(add.click, lambda library, *_: actions.add(library))
    bind(duplicate.click, lambda library, selected, _: actions.duplicate(library, selected))
    bind(delete.click, lambda library, selected, _: actions.delete(library, selected))
    bind(undo.click, lambda library, selected, _: actions.undo(library, selected), **in_order)
    bind(redo.click, lambda library, selected, _: actions.redo(library, selected), **in_order)

    def on_find(
        _: str, library: Library, selected: int, query: str, filter: str, order: Arrangement, __: bool
    ) -> list[Any]:
        order = order._replace(page=0)
        return [order, table_html(library, selected, str(query), str(filter), order)]

    def on_look(
        library: Library, selected: int, query: str, filter: str, order: Arrangement, event: gr.EventData
    ) -> list[Any]:
        order = rearranged(order, event._data)
        return [order, table_html(library, selected, str(query), str(filter), order)]

    def on_choose(library: Library, query: str, filter: str, order: Arrangement, event: gr.EventData) -> list[Any]:
        selected = actions.chosen_index(library, event._data)
        if isinstance(event._data, dict) and "example" in event._data:
            # It may be on another page, or left out by the search.
            looked = looked_at(actions.Outcome(library, selected, ""), str(query), str(filter), order)
            return [selected, *looked, table_html(library, selected, *looked), editor_value(library, selected), ""]
        return [selected, *[gr.skip()] * 4, editor_value(library, selected), ""]

    def on_unfold(library: Library) -> list[Any]:
        return [True, *statistics_view(library)]

    quietly: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
    tab.select(on_show, context, view, show_progress="hidden")
    # Not .input, which a paste does not fire.
    for field in (search, narrow):
        field.change(on_find, context, [arrangement, table], **quietly)
    table.look(on_look, [*states[1:], *looks], [arrangement, table], **quietly)
    table.choose(on_choose, [shared.library, *looks], [shared.selected, *looks, table, steps, message], **quietly)
    folded.expand(on_unfold, shared.library, [unfolded, *figures], show_progress="hidden")
    folded.collapse(lambda: False, None, unfolded, show_progress="hidden")
    for kind, button in downloads.items():
        # The text travels to the browser and becomes a file there: a path returned from here would be copied into
        # Gradio's cache, where everyone who knows its name can read it.
        button.click(_download(kind), shared.library, [download_file, set_message], show_progress="hidden").success(
            None, download_file, None, js=_DOWNLOAD_JS
        )
    return DataTab(on_show, context, view, message)


def load(workspace: Workspace, visitor: object) -> tuple[Library, str]:
    """Find a visitor's sets again when the page loads.

    Returns:
        the library; what could not be read back, as HTML for the tab's message.
    """
    library, messages = workspace.load(visitor)
    return library, notes(messages, "Not all of your earlier changes could be read back")


def looked_at(result: actions.Outcome, query: str, filter: str, order: Arrangement) -> tuple[str, str, Arrangement]:
    """Choose search, filter and page so that the selected example is in the table."""
    if result.is_new_set:
        return "", "all", order._replace(page=0)
    examples = result.library.current
    for sought, kept in ((query, filter), ("", "all")):
        page = page_with(examples, sought, kept, order, result.selected)
        if page is not None:
            return sought, kept, order._replace(page=page)
    return query, filter, order._replace(page=0)


def editor_value(library: Library, selected: int, forget: Sequence[str] = ()) -> dict[str, Any]:
    """Write the editor's value; `forget` names examples whose unsaved text the browser drops."""
    # The stamp makes every value differ from the last, so that the browser always hears of it.
    value: dict[str, Any] = {"forget": list(forget), "stamp": time.time(), "models": list(TOKEN_MODELS)}
    pairs = library.current.pairs
    if not pairs:
        return value
    return {**value, "key": example_key(library, selected), "index": selected, "draft": draft_of(pairs[selected])}


def remarks_view(library: Library) -> str:
    """Say what to do in an empty set; nothing otherwise, for the editor has its remarks at the rows."""
    if library.current.pairs:
        return ""
    return empty_state("No examples in this set", "Drop a file, choose or generate a set, or press “Add example”.")


def statistics_view(library: Library) -> list[Any]:
    """Count over the open set: large numbers, and small plots."""
    found = statistics(library.current.pairs)
    labelled = f"{found.labelled_steps / found.steps:.0%}" if found.steps else "–"
    numbers = stats(
        [
            (f"{found.pairs:,}", "examples"),
            (f"{found.steps:,}", "steps on both sides"),
            (labelled, f"of the steps have a label {what('first_error')}"),
            (f"{found.repeated_prompts:,}", f"repeated {'prompt' if found.repeated_prompts == 1 else 'prompts'}"),
        ]
    )
    return [numbers, plots_value(statistics_charts(found, actions.leaked(library)))]


def settle_button(library: Library, bundled: Library) -> Any:
    """Offer to restore a bundled set that has changed, or to remove another one."""
    original = bundled.get(library.open_name)
    if original is None:
        return gr.update(visible=True, value="Remove this set")
    changed = original.pairs is not library.current.pairs and original.pairs != library.current.pairs
    return gr.update(visible=changed, value="Restore the bundled examples")


def settled(library: Library, bundled: Library) -> actions.Outcome:
    """Do what `settle_button` offers."""
    return actions.restore(library, bundled) if bundled.get(library.open_name) else actions.remove(library)


def undoable(library: Library) -> str:
    """Name the change that undo takes back; "" without one."""
    if library.removed is not None:
        return f"removed {library.removed.name}"
    return library.current.history[-1].change if library.current.history else ""


def history_button(word: str, change: str) -> Any:
    """Say on a button which change it takes back or makes again; it can't be pressed without one."""
    return gr.update(value=f"{word}: {change}" if change else word, interactive=bool(change))


def chosen_index(library: Library, event: gr.EventData) -> int:
    """Check the index that a list sent: the browser can send anything.

    Returns:
        A valid index, or 0.
    """
    return actions.chosen_index(library, event._data)


def _generator(bundled: Library, public: bool) -> tuple[list[Any], gr.Button]:
    """Lay out the form of the generator, in the order of `actions.Recipe`."""
    limit = actions.PUBLIC_MAX_GENERATED if public else actions.MAX_GENERATED
    small: dict[str, Any] = {"precision": 0, "min_width": 90}
    with gr.Accordion("Generate examples", open=False, elem_id="data-generate"):
        families = gr.Dropdown(
            list(FAMILIES),
            value=list(FAMILIES),
            multiselect=True,
            label="Families of problems",
            elem_id="data-families",
        )
        corruptions = gr.Dropdown(
            [(name.replace("_", " "), name) for name in CORRUPTIONS],
            multiselect=True,
            label="Kinds of mistakes",
            info="none chosen: all",
            elem_id="data-corruptions",
        )
        with gr.Row():
            n = gr.Number(
                100, label="Examples", info=f"up to {limit:,}", minimum=1, maximum=limit, elem_id="data-n", **small
            )
            seed = gr.Number(7, label="Seed", info="same seed, same set", minimum=0, elem_id="data-seed", **small)
        with gr.Row():
            fewest = gr.Number(2, label="Fewest steps", minimum=2, maximum=12, elem_id="data-fewest", **small)
            most = gr.Number(6, label="Most steps", minimum=2, maximum=12, elem_id="data-most", **small)
        max_number = gr.Number(100, label="Largest number", minimum=20, maximum=10**6, elem_id="data-largest", **small)
        avoid = gr.Dropdown(
            bundled.names,
            value=[HELD_OUT] if HELD_OUT in bundled.names else [],
            multiselect=True,
            label="No problem that is in",
            info="so that nothing held out is trained on",
            elem_id="data-avoid",
        )
        button = gr.Button("Generate examples", variant="primary", size="sm", elem_id="data-make")
    n.change(
        lambda value: f"Generate {counted(int(value), 'example')}" if value and value > 0 else "Generate examples",
        n,
        button,
        show_progress="hidden",
    )
    return [families, corruptions, n, seed, fewest, most, max_number, avoid], button


def _download(kind: str) -> Callable[[Library], list[Any]]:
    def on_download(library: Library) -> list[Any]:
        try:
            file = actions.download(library, kind)
        except DataError as problem:
            return [gr.skip(), error(str(problem))]
        return [json.dumps({"name": file.name, "text": file.text}), note(file.message)]

    return on_download
