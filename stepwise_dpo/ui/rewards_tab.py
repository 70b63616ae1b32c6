"""Rewards: what a process reward model thinks of every step, for one example and for many."""

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import gradio as gr

from stepwise_dpo.errors import StepwiseDPOError
from stepwise_dpo.learning.names import REWARD, TINY
from stepwise_dpo.preferences.pairs import PreferencePair, first_error
from stepwise_dpo.ui.components import (
    Shared,
    choice_list,
    coloured,
    divergence_line,
    empty_state,
    error,
    examples_html,
    html,
    note,
    plots,
    single_plot,
    solution,
    stats,
)
from stepwise_dpo.ui.data_tab import chosen_index
from stepwise_dpo.ui.figures import reward_heatmap
from stepwise_dpo.ui.judges import JUDGE_NOTES, JUDGES, SCALES, Judges, check_model_name
from stepwise_dpo.ui.library import Library
from stepwise_dpo.ui.text import MINUS, shown, signed

SCALE_CHOICES = [
    (f"centred (2p {MINUS} 1)", "centered"),
    ("probability", "probability"),
    ("log-odds (nats)", "log_odds"),
]
MAX_HEATMAP = 200


def build(shared: Shared, tab: gr.Tab, judges: Judges, public: bool) -> None:
    """Lay out the tab and connect its events."""
    with gr.Row(elem_classes="split"):
        with gr.Column(elem_classes="choose"):
            model = gr.Dropdown(
                list(JUDGES),
                value=REWARD,
                allow_custom_value=not public,
                label="Reward model",
                info="one of these" if public else "one of these, a folder, or a Hub id",
                elem_id="rewards-model",
            )
            scale = gr.Dropdown(
                SCALE_CHOICES, value="centered", label="Scale", elem_id="rewards-scale", filterable=False
            )
            score = gr.Button("Score this example", size="sm", variant="primary", elem_id="rewards-score")
            search = gr.Textbox(
                label="Search", placeholder="words in prompt or steps", elem_id="rewards-search", max_lines=1
            )
            listing = choice_list(elem_id="rewards-list")
        with gr.Column(elem_classes="look"):
            message = html(elem_id="rewards-message")
            scores = html(elem_id="rewards-example")
            judge_note = html(elem_id="rewards-judge")
            html('<h3 class="section">Many examples at once</h3>')
            with gr.Row(elem_id="rewards-many"):
                count = gr.Slider(
                    1,
                    MAX_HEATMAP,
                    value=24,
                    step=1,
                    label="Examples from the start of the set",
                    elem_id="rewards-count",
                )
                score_set = gr.Button("Draw heatmap", elem_id="rewards-draw", scale=0, min_width=160)
            heatmap_message = html(elem_id="rewards-heatmap-message")
            heatmap = plots(elem_id="rewards-heatmap", single=True)

    newest = Newest()

    def view(
        request: gr.Request, library: Library, selected: int, name: object, value: object, load: bool = False
    ) -> list[Any]:
        """Everything about one example, unless the session has asked for something else meanwhile."""
        session = str(request.session_hash)
        ticket = newest.begin(session)
        shown_now = one_example(library, selected, name, value, load)
        return shown_now if newest.is_last(session, ticket) else [gr.skip()] * len(shown_now)

    def one_example(library: Library, selected: int, name: object, value: object, load: bool) -> list[Any]:
        """Message, rows, remark on the judge."""
        pairs = library.current.pairs
        if not pairs:
            return ["", empty_state("No examples in this set", "Add or load some in the Data tab."), ""]
        pair = pairs[max(0, min(selected, len(pairs) - 1))]
        try:
            checked = check_model_name(name, JUDGES, public)
            if not (load or judges.ready(checked)):
                return [
                    note(f"{checked} is not loaded yet. Press “Score this example” to load it."),
                    example_html(pair, None, "centered"),
                    "",
                ]
            rewards = judges.score(checked, [pair], str(value))[0]
        except StepwiseDPOError as problem:
            return [error(str(problem)), example_html(pair, None, "centered"), ""]
        return [
            "",
            example_html(pair, rewards, str(value)),
            note(JUDGE_NOTES[checked]) if checked in JUDGE_NOTES else "",
        ]

    def on_show(library: Library, selected: int, query: str, name: str, value: str, request: gr.Request) -> list[Any]:
        return [list_view(library, selected, str(query)), *view(request, library, selected, name, value)]

    def on_search(library: Library, selected: int, query: str) -> str:
        return list_view(library, selected, str(query))

    def on_choose(library: Library, name: str, value: str, event: gr.EventData, request: gr.Request) -> list[Any]:
        selected = chosen_index(library, event)
        return [selected, *view(request, library, selected, name, value)]

    def on_score(library: Library, selected: int, name: str, value: str, request: gr.Request) -> list[Any]:
        return view(request, library, selected, name, value, load=True)

    def on_heatmap(library: Library, name: str, value: str, number: float) -> list[Any]:
        pairs = library.current.pairs[: bounded(number, 1, MAX_HEATMAP)]
        if not pairs:
            return [error("There are no examples to score; add or load some in the Data tab."), gr.skip()]
        try:
            checked = check_model_name(name, JUDGES, public)
            rewards = judges.score(checked, pairs, str(value))
        except StepwiseDPOError as problem:
            return [error(str(problem)), gr.skip()]
        return ["", heatmap_value(pairs, rewards, str(value), checked)]

    result = [message, scores, judge_note]
    # While one is pending, the last of several clicks counts; by default Gradio would drop them.
    quietly: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
    # One queue for all that shows an example: between queues Gradio picks at random, and `Newest` needs their order.
    in_order: dict[str, Any] = {"concurrency_id": "rewards-example", "concurrency_limit": 4}
    states = [shared.library, shared.selected]
    tab.select(
        on_show,
        [*states, search, model, scale],
        [listing, *result],
        show_progress="minimal",
        show_progress_on=[scores],
        **in_order,
    )
    # Not .input, which a paste does not fire.
    search.change(on_search, [*states, search], listing, **quietly)
    listing.choose(on_choose, [shared.library, model, scale], [shared.selected, *result], **quietly, **in_order)
    score.click(on_score, [*states, model, scale], result, show_progress_on=[scores], **in_order)
    scale.input(on_show, [*states, search, model, scale], [listing, *result], **quietly, **in_order)
    model.change(on_show, [*states, search, model, scale], [listing, *result], **quietly, **in_order)
    score_set.click(
        on_heatmap,
        [shared.library, model, scale, count],
        [heatmap_message, heatmap],
        show_progress_on=[heatmap_message],
    )


class Newest:
    """Tells which request of a session came last: loading a model is slow, and its late answer must not cover a newer.

    Args:
        sessions: how many are remembered; the session's name comes from the browser.
    """

    def __init__(self, sessions: int = 1_000) -> None:
        self._sessions = sessions
        self._last: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, session: str) -> int:
        """Note a new request; returns its ticket."""
        with self._lock:
            ticket = self._last.pop(session, 0) + 1
            self._last[session] = ticket
            if len(self._last) > self._sessions:
                self._last.popitem(last=False)
            return ticket

    def is_last(self, session: str, ticket: int) -> bool:
        """Whether no later request has begun; a forgotten session's answer is shown."""
        with self._lock:
            return self._last.get(session, ticket) == ticket


def list_view(library: Library, selected: int, query: str) -> str:
    """List the examples that match a search."""
    return examples_html(library.current.pairs, library.current.found(query[:200]), selected)


def reach(rewards: Sequence[tuple[Sequence[float], Sequence[float]]], value: str) -> float:
    """Distance from the neutral value to the full colour: the scale's own, or the largest value of all compared."""
    fixed = SCALES[value].reach
    if fixed is not None:
        return fixed
    return max((abs(v) for sides in rewards for side in sides for v in side), default=1.0) or 1.0


def example_html(pair: PreferencePair, rewards: tuple[Sequence[float], Sequence[float]] | None, value: str) -> str:
    """Write one example: its prompt, both solutions with a shared scale, and the arithmetic.

    Args:
        pair: the example.
        rewards: of the steps of chosen and rejected; None to show the steps alone.
        value: which scale the rewards have.
    """
    scale = SCALES[value]
    far = reach([rewards], value) if rewards else 1.0
    line = divergence_line(pair)
    sums = [math.fsum(side) for side in rewards] if rewards else []
    columns = []
    for index, (title, steps) in enumerate((("Chosen", pair.chosen), ("Rejected", pair.rejected))):
        columns.append(
            solution(
                title,
                steps,
                rewards[index] if rewards else None,
                sum_html=f"sum {coloured(sums[index])}" if rewards else "",
                diverges_at=line,
                position=far,
                centre=scale.centre,
                with_sign=scale.signed,
            )
        )
    parts = [
        f'<p class="question"><bdi>{shown(pair.prompt)}</bdi></p>',
        f'<div class="solutions">{"".join(columns)}</div>',
    ]
    if rewards:
        parts.append(_arithmetic(pair, rewards, sums, value, far))
    return f'<div class="example">{"".join(parts)}</div>'


def heatmap_value(
    pairs: Sequence[PreferencePair], rewards: Sequence[tuple[Sequence[float], Sequence[float]]], value: str, model: str
) -> dict[str, Any]:
    """Write the heatmap of many examples."""
    rows = [(f"{i}. {pair.prompt}", *sides) for i, (pair, sides) in enumerate(zip(pairs, rewards, strict=True), 1)]
    scale = SCALES[value]
    figure = reward_heatmap(rows, reach(rewards, value), scale.centre, signed if scale.signed else "{:.2f}".format)
    positive = sum(math.fsum(chosen) > math.fsum(rejected) for chosen, rejected in rewards)
    judge = "the untrained tiny model: noise" if model == TINY else model
    unit = f"judged by {judge}; the preference is positive for {positive} of {len(pairs)}"
    return single_plot("Step rewards", unit, figure)


def bounded(value: object, low: int, high: int) -> int:
    """Bring a number that a browser sent into range; what isn't a finite number becomes `low`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return low
    return max(low, min(high, int(value)))


def _arithmetic(
    pair: PreferencePair,
    rewards: tuple[Sequence[float], Sequence[float]],
    sums: Sequence[float],
    value: str,
    far: float,
) -> str:
    scale = SCALES[value]
    preference = sums[0] - sums[1]
    # As many decimals as it takes for what stands here to add up.
    digits = next((d for d in (2, 3, 4, 5) if _adds_up(sums[0], sums[1], d)), 6)
    chosen, rejected = (f"{total:.{digits}f}" if total >= 0 else f"({signed(total, digits)})" for total in sums)
    numbers = [
        (signed(preference, digits), f"preference = {chosen} {MINUS} {rejected}, sums of the step rewards"),
        ("positive" if preference > 0 else "negative" if preference < 0 else "zero", _meaning(preference)),
    ]
    wrong = first_error(pair.rejected)
    if wrong is not None:
        lowest = min(range(len(rewards[1])), key=lambda i: rewards[1][i])
        agrees = lowest == wrong
        words = f"with the label: first error at {wrong + 1}" + ("" if agrees else f", lowest reward at {lowest + 1}")
        numbers.append(("agrees" if agrees else "disagrees", words))
    ends = (signed(-far), signed(far)) if scale.signed else (f"{scale.centre - far:.2f}", f"{scale.centre + far:.2f}")
    return stats(numbers, ends)


def _adds_up(chosen: float, rejected: float, digits: int) -> bool:
    """Whether the rounded difference is the difference of the rounded numbers, and keeps its sign."""
    difference = round(chosen - rejected, digits)
    return round(round(chosen, digits) - round(rejected, digits), digits) == difference and (
        difference != 0 or chosen == rejected
    )


def _meaning(preference: float) -> str:
    if preference > 0:
        return "the step-wise loss trains towards chosen"
    if preference < 0:
        return "by default the step-wise loss trains towards rejected"
    return "the step-wise loss trains nothing here"
