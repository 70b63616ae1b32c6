"""What a set of examples looks like as a whole, as small plots: pure functions from counts to plotly figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from stepwise_dpo.preferences.statistics import Statistics
from stepwise_dpo.ui.colours import CHOSEN, DARK_LINES, MARGIN, MUTED, OTHER, REJECTED
from stepwise_dpo.ui.figures import Chart, Figure
from stepwise_dpo.ui.text import counted, plain

MAX_BINS = 30
NO_ERROR_LABELLED = "No rejected answer has a step that is labelled wrong: mark one in the editor, and it counts here."


def statistics_charts(found: Statistics, leaks: Sequence[tuple[str, int]]) -> list[Chart]:
    """Draw the statistics of a set.

    Args:
        found: of the set.
        leaks: names of other sets, with how many examples' prompts they share.

    Returns:
        Always the same charts.
    """
    wrong = found.pairs - found.without_error
    unit = f"of rejected, by label; {wrong:,} of {counted(found.pairs, 'example')} have one"
    repeated = [("same prompt", found.repeated_prompts), ("same prompt and steps", found.repeated_pairs)]
    return [
        Chart("data_steps", "Steps", "per solution", _steps(found)),
        Chart("data_gap", "Length gap", "characters of chosen minus rejected", _gaps(found.length_gaps)),
        Chart("data_first_error", "First error", unit, _first_errors(found), "" if wrong else NO_ERROR_LABELLED),
        Chart("data_repeats", "Repeats and overlaps", "examples", _repeats(repeated, leaks)),
    ]


def binned(values: Sequence[int], bins: int = MAX_BINS) -> list[tuple[int, int, int]]:
    """Count whole numbers in at most so many stretches of equal width, with a stretch that begins at 0.

    Returns:
        (lowest, highest, how many values) of each stretch, without gaps between them.
    """
    if not values:
        return []
    low, high = min(values), max(values)
    width = max(1, -(-(high - low + 1) // (bins - 1)))
    start = low // width * width
    counts = [0] * ((high - start) // width + 1)
    for value in values:
        counts[(value - start) // width] += 1
    return [(start + i * width, start + (i + 1) * width - 1, count) for i, count in enumerate(counts)]


def _steps(found: Statistics) -> Figure:
    data = [
        {**_trace(counts, name, colour), "hovertemplate": f"%{{x}} steps: %{{y:,}} {name}<extra></extra>"}
        for name, colour, counts in (
            ("chosen", CHOSEN, found.chosen_steps),
            ("rejected", REJECTED, found.rejected_steps),
        )
    ]
    most = max([*found.chosen_steps, *found.rejected_steps], default=1)
    return _figure(data, {"title": {"text": "steps"}, **_ticks(most)}, legend=True)


def _gaps(gaps: Sequence[int]) -> Figure:
    bins = binned(gaps)
    trace = {
        "type": "bar",
        "name": "examples",
        "x": [(low + high) / 2 for low, high, _ in bins],
        "y": [count for _, _, count in bins],
        "width": [high - low + 0.9 for low, high, _ in bins],
        "customdata": [f"{low}" if low == high else f"{low} to {high}" for low, high, _ in bins],
        "hovertemplate": "%{customdata} characters: %{y:,}<extra></extra>",
        "marker": {"color": MARGIN},
    }
    return _figure([trace], {"title": {"text": "chosen shorter  ←  0  →  chosen longer"}, "zeroline": True})


def _first_errors(found: Statistics) -> Figure:
    trace = {**_trace(found.first_errors, "examples", REJECTED), "hovertemplate": "step %{x}: %{y:,}<extra></extra>"}
    return _figure([trace], {"title": {"text": "step"}, **_ticks(max(found.first_errors, default=1))})


def _repeats(repeated: Sequence[tuple[str, int]], leaks: Sequence[tuple[str, int]]) -> Figure:
    rows = [*repeated, *((f"prompt also in {plain(name, 28)}", count) for name, count in leaks)]
    if not leaks:
        rows.append(("prompt also in another set", 0))
    trace = {
        "type": "bar",
        "orientation": "h",
        "name": "examples",
        "x": [count for _, count in rows],
        "y": [name for name, _ in rows],
        "text": [f"{count:,}" for _, count in rows],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": "%{y}: %{x:,}<extra></extra>",
        "marker": {"color": OTHER if any(count for _, count in rows) else MUTED},
    }
    most = max(count for _, count in rows)
    figure = _figure([trace], {"range": [0, max(1, most) * 1.15], "showticklabels": False})
    figure["layout"]["yaxis"] = {"autorange": "reversed", "showgrid": False}
    return figure


def _trace(counts: Mapping[int, int], name: str, colour: str) -> Figure:
    return {"type": "bar", "name": name, "x": list(counts), "y": list(counts.values()), "marker": {"color": colour}}


def _ticks(most: int) -> dict[str, Any]:
    return {"tickmode": "linear", "dtick": max(1, -(-most // 12))}


def _figure(traces: Sequence[Figure], axis: Mapping[str, Any], legend: bool = False) -> Figure:
    layout = {
        "xaxis": {"zeroline": False, "showgrid": False, **axis},
        "yaxis": {"zeroline": False, "nticks": 4, "rangemode": "tozero"},
        "showlegend": legend,
        "hovermode": "closest",
        "bargap": 0.15,
        "uirevision": "kept",
    }
    return {"data": list(traces), "layout": layout, "dark": {"colours": DARK_LINES}}
