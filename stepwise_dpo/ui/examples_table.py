"""The table of examples: what is found, in which order, one page of it, as HTML.

Only one page is sent to the browser. Search, order and page are arguments; nothing is remembered here.
"""

from collections.abc import Callable
from html import escape
from typing import Any, NamedTuple

from stepwise_dpo.ui.components import what
from stepwise_dpo.ui.example_facts import ExampleFacts
from stepwise_dpo.ui.library import ExampleSet, Library
from stepwise_dpo.ui.text import counted, plain

PAGE_ROWS = 25
MAX_QUERY = 200
MAX_PROMPT = 160  # characters of a prompt that a row shows; all of it is in the editor

Fact = Callable[[ExampleSet, int], Any]


class Column(NamedTuple):
    """A column that can be sorted by: its head, and what is compared of an example."""

    title: str
    fact: Fact


def _facts(read: Callable[[ExampleFacts], Any]) -> Fact:
    return lambda examples, index: read(examples.facts[index])


COLUMNS: dict[str, Column] = {
    "number": Column("#", lambda _, index: index),
    "prompt": Column("Prompt", _facts(lambda facts: facts.prompt_key)),
    "steps": Column("Steps", _facts(lambda facts: (facts.chosen_steps + facts.rejected_steps, facts.chosen_steps))),
    "error": Column("First error", _facts(lambda f: float("inf") if f.first_error is None else f.first_error)),
    "notes": Column("Notes", lambda examples, index: -_notes(examples, index)),
}

FILTERS: dict[str, tuple[str, Fact]] = {
    "all": ("All examples", lambda *_: True),
    "notes": ("Worth a look", lambda examples, index: _notes(examples, index) > 0),
    "repeated": ("Repeated prompts", lambda examples, index: index in examples.repeated),
    "unlabelled": ("Steps without a label", _facts(lambda f: f.labelled < f.chosen_steps + f.rejected_steps)),
    "no-error": ("No first error", _facts(lambda facts: facts.first_error is None)),
}


class Arrangement(NamedTuple):
    """In which order the examples stand, and which page of them is shown (from 0)."""

    sort: str = "number"
    descending: bool = False
    page: int = 0


def rearranged(arrangement: Arrangement, sent: object) -> Arrangement:
    """Do what a click in the table asks for: {"sort": column} or {"page": number}; anything else changes nothing.

    A click on the column that is sorted by turns the order round. A page that doesn't exist becomes the last one when
    the table is drawn.
    """
    if not isinstance(sent, dict):
        return arrangement
    sort, page = sent.get("sort"), sent.get("page")
    if isinstance(sort, str) and sort in COLUMNS:
        return Arrangement(sort, sort == arrangement.sort and not arrangement.descending)
    if type(page) is int and 0 <= page < 10**6:
        return arrangement._replace(page=page)
    return arrangement


def arranged(examples: ExampleSet, query: str, filter: str, arrangement: Arrangement) -> list[int]:
    """Indices of the examples that match search and filter, in the order asked for."""
    keep = FILTERS.get(filter, FILTERS["all"])[1]
    found = [index for index in examples.found(query[:MAX_QUERY]) if keep(examples, index)]
    if arrangement.sort != "number":
        fact = COLUMNS[arrangement.sort].fact
        # Python's sort keeps the order of equals, also when it is reversed.
        return sorted(found, key=lambda index: fact(examples, index), reverse=arrangement.descending)
    return found[::-1] if arrangement.descending else found


def page_with(examples: ExampleSet, query: str, filter: str, arrangement: Arrangement, index: int) -> int | None:
    """Find the page that an example is on; None where search or filter leave it out."""
    found = arranged(examples, query, filter, arrangement)
    return found.index(index) // PAGE_ROWS if index in found else None


def example_key(library: Library, index: int) -> str:
    """Name an example for the browser, the same until it is deleted."""
    return f"{library.open_name}\n{library.current.pairs[index].id}"


def table_html(library: Library, selected: int, query: str, filter: str, arrangement: Arrangement) -> str:
    """Write one page of the table; all text in it is escaped."""
    examples = library.current
    found = arranged(examples, query, filter, arrangement)
    pages = max(1, -(-len(found) // PAGE_ROWS))
    page = min(arrangement.page, pages - 1)
    listed = found[page * PAGE_ROWS : (page + 1) * PAGE_ROWS]
    rows = "".join(_row(library, index, index == selected) for index in listed)
    if not rows:
        words = "No example matches." if examples.pairs else "This set has no examples yet."
        rows = f'<tr class="none"><td colspan="{len(COLUMNS)}">{words}</td></tr>'
    return (
        f'<div class="examples" data-set="{escape(library.open_name)}">'
        f'<div class="examples-box" tabindex="-1"><table aria-label="Examples of this set">'
        f"<thead><tr>{''.join(_head(name, arrangement) for name in COLUMNS)}</tr></thead><tbody>{rows}</tbody>"
        f"</table></div>{_foot(len(found), len(examples.pairs), page, pages)}</div>"
    )


def _head(name: str, arrangement: Arrangement) -> str:
    order = "none"
    if name == arrangement.sort:
        order = "descending" if arrangement.descending else "ascending"
    title = "Number" if name == "number" else COLUMNS[name].title
    return (
        f'<th scope="col" class="col-{name}" aria-sort="{order}"><button type="button" data-sort="{name}" '
        f'aria-label="Sort by {title.lower()}">{COLUMNS[name].title}<i aria-hidden="true"></i></button>'
        f"{what('first_error', 'what-first-error') if name == 'error' else ''}</th>"
    )


def _row(library: Library, index: int, selected: bool) -> str:
    examples = library.current
    pair, facts = examples.pairs[index], examples.facts[index]
    error = "–" if facts.first_error is None else str(facts.first_error + 1)
    badges = [
        f'<span class="badge warn" title="{plain(words)}">{plain(_brief(words))}</span>' for words in facts.problems
    ]
    if index in examples.repeated:
        badges.append('<span class="badge" title="An earlier example has the same prompt">repeated prompt</span>')
    unlabelled = facts.chosen_steps + facts.rejected_steps - facts.labelled
    if unlabelled:
        badges.append(f'<span class="badge">{counted(unlabelled, "step")} unlabelled</span>')
    return (
        f'<tr aria-selected="{"true" if selected else "false"}" data-key="{index}" '
        f'data-example="{escape(pair.id)}"><td class="col-number">{index + 1:,}</td>'
        f'<td class="col-prompt"><button type="button" tabindex="-1">{plain(pair.prompt, MAX_PROMPT)}</button></td>'
        f'<td class="col-steps">{facts.chosen_steps} | {facts.rejected_steps}</td><td class="col-error">{error}</td>'
        f'<td class="col-notes">{"".join(badges)}</td></tr>'
    )


def _foot(found: int, total: int, page: int, pages: int) -> str:
    words = counted(total, "example") if found == total else f"{found:,} of {counted(total, 'example')}"
    turn = ""
    if pages > 1:
        turn = (
            f'<span class="pager">{_page_button("First page", "«", 0, page == 0)}'
            f"{_page_button('Previous page', '←', page - 1, page == 0)}"
            f"<span>page {page + 1:,} of {pages:,}</span>"
            f"{_page_button('Next page', '→', page + 1, page == pages - 1)}"
            f"{_page_button('Last page', '»', pages - 1, page == pages - 1)}</span>"
        )
    return (
        f'<div class="examples-foot"><span class="count" role="status">{words}</span>'
        f'<span class="unsaved" role="status"></span>{turn}</div>'
    )


def _page_button(label: str, sign: str, page: int, disabled: bool) -> str:
    off = " disabled" if disabled else ""
    return f'<button type="button" data-page="{page}" aria-label="{label}"{off}>{sign}</button>'


def _notes(examples: ExampleSet, index: int) -> int:
    return len(examples.facts[index].problems) + (index in examples.repeated)


def _brief(problem: str) -> str:
    """Say a problem in the few words that a badge has room for."""
    for part, words in _BRIEF:
        if part in problem:
            return words
    return problem


_BRIEF = (
    ("are identical", "identical sides"),
    ("is only the beginning", "one side continues the other"),
    ("labelled right on one and wrong", "labels contradict"),
    ("is labelled wrong", "chosen step wrong"),
    ("every rejected step is labelled right", "rejected all right"),
)
