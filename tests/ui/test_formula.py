import pytest

from stepwise_dpo.learning.names import LOSS_TYPES
from stepwise_dpo.runs.config import RunConfig
from stepwise_dpo.ui.formula import dpo_changes, formula_html, stepwise_changes

DEFAULTS = ("mean", "sum", "train", "centered", False)


@pytest.mark.parametrize("loss", ["demo", "demo-dpo", "demo-stepwise"])
def test_the_defaults_change_nothing(loss):
    assert "<math" in formula_html(loss)
    assert "hint" not in formula_html(loss)
    assert ("Starts at ln 2" in formula_html(loss)) == (loss == "demo-dpo")


@pytest.mark.parametrize("loss", ["demo", "demo-dpo"])
def test_another_kind_of_dpo_is_named_and_starts_elsewhere(loss):
    for kind in LOSS_TYPES[1:]:
        assert dpo_changes(kind) == f"TRL’s loss “{kind}” stands in place of −ln σ(…)."
        assert dpo_changes(kind) in formula_html(loss, kind)
        assert "Starts at ln 2" not in formula_html(loss, kind)
    assert dpo_changes("sigmoid") == ""


def test_options_of_the_stepwise_loss_become_one_sentence():
    assert stepwise_changes(*DEFAULTS) == ""
    assert stepwise_changes("mean", "min", "train", "centered", False) == (
        "With these options: the lowest reward of a step stands in place of each Σ."
    )
    assert stepwise_changes("sum", "until_error", "skip", "log_odds", True) == (
        "With these options: each Σ ends with the first wrong step; r is in log-odds; ℓ sums over tokens; ℓ is "
        "relative to the policy before training, π₀; a pair with p ≤ 0 has no loss."
    )
    # What is hidden while another loss is chosen says nothing.
    assert formula_html("demo-stepwise", "ipo").count("TRL") == formula_html("demo-stepwise").count("TRL")
    assert "With these" not in formula_html("demo-dpo", "sigmoid", "sum", "min", "skip", "log_odds", True)


@pytest.mark.parametrize(
    ("place", "name"),
    list(enumerate(["likelihood", "aggregation", "nonpositive", "reward_value", "anchor_to_reference"])),
)
def test_every_choice_has_words(place, name):
    field = RunConfig.model_fields[name]
    choices = (False, True) if field.annotation is bool else field.annotation.__args__
    for choice in choices:
        options = [*DEFAULTS[:place], choice, *DEFAULTS[place + 1 :]]
        assert (stepwise_changes(*options) == "") == (choice == field.default == DEFAULTS[place])


def test_only_a_negative_preference_that_trains_is_said_to():
    words = "A negative preference p trains"
    for choice in ("train", "skip", "clamp"):
        assert (words in formula_html("demo-stepwise", nonpositive=choice)) == (choice == "train")


def test_what_a_browser_sends_is_inert():
    assert "<img" not in formula_html("demo-dpo", "<img src=x>")
