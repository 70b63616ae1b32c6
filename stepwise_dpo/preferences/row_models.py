"""The rows of a file of examples as pydantic models: what each field may hold stands here, and nowhere else.

How a fault is said is not known here, see `checks`.
"""

from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Strict,
    Tag,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from stepwise_dpo.preferences.faults import MAX_CHARACTERS, MAX_ID_CHARACTERS, MAX_STEPS
from stepwise_dpo.preferences.free_json import json_faults
from stepwise_dpo.preferences.step_splitting import split_steps

T = TypeVar("T")


def _checked_meta(value: Any) -> Any:
    if faults := json_faults(value):
        raise PydanticCustomError("meta", "Not free JSON", {"faults": faults})
    return value


def _steps_of_text(side: object) -> object:
    return split_steps(side) if isinstance(side, str) else side


def _form(step: object) -> str | None:
    return "string" if isinstance(step, str) else "object" if isinstance(step, dict) else None


# A character that str.strip() leaves, as Rust's regular expressions have it. Lone surrogates pydantic refuses itself.
Text = Annotated[str, Strict(), Field(max_length=MAX_CHARACTERS, pattern=r"[^\s\x1c-\x1f]")]
"""A prompt, or a step: non-blank, valid Unicode."""

Label = Annotated[bool, Strict()] | None
"""Whether a step is right; None where nobody said. 0 and 1 are refused: in data sets they mean different things."""

Id = Annotated[str, Strict(), Field(max_length=MAX_ID_CHARACTERS)]

Meta = Annotated[dict[str, Any], PlainValidator(_checked_meta)]
"""Free JSON, see `free_json`."""

Steps = Annotated[list[T], Field(min_length=1, max_length=MAX_STEPS)]


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class StepRow(_Row):
    """A step as an object."""

    text: Text
    label: Label = None


Side = Annotated[
    Steps[Annotated[Annotated[Text, Tag("string")] | Annotated[StepRow, Tag("object")], Discriminator(_form)]],
    BeforeValidator(_steps_of_text),
]
"""The steps of a solution, each a text or an object; a historic row has one text, which is split."""


class PairRow(_Row):
    """A native or historic row."""

    prompt: Text
    chosen: Side
    rejected: Side
    id: Id | None = None
    meta: Meta | None = None


class Solution(_Row):
    """A solution with a label for each of its steps."""

    prompt: Text
    steps: Steps[Text]
    labels: Annotated[list[Label], Field(max_length=MAX_STEPS)]

    @field_validator("labels", mode="before")
    @classmethod
    def _one_for_each_step(cls, labels: object, info: ValidationInfo) -> object:
        steps = info.data.get("steps")  # not there where something is wrong with them
        if steps is not None and isinstance(labels, list) and len(labels) != len(steps):
            name = cls.model_fields["steps"].alias or "steps"
            raise PydanticCustomError("label_count", "One label for each step", {"steps": len(steps), "name": name})
        return labels


class StepwiseRow(Solution):
    """A row of TRL's stepwise supervision."""

    steps: Steps[Text] = Field(alias="completions")
    # Others' files have them; nothing here reads them.
    id: Any = None
    meta: Any = None
