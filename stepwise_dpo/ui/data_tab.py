"""Data: choose a set, search it, edit an example step by step, add, delete, download."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.pairs import dump_pairs, parse_pairs
from stepwise_dpo.preferences.rows import MAX_BYTES
from stepwise_dpo.ui.components import Shared, choice_list, editor, empty_state, error, examples_html, html, note, notes
from stepwise_dpo.ui.library import Library, draft_of, new_pair, pair_from_draft

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


def build(shared: Shared, tab: gr.Tab) -> None:
    """Lay out the tab and connect its events."""
    with gr.Row(elem_classes="split"):
        with gr.Column(elem_classes="choose"):
            chosen_set = gr.Dropdown(label="Example set", elem_id="data-set", filterable=False)
            upload = gr.UploadButton(
                "Upload JSON or JSON Lines", file_types=[".json", ".jsonl"], size="sm", elem_id="data-upload"
            )
            upload_message = html(elem_id="data-upload-message")
            search = gr.Textbox(
                label="Search", placeholder="words in prompt or steps", elem_id="data-search", max_lines=1
            )
            listing = choice_list(elem_id="data-list")
            with gr.Row():
                add = gr.Button("Add example", size="sm", elem_id="data-add")
                delete = gr.Button("Delete example", size="sm", elem_id="data-delete")
            with gr.Row():
                undo = gr.Button("Undo", size="sm", elem_id="data-undo")
                download = gr.Button("Download JSON", size="sm", elem_id="data-download")
            download_file = gr.Textbox(visible=False)
        with gr.Column(elem_classes="look"):
            steps = editor(elem_id="data-editor")
            message = html(elem_id="data-message")
            remarks = html(elem_id="data-remarks")

    view = [chosen_set, listing, steps, remarks]

    def show(library: Library, selected: int, query: str, forget: Sequence[str] = ()) -> list[Any]:
        return [
            gr.Dropdown(choices=library.names, value=library.open_name),
            list_view(library, selected, query),
            editor_value(library, selected, forget),
            remarks_view(library, selected),
        ]

    def on_show(library: Library, selected: int, query: str) -> list[Any]:
        return show(library, _valid(library, selected), str(query))

    def on_set(library: Library, name: str) -> list[Any]:
        try:
            library = library.opened(name)
        except DataError as problem:
            return [gr.skip()] * 6 + [error(str(problem)), gr.skip()]
        return [library, 0, *show(library, 0, ""), "", ""]

    def on_upload(library: Library, path: str) -> list[Any]:
        try:
            library = read_upload(library, Path(path))
        except DataError as problem:
            return [gr.skip()] * 6 + [error(f"{problem}\nYour examples are unchanged."), gr.skip()]
        loaded = note(f"Loaded {len(library.current.pairs):,} examples from {library.open_name}.")
        return [library, 0, *show(library, 0, ""), loaded, ""]

    def on_search(library: Library, selected: int, query: str) -> str:
        return list_view(library, selected, str(query))

    def on_choose(library: Library, event: gr.EventData) -> list[Any]:
        selected = chosen_index(library, event)
        return [selected, editor_value(library, selected), remarks_view(library, selected), ""]

    def on_save(library: Library, query: str, event: gr.EventData) -> list[Any]:
        try:
            library, selected = save_draft(library, event._data)
        except DataError as problem:
            return [gr.skip()] * 6 + [error(f"Not saved: {problem}")]
        forget = [example_key(library, selected)]
        return [library, selected, *show(library, selected, query, forget), note("Saved in this session.")]

    def on_add(library: Library) -> list[Any]:
        current = library.current
        selected = len(current.pairs)
        library = library.updated(current.inserted(selected, new_pair(current.new_id())))
        shown = show(library, selected, "", [example_key(library, selected)])
        return [library, selected, *shown, note("Added a small example at the end; edit it."), ""]

    def on_delete(library: Library, selected: int, query: str) -> list[Any]:
        try:
            current = library.current.deleted(selected)
        except DataError as problem:
            return [gr.skip()] * 6 + [error(str(problem))]
        forget = [example_key(library, selected)]
        library = library.updated(current)
        kept = _valid(library, selected)
        return [
            library,
            kept,
            *show(library, kept, query, forget),
            note(f"Deleted example {selected + 1}. Undo brings it back."),
        ]

    def on_undo(library: Library, selected: int, query: str) -> list[Any]:
        if not library.current.edited:
            return [gr.skip()] * 6 + [note("There is nothing to undo in this set.")]
        library = library.updated(library.current.undone())
        kept = _valid(library, selected)
        forget = [example_key(library, kept)] if library.current.pairs else []
        return [library, kept, *show(library, kept, query, forget), note("Took back the last change.")]

    def on_download(library: Library) -> list[Any]:
        try:
            text = dump_pairs(library.current.pairs)
        except DataError as problem:
            return [gr.skip(), error(str(problem))]
        return [json.dumps({"name": download_name(library.open_name), "text": text}), ""]

    states = [shared.library, shared.selected]
    everything = [*states, *view, message]
    for event in (shared.arrived.change, tab.select):
        # Whoever types a search before the first answer is there shall not see it overwritten by that.
        event(on_show, [*states, search], view, show_progress="hidden").then(
            on_search, [*states, search], listing, show_progress="hidden"
        )
    chosen_set.input(
        on_set, [shared.library, chosen_set], [*states, *view, upload_message, search], show_progress="hidden"
    )
    upload.upload(
        on_upload, [shared.library, upload], [*states, *view, upload_message, search], show_progress="minimal"
    )
    # Not .input, which a paste does not fire.
    search.change(on_search, [*states, search], listing, show_progress="hidden", trigger_mode="always_last")
    listing.choose(
        on_choose,
        shared.library,
        [shared.selected, steps, remarks, message],
        show_progress="hidden",
        trigger_mode="always_last",
    )
    steps.save(on_save, [shared.library, search], everything, show_progress="hidden")
    add.click(on_add, shared.library, [*everything, search], show_progress="hidden")
    delete.click(on_delete, [*states, search], everything, show_progress="hidden")
    # Every click counts, one after the other: each takes back one change.
    undo.click(
        on_undo,
        [*states, search],
        everything,
        show_progress="hidden",
        trigger_mode="multiple",
        concurrency_limit=1,
    )
    # The text travels to the browser and becomes a file there: a path returned from here would be copied into
    # Gradio's cache, where everyone who knows its name can read it.
    download.click(on_download, shared.library, [download_file, message], show_progress="hidden").success(
        None, download_file, None, js=_DOWNLOAD_JS
    )


def list_view(library: Library, selected: int, query: str) -> str:
    """List the examples that match a search."""
    return examples_html(library.current.pairs, library.current.found(query[:200]), selected)


def editor_value(library: Library, selected: int, forget: Sequence[str] = ()) -> dict[str, Any]:
    """Write the editor's value; `forget` names examples whose unsaved text the browser drops."""
    pairs = library.current.pairs
    if not pairs:
        return {"forget": list(forget), "stamp": time.time()}
    pair = pairs[selected]
    # The stamp makes every value differ from the last, so that the browser always hears of it.
    return {
        "key": example_key(library, selected),
        "index": selected,
        "draft": draft_of(pair),
        "forget": list(forget),
        "stamp": time.time(),
    }


def remarks_view(library: Library, selected: int) -> str:
    """Say what is odd about an example, or that there is none."""
    pairs = library.current.pairs
    if not pairs:
        return empty_state("No examples in this set", "Upload a file, choose another set, or press “Add example”.")
    return notes(pairs[selected].problems(), "Worth a look")


def example_key(library: Library, selected: int) -> str:
    """Name an example for the browser, the same until it is deleted."""
    return f"{library.open_name}\n{library.current.pairs[selected].id}"


def chosen_index(library: Library, event: gr.EventData) -> int:
    """Check the index that a list sent: the browser can send anything.

    Returns:
        A valid index, or 0.
    """
    key = (event._data or {}).get("key") if isinstance(event._data, dict) else None
    if isinstance(key, str) and key.isascii() and key.isdigit() and int(key[:9]) < len(library.current.pairs):
        return int(key[:9])
    return 0


def save_draft(library: Library, sent: object) -> tuple[Library, int]:
    """Check what the editor sent and put it into the open set.

    Raises:
        DataError: the example is gone, or the draft is not usable.
    """
    if not isinstance(sent, dict) or type(index := sent.get("index")) is not int:
        raise DataError("the editor sent no example")
    current = library.current
    current.check(index)
    if sent.get("key") != example_key(library, index):
        raise DataError("this example has moved; choose it in the list again, what you typed is kept")
    return library.updated(current.replaced(index, pair_from_draft(sent.get("draft"), current.pairs[index]))), index


def read_upload(library: Library, path: Path) -> Library:
    """Read an uploaded file into a new set.

    Raises:
        DataError: it can't be used; the message names the file, row and field.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as problem:
        raise DataError(f"{path.name}: can't be read: {problem.strerror}") from problem
    pairs = parse_pairs(data, path.name)
    if not pairs:
        raise DataError(f"{path.name}: has no examples")
    return library.added(path.name, pairs)


def download_name(name: str) -> str:
    """Name the downloaded file after the set; its content is always JSON."""
    return Path(name.replace("/", "_")).stem[:80] + ".json"


def _valid(library: Library, selected: int) -> int:
    return max(0, min(selected, len(library.current.pairs) - 1))
