from stepwise_dpo.preferences.pairs import PreferencePair, Step, remarks
from stepwise_dpo.preferences.statistics import (
    hardly_differ,
    mean_characters,
    preference_sign,
    repetitions,
    shared_prompts,
    statistics,
)


def pair(prompt, chosen, rejected):
    return PreferencePair(prompt, [Step(*step) for step in chosen], [Step(*step) for step in rejected])


ONE = pair("Add 1  and 2", [("1 + 2 = 3", True)], [("1 + 2 = 4", False), ("x",)])
SAME = pair("add 1 and 2", [("1 + 2 = 3",)], [("1 + 2 = 4",), ("x", True)])
OTHER = pair("Add 1 and 2", [("3", True), ("ok", True), ("ok", True)], [("4", True), ("5", False)])


def test_statistics_of_three_pairs():
    found = statistics([ONE, SAME, OTHER])
    assert found.pairs == 3
    assert found.chosen_steps == {1: 2, 3: 1}
    assert found.rejected_steps == {2: 3}
    assert found.length_gaps == (9 - 10, 9 - 10, 5 - 2)
    assert found.first_errors == {1: 1, 2: 1}
    assert found.without_error == 1
    assert (found.labelled_steps, found.steps) == (8, 11)
    # The prompts differ only in spacing and capitals; labels don't make another pair.
    assert (found.repeated_prompts, found.repeated_pairs) == (2, 1)


def test_nothing_is_counted_in_nothing():
    found = statistics([])
    assert (found.pairs, found.steps, found.length_gaps, found.first_errors) == (0, 0, (), {})


def test_repetitions_and_overlaps():
    assert repetitions("abacab") == [0, 0, 1, 0, 2, 1]
    elsewhere = pair("something else", [("a",)], [("b",)])
    assert shared_prompts([elsewhere, SAME], [ONE]) == [1]


def test_remarks_name_their_place():
    same_start = pair("p", [("a", True), ("b", False)], [("a", False), ("c", True)])
    places = [(remark.side, remark.step) for remark in remarks(same_start)]
    assert places == [("chosen", 1), ("", 0)]
    assert [remark.words for remark in remarks(same_start)] == same_start.problems()
    beginning = pair("p", [("a",), ("b",)], [("a",)])
    assert [(r.side, r.step) for r in remarks(beginning)] == [("rejected", None)]
    assert [(r.side, r.step) for r in remarks(pair("p", [("a",)], [("a",)]))] == [("", None)]


def test_rounding_has_no_sign():
    assert [preference_sign(value) for value in (2e-6, 2.4e-7, 0.0, -2.4e-7, -2e-6)] == [1, 0, 0, 0, -1]


def test_scores_that_hardly_differ():
    assert hardly_differ([-1.0] * 19 + [0.5])
    assert not hardly_differ([-1.0] * 18 + [0.5, 0.5])
    assert not hardly_differ([1.0, 1.0, 1.0])  # too few to say
    assert not hardly_differ([1.0, 1.0, -1.0, -1.0])


def test_mean_characters_count_prompt_and_both_sides():
    pairs = [PreferencePair("ab", [Step("c")], [Step("d"), Step("ef")]), PreferencePair("a", [Step("b")], [Step("cd")])]
    assert mean_characters(pairs) == 5.0
