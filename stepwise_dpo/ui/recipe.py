"""What the generator of labelled problems is asked for: checked once, where it comes from a form or a call."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, ValidationError

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.model_faults import first_field

MAX_GENERATED = 10_000
PUBLIC_MAX_GENERATED = 500  # about a third of a second; other visitors wait for it


def _number(value: object) -> object:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError("must be a number")
    return value


Whole = Annotated[int, BeforeValidator(_number)]  # browsers send 5.0 for 5
Names = Annotated[list[StrictStr], Field(max_length=100), BeforeValidator(lambda sent: [] if sent is None else sent)]


class Recipe(BaseModel):
    """The generator's form: its fields in their order, titled as a person knows them. No names chosen means all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    families: Names = Field(title="families of problems")
    corruptions: Names = Field(title="kinds of mistakes")
    n: Whole = Field(title="examples", ge=1, le=MAX_GENERATED)
    seed: Whole = Field(title="seed", ge=0, le=2**53)  # what JavaScript's numbers hold exactly
    fewest: Whole = Field(title="fewest steps", ge=2, le=12)
    most: Whole = Field(title="most steps", ge=2, le=12)
    max_number: Whole = Field(title="largest number", ge=20, le=1_000_000)
    avoid: Names = Field(title="sets to avoid")


class _PublicRecipe(Recipe):
    n: Whole = Field(title="examples", ge=1, le=PUBLIC_MAX_GENERATED)


def read_recipe(public: bool, *sent: object) -> Recipe:
    """Check what a form or a call sent.

    Args:
        public: whether strangers use the page, who get fewer examples at once.
        sent: the fields, in the order of `Recipe`.

    Raises:
        DataError: naming what in the form has to be changed.
    """
    kind = _PublicRecipe if public else Recipe
    try:
        return kind.model_validate(dict(zip(kind.model_fields, sent, strict=True)))
    except ValidationError as error:
        field = kind.model_fields[first_field(error)]
        limits = [getattr(part, name) for name in ("ge", "le") for part in field.metadata if hasattr(part, name)]
        advice = "give a whole number from {:,} to {:,}" if limits else "choose from the list"
        raise DataError(f"{field.title}: {advice.format(*limits)}") from error
