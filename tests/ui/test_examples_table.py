import re

import pytest

from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.ui.data_actions import Outcome
from stepwise_dpo.ui.data_views import looked_at
from stepwise_dpo.ui.examples_table import (
    PAGE_ROWS,
    Arrangement,
    arranged,
    page_with,
    rearranged,
    table_html,
)
from stepwise_dpo.ui.library import ExampleSet, Library

HOSTILE = "<img src=x onerror=alert(1)> ${alert(1)} {{x}} `x` \u202eabc"


def pair(prompt, rejected_labels, id, chosen=1):
    return PreferencePair(
        prompt,
        [Step(f"right {i}", True) for i in range(chosen)],
        [Step(f"wrong {i}", label) for i, label in enumerate(rejected_labels)],
        id,
    )


EXAMPLES = ExampleSet(
    "set",
    (
        pair("b", [True, False], "1"),
        pair("c", [False], "2", chosen=3),
        pair("a", [None], "3"),
        pair("B", [True], "4"),
    ),
)
LIBRARY = Library((EXAMPLES,), "set")


@pytest.mark.parametrize(
    ("sort", "descending", "expected"),
    [
        ("number", False, [0, 1, 2, 3]),
        ("number", True, [3, 2, 1, 0]),
        ("prompt", False, [2, 0, 3, 1]),  # capitals don't matter, equals keep their order
        ("prompt", True, [1, 0, 3, 2]),
        ("steps", False, [2, 3, 0, 1]),
        ("error", False, [1, 0, 2, 3]),  # without an error comes last
        ("notes", False, [3, 0, 1, 2]),  # the most notes first: a repeated prompt and an odd label
    ],
)
def test_sorting(sort, descending, expected):
    assert arranged(EXAMPLES, "", "all", Arrangement(sort, descending)) == expected


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ("all", [0, 1, 2, 3]),
        ("notes", [3]),
        ("repeated", [3]),
        ("unlabelled", [2]),
        ("no-error", [2, 3]),
        ("x", [0, 1, 2, 3]),
    ],
)
def test_filters(filter, expected):
    assert arranged(EXAMPLES, "", filter, Arrangement()) == expected


def test_search_and_sort_go_together():
    assert arranged(EXAMPLES, "WRONG b", "all", Arrangement("number", True)) == [3, 0]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"sort": "prompt"}, Arrangement("prompt", False, 0)),
        ({"sort": "steps"}, Arrangement("steps", True, 0)),  # the same column again
        ({"page": 4}, Arrangement("steps", False, 4)),
        ({"page": -1}, Arrangement("steps", False, 2)),
        ({"page": True}, Arrangement("steps", False, 2)),
        ({"sort": "__class__"}, Arrangement("steps", False, 2)),
        ({"sort": ["prompt"]}, Arrangement("steps", False, 2)),
        (None, Arrangement("steps", False, 2)),
    ],
)
def test_clicks_in_the_table(sent, expected):
    assert rearranged(Arrangement("steps", False, 2), sent) == expected


def test_only_one_page_is_sent():
    pairs = tuple(pair(f"problem {i}", [False], str(i)) for i in range(60))
    library = Library((ExampleSet("set", pairs),), "set")
    html = table_html(library, 30, "", "all", Arrangement(page=1))
    assert html.count("<tr aria-selected") == PAGE_ROWS
    assert re.findall(r'aria-selected="true" data-key="(\d+)"', html) == ["30"]
    assert "page 2 of 3" in html
    last = table_html(library, 0, "", "all", Arrangement(page=999))
    assert last.count("<tr aria-selected") == 10
    assert page_with(library.current, "", "all", Arrangement("number", True), 0) == 2
    assert page_with(library.current, "problem 7", "all", Arrangement(), 0) is None


def test_the_selected_example_is_always_in_the_table():
    pairs = tuple(pair(f"problem {i}", [False], str(i)) for i in range(60))
    library = Library((ExampleSet("set", pairs),), "set")
    found = looked_at(Outcome(library, 59, ""), "problem 59", "all", Arrangement())
    assert found == ("problem 59", "all", Arrangement(page=0))
    assert looked_at(Outcome(library, 58, ""), "problem 59", "all", Arrangement()) == ("", "all", Arrangement(page=2))
    empty = Library((ExampleSet("set", ()),), "set")
    assert looked_at(Outcome(empty, 0, ""), "x", "all", Arrangement(page=3)) == ("x", "all", Arrangement())


def test_text_in_the_table_is_inert():
    hostile = PreferencePair(HOSTILE, [Step("same")], [Step("same")], '"><script>')
    html = table_html(Library((ExampleSet(HOSTILE, (hostile,)),), HOSTILE), 0, "", "all", Arrangement())
    assert "<img" not in html
    assert "<script" not in html
    assert "identical sides" in html


def test_facts_are_found_out_once():
    before = EXAMPLES.facts
    after = EXAMPLES.deleted(1)
    assert [a is b for a, b in zip(after.facts, (before[0], *before[2:]), strict=True)] == [True] * 3
    assert after.undone().facts[1] == before[1]


def test_an_empty_table_says_why():
    assert "No example matches" in table_html(LIBRARY, 0, "nowhere", "all", Arrangement())
    assert "no examples yet" in table_html(Library((ExampleSet("s", ()),), "s"), 0, "", "all", Arrangement())
