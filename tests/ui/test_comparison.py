import csv
import io
import json
from dataclasses import replace

import pytest

from stepwise_dpo.errors import RunError
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.ui.comparison import (
    SORTS,
    Compared,
    Likelihood,
    Measured,
    Place,
    Reply,
    Seen,
    arranged,
    contrasts,
    moved,
    passes,
    side_by_side,
)
from stepwise_dpo.ui.inference_results import csv_text, jsonl_text, measured_by_run, records

HOSTILE = "<img src=x onerror=alert(1)> ${alert(1)} {{x}} `x` \u202eabc"


def pair(id="1", prompt="a problem"):
    return PreferencePair(prompt, [Step("same", True), Step("good")], [Step("same", True), Step("bad", False)], id)


def seen(margin, solved=None, tokens=4):
    """Both sides have two steps and as many tokens; chosen is likelier by `margin` nats per token."""
    reply = None if solved is None else Reply(("Answer: 1",), True, solved)
    chosen = Likelihood((-1.0, -1.0 + margin * tokens), tokens)
    return Seen(chosen, Likelihood((-1.0, -1.0), tokens), reply)


def compared(*margins, solved=None, trained_on=False):
    """One example for each (margin before, margin after)."""
    answers = solved or [(None, None)] * len(margins)
    return tuple(
        Compared(pair(str(number), f"problem {number}"), seen(old, was), seen(new, now), trained_on)
        for number, ((old, new), (was, now)) in enumerate(zip(margins, answers, strict=True))
    )


def test_preference_margin_and_flips():
    (one,) = compared((-0.5, 0.25))
    assert (one.before.preferred, one.after.preferred, one.flipped) == ("rejected", "chosen", True)
    assert one.change == pytest.approx(0.75)
    assert seen(0).preferred == "tie"
    assert one.after.chosen.total == pytest.approx(-1.0)
    assert one.after.chosen.mean == pytest.approx(-0.25)


def test_what_both_measured_is_compared_in_the_first_ones_order():
    def measured(ids, trained_on=False):
        return [Measured(pair(id), seen(float(id)), trained_on) for id in ids]

    found = side_by_side(measured("312"), measured("24531"))
    assert [one.pair.id for one in found] == ["3", "1", "2"]
    other = [Measured(pair("1", "another problem"), seen(1), False)]
    assert side_by_side(measured("1"), other) == ()
    assert [one.trained_on for one in side_by_side(measured("1"), measured("1", True))] == [True]
    assert [one.trained_on for one in side_by_side(measured("1"), measured("1", None))] == [None]


def test_figures_by_hand():
    found = {
        contrast.key: contrast
        for contrast in contrasts(
            compared(
                (-1, 1),
                (1, 1),
                (1, 2),
                (-1, -2),
                solved=[(False, True), (True, True), (False, None), (True, False)],
            )
        )
    }
    accuracy = found["preference_accuracy"]
    assert (accuracy.before.value, accuracy.after.value, accuracy.change.value) == (0.5, 0.75, 0.25)
    assert found["mean_margin"].before.value == 0
    assert found["mean_margin"].after.value == 0.5
    # The third problem was answered by one model alone.
    solve = found["solve_rate"]
    assert solve.units == 3
    assert solve.before.value == pytest.approx(2 / 3)
    assert solve.change.value == pytest.approx(0)
    # -2 + 4 * margin, over four examples.
    assert found["logps_chosen"].before.value == pytest.approx(-2)
    assert found["logps_chosen"].after.value == pytest.approx(0)
    assert found["logps_rejected"].after.value == -2


def test_a_change_is_surer_than_the_figures_it_is_between():
    wide = [(value, value + 0.1) for value in range(-10, 10)]
    margin = contrasts(compared(*wide))[1]
    assert margin.change.interval == pytest.approx((0.1, 0.1))
    assert margin.before.interval[1] > margin.after.interval[0]


def test_all_or_none_still_has_a_width():
    accuracy = contrasts(compared(*[(1, 1)] * 20))[0]
    assert accuracy.after.value == 1
    assert accuracy.after.interval == (pytest.approx(0.839, abs=1e-3), 1)
    assert accuracy.change == (0, None)  # that nothing changed here doesn't show that nothing would elsewhere


def test_examples_of_one_problem_are_drawn_together():
    def of(prompts):
        many = compared(*[(-1, 1), (1, 1)] * 20)
        return tuple(replace(one, pair=pair(one.pair.id, prompts(int(one.pair.id)))) for one in many)

    apart, together = (contrasts(of(prompts))[0].change for prompts in (str, lambda number: str(number % 4)))
    assert apart.value == together.value == 0.5
    width = [high - low for low, high in (apart.interval, together.interval)]
    assert width[1] > 2 * width[0]


def test_each_problem_counts_once():
    twice = compared((1, 1), solved=[(True, False)]) * 2
    assert contrasts(twice)[-1].units == 1
    assert contrasts(twice)[-1].change.interval is None


def test_filters():
    rows = compared(
        (-1, 1), (1, -1), (1, 1), (1, 0),
        solved=[(False, True), (True, False), (True, True), (None, True)],
    )  # fmt: skip
    kept = {only: [i for i, one in enumerate(rows) if passes(one, only)] for only in ("all", "flipped", "to_chosen")}
    assert kept == {"all": [0, 1, 2, 3], "flipped": [0, 1, 3], "to_chosen": [0]}
    assert [i for i, one in enumerate(rows) if passes(one, "to_rejected")] == [1]  # 3 became a tie
    assert [i for i, one in enumerate(rows) if passes(one, "newly_solved")] == [0]
    assert [i for i, one in enumerate(rows) if passes(one, "newly_failed")] == [1]


def test_orders():
    rows = compared((0, 3), (2, 1), (1, 2))
    assert arranged(rows, Place()) == [0, 1, 2]
    assert arranged(rows, Place(descending=True)) == [2, 1, 0]
    assert arranged(rows, Place(sort="before", descending=True)) == [1, 2, 0]
    assert arranged(rows, Place(sort="after")) == [1, 2, 0]
    assert arranged(rows, Place(sort="change", descending=True)) == [0, 2, 1]
    assert arranged(rows, Place(only="newly_solved")) == []


def test_clicks_on_head_and_pager():
    place = Place(only="flipped", page=3)
    place = moved(place, "sort:change")
    assert place == Place("flipped", "change", descending=True, page=0)
    assert moved(place, "sort:change").descending is False
    assert moved(place, "sort:order") == Place("flipped", "order", descending=False)
    assert moved(place, "page:2").page == 2
    for nonsense in ("", "page:-1", "page:x", "page:²", "sort:prompt", "row:1", "sort"):
        assert moved(place, nonsense) == place
    assert set(SORTS) == {"order", "before", "after", "change"}


def test_what_is_written_is_read_again():
    rows = compared((-1, 1), (0.5, 0.25), solved=[(False, True), (None, None)], trained_on=True)
    written = [json.loads(line) for line in jsonl_text(rows).splitlines()]
    assert written == records(rows)
    assert side_by_side(measured_by_run(written, "before"), measured_by_run(written, "after")) == rows
    assert written[0]["before_preferred"] == "rejected"
    assert written[0]["chosen_step_logratios"] == pytest.approx([0, 8])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda record: record.pop("before_chosen_step_logps"), "lacks 'before_chosen_step_logps'"),
        (lambda record: record.update(chosen_labels=[True]), "can't be read"),
        (lambda record: record.update(chosen_steps=[]), "can't be read"),
        (lambda record: record.update(before_rejected_step_logps=["x", "y"]), "can't be read"),
        (lambda record: record.update(before_rejected_step_logps=[1.0]), "rejected_step_logps must have one entry for"),
        (lambda record: record.update(before_chosen_tokens=0), "before_chosen_tokens: Input should be greater"),
        (lambda record: record.update(chosen_steps=[1, 2]), "chosen_steps.0: Input should be a valid string"),
        (lambda record: record["before_answer"].pop("steps"), "lacks 'steps'"),
        (lambda record: record["before_answer"].update(process_rewards=[]), "one number for each step"),
        (lambda record: record["before_answer"].update(solved="no"), "before_answer.solved: Input should be"),
    ],
)
def test_records_that_lack_something_are_refused_by_line(damage, words):
    written = records(compared((1, 1), (1, 1), solved=[(True, True), (True, True)]))
    damage(written[1])
    with pytest.raises(RunError, match=f"line 2 .*{words}"):
        measured_by_run(written, "before")


def test_csv_runs_no_formulas():
    evil = ["=1+1", "+cmd", "-2", "@x", "\tx", "\rx", 'fine, "quoted"\nlines']
    rows = tuple(Compared(pair(str(i), text), seen(-0.5), seen(0.5), None) for i, text in enumerate(evil))
    read = list(csv.DictReader(io.StringIO(csv_text(rows), newline="")))
    assert [row["prompt"] for row in read] == [f"'{text}" for text in evil[:6]] + evil[6:]
    assert float(read[0]["before_margin"]) == -0.5  # a number is no formula
    assert (read[0]["flipped"], read[0]["preferred"], read[0]["in_training"]) == ("True", "chosen", "")
