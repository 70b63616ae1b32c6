"""What the Data tab shows of a library: values of its components, without the components."""

import time
from collections.abc import Sequence
from typing import Any

import gradio as gr

from stepwise_dpo.preferences.statistics import statistics
from stepwise_dpo.ui import data_actions as actions
from stepwise_dpo.ui.components import empty_state, plots_value, stats, what
from stepwise_dpo.ui.data_figures import statistics_charts
from stepwise_dpo.ui.examples_table import Arrangement, example_key, page_with
from stepwise_dpo.ui.library import Library, draft_of


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


def editor_value(library: Library, selected: int, models: Sequence[str], forget: Sequence[str] = ()) -> dict[str, Any]:
    """Write the editor's value.

    Args:
        library: the visitor's example sets.
        selected: index of the open example.
        models: whose tokens the editor offers to count.
        forget: examples whose unsaved text the browser drops.
    """
    # The stamp makes every value differ from the last, so that the browser always hears of it.
    value: dict[str, Any] = {"forget": list(forget), "stamp": time.time(), "models": list(models)}
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
