"""Rewards of examples as plotly figures, and what every figure is: pure functions that return plain dictionaries.

A figure is {"data": [...], "layout": {...}} as plotly.js takes it, with what a dark page changes beside them ("dark").
Colours of text, grid and background belong to the page (assets/plots.js sets them for the light or dark theme), so
they are left out here.
"""

import math
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

from stepwise_dpo.ui.colours import colour_scale, diverging
from stepwise_dpo.ui.text import plain, signed

Figure = dict[str, Any]


class Chart(NamedTuple):
    """One live chart.

    Attributes:
        id: its identity on the page, and its explanation's key in the glossary.
        title: what it shows, in words.
        unit: of what it shows.
        figure: as plotly takes it, see above.
        note: what a reader of this very figure has to know; "" for nothing.
        log: whether its values make sense on a logarithmic scale, which the page then offers.
    """

    id: str
    title: str
    unit: str
    figure: Figure
    note: str = ""
    log: bool = False


class HeatmapRow(NamedTuple):
    """One example of a heatmap: its place in the set, from 0, and (text, reward) of each step of both sides."""

    place: int
    chosen: Sequence[tuple[str, float]]
    rejected: Sequence[tuple[str, float]]


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
