import json

import pytest

from stepwise_dpo.ui.kept_form import keep, kept_form, model_of
from stepwise_dpo.ui.library import HELD_OUT_SETS
from stepwise_dpo.ui.train_form import demo_form

NAMES = ["set.json", HELD_OUT_SETS[0]]
CHANGED = demo_form()._replace(
    loss="demo-stepwise", epochs=7, seed=None, aggregation="min", anchor=True, other="beta: 1"
)


def test_what_a_visitor_changed_comes_back():
    assert kept_form(keep(CHANGED), NAMES, False) == CHANGED
    assert kept_form(keep(demo_form()), NAMES, False) is None  # nothing was changed
    assert kept_form(keep(demo_form()._replace(held_out_set="")), ["set.json"], False) is None  # by nobody


@pytest.mark.parametrize("kept", ["", None, 3, [1], "{", "null", "[]", "{}", "[" * 100_000, json.dumps([1] * 19)])
def test_junk_is_nothing(kept):
    assert kept_form(kept, NAMES, False) is None
    assert model_of(kept) == ""


def test_the_model_is_read_alone():
    assert model_of(keep(CHANGED._replace(model="/some/folder"))) == "/some/folder"
    for junk in (None, 3, ["x"], "x" * 301):
        assert model_of(keep(CHANGED._replace(model=junk))) == ""


def test_a_value_that_its_field_cant_hold_is_the_demos():
    for junk in ({}, [1], "junk" * 2_000, "<b>", 10**400, float("nan"), float("inf"), True, -1, None):
        values = [junk] * len(CHANGED)
        values[CHANGED._fields.index("epochs")] = 7
        form = kept_form(json.dumps(values), NAMES, False)
        assert form.epochs == 7
        assert (form.loss, form.aggregation, form.held_out_set) == ("demo", "sum", HELD_OUT_SETS[0])
        assert form.anchor is (junk is True)
        assert form.seed == (junk if junk in (-1, None) else 42)


def test_a_set_that_is_gone_and_on_a_public_page_what_it_doesnt_offer():
    gone = CHANGED._replace(held_out_set="gone.json", model="/some/folder")
    assert kept_form(keep(gone), NAMES, False) == CHANGED._replace(model="/some/folder")
    assert kept_form(keep(gone), ["set.json"], False).held_out_set == ""
    assert kept_form(keep(gone), NAMES, True) == CHANGED._replace(other="")
