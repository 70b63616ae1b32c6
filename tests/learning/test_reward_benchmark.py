import json

import pytest

from stepwise_dpo.errors import DataError, ModelError
from stepwise_dpo.learning.process_metrics import NO_ERROR
from stepwise_dpo.learning.reward_benchmark import (
    JudgedPair,
    JudgedSolution,
    check_labels,
    judge_pairs,
    reward_report,
    tuned_threshold,
)
from stepwise_dpo.learning.rewards import LLMRewardModel
from stepwise_dpo.preferences.pairs import PreferencePair, Step


def judged(name, chosen, rejected, **meta):
    """A pair of sides given as (label, score) of each step."""
    sides = [[Step(f"step {index}", label) for index, (label, _) in enumerate(side)] for side in (chosen, rejected)]
    pair = PreferencePair("p", *sides, id=name, meta=meta)
    first, second = ([score for _, score in side] for side in (chosen, rejected))
    return JudgedPair(
        pair, JudgedSolution("chosen", pair.chosen, first), JudgedSolution("rejected", pair.rejected, second)
    )


RIGHT, WRONG = True, False

# With a threshold of 0.5: found and left alone; missed and left alone; too late and a false alarm.
PAIRS = [
    judged("a", [(RIGHT, 0.9), (RIGHT, 0.8)], [(RIGHT, 0.9), (WRONG, 0.1), (WRONG, 0.95)], family="x", corruption="u"),
    judged("b", [(RIGHT, 0.7)], [(WRONG, 0.75)], family="x", corruption="v"),
    judged("c", [(RIGHT, 0.6), (RIGHT, 0.4)], [(WRONG, 0.9), (WRONG, 0.2)], family="y", corruption="u"),
]


def test_figures():
    report = reward_report(PAIRS, 0.5)
    # acc1: "a" of three; acc2: "a" and "b" of three; F1 = 2 * 1/3 * 2/3 / 1
    assert report["process_bench"] == pytest.approx({"acc1": 100 / 3, "acc2": 200 / 3, "f1": 400 / 9})
    # Up to the first errors: right 0.9 0.8 0.9 0.7 0.6 0.4, wrong 0.1 0.75 0.9. Against 0.1 all six win, against 0.75
    # three do, against 0.9 two tie.
    assert report["auroc"] == pytest.approx((6 + 3 + 1) / 18)
    # All: wrong also 0.95 (none wins) and 0.2 (all six win).
    assert report["auroc_all_steps"] == pytest.approx((6 + 3 + 1 + 0 + 6) / 30)
    # Right: five of six called right, and three wrong ones: 2*5/(6+8). Wrong: two of five, and a false one: 2*2/(5+3).
    assert report["prm_score"] == pytest.approx(50 * (10 / 14 + 4 / 8))
    # a: 0.8 + 0.6 - (0.8 - 0.8 + 0.9) > 0; b: 0.4 - 0.5 < 0; c: 0.2 - 0.2 - (0.8 - 0.6) < 0
    assert report["preference_accuracy"] == pytest.approx(1 / 3)
    assert report["counts"] == {"pairs": 3, "solutions": 6, "right": 3, "wrong": 3, "unlabelled": 0, "steps": 9}
    assert sum(report["histogram"]["right"]) == 6
    assert sum(report["histogram"]["wrong"]) == 3
    assert sum(point["steps"] for point in report["calibration"]["bins"]) == 9
    assert report["undefined"] == {}
    assert report["threshold"] == 0.5
    expected = {"acc1", "acc2", "f1", "preference_accuracy", "prm_score", "auroc", "auroc_all_steps"}
    assert set(report["intervals"]) == expected
    for name, (low, high) in report["intervals"].items():
        value = {**report, **report["process_bench"]}[name]
        assert low <= value <= high
    json.dumps(report, allow_nan=False)


def test_figures_of_families_and_corruptions():
    report = reward_report(PAIRS, 0.5)
    assert list(report["per_family"]) == ["x", "y"]
    assert report["per_family"]["x"]["process_bench"] == pytest.approx({"acc1": 50, "acc2": 100, "f1": 200 / 3})
    assert report["per_family"]["y"]["process_bench"] == {"acc1": 0, "acc2": 0, "f1": 0}
    # A corruption's right solutions are the chosen sides of its pairs.
    assert report["per_corruption"]["u"]["process_bench"] == {"acc1": 50, "acc2": 50, "f1": 50}
    assert report["per_corruption"]["v"]["counts"]["right"] == 1
    assert report["per_family"]["y"]["intervals"]["f1"] is None  # one pair doesn't vary
    without = reward_report([judged("a", [(RIGHT, 0.9)], [(WRONG, 0.1)])], 0.5)
    assert without["per_family"] == without["per_corruption"] == {}


def test_mistakes_say_where_and_how():
    false_alarm, missed, late = sorted(reward_report(PAIRS, 0.5)["mistakes"], key=lambda mistake: mistake["kind"])
    assert (missed["id"], missed["side"], missed["kind"]) == ("b", "rejected", "missed")
    assert (missed["true"], missed["true_step"], missed["true_step_score"]) == (0, "step 0", 0.75)
    assert (missed["predicted"], missed["predicted_step"]) == (NO_ERROR, None)
    assert (false_alarm["side"], false_alarm["true"], false_alarm["predicted_step"]) == ("chosen", NO_ERROR, "step 1")
    assert (late["kind"], late["predicted"], late["predicted_step_score"]) == ("too late", 1, 0.2)
    (early,) = reward_report([judged("d", [(None, 0.5)], [(RIGHT, 0.2), (WRONG, 0.1)])], 0.5)["mistakes"]
    assert early["kind"] == "too early"
    # The step is named at which the judge first left the labels, counted as people count.
    assert missed["reason"].startswith("step 1 scores 0.75, above the threshold of 0.5: ")
    assert false_alarm["reason"].startswith("step 2 scores 0.")
    assert "above" in late["reason"]
    assert "below" in early["reason"]


def test_unlabelled_solutions_are_left_out_and_counted():
    pairs = [*PAIRS, judged("d", [(None, 0.95), (RIGHT, 0.1)], [(WRONG, 0.1), (None, 0.9)])]
    report = reward_report(pairs, 0.5)
    assert report["counts"]["unlabelled"] == 1
    assert report["process_bench"]["acc1"] == 50  # "d" is found
    assert report["process_bench"]["acc2"] == pytest.approx(200 / 3)
    assert report["preference_accuracy"] == 0.5  # of all four pairs: it needs no labels
    with pytest.raises(DataError, match="no solution in these pairs is labelled"):
        reward_report([judged("e", [(None, 0.9)], [(None, 0.1)])], 0.5)
    with pytest.raises(DataError, match="labelled"):
        check_labels([judged("e", [(RIGHT, 0.9), (None, 0.3)], [(None, 0.1)]).pair])
    check_labels([pair.pair for pair in pairs])
    only_right = judged("e", [(RIGHT, 0.9)], [(RIGHT, 0.1)]).pair
    check_labels([only_right])
    with pytest.raises(DataError, match=r"every labelled solution in x\.json is right"):
        check_labels([only_right], both_kinds=True, source="x.json")


def test_figures_that_the_data_doesnt_define_are_null_with_a_reason():
    report = reward_report([judged("a", [(RIGHT, 0.9)], [(None, 0.1)], family="x")], 0.5)
    assert report["process_bench"] == {"acc1": None, "acc2": 100, "f1": None}
    assert report["auroc"] is report["auroc_all_steps"] is report["prm_score"] is None
    assert set(report["undefined"]) == {"acc1", "f1", "auroc", "auroc_all_steps", "prm_score"}
    assert report["intervals"]["f1"] is None
    # A family may have no labels at all.
    mixed = reward_report([*PAIRS, judged("d", [(None, 0.9)], [(None, 0.1)], family="z")], 0.5)
    assert mixed["per_family"]["z"]["process_bench"] == {"acc1": None, "acc2": None, "f1": None}
    assert mixed["per_family"]["z"]["calibration"] is None
    assert mixed["per_family"]["z"]["preference_accuracy"] == 1


def test_threshold_tuned_on_pairs():
    assert tuned_threshold(PAIRS[:1]) == pytest.approx(0.45)  # between 0.1, the wrong step, and 0.8
    with pytest.raises(DataError, match="1 right and 0 wrong"):
        tuned_threshold([judged("a", [(RIGHT, 0.9)], [(None, 0.1)])])


def test_a_real_judge(pairs):
    judge = LLMRewardModel.from_pretrained("tiny")
    results = judge_pairs(judge, pairs[:4])
    for result, pair, rewards in zip(results, pairs[:4], judge.score_pairs(pairs[:4], "centered"), strict=True):
        assert result.pair is pair
        assert result.chosen.scores == pytest.approx([(1 + value) / 2 for value in rewards.chosen], abs=1e-6)
        assert result.rejected.scores == pytest.approx([(1 + value) / 2 for value in rewards.rejected], abs=1e-6)
        assert result.preference == pytest.approx(rewards.preference("sum"), abs=1e-5)
        assert result.rejected.first_error == pair.meta["first_error"]
        assert result.chosen.first_error == NO_ERROR
    report = reward_report(results, tuned_threshold(results))
    assert report["counts"]["right"] == report["counts"]["wrong"] == 4


def test_scores_that_are_none(pairs):
    judge = LLMRewardModel.from_pretrained("tiny")
    judge.model.shared.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="isn't finite"):
        judge_pairs(judge, pairs[:1])
