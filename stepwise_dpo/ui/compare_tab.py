"""Compare: what training changed, in numbers, in flipped preferences, and step by step."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from stepwise_dpo.errors import RunError
from stepwise_dpo.learning.names import TINY
from stepwise_dpo.preferences.pairs import Step
from stepwise_dpo.runs.config import RunConfig
from stepwise_dpo.runs.supervisor import Supervisor
from stepwise_dpo.ui.components import (
    Item,
    Shared,
    choice_list,
    coloured,
    empty_state,
    error,
    html,
    list_html,
    note,
    solution,
    stats,
    table,
)
from stepwise_dpo.ui.judges import POLICY_NOTES
from stepwise_dpo.ui.runs_view import RunView, find, look, runs_html
from stepwise_dpo.ui.text import MINUS, counted, plain, shown, signed, three_digits

Record = Mapping[str, Any]

MAX_FLIPPED = 50

# Key of report.json, what it is, its unit, and whether it is a share.
FIGURES = (
    ("preference_accuracy", "Preference accuracy", "pairs whose chosen answer is more likely per token", True),
    ("mean_margin", "Mean margin", "log-likelihood of chosen minus rejected, nats per token", False),
    ("logps/chosen", "Log-probability of chosen", "nats per solution", False),
    ("logps/rejected", "Log-probability of rejected", "nats per solution", False),
    ("solve_rate", "Solve rate", "generated answers that the checker finds right", True),
)


def build(shared: Shared, tab: gr.Tab, supervisor: Supervisor) -> None:
    """Lay out the tab and connect its events."""
    with gr.Row(elem_classes="split"):
        with gr.Column(elem_classes="choose"):
            listing = choice_list(elem_id="compare-runs")
            examples = choice_list(elem_id="compare-examples")
        with gr.Column(elem_classes="look"):
            summary = html(elem_id="compare-summary")
            example = html(elem_id="compare-example")

    def show(run_id: object, index: int) -> list[Any]:
        views = finished(look(supervisor))
        view = find(views, run_id)
        if view is None:
            nothing = empty_state("No finished run yet", "Train one in the Train tab; what it changed appears here.")
            return [runs_html([], None), "", nothing, ""]
        try:
            report, records = view.run.report(), view.run.examples()
            config = view.run.config()
        except RunError as problem:
            return [runs_html(views, view), "", error(str(problem)), ""]
        return [
            runs_html(views, view),
            examples_html(records, index),
            summary_html(view, report, records, config),
            example_html(records[index]) if 0 <= index < len(records) else "",
        ]

    def on_show(run_id: str) -> list[Any]:
        return show(run_id, 0)

    def on_run(event: gr.EventData) -> list[Any]:
        key = _key(event)
        return [key, *show(key, 0)]

    def on_example(run_id: str, event: gr.EventData) -> list[Any]:
        key = _key(event)
        index = int(key[:9]) if key.isascii() and key.isdigit() else 0
        return show(run_id, index)[1::2]

    view = [listing, examples, summary, example]
    tab.select(on_show, shared.run_id, view, show_progress="hidden")
    listing.choose(on_run, None, [shared.run_id, *view], show_progress="hidden", trigger_mode="always_last")
    examples.choose(on_example, shared.run_id, [examples, example], show_progress="hidden", trigger_mode="always_last")


def finished(views: Sequence[RunView]) -> list[RunView]:
    """Keep the runs that have been measured before and after."""
    return [
        view
        for view in views
        if view.status.state in ("finished", "stopped") and (view.run.path / "report.json").is_file()
    ]


def summary_html(view: RunView, report: Record | None, records: Sequence[Record], config: RunConfig) -> str:
    """Write the numbers of a run, before and after, and the preferences that flipped."""
    before, after = (report or {}).get("before", {}), (report or {}).get("after", {})
    if not after:
        return empty_state("This run was not measured after training", "It ended before its second evaluation.")
    known = sum(bool(record.get("in_training")) for record in records)
    trained_on = {0: "none of them", len(records): "all of them"}.get(known, f"{known} of them")
    where = f"examples, {trained_on} trained on"
    head = (
        f'<div class="run-head"><h2>{shown(view.name)}</h2>'
        f"<span>{shown(view.state)} after {counted(view.status.global_step, 'step')}, "
        f"measured on {int(after.get('pairs', 0)):,} {where}</span></div>"
    )
    parts = [
        head,
        note(POLICY_NOTES[TINY]) if config.model == TINY else "",
        numbers_table(before, after),
        '<h3 class="section">Preferences that flipped</h3>',
        flipped_html(records),
    ]
    return f'<div class="example">{"".join(parts)}</div>'


def numbers_table(before: Record, after: Record) -> str:
    """Write the figures of a report side by side, with their change; figures that it lacks are left out."""
    rows = []
    for key, name, words, share in FIGURES:
        if key not in before or key not in after:
            continue
        old, new = float(before[key]), float(after[key])
        if share:
            cells = [f"{old:.0%}", f"{new:.0%}", coloured((new - old) * 100, 0) + " points"]
        else:
            cells = [three_digits(old), three_digits(new), coloured(new - old, 3 if abs(new - old) < 1 else 2)]
        rows.append([f"{name}<small>{words}</small>", *cells])
    return table(["", "before", "after", "change"], rows)


def flipped_html(records: Sequence[Record]) -> str:
    """List the examples whose preferred side changed."""
    flipped = [(i, record) for i, record in enumerate(records) if record["before_preferred"] != record["preferred"]]
    if not flipped:
        return empty_state("Nothing flipped", "On every example the policy prefers the same side as before.")
    rows = []
    for index, record in flipped[:MAX_FLIPPED]:
        old, new = _margin(record, "before_"), _margin(record, "")
        better = "positive" if record["preferred"] == "chosen" else "negative"
        rows.append(
            [
                f"{index + 1}. {plain(str(record['prompt']), 90)}",
                shown(str(record["before_preferred"])),
                f'<b class="{better}">{shown(str(record["preferred"]))}</b>',
                f"{signed(old, 3)} → {signed(new, 3)}",
            ]
        )
    more = f'<p class="hint">The first {MAX_FLIPPED} of {len(flipped)}.</p>' if len(flipped) > MAX_FLIPPED else ""
    return table(["example", "preferred before", "preferred after", "margin, nats per token"], rows, wide=True) + more


def examples_html(records: Sequence[Record], index: int) -> str:
    """List the measured examples."""
    items = []
    for number, record in enumerate(records):
        flipped = record["before_preferred"] != record["preferred"]
        sub = f"prefers {shown(str(record['preferred']))}" + (' · <span class="warn">flipped</span>' if flipped else "")
        items.append(Item(str(number), f"{number + 1}. {record['prompt']}", sub))
    return list_html(counted(len(records), "measured example"), items, str(index), "Measured examples")


def example_html(record: Record) -> str:
    """Write one example: the log-ratio of every step, the arithmetic, and the answers before and after."""
    sides = {side: [float(value) for value in record[f"{side}_step_logratios"]] for side in ("chosen", "rejected")}
    far = max((abs(value) for side in sides.values() for value in side), default=1.0) or 1.0
    sums = {side: sum(values) for side, values in sides.items()}
    texts = {side: [str(text) for text in record[f"{side}_steps"]] for side in sides}
    shared = next((i for i, (a, b) in enumerate(zip(*texts.values(), strict=False)) if a != b), None)
    columns = [
        solution(
            title,
            [Step(text, label) for text, label in zip(texts[side], record[f"{side}_labels"], strict=True)],
            sides[side],
            sum_html=f"sum {coloured(sums[side])}",
            diverges_at=shared,
            position=far,
        )
        for side, title in (("chosen", "Chosen"), ("rejected", "Rejected"))
    ]
    old, new = _margin(record, "before_"), _margin(record, "")
    numbers = stats(
        [
            (signed(sums["chosen"] - sums["rejected"]), f"chosen {MINUS} rejected, nats"),
            (f"{signed(old, 3)} → {signed(new, 3)}", "margin before → after, nats per token"),
            (shown(f"{record['before_preferred']} → {record['preferred']}"), "preferred before → after"),
        ],
        (signed(-far), signed(far)),
    )
    return (
        '<div class="example"><h3 class="section">Step by step: log-ratio of after to before, in nats</h3>'
        f'<p class="question"><bdi>{shown(str(record["prompt"]))}</bdi></p>'
        f'<div class="solutions">{"".join(columns)}</div>{numbers}{_answers(record)}</div>'
    )


def _answers(record: Record) -> str:
    """What the policy generated; nothing where this example was not answered."""
    if record.get("model_output") is None and record.get("before_model_output") is None:
        return ""
    boxes = []
    for title, prefix in (("before", "before_"), ("after", "")):
        answer = record.get(f"{prefix}answer") or {}
        text = str(record.get(f"{prefix}model_output") or "")
        solved = answer.get("solved")
        facts = [f"Answer {title} training"]
        facts += [] if solved is None else ["right" if solved else "wrong"]
        facts += [] if answer.get("complete", True) else ["cut off at the token limit"]
        nothing = "an empty answer" if answer.get("complete", True) else "no readable text before the limit"
        body = shown(text) if text.strip() else f'<span class="hint">{nothing}</span>'
        boxes.append(f"<div><h4>{shown(' · '.join(facts))}</h4><pre><bdi>{body}</bdi></pre></div>")
    return f'<div class="answers">{"".join(boxes)}</div>'


def _margin(record: Record, prefix: str) -> float:
    return float(record[f"{prefix}chosen_score"]) - float(record[f"{prefix}rejected_score"])


def _key(event: gr.EventData) -> str:
    key = event._data.get("key") if isinstance(event._data, dict) else None
    return key if isinstance(key, str) else ""
