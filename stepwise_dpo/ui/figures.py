"""Rewards of examples as plotly figures, and what every figure is: pure functions that return plain dictionaries.

A figure is {"data": [...], "layout": {...}} as plotly.js takes it, with what a dark page changes beside them ("dark").
Colours of text, grid and background belong to the page (assets/plots.js sets them for the light or dark theme), so
they are left out here.
"""

from collections.abc import Callable, Sequence
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


def reward_heatmap(
    rows: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    domain: float,
    centre: float = 0.0,
    number: Callable[[float], str] = signed,
) -> Figure:
    """Draw step rewards of many examples: examples down, steps across, chosen left and rejected right, one scale.

    Args:
        rows: (what the example is called, rewards of chosen, rewards of rejected), the first on top.
        domain: distance from `centre` to either end of the colours.
        centre: the neutral reward.
        number: how a reward is written.
    """
    widths = [max((len(row[side]) for row in rows), default=1) for side in (1, 2)]
    numbers = list(range(1, len(rows) + 1))
    data: list[Figure] = []
    dark_inks: list[list[str] | None] = []
    # Numbers in the cells only where they fit.
    numbered = len(rows) <= 30 and sum(widths) <= 16
    for side, name in ((1, "chosen"), (2, "rejected")):
        width = widths[side - 1]
        axes = {"xaxis": "x" if side == 1 else "x2", "yaxis": "y"}
        scores = [[*row[side], *[None] * (width - len(row[side]))] for row in rows]
        data.append(
            {
                "type": "heatmap",
                "z": scores,
                "x": list(range(1, width + 1)),
                "y": numbers,
                "coloraxis": "coloraxis",
                "xgap": 1,
                "ygap": 1,
                "text": [["" if value is None else number(value) for value in row] for row in scores],
                "customdata": [[plain(row[0], 60)] * width for row in rows],
                "hovertemplate": f"{name} step %{{x}}: %{{text}}<br>%{{customdata}}<extra></extra>",
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
            "title": {"text": "example"},
            "showgrid": False,
            "zeroline": False,
            **({"tickmode": "linear", "dtick": 1} if len(rows) <= 20 else {"nticks": 10}),
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
        "height": 120 + 24 * min(len(rows), 30) + 8 * max(0, len(rows) - 30),
        "margin": {"l": 48, "r": 8, "t": 64, "b": 12},
        "hovermode": "closest",
    }
    return {"data": data, "layout": layout, "dark": {"colorscale": colour_scale(dark=True), "inks": dark_inks}}
