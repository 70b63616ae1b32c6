"""How the numbers of the steps become one number: the aggregations in words and as bars that build on each other."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.preferences.statistics import preference_sign
from stepwise_dpo.ui import colours
from stepwise_dpo.ui.text import MINUS, counted, plain, shown, signed

AGGREGATIONS = {
    "sum": "Sum",
    "mean": "Mean",
    "min": "Min",
    "last": "Last",
    "product": "Product",
    "until_error": "Until error",
}
"""See `losses.aggregate_steps`."""

SIDES = ("chosen", "rejected")
NUMBERED = 18
"""With more bars than this their numbers would overlap; they stand in the rows above, and on hover."""


NUMBERED_NARROW = 6
"""The same on a narrow page."""


class Bar(NamedTuple):
    """One step's part in the result.

    Attributes:
        side: "chosen" or "rejected".
        step: from 0.
        value: the step's own number.
        start: where the bar begins.
        end: where it ends.
        counts: whether the result depends on it.
    """

    side: str
    step: int
    value: float
    start: float
    end: float
    counts: bool


def check_known(aggregation: str) -> None:
    """Refuse an aggregation that there isn't.

    Raises:
        ConfigError: it is none of `AGGREGATIONS`.
    """
    if aggregation not in AGGREGATIONS:
        raise ConfigError(f"the aggregation must be one of {', '.join(AGGREGATIONS)}, not {aggregation[:40]!r}")


def aggregated(values: Sequence[float], aggregation: str, neutral: float = 0.0) -> float:
    """Reduce the numbers of a solution's steps to one, as `losses.aggregate_steps` does.

    Raises:
        ConfigError: an unknown aggregation.
    """
    check_known(aggregation)
    if aggregation == "mean":
        return math.fsum(values) / len(values)
    if aggregation == "min":
        return min(values)
    if aggregation == "last":
        return values[-1]
    if aggregation == "product":
        return math.prod(values)
    if aggregation == "until_error":
        return math.fsum(values[: first_below(values, neutral, len(values)) + 1])
    return math.fsum(values)


def first_below(values: Sequence[float], neutral: float, none: int = -1) -> int:
    """Index of the first step that a judge calls wrong, that is with a value below the neutral one; else `none`."""
    return next((i for i, value in enumerate(values) if value < neutral), none)


def bars(sides: tuple[Sequence[float], Sequence[float]], aggregation: str, neutral: float = 0.0) -> list[Bar]:
    """Lay out the bars of both sides.

    Where steps add up, each bar begins where the one before ended, the rejected ones downwards, and the last one ends
    at the preference. A product's bars go from one partial product to the next, beginning at 1 on each side. For min
    and last, bars stand side by side on zero and the one that decides is marked.

    Args:
        sides: numbers of the chosen and the rejected steps.
        aggregation: one of `AGGREGATIONS`.
        neutral: for "until_error".
    """
    made: list[Bar] = []
    height = 0.0
    for side, values, sign in zip(SIDES, sides, (1, -1), strict=True):
        stop = first_below(values, neutral, len(values)) if aggregation == "until_error" else len(values)
        decides = {"min": min(range(len(values)), key=values.__getitem__), "last": len(values) - 1}.get(aggregation)
        if aggregation == "product":
            height = 1.0
        for step, value in enumerate(values):
            if aggregation == "product":
                start, height, counts = height, height * value, True
            elif decides is not None:
                start, height, counts = 0.0, value, step == decides
            else:
                counts = step <= stop
                part = value / len(values) if aggregation == "mean" else value
                start, height = height, height + sign * part * counts
            made.append(Bar(side, step, value, start, height, counts))
    return made


def waterfall_html(
    sides: tuple[Sequence[float], Sequence[float]],
    aggregation: str,
    *,
    result: str,
    reach: float,
    centre: float = 0.0,
    with_sign: bool = True,
) -> str:
    """Write the bars with the result at the end (HTML), and the same in words for those who don't see them.

    Args:
        sides: numbers of the chosen and the rejected steps.
        aggregation: one of `AGGREGATIONS`.
        result: what the last bar is called.
        reach: distance from `centre` to the full colour, as in the rows.
        centre: the neutral number.
        with_sign: whether a step's number has a sign.
    """
    steps = bars(sides, aggregation, centre)
    totals = [aggregated(side, aggregation, centre) for side in sides]
    final = totals[0] - totals[1]
    low = min(0.0, final, *(min(bar.start, bar.end) for bar in steps))
    high = max(0.0, final, *(max(bar.start, bar.end) for bar in steps))
    span = (high - low) or 1.0

    def place(start: float, end: float) -> str:
        bottom, top = min(start, end), max(start, end)
        return f"bottom:{100 * (bottom - low) / span:.2f}%;height:{100 * (top - bottom) / span:.2f}%"

    columns = []
    for bar in steps:
        number = signed(bar.value) if with_sign else f"{bar.value:.2f}"
        so_far = signed(bar.end) if with_sign else f"{bar.end:.2f}"
        adds = ", not counted" if not bar.counts else "" if aggregation in ("min", "last") else f", together {so_far}"
        tip = f"{bar.side} step {bar.step + 1}: {number}{adds}"
        look = f"{place(bar.start, bar.end)};{colours.style((bar.value - centre) / reach if reach else 0.0)}"
        classes = (
            "bar-box" + ("" if bar.counts else " out") + (" turn" if bar.side == "rejected" and not bar.step else "")
        )
        written = f'<span class="bar-number" style="bottom:{_above(bar, low, span):.2f}%">{number}</span>'
        columns.append(
            f'<div class="{classes}" title="{plain(tip)}"><div class="bar-area"><i style="{look}"></i>'
            f'{written if len(steps) <= NUMBERED else ""}</div><span class="bar-name">{bar.step + 1}</span></div>'
        )
    sign = ("", "positive", "negative")[preference_sign(final)]
    columns.append(
        f'<div class="bar-box result {sign}"><div class="bar-area"><i style="{place(0.0, final)}"></i>'
        f'<span class="bar-number" style="bottom:{100 * (max(final, 0.0) - low) / span:.2f}%">{signed(final)}</span>'
        f'</div><span class="bar-name">{shown(result)}</span></div>'
    )
    zero = f'<div class="bar-zero" style="bottom:{-100 * low / span:.2f}%"></div>'
    groups = [f'<span style="flex:{len(side)}">{name}</span>' for name, side in zip(SIDES, sides, strict=True)]
    words = waterfall_words(sides, aggregation, result, centre, with_sign)
    crowded = " crowded" if len(steps) > NUMBERED_NARROW else ""
    return (
        f'<figure class="waterfall" role="group" aria-label="{plain(words)}">'
        f'<div class="bars-scroll" tabindex="0" role="region" aria-label="Bars">'
        f'<div class="bars{crowded}" aria-hidden="true" style="--bars:{len(steps)}">'
        f'<div class="bar-line"><div class="bar-plot">{zero}</div></div>{"".join(columns)}'
        f'</div><div class="bar-sides" aria-hidden="true">{"".join(groups)}<span class="bar-end"></span></div></div>'
        f"<figcaption>{shown(words)}</figcaption></figure>"
    )


def _above(bar: Bar, low: float, span: float) -> float:
    return 100 * (max(bar.start, bar.end) - low) / span


def waterfall_words(
    sides: tuple[Sequence[float], Sequence[float]],
    aggregation: str,
    result: str,
    neutral: float = 0.0,
    with_sign: bool = True,
) -> str:
    """Say in a sentence how the result comes about."""
    totals = [aggregated(side, aggregation, neutral) for side in sides]

    def written(value: float) -> str:
        return signed(value) if with_sign else f"{value:.2f}"

    if aggregation in ("min", "last"):
        which = (
            [min(range(len(side)), key=side.__getitem__) for side in sides]
            if aggregation == "min"
            else [len(side) - 1 for side in sides]
        )
        parts = [
            f"{name} by its {'lowest' if aggregation == 'min' else 'last'} step, {index + 1}: {written(total)}"
            for name, index, total in zip(SIDES, which, totals, strict=True)
        ]
    elif aggregation == "until_error":
        parts = []
        for name, side, total in zip(SIDES, sides, totals, strict=True):
            wrong = first_below(side, neutral)
            until = (
                "all steps, none is judged wrong" if wrong < 0 else f"up to step {wrong + 1}, the first judged wrong"
            )
            parts.append(f"{name} {until}: {written(total)}")
    else:
        name_of = {"sum": "sum", "mean": "mean", "product": "product"}[aggregation]
        parts = [
            f"{name_of} of {counted(len(side), f'{name} step')}: {written(total)}"
            for name, side, total in zip(SIDES, sides, totals, strict=True)
        ]
    return f"{'; '.join(parts)}. {result.capitalize()} = chosen {MINUS} rejected = {signed(totals[0] - totals[1])}."
