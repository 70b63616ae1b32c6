from copy import deepcopy

import pytest

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.pairs import PreferencePair, Step, dump_pairs, parse_pairs
from stepwise_dpo.ui.library import ExampleSet, Library, draft_of, new_pair, pair_from_draft

ONE = PreferencePair("Add 1 and 2", [Step("1 + 2 = 3", True)], [Step("1 + 2 = 4", False)], "a", {"origin": "test"})
TWO = PreferencePair("Halve 10", [Step("10 / 2 = 5")], [Step("10 / 2 = 4")], "b")


def examples(*pairs):
    return ExampleSet("set", pairs)


def test_every_edit_can_be_undone():
    start = examples(ONE, TWO)
    changed = start.replaced(0, TWO).deleted(1).inserted(1, ONE)
    assert changed.pairs == (TWO, ONE)
    assert changed.undone().undone().undone().pairs == start.pairs
    assert not start.edited
    assert start.undone() is start


@pytest.mark.parametrize("index", [-1, 2, 10**9])
def test_an_index_out_of_range_is_refused(index):
    for edit in (lambda s: s.replaced(index, ONE), lambda s: s.deleted(index)):
        with pytest.raises(DataError):
            edit(examples(ONE, TWO))
    with pytest.raises(DataError):
        examples(ONE, TWO).inserted(3, ONE)


def test_search_needs_every_word_somewhere_in_the_example():
    assert examples(ONE, TWO).found("  ") == [0, 1]
    assert examples(ONE, TWO).found("ADD 4") == [0]
    assert examples(ONE, TWO).found("halve 4") == [1]
    assert examples(ONE, TWO).found("nothing") == []


def test_new_ids_are_free():
    assert examples(ONE, TWO).new_id() == "3"
    third = new_pair("3")
    assert examples(third, ONE).deleted(1).inserted(0, TWO).new_id() == "4"


def test_a_library_keeps_edits_of_every_set_and_copies_for_free():
    library = Library((examples(ONE),), "set")
    library = library.updated(library.current.deleted(0)).added("set", [TWO])
    assert library.names == ["set", "set (2)"]
    assert library.current.pairs == (TWO,)
    assert library.opened("set").current.pairs == ()
    assert deepcopy(library) is library
    with pytest.raises(DataError, match="no example set"):
        library.opened("other")


def test_a_draft_comes_back_as_the_same_pair():
    assert pair_from_draft(draft_of(ONE), ONE) == ONE
    edited = draft_of(ONE)
    edited["chosen"].append({"text": "${alert(1)} <b>", "label": None})
    pair = pair_from_draft(edited, ONE)
    assert parse_pairs(dump_pairs([pair]), "x.json") == [pair]
    assert (pair.id, pair.meta) == (ONE.id, ONE.meta)


STEP = {"text": "x", "label": None}


@pytest.mark.parametrize(
    ("draft", "words"),
    [
        (None, "no example"),
        ({}, "prompt is empty"),
        ({"prompt": " ", "chosen": [STEP], "rejected": [STEP]}, "prompt is empty"),
        ({"prompt": "p", "chosen": [], "rejected": [STEP]}, "chosen has no steps"),
        ({"prompt": "p", "chosen": [STEP], "rejected": "text"}, "rejected has no steps"),
        ({"prompt": "p", "chosen": [STEP, {"text": " "}], "rejected": [STEP]}, "chosen step 2 is empty"),
        ({"prompt": "p", "chosen": [STEP], "rejected": [7]}, "rejected step 1 is not a step"),
        ({"prompt": "p", "chosen": [{"text": "x", "label": 1}], "rejected": [STEP]}, "chosen step 1: label"),
        ({"prompt": "p" * 200_000, "chosen": [STEP], "rejected": [STEP]}, "prompt must have at most"),
        ({"prompt": "p", "chosen": [STEP] * 1001, "rejected": [STEP]}, "chosen must have 1 to 1,000 steps"),
    ],
)
def test_a_bad_draft_is_refused_with_its_place(draft, words):
    with pytest.raises(DataError, match=words):
        pair_from_draft(draft, ONE)
