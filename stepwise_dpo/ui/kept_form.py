"""The Train form as the browser keeps it over a refresh: JSON of its values, in which a visitor can write anything."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from stepwise_dpo.learning.names import LOSS_TYPES
from stepwise_dpo.runs.config import RunConfig
from stepwise_dpo.ui.judges import JUDGES, POLICIES
from stepwise_dpo.ui.train_form import LOSSES, MAX_OTHER, Form, demo_form

KEEP_JS = "(...values) => JSON.stringify(values)"
"""Writes the form's fields, in a form's order, as `kept_form` reads them."""

MAX_NAME = 300

_CONFIGURED = ("likelihood", "aggregation", "nonpositive", "reward_value")
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "loss": tuple(key for _, key in LOSSES),
    "loss_type": LOSS_TYPES,
    **{name: get_args(RunConfig.model_fields[name].annotation) for name in _CONFIGURED},
}


def keep(form: Form) -> str:
    """Write a form as `KEEP_JS` does."""
    return json.dumps(form)


def kept_form(kept: object, names: Sequence[str], public: bool) -> Form | None:
    """Read what `KEEP_JS` or `keep` wrote; None where nobody has changed the form, or nothing of it is usable.

    Args:
        kept: what the browser sent.
        names: of the visitor's example sets.
        public: whether models come from the lists only.

    Returns:
        a form that the page's fields can hold, though perhaps not one that a run can begin with: a field that was
        left empty stays empty. A value that its field can't hold is the demo's.
    """
    demo = demo_form()
    if demo.held_out_set not in names:
        demo = demo._replace(held_out_set="")
    values = _values(kept)
    if values is None:
        return None
    pairs = zip(Form._fields, values, demo, strict=True)
    form = Form(*(value if _fits(name, value, begun, names, public) else begun for name, value, begun in pairs))
    return None if form == demo else form


def model_of(kept: object) -> str:
    """Read the model to train from what `KEEP_JS` or `keep` wrote; "" where nobody has changed the form."""
    values = _values(kept)
    model = values[Form._fields.index("model")] if values else ""
    return model if isinstance(model, str) and len(model) <= MAX_NAME else ""


def _values(kept: object) -> list[Any] | None:
    """Read a form's values, in its order; None for anything else."""
    try:
        values = json.loads(kept) if isinstance(kept, str) else None
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, list) and len(values) == len(Form._fields) else None


def _fits(name: str, value: Any, begun: object, names: Sequence[str], public: bool) -> bool:
    if name in _CHOICES:
        return isinstance(value, str) and value in _CHOICES[name]
    if name in ("model", "reward_model"):
        listed = POLICIES if name == "model" else JUDGES
        return isinstance(value, str) and (value in listed if public else len(value) <= MAX_NAME)
    if name == "held_out_set":
        return isinstance(value, str) and (value == "" or value in names)
    if name == "other":
        return isinstance(value, str) and len(value) <= (0 if public else MAX_OTHER)
    if isinstance(begun, bool):
        return isinstance(value, bool)
    # The page's own numbers; not isfinite, which fails at an integer that no float holds.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value is None or (is_number and abs(value) < 1e300)
