import json

import pytest

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.formats import load_labelled_solutions
from stepwise_dpo.preferences.pairs import PreferencePair, Step, parse_pairs
from stepwise_dpo.ui import data_actions as actions
from stepwise_dpo.ui.data_views import settled
from stepwise_dpo.ui.examples_table import example_key
from stepwise_dpo.ui.library import MAX_SETS, ExampleSet, Library, draft_of
from stepwise_dpo.ui.recipe import read_recipe

PAIRS = tuple(
    PreferencePair(
        f"problem {i}", [Step("a", True), Step(f"right {i}", True)], [Step("a", True), Step("b", False)], f"p{i}"
    )
    for i in range(5)
)
LIBRARY = Library((ExampleSet("one.json", PAIRS), ExampleSet("two.json", PAIRS[:1])), "one.json")


def recipe(**changes):
    values = {
        "families": None, "corruptions": [], "n": 6, "seed": 3, "fewest": 2, "most": 3, "max_number": 50, "avoid": [],
    }  # fmt: skip
    return read_recipe(True, *(values | changes).values())


# ------------------------------------------------------------------------------------------------------- one example


def test_saving_a_draft():
    draft = draft_of(PAIRS[0]) | {"prompt": "changed"}
    key = example_key(LIBRARY, 0)
    saved = actions.save(LIBRARY, {"key": key, "index": 0, "draft": draft})
    assert (saved.selected, saved.library.current.pairs[0].prompt, saved.forget) == (0, "changed", (key,))
    for sent in (None, {}, {"index": True}, {"index": 5, "key": key}, {"index": 0, "key": "other", "draft": draft}):
        with pytest.raises(DataError):
            actions.save(LIBRARY, sent)


def test_duplicates_stand_behind_and_have_ids_of_their_own():
    copied = actions.duplicate(LIBRARY, 1)
    pairs = copied.library.current.pairs
    assert copied.selected == 2
    assert (pairs[2].prompt, pairs[2].chosen, pairs[2].id) == (PAIRS[1].prompt, PAIRS[1].chosen, "6")
    assert pairs[3:] == PAIRS[2:]


def test_undo_and_redo_go_to_the_example_that_changed():
    step = actions.delete(LIBRARY, 2)
    assert "Deleted example 3" in step.message
    step = actions.add(step.library)
    assert step.selected == 4
    step = actions.undo(step.library, 0)
    assert (step.message, step.selected) == ("Took back: added example 5.", 3)
    step = actions.undo(step.library, 0)
    assert (step.library.current.pairs, step.selected) == (PAIRS, 2)
    assert step.forget == (example_key(LIBRARY, 2),)
    assert actions.undo(step.library, 1).library is step.library
    step = actions.redo(step.library, 0)
    assert [pair.id for pair in step.library.current.pairs] == ["p0", "p1", "p3", "p4"]
    edited = step.library.updated(step.library.current.deleted(0))
    assert not edited.current.future  # another edit forgets what was taken back
    assert "nothing to redo" in actions.redo(edited, 0).message


def test_the_last_example_can_be_deleted_and_brought_back():
    library = LIBRARY.opened("two.json")
    step = actions.delete(library, 0)
    assert (step.library.current.pairs, step.selected) == ((), 0)
    assert actions.undo(step.library, 0).library.current.pairs == PAIRS[:1]


@pytest.mark.parametrize("key", ["-1", "5", "x", "", "9" * 5000, "\u0661", None, 0, {"a": 1}])
def test_a_wrong_index_from_the_browser_is_the_first_example(key):
    assert actions.chosen_index(LIBRARY, {"key": key}) == 0
    assert actions.chosen_index(LIBRARY, {"example": key}) == 0
    assert actions.chosen_index(LIBRARY, None) == 0


def test_an_example_is_found_by_its_key():
    assert actions.chosen_index(LIBRARY, {"key": "3"}) == 3
    assert actions.chosen_index(LIBRARY, {"example": example_key(LIBRARY, 3)}) == 3
    assert actions.chosen_index(LIBRARY, {"example": "two.json\np3"}) == 0


# ------------------------------------------------------------------------------------------------------------- sets


def test_a_bad_upload_leaves_everything(tmp_path):
    for name, content in (("a.json", "{"), ("b.json", "[]"), ("c.json", '[{"prompt": "p"}]')):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=name):
            actions.read_upload(tmp_path / name)
    (tmp_path / "good.jsonl").write_text(json.dumps({"prompt": "p", "chosen": ["a"], "rejected": ["b"]}) + "\n")
    new = actions.read_upload(tmp_path / "good.jsonl")
    loaded = actions.adopt(LIBRARY, new)
    assert (loaded.message, loaded.is_new_set) == ("Loaded 1 example from good.jsonl.", True)
    assert actions.adopt(loaded.library, new).library.open_name == "good.jsonl (2)"


def test_generating_is_seeded_and_avoids_what_is_held_out():
    new = actions.generate(LIBRARY, recipe(families=["chain"], corruptions=["off_by_one"]))
    made, pairs = actions.adopt(LIBRARY, new).library, new.pairs
    assert len(pairs) == 6
    assert {pair.meta["family"] for pair in pairs} == {"chain"}
    assert {pair.meta["corruption"] for pair in pairs} == {"off_by_one"}
    again = actions.generate(LIBRARY, recipe(families=["chain"], corruptions=["off_by_one"]))
    assert again.pairs == pairs
    avoiding = recipe(families=["chain"], corruptions=["off_by_one"], avoid=[made.open_name])
    other = actions.generate(made, avoiding)
    assert not {pair.prompt for pair in other.pairs} & {pair.prompt for pair in pairs}
    assert len(actions.generate(LIBRARY, recipe()).pairs) == 6  # nothing chosen: all kinds


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n": 501}, "examples: give a whole number from 1 to 500"),
        ({"n": float("nan")}, "examples"),
        ({"n": None}, "examples"),
        ({"n": "6"}, "examples"),
        ({"n": True}, "examples"),
        ({"seed": 10**400}, "seed: give a whole number from 0 to 9,007,199,254,740,992"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"fewest": 5, "most": 4}, "steps"),
        ({"max_number": 10**9}, "largest number"),
        ({"families": ["chains"]}, "did you mean 'chain'"),
        ({"families": "chain"}, "choose from the list"),
        ({"corruptions": [7]}, "choose from the list"),
        ({"avoid": ["nowhere.json"]}, "no example set 'nowhere.json'"),
    ],
)
def test_a_recipe_that_can_not_be_made_says_what_to_change(changes, words):
    with pytest.raises(DataError, match=words):
        actions.generate(LIBRARY, recipe(**changes))


def test_a_bundled_set_is_restored_and_another_removed_and_both_can_be_undone():
    changed = actions.delete(LIBRARY, 0).library
    restored = settled(changed, LIBRARY)
    assert restored.library.current.pairs == PAIRS
    assert actions.undo(restored.library, 0).library.current.pairs == PAIRS[1:]

    added = LIBRARY.added("mine.json", list(PAIRS))
    removed = settled(added, LIBRARY)
    assert removed.library.names == ["one.json", "two.json"]
    assert actions.undo(removed.library, 0).library.open_name == "mine.json"
    assert removed.library.opened("two.json").removed is None
    with pytest.raises(DataError, match="last example set"):
        Library((ExampleSet("only", ()),), "only").without("only")


def test_there_are_not_more_sets_than_fit():
    library = LIBRARY
    while len(library.sets) < MAX_SETS:
        library = library.added("x.json", PAIRS)
    with pytest.raises(DataError, match="remove one"):
        library.added("x.json", PAIRS)


def test_what_leaks_into_other_sets_is_counted():
    assert actions.leaked(LIBRARY) == [("two.json", 1)]
    assert actions.leaked(LIBRARY.added("new.json", [PreferencePair("q", [Step("a")], [Step("b")])])) == []


# -------------------------------------------------------------------------------------------------------- downloads


def test_downloads_can_be_read_again(tmp_path):
    native = actions.download(LIBRARY, "native")
    assert (native.name, native.message) == ("one.json", "")
    assert parse_pairs(native.text, "x.json") == list(PAIRS)

    preference = actions.download(LIBRARY, "trl-preference")
    rows = [json.loads(line) for line in preference.text.splitlines()]
    assert rows[1] == {"prompt": "problem 1", "chosen": "a\nright 1", "rejected": "a\nb"}
    assert preference.name == "one-preference.jsonl"
    assert "labels are left out" in preference.message

    stepwise = actions.download(LIBRARY, "trl-stepwise")
    path = tmp_path / stepwise.name
    path.write_text(stepwise.text)
    solutions, repeated = load_labelled_solutions(path)
    assert (len(solutions), repeated) == (10, 0)
    assert solutions[1].labels == (True, False)


def test_downloads_say_what_they_can_not_hold():
    pair = PreferencePair("p", [Step("two\nlines")], [Step("b")])
    library = Library((ExampleSet("../etc/x", (pair,)),), "../etc/x")
    assert "1 step with line breaks" in actions.download(library, "trl-preference").message
    assert "2 steps without a label" in actions.download(library, "trl-stepwise").message
    assert actions.download(library, "native").name == "_etc_x.json"
    contradicting = PreferencePair("p", [Step("a", True)], [Step("a", False)])
    with pytest.raises(DataError, match="pair 1"):
        actions.download(Library((ExampleSet("x", (contradicting,)),), "x"), "trl-stepwise")
    with pytest.raises(DataError, match="empty"):
        actions.download(Library((ExampleSet("x", ()),), "x"), "native")
    with pytest.raises(DataError, match="no format"):
        actions.download(library, "pickle")
