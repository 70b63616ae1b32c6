"""The Train form's loss as a formula, with words for what the form's options change in it."""

from stepwise_dpo.ui.components import asset, what
from stepwise_dpo.ui.glossary import GLOSSARY
from stepwise_dpo.ui.text import shown

_FORMULAS = {
    "demo": ("formula_dpo_imitation.html", ("imitation", "beta")),
    "demo-dpo": ("formula_dpo.html", ("dpo", "beta")),
    "demo-stepwise": ("formula_stepwise.html", ("stepwise", "preference", "aggregation")),
}
_SIGMOID_ONLY = " Starts at ln 2 = 0.693."
_TRAIN_ONLY = "A negative preference p trains towards the rejected answer."

# What each option that isn't the default changes in the formula.
_AGGREGATIONS = {
    "mean": "the mean of the steps’ rewards stands in place of each Σ",
    "min": "the lowest reward of a step stands in place of each Σ",
    "last": "the last step’s reward stands in place of each Σ",
    "product": "the product of the steps’ rewards stands in place of each Σ",
    "until_error": "each Σ ends with the first wrong step",
}
_REWARDS = {"probability": "r is a probability", "log_odds": "r is in log-odds"}
_NONPOSITIVE = {"skip": "a pair with p ≤ 0 has no loss", "clamp": "a negative p counts as 0"}


def formula_html(
    loss: str,
    loss_type: object = "sigmoid",
    likelihood: object = "mean",
    aggregation: object = "sum",
    nonpositive: object = "train",
    reward_value: object = "centered",
    anchor: object = False,
) -> str:
    """Write a loss as a formula with an explanation of its terms, and say what the options change in it.

    Args:
        loss: one of the form's.
        loss_type: TRL's word for the kind of DPO; only DPO reads it.
        likelihood: as the configuration's, like the rest; only the step-wise loss reads them.
        aggregation: how the rewards of steps become one number.
        nonpositive: what a preference of zero or less does.
        reward_value: the scale of step rewards.
        anchor: whether the margin is that of log-ratios to the reference.
    """
    name, terms = _FORMULAS[loss]
    written = asset(name)
    if loss == "demo-stepwise":
        changes = stepwise_changes(likelihood, aggregation, nonpositive, reward_value, anchor)
        if str(nonpositive) in _NONPOSITIVE:
            written = written.replace(_TRAIN_ONLY, "")
    else:
        changes = dpo_changes(loss_type)
        if changes:
            written = written.replace(_SIGMOID_ONLY, "")
    said = f'<p class="hint">{shown(changes)}</p>' if changes else ""
    explained = "".join(f"<span>{shown(GLOSSARY[term].title)} {what(term)}</span>" for term in terms)
    return f'<div class="with-terms">{written}{said}<span class="terms">{explained}</span></div>'


def dpo_changes(loss_type: object) -> str:
    """Say which loss stands in place of DPO's own; "" for that."""
    return "" if loss_type == "sigmoid" else f"TRL’s loss “{loss_type}” stands in place of −ln σ(…)."


def stepwise_changes(
    likelihood: object, aggregation: object, nonpositive: object, reward_value: object, anchor: object
) -> str:
    """Say in a sentence what options other than the defaults change in the step-wise loss's formula; "" if none do."""
    changes = [
        _AGGREGATIONS.get(str(aggregation)),
        _REWARDS.get(str(reward_value)),
        "ℓ sums over tokens" if likelihood == "sum" else None,
        "ℓ is relative to the policy before training, π₀" if anchor else None,
        _NONPOSITIVE.get(str(nonpositive)),
    ]
    said = "; ".join(filter(None, changes))
    return f"With these options: {said}." if said else ""
