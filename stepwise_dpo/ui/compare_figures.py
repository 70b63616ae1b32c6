"""The margins of two models as plotly figures: pure functions that return plain dictionaries, as those of `figures`."""

import math
from collections.abc import Sequence
from itertools import pairwise

from stepwise_dpo.ui.colours import CHOSEN, DARK_LINES, MARGIN, MUTED, OTHER, REJECTED
from stepwise_dpo.ui.comparison import Compared
from stepwise_dpo.ui.figures import Chart, Figure
from stepwise_dpo.ui.text import plain

BEFORE, AFTER = OTHER, MARGIN
"""One colour for each model."""

BINS = 36

_ZERO = {"type": "line", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "yref": "paper", "line": {"color": MUTED, "width": 1.5}}


def margin_charts(compared: Sequence[Compared], names: tuple[str, str]) -> list[Chart]:
    """Draw the margins of both models: how they are spread, and how each example's moved.

    Args:
        compared: the examples; a point's customdata is the key of its row in the table.
        names: what the models are called.
    """
    return [
        Chart("margins", "Margins", "examples by margin, nats per token", _histogram(compared, names)),
        Chart("margin_moves", "Each example", "margin in nats per token; a click opens it", _scatter(compared, names)),
    ]


def bin_edges(values: Sequence[float], bins: int = BINS) -> list[float]:
    """Edges of about `bins` equal bins that hold all values, with an edge at 0 so that no bin holds both signs."""
    low, high = min(0.0, *values), max(0.0, *values)
    width = (high - low) / bins or 1.0
    first, last = math.floor(low / width - 1e-9), math.ceil(high / width + 1e-9)
    return [index * width for index in range(first, last + 1)]


def counts(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """How many values each bin holds; a value on an edge belongs to the bin above."""
    return [sum(low <= value < high for value in values) for low, high in pairwise(edges)]


def _histogram(compared: Sequence[Compared], names: tuple[str, str]) -> Figure:
    before, after = [one.before.margin for one in compared], [one.after.margin for one in compared]
    edges = bin_edges([*before, *after])
    data = [
        {
            "type": "bar",
            "name": plain(name, 40),
            "x": [(low + high) / 2 for low, high in pairwise(edges)],
            "y": counts(values, edges),
            "width": edges[1] - edges[0],
            "customdata": [[low, high] for low, high in pairwise(edges)],
            "hovertemplate": "%{y} from %{customdata[0]:.2f} to %{customdata[1]:.2f}",
            "marker": {"color": colour},
            "opacity": 0.6,
        }
        for name, values, colour in ((names[0], before, BEFORE), (names[1], after, AFTER))
    ]
    layout = {
        "barmode": "overlay",
        "xaxis": {"zeroline": False, "title": {"text": "← rejected likelier · chosen likelier →", "standoff": 6}},
        "yaxis": {"zeroline": False, "nticks": 5, "rangemode": "tozero"},
        "shapes": [_ZERO],
        "showlegend": True,
        "hovermode": "x",
    }
    return {"data": data, "layout": layout, "dark": {"colours": DARK_LINES}}


def _scatter(compared: Sequence[Compared], names: tuple[str, str]) -> Figure:
    groups: dict[str, list[int]] = {"flipped to chosen": [], "flipped to rejected": [], "same preference": []}
    for index, one in enumerate(compared):
        to_side = f"flipped to {one.after.preferred}"
        groups[to_side if one.flipped and to_side in groups else "same preference"].append(index)
    margins = [margin for one in compared for margin in (one.before.margin, one.after.margin)]
    ends = [min(0.0, *margins), max(0.0, *margins)]
    room = (ends[1] - ends[0] or 1.0) * 0.05
    span = [ends[0] - room, ends[1] + room]
    colours = {"flipped to chosen": CHOSEN, "flipped to rejected": REJECTED, "same preference": MUTED}
    data: list[Figure] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": f"{name} ({len(indices)})",
            "x": [compared[i].before.margin for i in indices],
            "y": [compared[i].after.margin for i in indices],
            "customdata": [f"row:{i}" for i in indices],
            "text": [plain(compared[i].pair.prompt, 60) for i in indices],
            "hovertemplate": "%{x:+.3f} → %{y:+.3f}<br>%{text}<extra></extra>",
            "marker": {"color": colours[name], "size": 8, "opacity": 0.85},
        }
        for name, indices in reversed(groups.items())
    ]
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "no change",
            "x": span,
            "y": span,
            "line": {"color": MUTED, "width": 1, "dash": "dot"},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    )
    layout = {
        "xaxis": {"range": span, "zeroline": True, "title": {"text": plain(names[0], 40), "standoff": 6}},
        "yaxis": {"range": span, "zeroline": True, "title": {"text": plain(names[1], 40), "standoff": 6}},
        "showlegend": True,
        "hovermode": "closest",
    }
    return {"data": data, "layout": layout, "dark": {"colours": DARK_LINES}}
