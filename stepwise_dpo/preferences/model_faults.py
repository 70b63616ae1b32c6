"""What a pydantic model refuses first, in a few words; a value may come from anywhere, and is never part of them."""

from pydantic import ValidationError

from stepwise_dpo.preferences.faults import short


def first_field(error: ValidationError) -> str:
    """Name the field, as it was spelled where it came from."""
    return str(error.errors(include_url=False)[0]["loc"][0])


def first_fault(error: ValidationError) -> str:
    """Say where it stands, and what should: "files.a.size: Input should be a valid integer"."""
    fault = error.errors(include_url=False)[0]
    return ": ".join(filter(None, [short(".".join(map(str, fault["loc"])), 100), fault["msg"]]))
