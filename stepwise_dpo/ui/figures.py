"""Rewards of examples as plotly figures, and what every figure is: pure functions that return plain dictionaries.

A figure is {"data": [...], "layout": {...}} as plotly.js takes it, with what a dark page changes beside them ("dark"),
and for a heatmap what assets/plots.js writes into the cells once they are large enough ("numbers"). Colours of text,
grid and background belong to the page (assets/plots.js sets them for the light or dark theme), so they are left out
here.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from textwrap import wrap
from typing import Any, NamedTuple

from stepwise_dpo.ui.colours import INKS, colour_scale, diverging
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
    data: list[Figure] = []
    numbers: list[Figure] = []
    gap = 1 if len(rows) <= 120 else 0
    for name, xaxis, width, solutions in zip(("chosen", "rejected"), ("x", "x2"), widths, sides, strict=True):
        scores = [[*(value for _, value in steps), *[None] * (width - len(steps))] for steps in solutions]
        data.append(
            {
                "type": "heatmap",
                "name": name,
                "z": scores,
                "x": list(range(1, width + 1)),
                "y": list(range(1, len(rows) + 1)),
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
                "xaxis": xaxis,
                "yaxis": "y",
            }
        )
        numbers.append(_numbers(scores, number, centre, domain))
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
        # A zoom into these rows means nothing once they are others.
        "uirevision": " ".join(str(row.place) for row in rows),
    }
    return {"data": data, "layout": layout, "dark": {"colorscale": colour_scale(dark=True)}, "numbers": numbers}


def _numbers(
    scores: Sequence[Sequence[float | None]], number: Callable[[float], str], centre: float, domain: float
) -> Figure:
    """Write the numbers of one side's cells, "" for none, and which of `INKS` each has on its colour, row by row."""
    places = [[None if value is None else round((value - centre) / domain, 3) for value in row] for row in scores]
    return {
        "texts": [["" if value is None else number(value) for value in row] for row in scores],
        "inks": INKS,
        # A digit for each cell: a few thousand colours by name would be most of what is sent.
        "light": ["".join(map(_ink, row)) for row in places],
        "dark": ["".join(_ink(place, dark=True) for place in row) for row in places],
    }


@lru_cache(maxsize=10_000)
def _ink(place: float | None, dark: bool = False) -> str:
    return "0" if place is None else str(INKS.index(diverging(place, dark).ink))


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
