"""Records of a run, or rewards of examples, as plotly figures: pure functions that return plain dictionaries.

A figure is {"data": [...], "layout": {...}} as plotly.js takes it, with what a dark page changes beside them ("dark").
Colours of text, grid and background belong to the page (assets/plots.js sets them for the light or dark theme), so
they are left out here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

from stepwise_dpo.ui.colours import CHOSEN, DARK_LINES, LOSS_COLOURS, MARGIN, OTHER, REJECTED, colour_scale, diverging
from stepwise_dpo.ui.text import plain, signed

Record = Mapping[str, Any]
Figure = dict[str, Any]

MAX_POINTS = 1_000
SMOOTHING = 0.8


class Chart(NamedTuple):
    """One live chart: its identity on the page, what it shows in words, and its figure."""

    id: str
    title: str
    unit: str
    figure: Figure


class HeatmapRow(NamedTuple):
    """One example of a heatmap: its place in the set, from 0, and (text, reward) of each step of both sides."""

    place: int
    chosen: Sequence[tuple[str, float]]
    rejected: Sequence[tuple[str, float]]


class Curve(NamedTuple):
    """One line of a chart."""

    key: str
    name: str
    colour: str


class _Plan(NamedTuple):
    id: str
    title: str
    unit: str
    curves: tuple[Curve, ...]
    options: dict[str, Any]


_ACCURACY = {"range": [-0.04, 1.04], "tickformat": ".0%"}

_PLANS = (
    _Plan(
        "rewards",
        "Implicit rewards",
        "β × log-ratio to the reference, nats",
        (
            Curve("rewards/chosen", "chosen", CHOSEN),
            Curve("rewards/rejected", "rejected", REJECTED),
            Curve("rewards/margins", "margin", MARGIN),
        ),
        {"zeroline": True},
    ),
    _Plan(
        "accuracy",
        "Preference accuracy",
        "pairs with a positive margin",
        (Curve("rewards/accuracies", "accuracy", MARGIN),),
        _ACCURACY,
    ),
    _Plan(
        "logps",
        "Log-probabilities",
        "nats per solution",
        (Curve("logps/chosen", "chosen", CHOSEN), Curve("logps/rejected", "rejected", REJECTED)),
        {},
    ),
    _Plan(
        "process",
        "Process rewards",
        "the reward model's scores, aggregated",
        (
            Curve("process_rewards/chosen", "chosen", CHOSEN),
            Curve("process_rewards/rejected", "rejected", REJECTED),
            Curve("process_rewards/preference", "preference", MARGIN),
        ),
        {"zeroline": True},
    ),
    _Plan(
        "negative",
        "Negative preferences",
        "share of pairs whose rejected side scores higher",
        (Curve("process_rewards/negative_fraction", "negative", OTHER),),
        _ACCURACY,
    ),
    _Plan(
        "gradient",
        "Gradient norm",
        "before clipping",
        (Curve("grad_norm", "gradient norm", OTHER),),
        {"rangemode": "tozero"},
    ),
    _Plan(
        "rate",
        "Learning rate",
        "per optimiser step",
        (Curve("learning_rate", "learning rate", MARGIN),),
        {"rangemode": "tozero", "exponentformat": "power"},
    ),
)
_STEPWISE_ONLY = {"process", "negative"}


def training_charts(records: Sequence[Record], loss: str, max_steps: int = 0) -> list[Chart]:
    """Draw a run's curves, the loss first.

    Args:
        records: lines of metrics.jsonl; evaluation lines are those with eval_ keys.
        loss: "dpo" or "stepwise", which decides the colour of the loss and which charts there are.
        max_steps: optimiser steps to do, for an axis that doesn't move; 0 while unknown.

    Returns:
        Always the same charts for a loss, so that nothing jumps when the first point arrives.
    """
    axis = {"range": [0, max_steps + 0.5]} if max_steps else {}
    titled = {**axis, "title": {"text": "optimiser step", "standoff": 6}}
    charts = [Chart("loss", "Loss", "nats, smoothed over the raw curve", _loss_figure(records, loss, titled))]
    for plan in _PLANS:
        if plan.id in _STEPWISE_ONLY and loss != "stepwise":
            continue
        traces = []
        for curve in plan.curves:
            traces += _curve(records, curve)
            traces += _evaluations(records, curve)
        charts.append(Chart(plan.id, plan.title, plan.unit, _figure(traces, axis, plan.options, len(plan.curves) > 1)))
    return charts


def smooth(values: Sequence[float | None], weight: float = SMOOTHING) -> list[float | None]:
    """Average exponentially, corrected for the start so that the first value is itself; gaps stay gaps."""
    smoothed: list[float | None] = []
    total = share = 0.0
    for value in values:
        if value is None or not math.isfinite(value):
            smoothed.append(None)
            continue
        total = weight * total + (1 - weight) * value
        share = weight * share + (1 - weight)
        smoothed.append(total / share)
    return smoothed


def thinned(points: Sequence[tuple[float, float | None]], limit: int = MAX_POINTS) -> list[tuple[float, float | None]]:
    """Keep at most `limit` points: of each stretch its lowest and highest, so that no spike is lost, and both ends."""
    if len(points) <= limit:
        return list(points)
    width = math.ceil(len(points) / (limit // 2 - 1))
    kept = {0, len(points) - 1}
    for start in range(0, len(points), width):
        stretch = [(y, i) for i in range(start, min(start + width, len(points))) if (y := points[i][1]) is not None]
        if stretch:
            kept |= {min(stretch)[1], max(stretch)[1]}
    return [points[i] for i in sorted(kept)]


def reward_heatmap(
    rows: Sequence[HeatmapRow],
    domain: float,
    centre: float = 0.0,
    number: Callable[[float], str] = signed,
) -> Figure:
    """Draw step rewards of many examples: examples down, steps across, chosen left and rejected right, one scale.

    Args:
        rows: the examples, the first on top.
        domain: distance from `centre` to either end of the colours.
        centre: the neutral reward.
        number: how a reward is written.
    """
    sides = [[row.chosen for row in rows], [row.rejected for row in rows]]
    widths = [max(map(len, solutions), default=1) for solutions in sides]
    numbers = list(range(1, len(rows) + 1))
    data: list[Figure] = []
    dark_inks: list[list[str] | None] = []
    # Numbers in the cells only where they fit.
    numbered = len(rows) <= 30 and sum(widths) <= 16
    gap = 1 if len(rows) <= 120 else 0
    for name, xaxis, width, solutions in zip(("chosen", "rejected"), ("x", "x2"), widths, sides, strict=True):
        axes = {"xaxis": xaxis, "yaxis": "y"}
        scores = [[*(value for _, value in steps), *[None] * (width - len(steps))] for steps in solutions]
        data.append(
            {
                "type": "heatmap",
                "name": name,
                "z": scores,
                "x": list(range(1, width + 1)),
                "y": numbers,
                "coloraxis": "coloraxis",
                "xgap": gap,
                "ygap": gap,
                "text": [
                    _hover_texts(f"{name} step {{}} of example {row.place + 1}", steps, number, width)
                    for row, steps in zip(rows, solutions, strict=True)
                ],
                "customdata": [[str(row.place)] * width for row in rows],
                "hovertemplate": "%{text}<extra></extra>",
                "hoverongaps": False,
                **axes,
            }
        )
        dark_inks.append(None)
        if numbered:
            # Not the heatmap's own texttemplate: it chooses the text's colour without a promise about its contrast.
            cells = [
                (x, y, v) for y, row in zip(numbers, scores, strict=True) for x, v in enumerate(row, 1) if v is not None
            ]
            places = [(v - centre) / domain for _, _, v in cells]
            data.append(
                {
                    "type": "scatter",
                    "mode": "text",
                    "x": [x for x, _, _ in cells],
                    "y": [y for _, y, _ in cells],
                    "text": [number(v) for _, _, v in cells],
                    "textfont": {"size": 12, "color": [diverging(place).ink for place in places]},
                    "hoverinfo": "skip",
                    "showlegend": False,
                    **axes,
                }
            )
            dark_inks.append([diverging(place, dark=True).ink for place in places])
    share = widths[0] / sum(widths)
    steps = {
        "tickmode": "linear",
        "dtick": 1 if max(widths) <= 16 else 5,
        "zeroline": False,
        "showgrid": False,
        "side": "top",
    }
    layout = {
        "xaxis": {
            **steps,
            "range": [0.5, widths[0] + 0.5],
            "domain": [0, share - 0.012],
            "title": {"text": "chosen, step"},
        },
        "xaxis2": {
            **steps,
            "range": [0.5, widths[1] + 0.5],
            "domain": [share + 0.012, 1],
            "title": {"text": "rejected, step"},
            "anchor": "y",
        },
        "yaxis": {
            "range": [len(rows) + 0.5, 0.5],
            "showgrid": False,
            "zeroline": False,
            **_example_ticks([row.place for row in rows]),
        },
        "coloraxis": {
            "cmin": centre - domain,
            "cmax": centre + domain,
            "colorscale": colour_scale(),
            "colorbar": {
                "thickness": 10,
                "len": 0.9,
                "outlinewidth": 0,
                "tickvals": [centre - domain, centre, centre + domain],
            },
        },
        # Beyond what fits, rows get thinner: the pattern stays in view, and a drag zooms in.
        "height": 120 + 24 * min(len(rows), 30),
        "margin": {"l": 48, "r": 8, "t": 64, "b": 12},
        "hovermode": "closest",
    }
    return {"data": data, "layout": layout, "dark": {"colorscale": colour_scale(dark=True), "inks": dark_inks}}


def _hover_texts(
    place: str, steps: Sequence[tuple[str, float]], number: Callable[[float], str], width: int
) -> list[str]:
    cells = [
        f"<b>{number(value)}</b> {place.format(step)}<br>{_lines(text)}" for step, (text, value) in enumerate(steps, 1)
    ]
    return [*cells, *[""] * (width - len(cells))]


def _lines(text: str, width: int = 60) -> str:
    """Break a step's text into lines that fit a hover label; of a very long one the beginning: a click shows it all."""
    lines = wrap(text, width, max_lines=6, placeholder=" …")
    return "<br>".join(plain(line) for line in lines)


def _example_ticks(indices: Sequence[int]) -> dict[str, Any]:
    """Name rows by their example's number, which isn't the row's own in a sorted heatmap."""
    every = max(1, math.ceil(len(indices) / 30))
    rows = range(0, len(indices), every)
    names = [str(indices[row] + 1) for row in rows]
    return {"tickmode": "array", "tickvals": [row + 1 for row in rows], "ticktext": names}


def points_of(records: Sequence[Record], key: str) -> list[tuple[float, float | None]]:
    """Pick (global step, value) of all records that have a key; what isn't a finite number is a gap."""
    return [
        (record["global_step"], _finite(record[key])) for record in records if key in record and "global_step" in record
    ]


def _loss_figure(records: Sequence[Record], loss: str, axis: dict[str, Any]) -> Figure:
    colour = LOSS_COLOURS.get(loss, MARGIN)
    raw = points_of(records, "loss")
    steady = smooth([value for _, value in raw])
    traces = [
        _line(raw, "each step", colour, opacity=0.45, width=1),
        _line([(x, y) for (x, _), y in zip(raw, steady, strict=True)], "smoothed", colour, width=2.5),
        *_evaluations(records, Curve("loss", "held out", colour), always=True),
    ]
    return _figure(traces, axis, {}, legend=True)


def _curve(records: Sequence[Record], curve: Curve) -> list[Figure]:
    return [_line(points_of(records, curve.key), curve.name, curve.colour, width=2)]


def _evaluations(records: Sequence[Record], curve: Curve, always: bool = False) -> list[Figure]:
    """Held-out values as marks; without any, nothing, unless the legend has to stay as it is."""
    points = points_of(records, f"eval_{curve.key}")
    if not points and not always:
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": curve.name if always else f"{curve.name}, held out",
            "x": [x for x, _ in points],
            "y": [y for _, y in points],
            "marker": {"color": curve.colour, "symbol": "diamond-open", "size": 8, "line": {"width": 2}},
            "showlegend": always,
        }
    ]


def _line(
    points: Sequence[tuple[float, float | None]], name: str, colour: str, width: float, opacity: float = 1.0
) -> Figure:
    kept = thinned(points)
    return {
        "type": "scatter",
        # A single point has no line.
        "mode": "lines+markers" if len(kept) == 1 else "lines",
        "name": name,
        "x": [x for x, _ in kept],
        "y": [y for _, y in kept],
        "line": {"color": colour, "width": width},
        "opacity": opacity,
    }


def _figure(traces: list[Figure], axis: dict[str, Any], options: Mapping[str, Any], legend: bool) -> Figure:
    layout = {
        "xaxis": {"zeroline": False, "rangemode": "tozero", **axis},
        "yaxis": {"zeroline": False, "nticks": 5, **options},
        "showlegend": legend,
        "hovermode": "x unified",
        # The one constant that lets a zoom and the legend's choices survive an update.
        "uirevision": "kept",
    }
    return {"data": traces, "layout": layout, "dark": {"colours": DARK_LINES}}


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
