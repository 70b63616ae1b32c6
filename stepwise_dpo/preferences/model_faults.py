"""What a pydantic model refuses first, in a few words: its place and what belongs there, and not what was there."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from stepwise_dpo.preferences.faults import short


def first_field(error: ValidationError) -> str:
    """Name the field, as it was spelled where it came from; "" where the fault is of no field alone."""
    return str(next(iter(_first(error)["loc"]), ""))


def first_fault(error: ValidationError) -> str:
    """Say it: "files.a.size: Input should be a valid integer"."""
    fault = _first(error)
    place, words = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
    return f"{short(place, 100)}: {words}" if place else words


def _first(error: ValidationError) -> ErrorDetails:
    return error.errors(include_url=False, include_context=False, include_input=False)[0]
