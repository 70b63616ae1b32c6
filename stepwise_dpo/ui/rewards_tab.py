"""Rewards: what a process reward model, or a policy before and after training, thinks of every step."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gradio as gr

from stepwise_dpo.learning.names import REWARD
from stepwise_dpo.ui import free_text
from stepwise_dpo.ui.components import Shared, choice_list, clicks, html, plots, what
from stepwise_dpo.ui.judges import JUDGES, Judges
from stepwise_dpo.ui.kept_text import BOX, JUDGED, keeper, kept_js
from stepwise_dpo.ui.policies import Policies
from stepwise_dpo.ui.reward_sets import SORTS
from stepwise_dpo.ui.reward_views import QUANTITIES, WHENS
from stepwise_dpo.ui.rewards_handlers import RewardsHandlers
from stepwise_dpo.ui.run_reader import RunReader
from stepwise_dpo.ui.step_scores import StepScores
from stepwise_dpo.ui.waterfall import AGGREGATIONS

_SCROLL_JS = "() => document.getElementById('rewards-example')?.scrollIntoView({ block: 'start' })"


def build(
    shared: Shared, tab: gr.Tab, judges: Judges, policies: Policies, reader: RunReader, asking: gr.HTML
) -> list[Any]:
    """Lay out the tab and connect its events; `asking` is the page's pulse, which hears that a run has ended.

    Returns:
        what the address keeps, in the order of `rewards_link.Fields`.
    """
    parts = _lay_out(reader.public)
    handlers = RewardsHandlers(StepScores(judges, policies), reader)
    controls = [shared.visitor, *parts.controls]
    states = [shared.library, shared.selected, shared.run_id, *controls]
    example = [*parts.example]
    overview = [*parts.overview, parts.drawn]

    # While one is pending, the last of several clicks counts; by default Gradio would drop them.
    quietly: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
    # One queue for all that shows an example: between queues Gradio picks at random, and `Newest` needs their order.
    in_order: dict[str, Any] = {"concurrency_id": "rewards-example", "concurrency_limit": 4}
    scoring: dict[str, Any] = {"concurrency_id": "rewards-set", "concurrency_limit": 2, "show_progress": "hidden"}

    tab.select(
        handlers.arrive,
        [*states, parts.drawn],
        [parts.run, *example, *overview],
        show_progress="minimal",
        show_progress_on=[parts.rows],
        **in_order,
    )
    asking.ended(handlers.ended, [*states, parts.drawn], [parts.run, *example, *overview], **quietly, **in_order)
    everything = [*example, *overview]
    for switch in (parts.quantity, parts.when, parts.aggregation):
        switch.input(handlers.show_all, [*states, parts.drawn], everything, **quietly, **in_order)
    # Not .input, which a custom value doesn't fire.
    parts.model.change(handlers.show_all, [*states, parts.drawn], everything, **quietly, **in_order)
    parts.run.input(lambda run_id: run_id or "", parts.run, shared.run_id, show_progress="hidden").then(
        handlers.show_all, [*states, parts.drawn], everything, **quietly, **in_order
    )
    parts.load.click(handlers.load, [*states, parts.drawn], everything, show_progress_on=[parts.rows], **in_order)

    # Not .input, which a paste does not fire.
    parts.query.change(handlers.show_set, [*states, parts.drawn], overview, **quietly)
    running = [
        field.input(handlers.show_set, [*states, parts.drawn], overview, **quietly).then(
            handlers.score_set_if_needed,
            [*states, parts.drawn],
            [*overview, parts.progress, parts.score, parts.stop],
            **scoring,
        )
        for field in (parts.sort, parts.negative)
    ]
    running.append(
        parts.score.click(
            handlers.score_set, [*states, parts.drawn], [*overview, parts.progress, parts.score, parts.stop], **scoring
        )
    )
    # First the end of the work, then the answer: else its last progress would come after that.
    parts.stop.click(None, None, None, cancels=running, show_progress="hidden").then(
        handlers.stopped,
        [*states, parts.drawn],
        [*overview, parts.progress, parts.score, parts.stop],
        show_progress="hidden",
    )

    clicked = clicks("rewards-example") | in_order
    parts.listing.choose(handlers.choose, states, [shared.selected, *example], **clicked)
    parts.heatmap.choose(handlers.choose_with_list, states, [shared.selected, *example, parts.listing], **clicked).then(
        None, None, None, js=_SCROLL_JS
    )

    judged_text = [parts.problem, parts.solution, parts.model, parts.quantity, parts.aggregation]
    tab.select(None, judged_text[:2], judged_text[:2], js=kept_js(JUDGED, 2), show_progress="hidden")
    typed = [parts.typed, parts.typed_message]
    for text in (parts.problem, parts.solution):
        text.change(handlers.judge_typed, judged_text, typed, concurrency_id="rewards-typed", **quietly)
    choices: list[Any] = [parts.model, parts.quantity, parts.aggregation]
    for choice in choices:
        choice.change(handlers.judge_typed, judged_text, typed, concurrency_id="rewards-typed", **quietly)
    parts.try_example.click(lambda: list(free_text.EXAMPLE), None, judged_text[:2], show_progress="hidden")
    return [parts.quantity, parts.when, parts.aggregation, parts.sort, parts.negative, parts.model]


class _Parts(NamedTuple):
    """The components, as far as events need them."""

    query: gr.Textbox
    sort: gr.Dropdown
    negative: gr.Checkbox
    model: gr.Dropdown
    run: gr.Dropdown
    quantity: gr.Radio
    when: gr.Radio
    aggregation: gr.Radio
    listing: gr.HTML
    load: gr.Button
    message: gr.HTML
    question: gr.HTML
    rows: gr.HTML
    bars: gr.HTML
    judge: gr.HTML
    figures: gr.HTML
    heatmap: gr.HTML
    set_message: gr.HTML
    progress: gr.HTML
    score: gr.Button
    stop: gr.Button
    drawn: gr.State
    problem: gr.Textbox
    solution: gr.Textbox
    try_example: gr.Button
    typed: gr.HTML
    typed_message: gr.HTML

    @property
    def controls(self) -> Sequence[Any]:
        """In the order of `Controls`."""
        return [self.query, self.sort, self.negative, self.model, self.run, self.quantity, self.when, self.aggregation]

    @property
    def example(self) -> Sequence[Any]:
        """What shows one example."""
        return [self.message, self.question, self.rows, self.bars, self.judge, self.load]

    @property
    def overview(self) -> Sequence[Any]:
        """What shows the set."""
        return [self.listing, self.figures, self.heatmap, self.set_message]


def _lay_out(public: bool) -> _Parts:
    made: dict[str, Any] = {}
    with gr.Row(elem_classes="split"):
        with gr.Column(elem_classes="choose"):
            made["query"] = gr.Textbox(
                "", label="Search", placeholder="words in prompt or steps", elem_id="rewards-search", max_lines=1
            )
            made["sort"] = gr.Dropdown(
                [(words, key) for key, words in SORTS.items()],
                value="file",
                label="Sort",
                filterable=False,
                elem_id="rewards-sort",
            )
            made["negative"] = gr.Checkbox(label="Only negative preferences", elem_id="rewards-negative")
            made["listing"] = choice_list(elem_id="rewards-list")
            made["model"] = gr.Dropdown(
                list(JUDGES),
                value=REWARD,
                allow_custom_value=not public,
                label="Reward model",
                info="one of these" if public else "one of these, a folder, or a Hub id",
                elem_id="rewards-model",
            )
            made["run"] = gr.Dropdown(
                [("none", "")],
                value=None,  # until the tab has been opened, see `RewardsHandlers.ended`
                label="Run",
                info="what “after” means",
                filterable=False,
                elem_id="rewards-run",
            )
        with gr.Column(elem_classes="look"):
            with gr.Column(elem_id="rewards-example"):
                made["question"] = html(elem_id="rewards-question")
                with gr.Row(elem_id="rewards-switches"):
                    with gr.Row(elem_classes="with-what"):
                        made["quantity"] = _segments("What is shown", QUANTITIES, "centered", "rewards-quantity")
                        html(what("shown_quantity"))
                    with gr.Row(elem_classes="with-what"):
                        made["when"] = _segments("Before or after training", WHENS, "before", "rewards-when")
                        html(what("shown_moment"))
                made["message"] = html(elem_id="rewards-message")
                made["load"] = gr.Button(
                    "Load this reward model", variant="primary", size="sm", visible=False, elem_id="rewards-load"
                )
                made["rows"] = html(elem_id="rewards-rows")
                with gr.Row(elem_id="rewards-sum-head"):
                    html(f'<h3 class="section">How the steps add up{what("aggregation")}</h3>')
                    made["aggregation"] = _segments("Aggregation", AGGREGATIONS, "sum", "rewards-aggregation")
                made["bars"] = html(elem_id="rewards-bars")
                made["judge"] = html(elem_id="rewards-judge")
            html('<h3 class="section">The whole set</h3>')
            with gr.Row(elem_id="rewards-set-bar"):
                made["score"] = gr.Button("Score the set", elem_id="rewards-score-set", scale=0, min_width=200)
                made["stop"] = gr.Button("Stop", visible=False, elem_id="rewards-stop", scale=0, min_width=90)
                made["progress"] = html(elem_id="rewards-progress")
            made["set_message"] = html(elem_id="rewards-set-message")
            made["figures"] = html(elem_id="rewards-agreement")
            made["heatmap"] = plots(elem_id="rewards-heatmap", single=True)
            html('<h3 class="section">Judge your own</h3>')
            with gr.Row(elem_id="rewards-typed-fields", elem_classes=BOX):
                with gr.Column(min_width=280):
                    keeper(JUDGED)
                    made["problem"] = gr.Textbox(
                        label="Problem",
                        lines=2,
                        max_lines=6,
                        elem_id="rewards-problem",
                        placeholder=free_text.EXAMPLE[0],
                    )
                    made["solution"] = gr.Textbox(
                        label="Solution, one step per line",
                        lines=5,
                        max_lines=14,
                        elem_id="rewards-solution",
                        placeholder=free_text.EXAMPLE[1],
                    )
                    made["typed_message"] = html(elem_id="rewards-typed-message")
                    made["try_example"] = gr.Button("Fill in an example", size="sm", elem_id="rewards-try")
                with gr.Column(min_width=280):
                    made["typed"] = html(free_text.nothing_typed(), elem_id="rewards-typed")
    made["drawn"] = gr.State(None)
    return _Parts(**made)


def _segments(label: str, choices: Mapping[str, str], value: str, elem_id: str) -> gr.Radio:
    """Make a row of switches: a radio group, drawn as one."""
    return gr.Radio(
        [(words, key) for key, words in choices.items()],
        value=value,
        label=label,
        container=False,
        elem_id=elem_id,
        elem_classes="segments",
    )
