"""What the address bar keeps: tab, set, example, run, rewards and comparison, so that a link opens the same view."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from stepwise_dpo.ui.library import Library

TABS = ("data", "train", "rewards", "compare", "learn")
MAX_CHARACTERS = 300
LOST = {"lost": True}
"""Sent in an address's place to a page whose state the server doesn't have: the browser then loads the page again."""


class ComparisonLink(NamedTuple):
    """What the Compare tab shows; "" for what it shows by itself. `compare_link` writes and follows it.

    Attributes:
        before: the first model's key.
        after: the second one's.
        on: where the examples come from.
        number: how many examples are measured.
        only: a filter of the table.
        sort: its order; with a "-" the largest comes first.
        row: the number of the open example, from 1.
    """

    before: str = ""
    after: str = ""
    on: str = ""
    number: str = ""
    only: str = ""
    sort: str = ""
    row: str = ""


NO_COMPARISON = ComparisonLink()


class RewardsLink(NamedTuple):
    """What the Rewards tab shows; "" for what it shows by itself. `rewards_link` writes and reads it.

    Attributes:
        shown: the quantity.
        when: before or after training, or the difference.
        adds: the aggregation.
        order: of the examples.
        negative: "yes" where only negative preferences are listed.
        judge: the reward model.
    """

    shown: str = ""
    when: str = ""
    adds: str = ""
    order: str = ""
    negative: str = ""
    judge: str = ""


NO_REWARDS = RewardsLink()


class Address(NamedTuple):
    """Where somebody is; "" where the address says nothing.

    Attributes:
        tab: one of `TABS`.
        set: an example set's name.
        example: an example's id.
        run: a run's id.
        comparison: its parts have names of their own in the query.
        rewards: so have these.
    """

    tab: str = ""
    set: str = ""
    example: str = ""
    run: str = ""
    comparison: ComparisonLink = NO_COMPARISON
    rewards: RewardsLink = NO_REWARDS


def read_address(query: Mapping[str, Any]) -> Address:
    """Read the query of an address, which anybody may have written; what can't be meant is left out."""
    sent = {name: value for name, value in query.items() if isinstance(value, str) and len(value) <= MAX_CHARACTERS}
    kept = {name: sent[name] for name in ("tab", "set", "example", "run") if name in sent}
    if kept.get("tab") not in TABS:
        kept.pop("tab", None)
    comparison = {name: sent[name] for name in ComparisonLink._fields if name in sent}
    rewards = {name: sent[name] for name in RewardsLink._fields if name in sent}
    return Address(**kept, comparison=ComparisonLink(**comparison), rewards=RewardsLink(**rewards))


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
