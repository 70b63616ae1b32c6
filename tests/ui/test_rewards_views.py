"""The Rewards tab without a browser: pure functions, and the tiny model where a model is needed."""

import json
import math
import re
from itertools import pairwise
from types import SimpleNamespace

import gradio as gr
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepwise_dpo.errors import ConfigError, DataError, StepwiseDPOError
from stepwise_dpo.learning.losses import Side, aggregate_steps, stepwise_loss
from stepwise_dpo.learning.names import TINY
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory, RunStatus
from stepwise_dpo.runs.supervisor import Supervisor
from stepwise_dpo.ui import free_text, reward_sets, reward_views, waterfall
from stepwise_dpo.ui.components import divergence_line
from stepwise_dpo.ui.judges import Judges, check_model_name
from stepwise_dpo.ui.library import ExampleSet, Library
from stepwise_dpo.ui.newest import Newest
from stepwise_dpo.ui.policies import Policies
from stepwise_dpo.ui.reward_rows import (
    Facts,
    example_waterfall,
    label_agreement,
    plain_rows,
    question_html,
    rows_html,
    waiting_html,
)
from stepwise_dpo.ui.reward_sources import facts_of, title_of
from stepwise_dpo.ui.reward_views import Cast, Look, numbers, plan, read_look, view_numbers
from stepwise_dpo.ui.rewards_handlers import RewardsHandlers
from stepwise_dpo.ui.run_reader import RunReader
from stepwise_dpo.ui.step_scores import PairScores, Source, StepScores

HOSTILE = "<img src=x onerror=alert(1)> ${alert(1)} {{x}} `x` \u202eabc"
PAIR = PreferencePair(
    HOSTILE,
    [Step("same", True), Step(HOSTILE, True)],
    [Step("same", True), Step("wrong", False), Step("later", False)],
    "1",
)
SIDES = ([0.98, 0.5], [0.98, -0.99, -0.31])
JUDGE, TRAINED_JUDGE = Source("judge", TINY, TINY), Source("judge", "/runs/x/reward_model", "trained judge")
POLICY, TRAINED = Source("policy", TINY, TINY), Source("policy", "/runs/x/final", "trained")
CAST = Cast(JUDGE, None, POLICY, TRAINED, "run 7", 2.0)


def facts(sides=SIDES, preferences=(1.8,), gaps=(0.5,), judged=SIDES, neutral=0.0):
    return Facts(sides, [sides], list(preferences), list(gaps), judged, neutral)


def harmless(html):
    return "<img" not in html and "\u202e" not in html


def words(html):
    return " ".join(re.sub("<.*?>", " ", html).split())


# ------------------------------------------------------------------------------------------------------ aggregation

values = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=8)


@given(values, st.sampled_from(sorted(waterfall.AGGREGATIONS)), st.sampled_from([0.0, 0.5]))
def test_aggregation_is_that_of_the_loss(side, aggregation, neutral):
    mask = torch.ones(1, len(side), dtype=torch.bool)
    expected = aggregate_steps(torch.tensor([side], dtype=torch.float64), mask, aggregation, neutral).item()
    assert waterfall.aggregated(side, aggregation, neutral) == pytest.approx(expected, abs=1e-9)


@given(values, values, st.sampled_from(["sum", "mean", "until_error"]))
def test_bars_lead_to_the_preference(chosen, rejected, aggregation):
    bars = waterfall.bars((chosen, rejected), aggregation)
    expected = waterfall.aggregated(chosen, aggregation) - waterfall.aggregated(rejected, aggregation)
    assert bars[-1].end == pytest.approx(expected, abs=1e-6)
    assert bars[0].start == 0
    assert all(after.start == before.end for before, after in pairwise(bars))


def test_bars_say_what_decides():
    sides = ([0.9, 0.2, 0.5], [0.8, -0.4, 0.7])
    assert [bar.counts for bar in waterfall.bars(sides, "min")] == [False, True, False, False, True, False]
    assert [bar.counts for bar in waterfall.bars(sides, "last")] == [False, False, True] * 2
    assert [bar.counts for bar in waterfall.bars(sides, "until_error")] == [True] * 5 + [False]
    product = waterfall.bars(([0.5, 0.5], [0.1]), "product")
    assert [(bar.start, bar.end) for bar in product] == [(1.0, 0.5), (0.5, 0.25), (1.0, 0.1)]
    assert "up to step 2, the first judged wrong: +0.40" in waterfall.waterfall_words(
        sides, "until_error", "preference"
    )
    assert "chosen by its lowest step, 2: +0.20" in waterfall.waterfall_words(sides, "min", "preference")
    with pytest.raises(ConfigError, match="aggregation"):
        waterfall.aggregated([1.0], "median")


def test_a_waterfall_of_many_steps_leaves_the_numbers_out():
    few = waterfall.waterfall_html(SIDES, "sum", result="preference", reach=1.0)
    assert few.count("bar-number") == 6
    numbers = [("+0.98", "+0.98"), ("+0.50", "+1.48"), ("+0.98", "+0.50"), ("−0.99", "+1.49"), ("−0.31", "+1.80")]
    assert re.findall(r'title=".*?: (.*?), together (.*?)"', few) == numbers  # of each step, and of all so far
    lowest = waterfall.waterfall_html(SIDES, "min", result="preference", reach=1.0)
    assert "together" not in lowest
    assert lowest.count("not counted") == 3
    assert "Preference = chosen − rejected = +1.80" in few
    many = waterfall.waterfall_html(([0.1] * 40, [0.2] * 40), "sum", result="preference", reach=1.0)
    assert many.count("bar-number") == 1
    flat = waterfall.waterfall_html(([0.0], [0.0]), "sum", result="preference", reach=0.0)
    assert "height:0.00%" in flat


# ------------------------------------------------------------------------------------------------------------- views


@given(st.floats(-30, 30), st.floats(-5, 5))
def test_the_loss_shown_is_the_loss_trained(preference, gap):
    def side(logp, reward):
        one = torch.ones(1, 1, dtype=torch.float64)
        return Side(one * logp, one * 0, torch.zeros(1, 1, dtype=torch.long), one * reward, one.bool())

    expected = stepwise_loss(side(gap, preference), side(0.0, 0.0)).losses.item()
    assert reward_views.stepwise_loss(preference, gap) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_scales_follow_from_log_odds():
    scores = PairScores([0.0, math.log(3)], [-math.log(3)])
    assert numbers(scores, "probability") == ([0.5, pytest.approx(0.75)], [pytest.approx(0.25)])
    assert numbers(scores, "centered") == ([0.0, pytest.approx(0.5)], [pytest.approx(-0.5)])
    assert numbers(scores, "log_odds") == (scores.chosen, scores.rejected)
    assert numbers(PairScores([1e6], [-1e6]), "probability") == ([1.0], [0.0])


def test_after_minus_before_is_the_log_ratio():
    look = Look("policy", "difference")
    assert view_numbers(look, PairScores([-1.0], [-4.0]), PairScores([-3.0], [-2.0])) == ([2.0], [-2.0])


def test_who_is_shown():
    assert plan(Look(), CAST).shown == JUDGE
    assert plan(Look("policy"), CAST).shown == POLICY
    assert plan(Look("policy", "after"), CAST)[:2] == (TRAINED, None)
    assert plan(Look("policy", "difference"), CAST)[:2] == (TRAINED, POLICY)
    # A run that didn't train the judge has no other judge to show afterwards, and says so.
    assert plan(Look("centered", "after"), CAST)[:3] == (JUDGE, None, reward_views.FROZEN)
    assert plan(Look("centered", "difference"), CAST).missing == reward_views.FROZEN_DIFFERENCE
    trained = CAST._replace(trained_judge=TRAINED_JUDGE)
    assert plan(Look("centered", "difference"), trained)[:2] == (TRAINED_JUDGE, JUDGE)
    nobody = CAST._replace(trained=None)
    assert plan(Look("policy", "after"), nobody).missing == reward_views.NO_RUN


@pytest.mark.parametrize(
    "sent",
    [("percent", "before", "sum"), ("centered", "later", "sum"), ("centered", "before", "median"), (None, 1, [])],
)
def test_what_is_not_on_offer_is_refused(sent):
    with pytest.raises(ConfigError, match="must be one of"):
        read_look(*sent)


def test_a_product_needs_probabilities_of_a_judge():
    with pytest.raises(ConfigError, match="probability"):
        read_look("centered", "before", "product")
    assert read_look("probability", "before", "product").adds_up_by == "product"
    assert read_look("policy", "before", "product").adds_up_by == "sum"


def test_one_scale_for_all_that_is_compared():
    assert reward_views.reach(Look("centered").scale, [([0.1], [0.2])]) == 1
    assert reward_views.reach(Look("log_odds").scale, [([0.1], [-7.0]), ([3.0], [2.0])]) == 7
    assert reward_views.reach(Look("log_odds").scale, [([0.0], [0.0])]) == 1


# ------------------------------------------------------------------------------------------------------- one example


def test_rewards_of_an_example():
    html = question_html(PAIR) + rows_html(PAIR, facts(), Look(), CAST)
    assert harmless(html)
    assert re.findall(r'class="value">(.*?)<', html) == ["+0.98", "+0.50", "+0.98", "−0.99", "−0.31"]
    assert html.count("diverges here") == 2
    assert html.count("first error (label)") == 1
    text = words(html)
    assert "labels: 1 of 3 steps right" in text
    assert "+1.80 preference = 1.48 − (−0.32)" in text
    assert f"{math.log1p(math.exp(-0.9)):.3f} stepwise loss here" in text
    assert "agrees with the labels: first error at 2 of rejected" in text
    assert "trains towards chosen" in text


def test_a_negative_preference_is_named():
    text = words(rows_html(PAIR, facts(preferences=(-1.8,)), Look(), CAST))
    assert "Negative preference: by default the step-wise loss trains towards rejected" in text


def test_rounding_is_no_preference():
    sides = ([-2.0, -2.0], [-2.0, -1.0, -0.99999976])  # apart by 2.4e-7
    assert waterfall.aggregated(sides[0], "sum") - waterfall.aggregated(sides[1], "sum") != 0
    text = words(rows_html(PAIR, facts(sides, preferences=(-2.4e-7,)), Look(), CAST))
    assert "0.00 preference = (−4.00) − (−4.00)" in text
    assert "No preference: the step-wise loss trains next to nothing here" in text
    assert 'class="bar-box result "' in waterfall.waterfall_html(sides, "sum", result="preference", reach=1.0)
    known = {0: reward_sets.judged(PAIR, sides, Look()), 1: reward_sets.judged(PAIR, (sides[0], [0.0] * 3), Look())}
    assert reward_sets.ordered([PAIR] * 2, [0, 1], known, "file", True) == [1]
    listed = words(reward_sets.list_view([PAIR] * 2, [0, 1], known, 0, Look()))
    assert re.findall("no preference|negative preference", listed) == ["no preference", "negative preference"]
    assert reward_sets.agreement([PAIR], {0: known[0]}, Look()).positive == 0
    small = facts(([4.0001, 0.0], [4.0, 0.0, 0.0]))
    assert "+0.0001 preference" in words(rows_html(PAIR, small, Look(), CAST))


def test_a_difference_shows_both_moments():
    text = words(
        rows_html(PAIR, facts(([1.0, 2.0], [0.5, -1.0, 0.0]), gaps=(-0.2, 0.3)), Look("policy", "difference"), CAST)
    )
    assert "−0.20 → +0.30 log-likelihood gap" in text
    assert "+3.50 log-ratio gap, nats = 3.00 − (−0.50)" in text
    assert "β × gap = +7.00" in text
    assert "no sum of the steps" in example_waterfall(facts(), Look("centered", "difference", "min"))
    assert "bars" in example_waterfall(facts(), Look("policy", "difference", "min"))


def test_agreement_with_labels():
    assert label_agreement(PAIR, ([0.5, -0.1], [0.5, -0.1, 1.0]), 0.0) == (
        "disagrees",
        "chosen: labels say no error, the judge first error at 2",
    )
    unlabelled = PreferencePair("p", [Step("a")], [Step("b"), Step("c", False)])
    assert label_agreement(unlabelled, ([1.0], [1.0, -1.0]), 0.0) is None
    early = PreferencePair("p", [Step("a")], [Step("b", False), Step("c")])  # nothing after the first error matters
    assert label_agreement(early, ([1.0], [0.4, 0.9]), 0.5) == (
        "agrees",
        "with the labels: first error at 1 of rejected",
    )


def test_a_step_without_a_label_does_not_look_like_a_right_one():
    partly = PreferencePair("p", [Step("a", True), Step("b")], [Step("c", False), Step("d"), Step("e")])
    rows = re.findall(r'<li class="step plain">(.*?)</li>', plain_rows(partly))
    assert [words(row) for row in rows] == [
        *("1 a", "2 b no label"),
        *("1 c first error (label)", "2 d no label", "3 e no label"),
    ]
    assert "no label" not in plain_rows(PAIR) + plain_rows(PreferencePair("p", [Step("a")], [Step("b")]))


def test_without_rewards_the_steps_stand_alone():
    html = plain_rows(PAIR)
    assert 'class="value"' not in html
    assert harmless(html)


def test_before_the_first_numbers_the_rows_are_there_and_everything_else_keeps_its_place():
    rows, bars, remarks = waiting_html(PAIR)
    assert plain_rows(PAIR) in rows
    assert "judge the steps" in words(rows)
    assert all("waiting" in part for part in (rows, bars, remarks))


def test_an_example_that_nobody_has_judged_is_shown_at_once(scores, tmp_path):
    handlers = RewardsHandlers(scores, RunReader(Supervisor(tmp_path), public=False))
    library = Library((ExampleSet("set", (PreferencePair("1 + 4?", [Step("5")], [Step("6")], "new"),)),), "set")
    fields = ["visitor", "", "file", False, TINY, "", "centered", "before", "sum", None]
    request = SimpleNamespace(session_hash="session")
    first, last = handlers.arrive(request, library, 0, "", *fields)
    question, rows = first[2:4]
    assert question == last[2]
    assert "1 + 4?" in question
    assert ('class="value"' in rows, 'class="value"' in last[3]) == (False, True)
    assert "1. 1 + 4?" in first[7]  # the list
    (again,) = handlers.arrive(request, library, 0, "", *fields)  # its numbers are known
    assert 'class="value"' in again[3]


def test_a_run_that_ends_comes_into_the_list_and_only_an_empty_tab_shows_it(scores, tmp_path):
    handlers = RewardsHandlers(scores, RunReader(Supervisor(tmp_path), public=False))
    library = Library((ExampleSet("set", (PAIR,)),), "set")
    request = SimpleNamespace(session_hash="session")

    def ended(run_id):
        fields = ["visitor", "", "file", False, TINY, run_id, "centered", "before", "sum", None]
        return list(handlers.ended(request, library, 0, "", *fields))[-1]

    assert all(value == gr.skip() for value in ended(""))  # there is no run
    for name in ("20260101-000000-dpo-aaaa", "20260102-000000-dpo-bbbb"):
        run = RunDirectory(tmp_path / name)
        run.create(make_config({"data": "d.json", "model": TINY, "loss": "dpo"}))
        run.write_status(RunStatus("finished", started=1.0, global_step=1, max_steps=1))
        run.final.mkdir()
        (run.final / "config.json").write_text("{}")
    assert all(value == gr.skip() for value in ended(None))  # nobody has opened the tab
    run_list, *shown = ended("")
    assert run_list.value == "20260102-000000-dpo-bbbb"
    assert 'class="value"' in shown[2]
    run_list, *unchanged = ended("20260101-000000-dpo-aaaa")
    assert [key for _, key in run_list.choices] == ["", "20260102-000000-dpo-bbbb", "20260101-000000-dpo-aaaa"]
    assert "value" not in run_list.constructor_args
    assert all(value == gr.skip() for value in unchanged)


def heatmaps(answers):
    """What each answer shows as the heatmap; None where it leaves the overview alone."""
    overviews = [answer[-8:-3] if len(answer) == 8 else answer[-5:] for answer in answers]
    return [None if overview == [gr.skip()] * 5 else overview[2] for overview in overviews]


@pytest.mark.parametrize("arrived", ["before the click", "after it", "with another order"])
def test_a_click_on_score_the_set_wins_over_the_tabs_late_arrival(scores, tmp_path, arrived):
    handlers = RewardsHandlers(scores, RunReader(Supervisor(tmp_path), public=False))
    pairs = [PreferencePair(f"{arrived} {i}?", [Step("5")], [Step("6")], str(i)) for i in range(2)]
    library = Library((ExampleSet("set", tuple(pairs)),), "set")
    fields = ["visitor", "", "file", False, TINY, "", "centered", "before", "sum", None]
    scores.judges.score(TINY, [PAIR], "centered")  # else nothing is shown before it is loaded
    request = SimpleNamespace(session_hash="session")
    arriving = handlers.arrive(request, library, 0, "", *fields)
    scoring = handlers.score_set(request, library, 0, "", *fields)
    if arrived == "before the click":
        assert heatmaps([next(arriving)]) == [reward_sets.NO_HEATMAP]
    assert next(scoring)[1] == ""  # "not scored yet" is over
    assert heatmaps(arriving) == ([None] if arrived == "before the click" else [None, None])
    assert heatmaps([handlers.show_all(request, library, 0, "", *fields)]) == [None]
    if arrived == "with another order":  # somebody who has gone on is not taken back
        handlers.show_set(request, library, 0, "", *fields[:2], "error", *fields[3:])
    *progress, end = heatmaps(scoring)
    assert progress == [None]
    if arrived == "with another order":
        assert end is None
    else:
        assert json.loads(end)["charts"][0]["unit"] == f"2 examples, by {TINY}"
    assert heatmaps([handlers.show_set(request, library, 0, "", *fields)]) != [None]  # nothing is at work any more


def test_identical_sides_have_no_dashed_line():
    assert divergence_line(PreferencePair("p", [Step("a")], [Step("a")])) is None
    assert divergence_line(PAIR) == 1


def test_folders_are_called_by_their_last_name():
    assert title_of("/home/somebody/models/judge") == "judge"
    assert title_of("google/flan-t5-small") == "google/flan-t5-small"


# ------------------------------------------------------------------------------------------------------------ models


class Counting(StepScores):
    asked = 0

    def _ask(self, source, pairs):
        self.asked += len(pairs)
        return super()._ask(source, pairs)


@pytest.fixture(scope="module")
def scores():
    return Counting(Judges(), Policies())


def test_every_example_is_asked_once(scores):
    pairs = [PreferencePair(f"p {i}", [Step("a"), Step("b")], [Step("c")], str(i)) for i in range(20)]
    before = scores.asked
    assert list(scores.fill(JUDGE, pairs)) == [16, 20]
    assert list(scores.fill(JUDGE, pairs)) == []
    assert scores.of(JUDGE, pairs[3]) == scores.known(JUDGE, [pairs[3]])[0]
    assert scores.asked == before + 20
    edited = PreferencePair("p 3", [Step("a"), Step("changed")], [Step("c")], "3")
    assert scores.known(JUDGE, [edited])[0] is None
    assert scores.unknown(JUDGE, [*pairs, edited]) == [edited]
    relabelled = PreferencePair("p 3", [Step("a", True), Step("b", True)], [Step("c", False)], "3")
    assert scores.known(JUDGE, [relabelled])[0] is not None  # labels are nothing that a judge reads


def test_only_so_many_are_remembered():
    few = StepScores(Judges(), Policies(), kept=4)  # scores of steps, of which each pair has two
    pairs = [PreferencePair(f"p {i}", [Step("a")], [Step("b")]) for i in range(4)]
    list(few.fill(JUDGE, pairs[:3]))
    assert [few.known(JUDGE, [pair])[0] is None for pair in pairs[:3]] == [True, False, False]
    few.of(JUDGE, pairs[1])  # what is looked at stays, what nobody asks for goes
    few.of(JUDGE, pairs[3])
    assert [few.known(JUDGE, [pair])[0] is None for pair in pairs] == [True, False, True, False]


def test_facts_come_from_the_models(scores):
    pair = PreferencePair("1 + 1?", [Step("1 + 1 = 2", True)], [Step("1 + 1 = 3", False)])
    cast = Cast(JUDGE, None, POLICY, POLICY, "run", 2.0)  # a run that changed nothing
    found, problems = facts_of(scores, pair, Look(), cast)
    assert problems == []
    assert found.preferences[0] == pytest.approx(found.sides[0][0] - found.sides[1][0])
    assert found.gaps == [scores.of(POLICY, pair).gap]
    after, _ = facts_of(scores, pair, Look("policy", "difference"), cast)
    assert after.sides == ([0.0], [0.0])
    assert after.gaps == found.gaps * 2
    assert facts_of(scores, pair, Look("centered", "difference"), cast) == (None, [])


def test_a_missing_policy_takes_no_rows_away(scores, tmp_path):
    cast = Cast(JUDGE, None, Source("policy", str(tmp_path / "gone"), "gone"), None)
    found, problems = facts_of(scores, PAIR, Look(), cast)
    assert (found.gaps, len(found.preferences)) == ([], 1)
    assert "no such folder" in problems[0]
    assert "log-likelihood gap" not in words(rows_html(PAIR, found, Look(), cast)).split("?")[0]
    with pytest.raises(StepwiseDPOError):
        facts_of(scores, PAIR, Look("policy"), cast)


def test_the_tiny_judge_scores_every_step():
    (chosen, rejected) = Judges().score(TINY, [PAIR], "centered")[0]
    assert (len(chosen), len(rejected)) == (2, 3)
    assert all(-1 <= value <= 1 for value in chosen + rejected)
    with pytest.raises(ConfigError, match="scale"):
        Judges().score(TINY, [PAIR], "percent")


def test_strangers_choose_only_offered_models():
    assert check_model_name("some/model", ["tiny"], public=False) == "some/model"
    for name in ("some/model", "/etc", "", None, "x" * 1000):
        with pytest.raises(ConfigError):
            check_model_name(name, ["tiny"], public=True)


def test_a_folder_in_the_place_of_an_offered_model_is_not_loaded_for_strangers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    offered = ["tiny", "google/flan-t5-small"]
    assert check_model_name("google/flan-t5-small", offered, public=True) == "google/flan-t5-small"
    (tmp_path / "google" / "flan-t5-small").mkdir(parents=True)
    with pytest.raises(ConfigError, match="only the Hub's is meant"):
        check_model_name("google/flan-t5-small", offered, public=True)
    assert check_model_name("google/flan-t5-small", offered, public=False) == "google/flan-t5-small"


# ------------------------------------------------------------------------------------------------------- whole sets

SET = [
    PreferencePair("a", [Step("x", True)], [Step("y", True), Step("z", False)], "a"),
    PreferencePair("b", [Step("x", True)], [Step("y", False)], "b"),
    PreferencePair("c", [Step("x")], [Step("y")], "c"),
    PreferencePair("d", [Step("x", True)], [Step("y", False)], "d"),
]
KNOWN = {
    0: reward_sets.judged(SET[0], ([0.9], [0.8, -0.9]), Look()),
    1: reward_sets.judged(SET[1], ([0.2], [0.7]), Look()),
    2: reward_sets.judged(SET[2], ([0.1], [0.3]), Look()),
}


def test_orders():
    def order(sort, negative=False):
        return reward_sets.ordered(SET, [0, 1, 2, 3], KNOWN, sort, negative)

    assert [known.agrees for known in KNOWN.values()] == [True, False, None]
    assert order("file") == [0, 1, 2, 3]
    assert order("preference") == [1, 2, 0, 3]  # -0.5, -0.2, 1.0, not scored
    assert order("disagreement") == [1, 2, 0, 3]
    assert order("error") == [1, 3, 0, 2]
    assert order("preference", negative=True) == [1, 2]
    assert order("nonsense") == [0, 1, 2, 3]


def test_the_list_says_what_is_known():
    text = words(reward_sets.list_view(SET, [1, 0, 3], KNOWN, 0, Look(), scored_only=True))
    assert "3 of 4 examples · 3 scored" in text
    assert "negative preference −0.50 · disagrees" in text
    assert "error at 2 · +1.00" in text
    assert harmless(reward_sets.list_view([PAIR], [0], {}, 0, Look()))


def test_the_open_example_is_listed_wherever_it_stands(monkeypatch):
    monkeypatch.setattr(reward_sets, "LISTED", 300)

    def listed(selected, order):
        html = reward_sets.list_view([SET[1]] * 450, order, {}, selected, Look())
        found = re.findall(r'data-key="(\d+)" aria-current="(\w+)"', html)
        return [int(key) for key, _ in found], [int(key) for key, now in found if now == "true"], words(html)

    everything = list(range(450))
    keys, current, text = listed(420, everything)
    assert (keys, current) == ([*range(reward_sets.LISTED), 420], [420])
    assert "450 examples · the first 300 and the open one are listed; the search, and the table in Data, find" in text
    assert "421. b" in text
    keys, current, text = listed(7, everything)
    assert (keys, current) == ([*range(reward_sets.LISTED)], [7])
    assert "the first 300 are listed" in text
    keys, current, text = listed(420, everything[100:110])  # a search that leaves it out
    assert (keys, current) == ([*range(100, 110)], [])
    assert "are listed" not in text


def test_agreement_figures():
    found = reward_sets.agreement(SET, KNOWN, Look())
    # Wrong solutions: a's is found at 2, b's not; right ones: both chosen.
    assert found == reward_sets.Agreement(3, 1, 50.0, 100.0, pytest.approx(200 / 3), pytest.approx(5 / 6))
    text = words(reward_sets.agreement_html(found, Look()))
    assert "33.3% positive preference, 1 of 3" in text
    assert "66.7 first errors found at p below ½, F1 (acc1 50.0, acc2 100.0)" in text
    of_policy = reward_sets.agreement(SET, KNOWN, Look("policy"))
    assert of_policy.f1 is None
    nothing = reward_sets.agreement([SET[2]], {0: KNOWN[2]}, Look())
    assert "no figure over labels" in words(reward_sets.agreement_html(nothing, Look()))


def test_scores_that_hardly_differ_are_said_to_tell_nothing_apart():
    flat = {index: reward_sets.judged(SET[index], flat_sides(SET[index]), Look()) for index in (0, 1, 3)}
    found = reward_sets.agreement(SET, flat, Look())
    assert found.flat
    assert "this judge does not know such problems" in words(reward_sets.agreement_html(found, Look()))


def flat_sides(pair):
    return [-0.99] * len(pair.chosen), [-1.0] * len(pair.rejected)


def test_the_heatmap_keeps_the_order_and_leaves_out_what_is_not_scored():
    chart = json.loads(reward_sets.heatmap_value(SET, [3, 1, 0], KNOWN, Look(), "by tiny"))["charts"][0]
    assert chart["figure"]["data"][0]["customdata"] == [["1"], ["0"]]
    assert chart["unit"] == "2 examples, by tiny"
    assert reward_sets.heatmap_value(SET, [3], KNOWN, Look(), "") == reward_sets.NO_HEATMAP
    many = dict.fromkeys(range(600), KNOWN[1])
    chart = json.loads(reward_sets.heatmap_value([SET[1]] * 600, list(range(600)), many, Look(), "by x"))["charts"][0]
    assert chart["unit"] == "the first 500 of 600 examples, by x"


def test_progress_is_readable():
    assert 'aria-valuenow="3"' in reward_sets.progress_html(3, 10, "by <b>")
    assert "by &lt;b&gt;: 3 of 10 examples" in reward_sets.progress_html(3, 10, "by <b>")


# --------------------------------------------------------------------------------------------------------- free text


def test_lines_are_steps():
    typed = free_text.read_typed(" p ", "\n a \n\n b\r\n")
    assert (typed.prompt, [step.text for step in typed.steps]) == ("p", ["a", "b"])
    assert free_text.read_typed("", "a") is None
    assert free_text.read_typed("p", " \n ") is None
    for problem, text in ((None, "a"), ("p", 3), ("p", "a\n" * 5_000), ("p" * 9_000, "a")):
        with pytest.raises(DataError):
            free_text.read_typed(problem, text)


def test_typed_steps_are_shown_with_the_first_doubt():
    typed = free_text.read_typed(HOSTILE, f"a\n{HOSTILE}")
    html = free_text.typed_html(typed, [0.9, -0.8], "centered", "sum", "reward")
    assert harmless(html)
    assert "doubts step 2 first (−0.80)" in html
    assert "knows the bundled kinds of problems only" in html
    assert "What is Process reward?" in html
    assert "doubts no step" in free_text.typed_html(typed, [0.9, 0.8], "probability", "product", TINY)


def test_a_late_answer_does_not_cover_a_newer_one():
    newest = Newest(sessions=2)
    slow, other, quick = newest.begin("a"), newest.begin("b"), newest.begin("a")
    assert not newest.is_last("a", slow)
    assert newest.is_last("a", quick)
    assert newest.is_last("b", other)
    newest.begin("c")  # "b" is forgotten
    assert newest.is_last("b", other)
    assert newest.begin("b") == 1


def test_work_is_known_until_it_ends_or_something_newer_begins():
    newest = Newest()
    first = newest.begin("a", "work")
    assert [newest.works_on("a", "work"), newest.works_on("a", "other"), newest.works_on("b", "work")] == [
        True,
        False,
        False,
    ]
    second = newest.begin("a", "other")
    newest.end("a", first)
    assert newest.works_on("a", "other")
    newest.end("a", second)
    assert not newest.works_on("a", "other")
    assert newest.is_last("a", second)
