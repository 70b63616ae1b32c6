"""What two tabs share: pieces of HTML made of escaped text, and the three interactive components.

Every function here that takes other people's text escapes it. HTML goes to the page as a component's value, never as
its template: Gradio compiles templates as JavaScript, so that `${...}` in a step would run.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import orjson
import plotly

from stepwise_dpo.preferences.pairs import PreferencePair, Step, divergence, first_error
from stepwise_dpo.ui import colours
from stepwise_dpo.ui.figures import Chart
from stepwise_dpo.ui.glossary import GLOSSARY
from stepwise_dpo.ui.text import plain, shown, signed

ASSETS = Path(__file__).parent / "assets"
PLOTLY_JS = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
PLOTLY_URL = "/plotly.min.js"
"""Where the page serves it; by Gradio's own way its address would say where it lies on this machine."""
PLOTLY_TAG = f'<script src="{PLOTLY_URL}?{plotly.__version__}"></script>'


class Item(NamedTuple):
    """One entry of a list; `title` is escaped here, `sub_html` is HTML already."""

    key: str
    title: str
    sub_html: str


@dataclass(frozen=True)
class Shared:
    """The states of a session that several tabs read.

    Attributes:
        library: the visitor's example sets.
        selected: index of the chosen example in the open set.
        run_id: the chosen run; "" for none.
        visitor: a secret of the visitor's browser, which finds the visitor's own things again after a refresh; "" for
            a caller without one.
        arrived: changes once the other states hold what the page was opened with.
        comparison: the Compare tab's `Session`, which holds what the address asks that tab for.
        kept_form: the Train form as the browser keeps it, see `kept_form`; "" while nobody has changed it.
    """

    library: gr.State
    selected: gr.State
    run_id: gr.State
    visitor: gr.State
    arrived: gr.State
    comparison: gr.State
    kept_form: gr.BrowserState


@cache
def asset(name: str) -> str:
    """Read a file of the assets folder."""
    return (ASSETS / name).read_text(encoding="utf-8")


def stylesheet() -> str:
    """Read all style sheets: the page's, then each tab's own."""
    names = sorted(path.name for path in ASSETS.glob("*.css"))
    return "\n".join(asset(name) for name in sorted(names, key=lambda name: name != "page.css"))


# ------------------------------------------------------------------------------------------------------- components


def html(value: str = "", **options: Any) -> gr.HTML:
    """Make a component for HTML that Python wrote."""
    return gr.HTML(value, apply_default_css=False, js_on_load=None, **options)


def choice_list(value: str = "", **options: Any) -> gr.HTML:
    """Make a list whose `choose` event brings {"key": ...}; its value comes from `list_html`."""
    return gr.HTML(value, apply_default_css=False, js_on_load=asset("list.js"), **options)


def clicks(queue: str) -> dict[str, Any]:
    """Options of an event that carries what was clicked: each click counts, one after the other, in one `queue`.

    With "always_last" Gradio would send the data of the first click that waits again, and by default drop the others.
    """
    return {
        "show_progress": "hidden",
        "trigger_mode": "multiple",
        "concurrency_id": queue,
        "concurrency_limit": 1,
    }


def plots(**options: Any) -> gr.HTML:
    """Make a group of figures that keep zoom and legend when they are updated; its value comes from `plots_value`.

    Its `choose` event brings {"chart", "trace", "x", "y", "key"} of a clicked point; `key` is the point's customdata.
    Not `gr.Plot`, which builds the figure anew at every change and brings another version of plotly.js.
    """
    single = " single" if options.pop("single", False) else ""
    return gr.HTML(
        plots_value([]),
        html_template=f'<div class="plots{single}"></div>',
        apply_default_css=False,
        head=PLOTLY_TAG,
        js_on_load=asset("plots.js"),
        **options,
    )


def editor(value: dict[str, Any] | None = None, **options: Any) -> gr.HTML:
    """Make an editor of one example; its `save` event brings {"key", "index", "draft"}.

    Its server functions are `check` and `tokens`, see `draft_check`.
    """
    return gr.HTML(
        value or {},
        html_template='<div class="editor"></div>',
        apply_default_css=False,
        # One script: what Gradio runs can't import.
        js_on_load="".join(asset(name) for name in ("drafts.js", "editor_model.js", "editor.js")),
        **options,
    )


def examples_table(value: str = "", **options: Any) -> gr.HTML:
    """Make a table of examples; its value comes from `examples_table.table_html`.

    Its `choose` event brings {"key": index as text} or {"example": key}, its `look` event {"sort"} or {"page"}.
    """
    return gr.HTML(value, apply_default_css=False, js_on_load=asset("table.js"), **options)


def copyable(value: str = "", **options: Any) -> gr.HTML:
    """Make a component for HTML whose "Copy" buttons copy the code after them."""
    return gr.HTML(value, apply_default_css=False, js_on_load=asset("copy.js"), **options)


def run_table(**options: Any) -> gr.HTML:
    """Make the table of runs; its value comes from `run_table.table_value`, its events are named in run_table.js."""
    return gr.HTML(
        {},
        # The script moves each explanation beside the head that it belongs to.
        html_template='<div class="run-table">'
        f'<span data-head="Loss">{what("run_loss")}</span>'
        f'<span data-head="Before → after">{what("run_result")}</span></div>',
        apply_default_css=False,
        js_on_load=asset("run_table.js"),
        **options,
    )


def plots_value(charts: Iterable[Chart]) -> str:
    """Write charts as the value of `plots`; a chart whose id is in the glossary explains itself.

    As one string: Gradio's script makes a proxy of each part of an object, and copies them all at each event.
    """
    value = [
        {**chart._asdict(), "what": GLOSSARY[chart.id]._asdict() if chart.id in GLOSSARY else None} for chart in charts
    ]
    return orjson.dumps({"charts": value}).decode()


# ------------------------------------------------------------------------------------------------------------ words


def error(message: str) -> str:
    """Say what is wrong and what to change; "" for an empty message, which clears an earlier one."""
    return f'<div class="message error" role="alert">{shown(message)}</div>' if message else ""


def note(message: str) -> str:
    """Say something worth knowing; "" for an empty message."""
    return f'<div class="message note" role="status">{shown(message)}</div>' if message else ""


def notes(messages: Sequence[str], heading: str) -> str:
    """List what is odd about something; "" if nothing is."""
    if not messages:
        return ""
    points = "".join(f"<li>{shown(message)}</li>" for message in messages)
    return f'<div class="message note"><b>{shown(heading)}</b><ul>{points}</ul></div>'


_made = count()


def what(key: str, name: str = "") -> str:
    """Write a small button that explains a term of the glossary in a popover.

    Args:
        key: of the term.
        name: the popover's id, where the same HTML is written again and again and an open one must stay; "" for any.
    """
    entry = GLOSSARY[key]
    name = name or f"what-{next(_made)}"
    formula = f'<span class="math">{shown(entry.formula)}</span>' if entry.formula else ""
    source = f'<span class="source">{shown(entry.source)}</span>' if entry.source else ""
    label = plain(f"What is {entry.title}?")
    return (
        f'<button type="button" class="what" popovertarget="{name}" aria-label="{label}">?</button>'
        f'<span class="what-box" popover id="{name}"><b>{shown(entry.title)}</b>'
        f"<span>{shown(entry.words)}</span>{formula}{source}</span>"
    )


def empty_state(what: str, do: str) -> str:
    """Say that there is nothing yet, and what to do."""
    return f'<div class="empty-state"><b>{shown(what)}</b>{shown(do)}</div>'


def list_html(head: str, items: Sequence[Item], current: str, label: str) -> str:
    """Write the value of a `choice_list`; `head` is text."""
    rows = "".join(
        f'<button type="button" class="list-item" data-key="{plain(item.key)}" '
        f'aria-current="{"true" if item.key == current else "false"}">'
        f'<span class="title">{plain(item.title, 160)}</span><span class="sub">{item.sub_html}</span></button>'
        for item in items
    )
    return (
        f'<p class="list-head">{shown(head)}</p>'
        f'<div class="list-pane" role="group" aria-label="{plain(label)}">{rows}</div>'
    )


# ------------------------------------------------------------------------------------------------------- step rows


def solution(
    title: str,
    steps: Sequence[Step],
    values: Sequence[float] | None,
    *,
    sum_html: str = "",
    diverges_at: int | None = None,
    position: float = 1.0,
    centre: float = 0.0,
    with_sign: bool = True,
    source: str = "label",
) -> str:
    """Write a solution as a column of step rows: number, text, value.

    Args:
        title: of the column.
        steps: texts with labels.
        values: one per step; None shows the steps alone.
        sum_html: what stands at the right of the title.
        diverges_at: index of the step before which the dashed line stands; None for no line.
        position: the distance from `centre` that has the full colour.
        centre: the value without colour.
        with_sign: whether values have a sign, as all but probabilities do.
        source: who says that a step is wrong. Where some steps have a label, the others say that they have none.
    """
    rows = []
    first_wrong = first_error(steps)
    labelled = any(step.label is not None for step in steps)
    for index, step in enumerate(steps):
        if index == diverges_at:
            rows.append('<li class="diverges">diverges here</li>')
        tag = ""
        if step.label is False:
            kind, said = ("tag", "first error") if index == first_wrong else ("tag later", "wrong")
            tag = f'<span class="{kind}">{said} ({shown(source)})</span>'
        elif step.label is None and labelled:  # else it would look like one that is labelled right
            tag = '<span class="tag later">no label</span>'
        text = f'<span class="number">{index + 1}</span><span class="text"><bdi>{shown(step.text)}</bdi>{tag}</span>'
        if values is None:
            rows.append(f'<li class="step plain">{text}</li>')
        else:
            value = values[index]
            digits = 1 if abs(value) >= 100 else 2  # what fits into the cell
            number = signed(value, digits) if with_sign else f"{value:.{digits}f}"
            style = colours.style((value - centre) / position if position else 0.0)
            rows.append(f'<li class="step" style="{style}">{text}<span class="value">{number}</span></li>')
    return (
        f'<section class="solution"><header><h3>{shown(title)}</h3><span class="sum">{sum_html}</span></header>'
        f'<ol class="steps">{"".join(rows)}</ol></section>'
    )


def coloured(value: float, digits: int = 2) -> str:
    """Write a number whose colour repeats its sign."""
    sign = "positive" if value > 0 else "negative" if value < 0 else ""
    return f'<b class="{sign}">{signed(value, digits)}</b>'


def divergence_line(pair: PreferencePair) -> int | None:
    """Find where the dashed line of a pair stands; None if one side only repeats the other's steps to the end."""
    index = divergence(pair)
    return index if index < min(len(pair.chosen), len(pair.rejected)) else None


def stats(figures: Sequence[tuple[str, str]], scale: tuple[str, str] | None = None) -> str:
    """Write large numbers with small explanations (HTML), and the ends of the colour scale."""
    cells = "".join(f'<div class="stat"><b>{number}</b><span>{words}</span></div>' for number, words in figures)
    ends = f'<div class="scale"><span>{scale[0]}</span><i></i><span>{scale[1]}</span></div>' if scale else ""
    return f'<div class="stats">{cells}{ends}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], wide: bool = False) -> str:
    """Write a table of cells that are HTML already; a wide one scrolls in its own box on a narrow page."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(
        f"<tr><th>{cells[0]}</th>" + "".join(f"<td>{cell}</td>" for cell in cells[1:]) + "</tr>" for cells in rows
    )
    box = "table-box wide" if wide else "table-box"
    return f'<div class="{box}"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def download_js() -> str:
    """Write the script that saves {"name", "text", "type"?}, as JSON, in the browser as a file; "" as none.

    Nothing is written on the server: a path returned from a handler would be copied into Gradio's cache, where everyone
    who knows its name can read it.
    """
    return """
(file) => {
  if (!file) return;
  const { name, text, type } = JSON.parse(file);
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type: type ?? 'application/json' }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
"""
