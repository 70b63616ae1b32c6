"""Reports of `evaluate` as plotly figures: pure functions that return plain dictionaries, as those of `figures`."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from stepwise_dpo.ui.colours import CHOSEN, DARK_LINES, MARGIN, MUTED, REJECTED
from stepwise_dpo.ui.figures import Chart, Figure
from stepwise_dpo.ui.text import plain

Report = Mapping[str, Any]


def reward_figures(report: Report) -> list[Chart]:
    """Draw a reward model's report.

    Args:
        report: of `learning.reward_benchmark.reward_report`.

    Returns:
        Calibration, scores of right and wrong steps, and the F1 of each family and corruption where there are any.
    """
    charts = [
        Chart("calibration", "Calibration", "fraction of right steps by score", _calibration(report["calibration"])),
        Chart(
            "scores",
            "Scores of right and wrong steps",
            "steps up to the first errors, on a logarithmic scale",
            _histogram(report["histogram"], report["threshold"]),
        ),
    ]
    for key, name in (("per_family", "family"), ("per_corruption", "corruption")):
        if groups := report[key]:
            values = [group["process_bench"]["f1"] for group in groups.values()]
            intervals = [group["intervals"]["f1"] for group in groups.values()]
            counts = [f"{group['counts']['solutions']} solutions" for group in groups.values()]
            figure = _bars([*groups], values, intervals, counts, {"range": [0, 104]}, "{:.1f}")
            charts.append(Chart(f"f1_{key}", f"F1 by {name}", "ProcessBench, percent, 95% intervals", figure))
    return charts


def policy_figures(report: Report) -> list[Chart]:
    """Draw a policy's report, of `learning.policy_benchmark.policy_report`: the solve rate of all and each family."""
    families = report["per_family"]
    names, groups = ["all", *families], [report, *families.values()]  # a family may be called "all" too
    values = [group["solve_rate"] for group in groups]
    intervals = [group["intervals"]["solve_rate"] for group in groups]
    counts = [f"{group['counts']['prompts']} prompts" for group in groups]
    axis = {"range": [0, 1.04], "tickformat": ".0%"}
    figure = _bars(names, values, intervals, counts, axis, "{:.0%}")
    return [Chart("solve_rate", "Solve rate by family", "greedy answers, 95% intervals", figure)]


def _calibration(calibration: Report | None) -> Figure:
    points = calibration["bins"] if calibration else []
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "perfect",
            "x": [0, 1],
            "y": [0, 1],
            "line": {"color": MUTED, "width": 1, "dash": "dot"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "reward model",
            "x": [point["score"] for point in points],
            "y": [point["right"] for point in points],
            "customdata": [point["steps"] for point in points],
            "hovertemplate": "score %{x:.2f}: %{y:.0%} of %{customdata} steps are right<extra></extra>",
            "line": {"color": MARGIN, "width": 2},
            "marker": {"color": MARGIN, "size": 8},
        },
    ]
    return _figure(
        data,
        {"range": [-0.02, 1.02], "zeroline": False, "title": {"text": "mean score, probability of being right"}},
        {"range": [-0.04, 1.04], "zeroline": False, "tickformat": ".0%"},
        legend=True,
    )


def _histogram(histogram: Report, threshold: float) -> Figure:
    edges: Sequence[float] = histogram["edges"]
    data = [
        {
            "type": "bar",
            "name": f"{kind} steps",
            "x": [(low + high) / 2 for low, high in pairwise(edges)],
            # A logarithm has no place for 0.
            "y": [count or None for count in histogram[kind]],
            "customdata": [[low, high] for low, high in pairwise(edges)],
            "hovertemplate": f"%{{y}} {kind} steps score %{{customdata[0]:.2f}} to %{{customdata[1]:.2f}}"
            "<extra></extra>",
            "marker": {"color": colour},
        }
        for kind, colour in (("right", CHOSEN), ("wrong", REJECTED))
    ]
    figure = _figure(
        data,
        {"range": [0, 1], "zeroline": False, "title": {"text": "score, probability of being right"}},
        {"type": "log", "dtick": 1, "title": {"text": "steps"}},
        legend=True,
    )
    figure["layout"]["barmode"] = "group"
    line = {"color": MUTED, "width": 2, "dash": "dot"}
    figure["layout"]["shapes"] = [
        {"type": "line", "x0": threshold, "x1": threshold, "y0": 0, "y1": 1, "yref": "paper", "line": line}
    ]
    figure["layout"]["annotations"] = [
        {"x": threshold, "y": 1.04, "yref": "paper", "text": f"threshold {threshold:.3g}", "showarrow": False}
    ]
    return figure


def _bars(
    names: Sequence[str],
    values: Sequence[float | None],
    intervals: Sequence[Sequence[float] | None],
    counts: Sequence[str],
    axis: dict[str, Any],
    number: str,
) -> Figure:
    """One bar with its interval for each name; what isn't defined has no bar, and a dash for its number."""
    written = ["–" if value is None else number.format(value) for value in values]
    reach = [
        (0.0, 0.0)
        if value is None or interval is None
        else (max(0.0, value - interval[0]), max(0.0, interval[1] - value))
        for value, interval in zip(values, intervals, strict=True)
    ]
    # The number stands below: a bar of 0 has no room for it, and on others the interval would cross it.
    labels = [f"{plain(name, 40)}<br>{value}" for name, value in zip(names, written, strict=True)]
    data = [
        {
            "type": "bar",
            # Places, not labels: plotly would draw bars of one label over one another.
            "x": list(range(len(labels))),
            "y": list(values),
            "customdata": [list(said) for said in zip(labels, counts, strict=True)],
            "hovertemplate": "%{customdata[0]} of %{customdata[1]}<extra></extra>",
            "marker": {"color": CHOSEN},
            "error_y": {
                "type": "data",
                "symmetric": False,
                "arrayminus": [low for low, _ in reach],
                "array": [high for _, high in reach],
                "color": MUTED,
            },
        }
    ]
    places = {"tickmode": "array", "tickvals": data[0]["x"], "ticktext": labels, "range": [-0.5, len(labels) - 0.5]}
    return _figure(data, {**places, "zeroline": False}, {"zeroline": False, **axis}, legend=False)


def _figure(data: list[dict[str, Any]], x: dict[str, Any], y: dict[str, Any], legend: bool) -> Figure:
    layout = {"xaxis": x, "yaxis": y, "showlegend": legend, "hovermode": "closest"}
    return {"data": data, "layout": layout, "dark": {"colours": DARK_LINES}}
