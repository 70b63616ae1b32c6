"""Curves of runs as plotly figures: one run in the colours of its quantities, several in a colour for each run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stepwise_dpo.ui.colours import CHOSEN, DARK_LINES, LOSS_COLOURS, MARGIN, MUTED, OTHER, REJECTED, RUN_COLOURS
from stepwise_dpo.ui.curves import Curves, Floats, smooth, thinned
from stepwise_dpo.ui.figures import Chart, Figure
from stepwise_dpo.ui.text import plain

LOSS_POINTS, SMALL_POINTS, MANY_RUNS_POINTS = 1_000, 300, 150
"""The most points of a line: in the large chart, in a small one, and in any where several runs are drawn. They bound
what is sent to the browser at each look, however long a run is."""

MAX_RUNS = len(RUN_COLOURS)
"""As many as can be told apart."""

FALL = 0.1
"""Nats by which both rewards have to fall, and the margin to rise, before the page explains it."""

TREND = 5
"""Fewer points show none."""

FEW_STEPS = 10
"""Up to so many optimiser steps the axis would have ticks between them, and there is room for a tick at each."""

INCOMPARABLE = "These losses are on different scales: compare their shapes, not their values."

DISPLACED = "Both fall while the margin rises: common for nearly identical answers."
REMEDY = " If fewer problems are solved, train with “DPO + imitation”."


class Drawn(NamedTuple):
    """A run to draw.

    Attributes:
        key: its id, "" for none.
        name: how the page calls it.
        loss: see `runs_view.loss_of`.
        curves: its metrics.
        max_steps: optimiser steps to do, for an axis that doesn't move; 0 while unknown.
        judged: whether a reward model takes part, so that there are process rewards.
    """

    key: str
    name: str
    loss: str
    curves: Curves
    max_steps: int = 0
    judged: bool = False


class _Line(NamedTuple):
    key: str
    name: str
    colour: str
    dash: str = "solid"


class _Plan(NamedTuple):
    id: str
    title: str
    unit: str
    lines: tuple[_Line, ...]
    options: dict[str, Any]
    log: bool = False


_SHARE = {"range": [-0.04, 1.04], "tickformat": ".0%"}

_PLANS = (
    _Plan(
        "rewards",
        "Implicit rewards",
        "β × log-ratio, nats",
        (
            _Line("rewards/chosen", "chosen", CHOSEN),
            _Line("rewards/rejected", "rejected", REJECTED, "dash"),
            _Line("rewards/margins", "margin", MARGIN, "dot"),
        ),
        {"zeroline": True},
    ),
    _Plan(
        "accuracy",
        "Reward accuracy",
        "share of pairs",
        (_Line("rewards/accuracies", "accuracy", MARGIN),),
        _SHARE,
    ),
    _Plan(
        "logps",
        "Log-probabilities",
        "nats per solution",
        (_Line("logps/chosen", "chosen", CHOSEN), _Line("logps/rejected", "rejected", REJECTED, "dash")),
        {},
    ),
    _Plan(
        "gradient",
        "Gradient norm",
        "before clipping",
        (_Line("grad_norm", "gradient norm", OTHER),),
        {"rangemode": "tozero"},
        log=True,
    ),
    _Plan(
        "rate",
        "Learning rate",
        "per optimiser step",
        (_Line("learning_rate", "learning rate", MARGIN),),
        {"rangemode": "tozero", "exponentformat": "power"},
        log=True,
    ),
    _Plan(
        "entropy",
        "Entropy",
        "nats per token",
        (_Line("entropy", "entropy", OTHER),),
        {"rangemode": "tozero"},
    ),
    # Not every run has these two: last, so that no other chart has another place then.
    _Plan(
        "process",
        "Process rewards",
        "per solution",
        (
            _Line("process_rewards/chosen", "chosen", CHOSEN),
            _Line("process_rewards/rejected", "rejected", REJECTED, "dash"),
            _Line("process_rewards/preference", "preference", MARGIN, "dot"),
        ),
        {"zeroline": True},
    ),
    _Plan(
        "negative",
        "Negative preferences",
        "share of pairs",
        (_Line("process_rewards/negative_fraction", "negative", OTHER),),
        _SHARE,
    ),
)
_JUDGED_ONLY = {"process", "negative"}


def training_charts(runs: Sequence[Drawn]) -> list[Chart]:
    """Draw runs' curves into one set of charts, the loss first.

    Args:
        runs: the opened one first, at most `MAX_RUNS`; with none, the empty charts of a DPO run.

    Returns:
        Always the same charts for the same runs, so that nothing jumps when the first point arrives.
    """
    runs = runs or [Drawn("", "", "dpo", Curves())]
    steps = max(run.max_steps for run in runs)
    axis: dict[str, Any] = {"range": [0, steps + 0.5]} if steps else {}
    if 0 < steps <= FEW_STEPS:
        axis["dtick"] = 1
    # A zoom and the legend's choices survive every update, and end when other runs are drawn.
    revision = "runs " + " ".join(run.key for run in runs)
    colours = run_colours(runs)
    charts = [_loss_chart(runs, colours, axis, revision)]
    judged = any(run.judged for run in runs)
    for plan in _PLANS:
        if plan.id in _JUDGED_ONLY and not judged:
            continue
        note = DISPLACED if plan.id == "rewards" and displaced(runs[0].curves) else ""
        if note and runs[0].loss != "imitation":
            note += REMEDY
        figure = _plan_figure(plan, runs, colours, axis, revision)
        unit = plan.unit if len(runs) == 1 else f"{plan.unit}, smoothed"
        charts.append(Chart(plan.id, plan.title, unit, figure, note, plan.log))
    return charts


def run_colours(runs: Sequence[Drawn]) -> list[str]:
    """Give each run a colour of its own: the loss's own to the first run of a loss, and what is left to the others.

    The other losses' colours are the last to go: on the rest of the page they mean those losses.
    """
    own = [LOSS_COLOURS.get(run.loss, MARGIN) for run in runs]
    first = [colour not in own[:index] for index, colour in enumerate(own)]
    taken = {colour for colour, is_first in zip(own, first, strict=True) if is_first}
    left = [colour for colour in RUN_COLOURS if colour not in taken]
    others = iter(sorted(left, key=lambda colour: colour in LOSS_COLOURS.values()))
    return [colour if is_first else next(others) for colour, is_first in zip(own, first, strict=True)]


def displaced(curves: Curves) -> bool:
    """Whether both implicit rewards have fallen below where they began while their margin rose.

    Source: likelihood displacement, Razin et al. 2024, arXiv 2410.08847.
    """
    ends = []
    for key in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
        steady = smooth(curves.points(key)[1], 0.9)
        steady = steady[np.isfinite(steady)]
        if len(steady) < TREND:
            return False
        ends.append(steady[-1] - steady[0])
    chosen, rejected, margin = ends
    return bool(chosen < -FALL and rejected < -FALL and margin > FALL)


def _loss_chart(runs: Sequence[Drawn], colours: Sequence[str], axis: Mapping[str, Any], revision: str) -> Chart:
    titled = {**axis, "title": {"text": "optimiser step", "standoff": 6}}
    traces: list[Figure] = []
    legend: list[Figure] = []
    single = len(runs) == 1
    for run, colour in zip(runs, colours, strict=True):
        steps, raw = run.curves.points("loss")
        raw_line = _line(steps, raw, "each step", colour, 1, LOSS_POINTS) | {"opacity": 0.45}
        steady = _line(steps, smooth(raw), "smoothed" if single else run.name, colour, 2.5, LOSS_POINTS)
        held_out = _marks(run, "loss", "held out" if single else f"{run.name}, held out", colour, "dot")
        if single:
            for trace, dash, width in ((raw_line, "solid", 1), (steady, "solid", 3), (held_out, "dot", 2)):
                traces.append(trace | {"meta": [f"loss/{trace['name']}"]})
                legend.append(_entry(f"loss/{trace['name']}", trace["name"], colour, dash, width))
        else:
            traces += [steady | {"meta": [run.key]}, held_out | {"meta": [run.key]}]
            legend.append(_entry(run.key, run.name, colour))
    unit = "nats, smoothed over the raw curve" if single else "nats, smoothed; diamonds are held-out examples"
    note = INCOMPARABLE if len({run.loss for run in runs}) > 1 else ""
    return Chart("loss", "Loss", unit, _figure(traces, titled, {}, legend, revision), note, log=True)


def _plan_figure(
    plan: _Plan, runs: Sequence[Drawn], colours: Sequence[str], axis: Mapping[str, Any], revision: str
) -> Figure:
    """Draw each run's lines of a plan: dashes tell the quantities apart, and for one run their colours do as well."""
    single = len(runs) == 1
    traces: list[Figure] = []
    for run, run_colour in zip(runs, colours, strict=True):
        for line in plan.lines:
            steps, values = run.curves.points(line.key)
            colour = line.colour if single else run_colour
            name = line.name if single else f"{run.name}, {line.name}"
            # A batch's values jump; of one run that is worth seeing, several would cover each other.
            drawn = (
                _line(steps, values, name, colour, 2, SMALL_POINTS)
                if single
                else _line(steps, smooth(values), name, colour, 2, MANY_RUNS_POINTS)
            )
            drawn["line"]["dash"] = line.dash
            group = f"{plan.id}/{line.name}"
            meta = {"meta": [group] if single else [run.key, group]}
            # Always both, so that a trace keeps its place.
            traces += [drawn | meta, _marks(run, line.key, f"{name}, held out", colour) | meta]
    legend = [
        _entry(f"{plan.id}/{line.name}", line.name, line.colour if single else MUTED, line.dash) for line in plan.lines
    ]
    return _figure(traces, axis, plan.options, legend if len(legend) > 1 else [], revision)


def _line(steps: Floats, values: Floats, name: str, colour: str, width: float, limit: int) -> Figure:
    kept = thinned(values, limit)
    return {
        "type": "scatter",
        # A single point has no line.
        "mode": "lines+markers" if len(kept) == 1 else "lines",
        "name": plain(name),  # plotly reads tags in names, and a run's folder can be called anything
        "x": [int(step) for step in steps[kept]],
        "y": [_short(value) for value in values[kept].tolist()],
        "line": {"color": colour, "width": width},
    }


def _marks(run: Drawn, key: str, name: str, colour: str, dash: str = "solid") -> Figure:
    """Held-out values: diamonds on a thin line, which is no quantity's dashes."""
    steps, values = run.curves.points(f"eval_{key}")
    line = _line(steps, values, name, colour, 1, MANY_RUNS_POINTS)
    return line | {
        "mode": "lines+markers",
        "cliponaxis": False,  # the last one stands at the very end of the axis
        "line": {"color": colour, "width": 1, "dash": dash},
        "marker": {"color": colour, "symbol": "diamond-open", "size": 8, "line": {"width": 2}},
    }


def _entry(group: str, name: str, colour: str, dash: str = "solid", width: int = 3) -> Figure:
    """One entry of a legend: it shows or hides every trace, in all charts, whose `meta` names its group."""
    return {"group": group, "name": name, "colour": colour, "dash": dash, "width": width}


def _figure(
    traces: list[Figure], axis: Mapping[str, Any], options: Mapping[str, Any], legend: list[Figure], revision: str
) -> Figure:
    is_empty = all(value is None for trace in traces for value in trace["y"])
    if is_empty:
        # One without a point looks alike in every run: the page needn't draw it again while the first step is computed.
        revision = "empty"
        axis = {name: value for name, value in axis.items() if name not in ("range", "dtick")}
    layout = {
        "xaxis": {
            "zeroline": False,
            "rangemode": "tozero",
            "showticklabels": not is_empty,  # plotly would make up numbers
            **axis,
        },
        "yaxis": {"zeroline": False, "nticks": 5, "showticklabels": not is_empty or "range" in options, **options},
        "showlegend": False,
        "hovermode": "x unified",
        "uirevision": revision,
    }
    return {"data": traces, "layout": layout, "dark": {"colours": DARK_LINES}, "legend": legend}


def _short(value: float) -> float | None:
    """Five digits are more than a screen shows, and half of what a float takes on its way there."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
