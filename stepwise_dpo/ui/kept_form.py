"""The Train form as the browser keeps it over a refresh: JSON of its values, in which a visitor can write anything."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, ValidationInfo, create_model

from stepwise_dpo.learning.names import LOSS_TYPES
from stepwise_dpo.runs.config import RunConfig
from stepwise_dpo.ui.judges import JUDGES, POLICIES
from stepwise_dpo.ui.train_form import LOSSES, MAX_OTHER, Form, demo_form

KEEP_JS = "(...values) => JSON.stringify(values)"
"""Writes the form's fields, in a form's order, as `kept_form` reads them."""

MAX_NAME = 300
_MAX_CHARACTERS = 1_000_000


def _is_offered(value: str, info: ValidationInfo) -> str:
    """Refuse what the page that is shown doesn't offer: where it has a list, the context holds it by the field."""
    offered = (info.context or {}).get(info.field_name)
    if offered is not None and value not in offered:
        raise ValueError("not offered")
    return value


_Name = Annotated[str, Field(max_length=MAX_NAME), AfterValidator(_is_offered)]
_Number = Annotated[float, Field(gt=-1e300, lt=1e300)] | None  # None where the field was left empty
_KINDS: dict[str, Any] = {
    **dict.fromkeys(Form._fields, _Number),
    **dict.fromkeys(("model", "reward_model"), _Name),
    "held_out_set": Annotated[str, AfterValidator(_is_offered)],
    "other": Annotated[str, Field(max_length=MAX_OTHER), AfterValidator(_is_offered)],
    "loss": Literal[tuple(key for _, key in LOSSES)],
    "loss_type": Literal[LOSS_TYPES],
    **{
        name: RunConfig.model_fields[name].annotation
        for name in ("likelihood", "aggregation", "nonpositive", "reward_value")
    },
    "anchor": bool,
}
_Values = create_model("_Values", __config__=ConfigDict(strict=True), **_KINDS)
"""What the page's fields can hold."""


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
    sent = Form(*values)._asdict()
    listed = {"model": POLICIES, "reward_model": JUDGES, "other": ("",)} if public else {}
    try:
        _Values.model_validate(sent, context={"held_out_set": ("", *names), **listed})
    except ValidationError as error:
        wrong = {problem["loc"][0] for problem in error.errors()}
        sent |= {name: begun for name, begun in demo._asdict().items() if name in wrong}
    form = Form(**sent)
    return None if form == demo else form


def model_of(kept: object) -> str:
    """Read the model to train from what `KEEP_JS` or `keep` wrote; "" where nobody has changed the form."""
    values = _values(kept)
    model = values[Form._fields.index("model")] if values else ""
    return model if isinstance(model, str) and len(model) <= MAX_NAME else ""


def _values(kept: object) -> list[Any] | None:
    """Read a form's values, in its order; None for anything else."""
    try:
        values = json.loads(kept) if isinstance(kept, str) and len(kept) <= _MAX_CHARACTERS else None
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, list) and len(values) == len(Form._fields) else None
