"""The table of all runs: state, progress, loss, result, what differs, note; one page of it at a time."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from stepwise_dpo.learning.estimates import Estimate, wilson_interval
from stepwise_dpo.runs.config import RunConfig
from stepwise_dpo.ui.colours import LOSS_COLOURS, MUTED, on_dark
from stepwise_dpo.ui.run_reader import Facts, RunReader
from stepwise_dpo.ui.runs_view import RunView, progress_words, setting
from stepwise_dpo.ui.text import counted, signed, three_digits
from stepwise_dpo.ui.training_figures import MAX_RUNS, run_colours

PAGE = 15
"""Rows at a time."""

SPARK_WIDTH, SPARK_HEIGHT = 96, 22
MOST_DIFFERENCES = 5


class Choice(NamedTuple):
    """What a session has chosen in the table.

    Attributes:
        overlaid: runs that are drawn beside the opened one.
        page: of the table, from 0.
    """

    overlaid: tuple[str, ...] = ()
    page: int = 0


def overlay(choice: Choice, run_id: object, add: bool, current: str) -> Choice:
    """Draw a run beside the opened one, or no longer.

    Raises:
        ValueError: there are as many as can be told apart.
    """
    if not isinstance(run_id, str) or run_id == current:
        return choice
    others = tuple(known for known in choice.overlaid if known not in (run_id, current))
    if add and len(others) >= MAX_RUNS - 1:
        raise ValueError(f"at most {MAX_RUNS} runs are drawn together; take one off first")
    return choice._replace(overlaid=(*others, run_id) if add else others)


def chosen_views(views: Sequence[RunView], current: RunView | None, choice: Choice) -> list[RunView]:
    """Give the runs to draw, the opened one first; those that are gone are left out."""
    if current is None:
        return []
    by_id = {view.run.id: view for view in views}
    others = [by_id[run_id] for run_id in choice.overlaid if run_id in by_id and run_id != current.run.id]
    return [current, *others[: MAX_RUNS - 1]]


def table_value(reader: RunReader, views: Sequence[RunView], current: RunView | None, choice: Choice) -> dict[str, Any]:
    """Write the table's value for run_table.js; all text in it is plain text."""
    pages = max(1, math.ceil(len(views) / PAGE))
    page = max(0, min(choice.page, pages - 1))
    drawn = chosen_views(views, current, choice)
    colours = dict(zip([view.run.id for view in drawn], run_colours([reader.drawn(v) for v in drawn]), strict=True))
    facts = {view.run.id: reader.facts(view) for view in (*drawn, *views[page * PAGE : (page + 1) * PAGE])}
    together = [config for view in drawn if (config := facts[view.run.id].config) is not None]
    rows = []
    for view in views[page * PAGE : (page + 1) * PAGE]:
        result = result_of(facts[view.run.id])
        own = facts[view.run.id]
        differs: list[str] | None = None
        # Those that are drawn together are compared with each other, any other one with the opened run.
        against = together if view.run.id in colours else together[:1]
        if view.run.id != _id(current) or len(drawn) > 1:
            differs = differences(own.config, against)
        colour = colours.get(view.run.id, LOSS_COLOURS.get(view.loss, MUTED))
        rows.append(
            {
                "id": view.run.id,
                "name": view.name,
                "state": view.state,
                "warns": view.status.state in ("failed", "interrupted"),
                "active": view.status.active,
                "colour": colour,
                "dark": on_dark(colour),
                "progress": round(view.progress, 3),
                "steps": progress_words(view, reader.curves(view.run)) if view.status.active else _steps(view),
                "loss": three_digits(own.loss) if own.loss is not None else "",
                "spark": sparkline(own.spark),
                "result": result.words,
                "intervals": "; ".join(filter(None, [result.change, result.title])),
                "differs": differs and shortened(differs),
                "all": "\n".join(differs) if differs and len(differs) > MOST_DIFFERENCES else "",
                "note": own.note,
                "opened": view.run.id == _id(current),
                "overlaid": view.run.id in colours,
            }
        )
    head = counted(len(views), "run") + (f" · page {page + 1} of {pages}" if pages > 1 else "")
    return {"head": head, "page": page, "pages": pages, "rows": rows, "several": len(drawn) > 1}


def differences(config: RunConfig | None, others: Sequence[RunConfig]) -> list[str] | None:
    """Write a run's own values of the settings in which not all of these runs agree; None where it can't be read."""
    if config is None:
        return None
    own = config.model_dump()
    dumps = [other.model_dump() for other in others]
    return [f"{name} {setting(name, own[name])}" for name in own if any(other[name] != own[name] for other in dumps)]


def shortened(found: Sequence[str]) -> list[str]:
    """Cut differences to what a cell has room for, and count the others."""
    if len(found) <= MOST_DIFFERENCES:
        return list(found)
    return [*found[:MOST_DIFFERENCES], f"and {len(found) - MOST_DIFFERENCES} more"]


class Result(NamedTuple):
    """What the comparison of a run showed.

    Attributes:
        words: before → after, and of how many; "" while there is none.
        title: the interval of each, for the pointer; "" where the report doesn't count its examples.
        change: by how much, with its interval; "" where that wasn't measured.
    """

    words: str = ""
    title: str = ""
    change: str = ""


def result_of(facts: Facts) -> Result:
    """Say what the comparison showed: the solve rate, or else the share of pairs that are ranked right."""
    on_training = facts.config is not None and not facts.config.eval_data
    trained_on = facts.after.get("trained_on") or 0
    for key, words, counts in (("solve_rate", "solved", "answers"), ("preference_accuracy", "ranked right", "pairs")):
        shares = [share for side in (facts.before, facts.after) if (share := side.get(key)) is not None]
        if len(shares) < 2:  # null where it isn't defined
            continue
        moved = " → ".join(f"{share:.0%}" for share in shares)
        count = facts.after.get(counts) or 0
        # A damaged report may hold any numbers.
        if not 1 <= count <= 1e9 or not all(0 <= share <= 1 for share in shares):
            return Result(f"{moved} {words}{', on training examples' if on_training else ''}")
        ends = (wilson_interval(round(share * round(count)), round(count)) for share in shares)
        before, after = (f"{low:.0%} to {high:.0%}" for low, high in ends)
        of = f"of {counted(round(count), 'training example') if on_training else f'{count:,.0f}'}"
        if not on_training and 1 <= trained_on <= 1e9:
            of += f" ({counted(round(trained_on), 'held-out pair')} on problems that were trained on)"
        return Result(
            f"{moved} {words}, {of}",
            f"95% intervals: before {before}, after {after}",
            _change(facts, key),
        )
    return Result()


def _change(facts: Facts, key: str) -> str:
    """Write the change of a share in points, with its interval; "" where it wasn't measured."""
    change = Estimate.read(facts.change, key)
    if change is None or not all(-1 <= value <= 1 for value in (change.value, *(change.interval or ()))):
        return ""  # a damaged report may hold any numbers
    words = f"{signed(100 * change.value, 1)} points"
    if change.interval is None:
        return words
    low, high = (signed(100 * end, 1) for end in change.interval)
    return f"{words} (95% interval {low} to {high})"


def sparkline(values: Sequence[float]) -> str:
    """Draw values as the path of an SVG of `SPARK_WIDTH` x `SPARK_HEIGHT`; "" for fewer than two."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = [
        f"{index * (SPARK_WIDTH - 2) / (len(values) - 1) + 1:.1f} {(high - value) / span * (SPARK_HEIGHT - 4) + 2:.1f}"
        for index, value in enumerate(values)
    ]
    return "M" + "L".join(points)


def _steps(view: RunView) -> str:
    status = view.status
    return f"{status.global_step:,} / {status.max_steps:,}" if status.max_steps else ""


def _id(view: RunView | None) -> str:
    return view.run.id if view else ""
