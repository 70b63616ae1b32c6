"""What the address says of the Rewards tab: written from what its fields hold, and read where somebody opens it."""

from typing import Any, NamedTuple

from stepwise_dpo.learning.names import REWARD
from stepwise_dpo.ui.address import MAX_CHARACTERS, RewardsLink
from stepwise_dpo.ui.judges import JUDGES
from stepwise_dpo.ui.reward_sets import SORTS
from stepwise_dpo.ui.reward_views import QUANTITIES, WHENS
from stepwise_dpo.ui.waterfall import AGGREGATIONS


class Fields(NamedTuple):
    """What the tab's fields hold; nothing of it is trusted."""

    quantity: object = "centered"
    when: object = "before"
    aggregation: object = "sum"
    sort: object = "file"
    negative: object = False
    model: object = REWARD


_OFFERED = {"quantity": QUANTITIES, "when": WHENS, "aggregation": AGGREGATIONS, "sort": SORTS}


def link_of(*held: object) -> dict[str, str]:
    """Write the fields for the address, in the order of `Fields`; "" for what the tab shows by itself."""
    fields = Fields(*held)
    said = {
        name: value if isinstance(value, str) and value != own and len(value) <= MAX_CHARACTERS else ""
        for (name, value), own in zip(fields._asdict().items(), Fields(), strict=True)
    }
    return RewardsLink(
        shown=said["quantity"],
        when=said["when"],
        adds=said["aggregation"],
        order=said["sort"],
        negative="yes" if fields.negative is True else "",
        judge=said["model"],
    )._asdict()


def fields_of(link: RewardsLink, public: bool) -> Fields:
    """Read what a link means; what can't be meant is as the tab shows it by itself.

    Args:
        link: as somebody may have written it.
        public: whether reward models come from a list.
    """
    own = Fields()
    sent: dict[str, Any] = {"quantity": link.shown, "when": link.when, "aggregation": link.adds, "sort": link.order}
    known = {name: value for name, value in sent.items() if value in _OFFERED[name]}
    model = link.judge if link.judge and (link.judge in JUDGES or not public) else own.model
    return own._replace(**known, negative=link.negative == "yes", model=model)
