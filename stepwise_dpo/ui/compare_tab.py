"""Compare: two models on the same examples, in numbers, in flipped preferences, step by step, and in their answers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from stepwise_dpo.errors import ConfigError, StepwiseDPOError
from stepwise_dpo.learning.names import REWARD
from stepwise_dpo.ui.address import NO_COMPARISON
from stepwise_dpo.ui.compare_choice import (
    FIRST_MEASURED,
    MAX_MEASURED,
    MAX_MEASURED_PUBLIC,
    MAX_PROMPT,
    STORED,
    Choice,
    Session,
    View,
    both,
    check_prompt,
    chosen,
    defaults,
    examples_of,
    look_up,
    opened_run,
    sources_of,
    stands_in,
    typed,
)
from stepwise_dpo.ui.compare_figures import margin_charts
from stepwise_dpo.ui.compare_link import FEWEST_MEASURED, follow, has_link
from stepwise_dpo.ui.compare_views import (
    answers_html,
    example_html,
    filter_choices,
    nothing_yet,
    numbers_html,
    remarks,
    table_html,
)
from stepwise_dpo.ui.comparison import FILTERS, Reply, arranged, moved
from stepwise_dpo.ui.components import (
    Shared,
    choice_list,
    clicks,
    download_js,
    error,
    html,
    note,
    notes,
    plots,
    plots_value,
)
from stepwise_dpo.ui.inference_results import csv_text, jsonl_text
from stepwise_dpo.ui.judges import JUDGES, Judges, check_model_name
from stepwise_dpo.ui.kept_text import ASKED, BOX, keeper, kept_js
from stepwise_dpo.ui.library import Library
from stepwise_dpo.ui.measuring import Measurements, Model, models_of, names_of, replies_to
from stepwise_dpo.ui.policies import Policies
from stepwise_dpo.ui.run_reader import RunReader
from stepwise_dpo.ui.runs_view import RunView, look
from stepwise_dpo.ui.text import counted, shown

TYPED = "The problem above is yours, so it stays. Empty it to see the examples’ own answers here again."


def build(shared: Shared, tab: gr.Tab, reader: RunReader, judges: Judges, policies: Policies, asking: gr.HTML) -> None:
    """Lay out the tab and connect its events; `asking` is the page's pulse, which hears that a run has ended."""
    public = reader.public
    measurements = Measurements(policies)
    most = MAX_MEASURED_PUBLIC if public else MAX_MEASURED
    session = shared.comparison
    with gr.Row(elem_classes="split"):
        with gr.Column(elem_classes="choose"):
            before = gr.Dropdown([], label="Compare", elem_id="compare-before", filterable=False)
            after = gr.Dropdown([], label="with", elem_id="compare-after", filterable=False)
            source = gr.Dropdown(
                [("what the runs held out", STORED)],
                value=STORED,
                label="on",
                elem_id="compare-source",
                filterable=False,
            )
            count = gr.Slider(
                FEWEST_MEASURED,
                most,
                value=min(FIRST_MEASURED, most),
                step=1,
                label="Examples",
                visible=False,
                elem_id="compare-count",
            )
            measure = gr.Button("Measure", variant="primary", size="sm", visible=False, elem_id="compare-measure")
            message = html(elem_id="compare-message")
        with gr.Column(elem_classes="look"):
            summary = html(elem_id="compare-summary")
            with gr.Column(visible=False, elem_classes="compare-details") as details:
                html('<h3 class="section">Margins of all examples</h3>')
                charts = plots(elem_id="compare-charts")
                html('<h3 class="section">Examples</h3>')
                with gr.Row(elem_classes="compare-bar"):
                    only = gr.Radio(
                        [(words, key) for key, words in FILTERS.items()],
                        value="all",
                        label="Examples to show",
                        show_label=False,
                        container=False,
                        elem_id="compare-filter",
                    )
                    as_csv = gr.Button("Download CSV", size="sm", scale=0, min_width=130, elem_id="compare-csv")
                    as_jsonl = gr.Button("Download JSONL", size="sm", scale=0, min_width=130, elem_id="compare-jsonl")
                listing = choice_list(elem_id="compare-table")
                html('<h3 class="section">One example, step by step</h3>')
                example = html(elem_id="compare-example")
                html('<h3 class="section">What both models answer</h3>')
                with gr.Row(elem_classes=["compare-ask", BOX]):
                    keeper(ASKED)
                    prompt = gr.Textbox(
                        label="Problem: this example’s, or one that you type",
                        lines=2,
                        max_lines=6,
                        max_length=MAX_PROMPT,
                        elem_id="compare-prompt",
                    )
                    judge = gr.Dropdown(
                        list(JUDGES),
                        value=REWARD,
                        allow_custom_value=not public,
                        label="Steps judged by",
                        scale=0,
                        min_width=200,
                        elem_id="compare-judge",
                    )
                    ask = gr.Button("Let both answer", scale=0, min_width=160, variant="primary", elem_id="compare-ask")
                ask_message = html(elem_id="compare-ask-message")
                answers = html(elem_id="compare-answers")
            file = gr.Textbox(visible=False)

    # ------------------------------------------------------------------------------------------ what the page shows

    def whole(view: View | None, instead: str, before: Session, text: object, start: Session) -> list[Any]:
        """Values of `result` for a comparison; without one, `instead` stands in its place.

        Args:
            view: the comparison.
            instead: what to do where there is none (HTML).
            before: what the visitor has seen so far.
            text: the problem in its box.
            start: the new choice, and where its table begins.
        """
        if view is None:
            kept = gr.skip() if typed(before, text) else ""
            closed = start._replace(view=None)
            return [closed, "", instead, gr.Column(visible=False), *[gr.skip()] * 4, kept, "", gr.skip()]
        now = start.showing(view)
        return [
            *(
                now,
                "",
                summary_html(view),
                gr.Column(visible=True),
                plots_value(margin_charts(view.compared, view.names)),
            ),
            gr.Radio(choices=filter_choices(view.compared), value=now.place.only),
            *rows_and_example(view, now, before, text),
        ]

    def rows_and_example(view: View, now: Session, before: Session, text: object) -> list[Any]:
        """Values of `opened`; a problem that somebody typed stays, with its answers by these models."""
        one = view.compared[now.row]
        first = [
            table_html(view.compared, view.names, now.place, now.row),
            example_html(one, view.names),
        ]
        if typed(before, text):
            same = before.view is not None and before.view.title == view.title
            return [*first, gr.skip(), note(TYPED), gr.skip() if same else ""]
        # Rewards that a run wrote have that run's judge and scale; here there is one for both.
        replies = [reply and reply._replace(rewards=None) for reply in (one.before.reply, one.after.reply)]
        return [*first, one.pair.prompt, "", answers_html(one.pair.prompt, replies, view.names)]

    def looked_up(
        views: Sequence[RunView], models: Sequence[Model], choice: Choice, library: Library
    ) -> tuple[View | None, str]:
        """The comparison, or what to show in its place (HTML)."""
        if not models:
            return None, nothing_yet(views)
        try:
            return look_up(models, choice, library, measurements, most)
        except StepwiseDPOError as problem:
            return None, error(str(problem))

    def on_show(run_id: str, before: Session, text: object, library: Library, visitor: str, *sent: object) -> list[Any]:
        views, choice = look(reader.own(visitor)), Choice(*sent)
        models = models_of(views)
        linked, lacking = has_link(before, run_id), ""
        if linked:
            choice, start, lacking = follow(before, models, run_id, choice, library, most)
        else:
            if run_id != before.run or not chosen(models, choice) or stands_in(models, run_id, choice):
                choice = defaults(models, run_id, choice)
            start = before if choice == before.choice else Session(choice=choice)
            start = start._replace(run=run_id, link=NO_COMPARISON)
        view, instead = looked_up(views, models, choice, library)
        # Whoever comes back to the tab finds it as it was.
        known = view is not None and view == before.view
        shown_now: list[Any] = [gr.skip()] * len(result)
        if known:
            shown_now[0] = before._replace(choice=choice, run=run_id, link=NO_COMPARISON)
        else:
            shown_now = whole(view, instead, before, text, start)
            shown_now[1] = note(lacking)
        return [*form_of(models, choice, library, most, with_number=linked), *shown_now]

    def on_ended(
        run_id: str, before: Session, text: object, library: Library, visitor: str, *sent: object
    ) -> list[Any]:
        """Fill the tab where there was nothing to compare yet, or another run stood in for the one that has ended.

        What somebody has chosen stays, and its lists grow.
        """
        models, choice = models_of(look(reader.own(visitor))), Choice(*sent)
        unchanged: list[Any] = [gr.skip()] * (len(fields) + 1 + len(result))
        if before.choice is None:  # nobody has opened the tab
            return unchanged
        if stands_in(models, run_id, choice):
            return on_show(run_id, before, text, library, visitor, *sent)
        if chosen(models, choice):
            field = gr.Dropdown(choices=_options(models))
            return [field, field, *unchanged[2:]]
        # A model that is looked at may be gone, too: that is said where somebody does something with it.
        return unchanged if before.view else on_show(run_id, before, text, library, visitor, *sent)

    def on_pick(before: Session, text: object, library: Library, visitor: str, *sent: object) -> list[Any]:
        views, choice = look(reader.own(visitor)), Choice(*sent)
        models = models_of(views)
        # The address names it, and who comes back finds this choice: `on_show` knows that run already.
        opened = opened_run(models, choice)
        start = Session(choice=choice, run=opened or before.run)
        shown_now = whole(*looked_up(views, models, choice, library), before, text, start)
        return [opened or gr.skip(), *form_of(models, choice, library, most)[2:], *shown_now]

    def on_measure(before: Session, text: object, library: Library, visitor: str, *sent: object) -> Iterator[list[Any]]:
        views, choice = look(reader.own(visitor)), Choice(*sent)
        models = models_of(views)
        skipped = [gr.skip()] * (len(result) - 2)
        try:
            sides = both(models, choice)
            pairs, _ = examples_of(choice, library, most)
            for model, which in zip(sides, ("first", "second"), strict=True):
                total = len(measurements.missing(model, pairs))
                if total:
                    yield [gr.skip(), note(f"Loading the {which} model…"), *skipped]
                for done in measurements.measure(model, pairs):
                    yield [
                        *(gr.skip(), note(f"The {which} model: {done} of {counted(total, 'example')}…")),
                        *skipped,
                    ]
        except StepwiseDPOError as problem:
            yield [gr.skip(), error(str(problem)), *skipped]
            return
        # Where a link has led to what wasn't measured yet, its place in the table is in the session.
        start = before._replace(choice=choice, link=NO_COMPARISON)
        yield whole(*looked_up(views, models, choice, library), before, text, start)

    def on_filter(before: Session, text: object, sent: object) -> list[Any]:
        """Show what passes the filter, and open the first of it where the open example doesn't."""
        view = before.view
        if view is None:
            return [gr.skip()] * 6
        only = next((key for key in FILTERS if key == sent), "all")
        now = before._replace(place=before.place._replace(only=only, page=0))
        kept = arranged(view.compared, now.place)
        if kept and now.row not in kept:
            now = now._replace(row=kept[0])
            return [now, *rows_and_example(view, now, before, text)]
        return [now, table_html(view.compared, view.names, now.place, now.row), *[gr.skip()] * 4]

    def on_table(before: Session, text: object, event: gr.EventData) -> list[Any]:
        """Follow a click on a row, a head or the pager of the table, or on a point of a chart."""
        view, key = before.view, _key(event)
        if view is None:
            return [gr.skip()] * 6
        if (row := row_of(view, key)) is not None:
            now = before._replace(row=row)
            return [now, *rows_and_example(view, now, before, text)]
        now = before._replace(place=moved(before.place, key))
        return [now, table_html(view.compared, view.names, now.place, now.row), *[gr.skip()] * 4]

    def on_ask(text: object, judge: object, visitor: str, *fields: object) -> Iterator[list[Any]]:
        try:
            asked = check_prompt(text)
            sides = both(models_of(look(reader.own(visitor))), Choice(*fields))
            judge_name = check_model_name(judge, JUDGES, public)
            replies = []
            for model, which in zip(sides, ("first", "second"), strict=True):
                yield [note(f"The {which} model answers…"), gr.skip()]
                replies.append(replies_to(policies, model.path, [asked])[0])
            yield [note(f"{judge_name} judges the steps…"), gr.skip()]
            judged = with_rewards(judges, judge_name, asked, replies)
        except StepwiseDPOError as problem:
            yield [error(str(problem)), gr.skip()]
            return
        yield ["", answers_html(asked, judged, names_of(*sides), judge_name)]

    def on_csv(now: Session) -> Any:
        return "" if now.view is None else _file("csv", csv_text(now.view.compared), "text/csv")

    def on_jsonl(now: Session) -> Any:
        return "" if now.view is None else _file("jsonl", jsonl_text(now.view.compared), "application/jsonl")

    # ------------------------------------------------------------------------------------------------------- events

    fields = [before, after, source, count]
    opened = [listing, example, prompt, ask_message, answers]
    result: list[Any] = [session, message, summary, details, charts, only, *opened]
    now = [session, prompt, shared.library, shared.visitor, *fields]
    quietly: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
    # First what was typed before a refresh: else the open example's problem would take its place.
    tab.select(None, prompt, prompt, js=kept_js(ASKED, 1), show_progress="hidden").then(
        on_show, [shared.run_id, *now], [*fields, measure, *result], show_progress="hidden"
    )
    asking.ended(on_ended, [shared.run_id, *now], [*fields, measure, *result], **quietly)
    measuring = measure.click(on_measure, now, result, show_progress="hidden")
    # What is measured for the choice before would otherwise cover what belongs to this one.
    picked: dict[str, Any] = {**quietly, "cancels": [measuring]}
    for event in (before.input, after.input, source.input, count.input):
        event(on_pick, now, [shared.run_id, source, count, measure, *result], **picked)
    only.input(on_filter, [session, prompt, only], [session, *opened], **quietly)
    for event in (listing.choose, charts.choose):
        event(on_table, [session, prompt], [session, *opened], **clicks("compare-table"))
    ask.click(on_ask, [prompt, judge, shared.visitor, *fields], [ask_message, answers], show_progress="hidden")
    for button, on_download in ((as_csv, on_csv), (as_jsonl, on_jsonl)):
        button.click(on_download, session, file, show_progress="hidden").success(None, file, None, js=download_js())


def form_of(
    models: Sequence[Model], choice: Choice, library: Library, most: int, with_number: bool = False
) -> list[Any]:
    """Update the form: both models, the examples, their number, the button.

    Args:
        models: that can be compared.
        choice: what the form shall say.
        library: the visitor's example sets.
        most: the most examples that are measured.
        with_number: whether the number is set too; else it stays as it is, since somebody may be moving the slider.
    """
    options = _options(models)
    keys = [model.key for model in models]
    sources = sources_of(library)
    source = choice.source if choice.source in [key for _, key in sources] else STORED
    live = source != STORED and bool(models)
    words = "Measure"
    if live:
        try:
            words = f"Measure {counted(len(examples_of(choice, library, most)[0]), 'example')}"
        except ConfigError:
            live = False  # what is wrong stands beside it
    return [
        gr.Dropdown(choices=options, value=next((key for key in keys if key == choice.before), None)),
        gr.Dropdown(choices=options, value=next((key for key in keys if key == choice.after), None)),
        gr.Dropdown(choices=sources, value=source),
        gr.update(visible=live, value=choice.number) if with_number else gr.update(visible=live),
        gr.Button(words, visible=live),
    ]


def summary_html(view: View) -> str:
    """Write what is compared, and the numbers."""
    known = sum(one.trained_on is True for one in view.compared)
    open_ = any(one.trained_on is None for one in view.compared)
    trained_on = "nobody knows how many" if open_ else {0: "none", len(view.compared): "all"}.get(known, str(known))
    words = f"measured on {counted(len(view.compared), 'example')}{view.where}, {trained_on} of them trained on"
    head = f'<div class="run-head"><h2>{shown(view.title)}</h2><span>{shown(words)}</span></div>'
    said = notes([*view.remarks, *remarks(view.compared)], "Worth knowing")
    return f'<div class="example">{head}{said}{numbers_html(view.compared, view.names)}</div>'


def with_rewards(judges: Judges, name: str, prompt: str, replies: Sequence[Reply]) -> list[Reply]:
    """Let a judge score the steps of answers; an empty answer has none.

    Raises:
        StepwiseDPOError: the judge can't be loaded, or can't read a step.
    """
    answered = [reply for reply in replies if reply.steps]
    scores = judges.score_solutions(name, [(prompt, reply.steps) for reply in answered], "centered")
    rewards = iter(scores)
    return [reply._replace(rewards=tuple(next(rewards))) if reply.steps else reply for reply in replies]


def row_of(view: View, key: str) -> int | None:
    """Read the index that a row or a point sent; None for anything else."""
    kind, _, number = key.partition(":")
    if kind == "row" and number.isascii() and number.isdigit() and int(number[:9]) < len(view.compared):
        return int(number[:9])
    return None


def _options(models: Sequence[Model]) -> list[tuple[str, str]]:
    return [(model.label, model.key) for model in models]


def _file(suffix: str, text: str, type: str) -> str:
    return json.dumps({"name": f"inference_results.{suffix}", "text": text, "type": type})


def _key(event: gr.EventData) -> str:
    data: Mapping[str, object] = event._data if isinstance(event._data, dict) else {}
    key = data.get("key")
    return key if isinstance(key, str) else ""
