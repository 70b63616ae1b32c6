import pytest

from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.ui.address import Address, ComparisonLink, address_of, arrive, read_address
from stepwise_dpo.ui.library import ExampleSet, Library
from stepwise_dpo.ui.visitors import known_or_new

PAIRS = tuple(PreferencePair("p", [Step("a")], [Step("b")], id) for id in ("one", "two"))
LIBRARY = Library((ExampleSet("first", PAIRS), ExampleSet("second", PAIRS[::-1])), "first")


def test_what_an_address_says_is_found_again():
    library, selected, lacking = arrive(LIBRARY, Address(set="second", example="one"))
    assert (library.open_name, selected, lacking) == ("second", 1, "")
    assert address_of(library, selected, "run-7") == {"set": "second", "example": "one", "run": "run-7"}


def test_an_address_that_says_nothing_changes_nothing():
    assert arrive(LIBRARY, Address()) == (LIBRARY, 0, "")


@pytest.mark.parametrize(
    ("address", "words"),
    [(Address(set="third", example="one"), "doesn't have"), (Address(example="three"), "isn't in first")],
)
def test_a_link_to_what_is_not_here_says_so(address, words):
    library, selected, lacking = arrive(LIBRARY, address)
    assert (library, selected) == (LIBRARY, 0)
    assert words in lacking


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"tab": "rewards", "set": "s", "example": "e", "run": "r"}, Address("rewards", "s", "e", "r")),
        ({"tab": "nowhere", "other": "x"}, Address()),
        ({"set": "s" * 301, "run": 3, "only": "x" * 301, "row": 7}, Address()),
        ({"on": "open", "row": "7"}, Address(comparison=ComparisonLink(on="open", row="7"))),
        ({}, Address()),
    ],
)
def test_an_address_is_read_with_care(query, expected):
    assert read_address(query) == expected


def test_an_empty_set_has_no_example():
    assert address_of(Library((ExampleSet("new", ()),), "new"), 0, "") == {"set": "new", "example": "", "run": ""}


@pytest.mark.parametrize("sent", [None, "", "x", "a" * 44, "../" * 14 + "a", 3, ["a" * 43]])
def test_a_browser_without_a_secret_gets_one(sent):
    first, second = known_or_new(sent), known_or_new(sent)
    assert first != second
    assert first != sent
    assert known_or_new(first) == first
