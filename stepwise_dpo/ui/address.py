"""What the address bar keeps: tab, example set, example and run, so that a link opens the same view."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from stepwise_dpo.ui.library import Library

TABS = ("data", "train", "rewards", "compare", "learn")
MAX_CHARACTERS = 300
LOST = {"lost": True}
"""Sent in an address's place to a page whose state the server doesn't have: the browser then loads the page again."""


class Address(NamedTuple):
    """Where somebody is; "" where the address says nothing.

    Attributes:
        tab: one of `TABS`.
        set: an example set's name.
        example: an example's id.
        run: a run's id.
    """

    tab: str = ""
    set: str = ""
    example: str = ""
    run: str = ""


def read_address(query: Mapping[str, Any]) -> Address:
    """Read the query of an address, which anybody may have written; what can't be meant is left out."""
    fields = {name: value for name in Address._fields if isinstance(value := query.get(name), str)}
    kept = {name: value for name, value in fields.items() if len(value) <= MAX_CHARACTERS}
    if kept.get("tab") not in TABS:
        kept.pop("tab", None)
    return Address(**kept)


def address_of(library: Library, selected: int, run_id: str) -> dict[str, str]:
    """Write where a session is, as the browser puts it into its address; the tab is known there."""
    pairs = library.current.pairs
    example = pairs[selected].id if 0 <= selected < len(pairs) else ""
    return {"set": library.open_name, "example": example[:MAX_CHARACTERS], "run": run_id}


def arrive(library: Library, address: Address) -> tuple[Library, int, str]:
    """Open what an address names.

    Returns:
        the library with that set open; the example's index; what to tell the visitor if something isn't there.
    """
    if address.set and address.set not in library.names:
        lacking = f"This link leads to the example set “{address.set}”, which this browser doesn't have."
        return library, 0, f"{lacking} Load its file in the Data tab."
    if address.set:
        library = library.opened(address.set)
    if not address.example:
        return library, 0, ""
    index = next((i for i, pair in enumerate(library.current.pairs) if pair.id == address.example), None)
    if index is None:
        return library, 0, f"This link leads to an example “{address.example}” that isn't in {library.open_name}."
    return library, index, ""
