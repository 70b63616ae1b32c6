"""The Train form's widgets, in the order of a sentence, and what they do among themselves."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import gradio as gr

from stepwise_dpo.errors import ConfigError, StepwiseDPOError
from stepwise_dpo.learning.names import LOSS_TYPES, POLICY
from stepwise_dpo.runs.pace import known_pace
from stepwise_dpo.ui.components import Shared, error, html, note, what
from stepwise_dpo.ui.data_tab import DataTab
from stepwise_dpo.ui.formula import formula_html
from stepwise_dpo.ui.judges import JUDGES, POLICIES, POLICY_NOTES
from stepwise_dpo.ui.kept_form import KEEP_JS, keep, kept_form
from stepwise_dpo.ui.library import HELD_OUT_SETS, Library
from stepwise_dpo.ui.run_reader import RunReader
from stepwise_dpo.ui.text import MINUS, shown
from stepwise_dpo.ui.train_form import LOSSES, Form, demo_form, own_value, preset_form
from stepwise_dpo.ui.train_words import (
    HELD_OUT_LABEL,
    bundled_words,
    data_words,
    overlap_words,
    own_parts,
    plan,
    plan_words,
    unknown_words,
)

SPACE_NOTE = (
    "A public page: runs are deleted a day after they end, and sooner if its machine is replaced. Take along what you "
    "want to keep."
)

_PRESETS = [("Quick demo", "demo"), ("Phase 1", "phase1"), ("Phase 2", "phase2")]
_IN_FORMULA = ("loss_type", "likelihood", "aggregation", "nonpositive", "reward_value", "anchor")
_NEXT_WORDS = "the next ones of the same set"
_CHANGED_JS = f"(...values) => [({KEEP_JS})(...values), '']"
"""Keeps the form, and takes away what was said about it as it was before."""


class Fields(NamedTuple):
    """The form's widgets that others connect to.

    Attributes:
        form: those that hold a `Form`, in its order.
        start: the button.
        message: what is wrong with the form, beside the button.
        filled: what `fill` has values for.
        plan: says what the form would do; its inputs are the library and `form`.
        planned: where `plan` says it: on the button, in words about steps and time, and about the data, on the
            button that offers to hold out a part of it, and what is odd about it.
    """

    form: list[Any]
    start: gr.Button
    message: gr.HTML
    filled: list[Any]
    plan: Callable[..., list[Any]]
    planned: list[Any]


def fill(library: Library, form: Form) -> list[Any]:
    """Write a form's values, and which fields its loss has, for `Fields.filled`."""
    loss = str(form.loss)
    values = form._asdict()
    values["held_out_set"] = gr.update(choices=[(_NEXT_WORDS, ""), *library.names], value=form.held_out_set)
    for name, shown_now in _of_loss(loss).items():
        values[name] = gr.update(value=values[name], visible=shown_now)
    options = [getattr(form, name) for name in _IN_FORMULA]
    return [
        *values.values(),
        formula_html(loss, *options),
        _note_of(form.model),
        gr.update(visible=loss == "demo-stepwise"),
        keep(form),
        _sets(library),
    ]


def build_fields(shared: Shared, tab: gr.Tab, reader: RunReader, data_tab: DataTab) -> Fields:
    """Lay out the form and connect what happens within it."""
    public, demo = reader.public, demo_form()
    preset = gr.Radio(_PRESETS, value="demo", label="Start from", elem_id="train-preset", elem_classes="segmented")
    model = _model("Train the policy", POLICIES, demo.model, public, "train-model")
    policy_note = html(_note_of(POLICY), elem_id="train-hint")
    loss = gr.Radio(LOSSES, value="demo", label="with the loss", elem_id="train-loss", elem_classes="segmented")
    formula = html(formula_html("demo"), elem_id="train-formula")
    reward_model = _model(
        "judged by the reward model", JUDGES, demo.reward_model, public, "train-reward-model", visible=False
    )
    # Of the page and not of the form: the set that is open is what every tab is about.
    opened = data_tab.open_set
    data_set = gr.Dropdown(
        [str(opened.value)], value=str(opened.value), label="on the set", filterable=False, elem_id="train-set"
    )
    with gr.Row():
        examples = _number(demo.examples, "its first … examples", 1, "train-examples", precision=0)
        with _explained("compared_on"):
            held_out = _number(demo.held_out, "compared on", 0, "train-held-out", precision=0)
    data = html(elem_id="train-data")
    hold_out = gr.Button("", size="sm", visible=False, elem_id="train-hold-out")  # before what may be long
    odd = html(elem_id="train-odd")
    with gr.Row():
        with _explained("epochs"):
            epochs = _number(demo.epochs, "epochs", 0, "train-epochs")
        with _explained("batch"):
            batch_size = _number(demo.batch_size, "batch size", 1, "train-batch", precision=0)
        with _explained("seed"):
            seed = _number(demo.seed, "seed", 0, "train-seed", precision=0)
    with gr.Row():
        with _explained("learning_rate"):
            learning_rate = _number(demo.learning_rate, "learning rate", 0, "train-rate")
        beta = _number(demo.beta, "beta", 0, "train-beta")
    with gr.Accordion("More options", open=False, elem_id="train-more"):
        held_out_set = gr.Dropdown(
            [(_NEXT_WORDS, ""), HELD_OUT_SETS[0]],
            value=HELD_OUT_SETS[0],
            label=HELD_OUT_LABEL,
            filterable=False,
            elem_id="train-held-out-set",
        )
        with gr.Row():
            max_steps = _number(0, "Steps at most", 0, "train-max-steps", precision=0, info="0: no limit")
            with _explained("max_length"):
                max_length = _number(
                    demo.max_length, "Longest example", 2, "train-max-length", precision=0, info="tokens, else refused"
                )
        with _explained("loss_type"):
            loss_type = gr.Dropdown(
                list(LOSS_TYPES), value="sigmoid", label="Kind of DPO, in TRL's words", elem_id="train-loss-type"
            )
        with gr.Column(visible=False, elem_id="train-stepwise") as stepwise:
            with _explained("likelihood"):
                likelihood = gr.Dropdown(
                    [("mean per token", "mean"), ("sum", "sum")], value="mean", label="Log-likelihood", filterable=False
                )
            with _explained("aggregation"):
                aggregation = gr.Dropdown(
                    ["sum", "mean", "min", "last", "product", ("sum up to the first error", "until_error")],
                    value="sum",
                    label="Step rewards become one number by",
                    filterable=False,
                )
            with _explained("nonpositive"):
                nonpositive = gr.Dropdown(
                    [("train towards rejected", "train"), ("skip the pair", "skip"), ("clamp to zero", "clamp")],
                    value="train",
                    label="A preference of zero or less",
                    filterable=False,
                )
            with _explained("reward_value"):
                reward_value = gr.Dropdown(
                    [(f"centred (2p {MINUS} 1)", "centered"), ("probability", "probability"), ("log-odds", "log_odds")],
                    value="centered",
                    label="Scale of step rewards",
                    filterable=False,
                )
            with _explained("anchor"):
                anchor = gr.Checkbox(False, label="Anchor the margin to the reference", elem_id="train-anchor")
        other = gr.Textbox(
            "",
            label="Other settings",
            info="one a line, as in a run's YAML: warmup_steps: 10",
            lines=2,
            max_lines=8,
            visible=not public,
            elem_id="train-other",
        )
        if not public:
            html(f'<p class="hint">Gradient clipping, label smoothing and more {what("other_settings")}</p>')
    with gr.Column(elem_id="train-go"):
        message = html(elem_id="train-message")
        estimate = html(elem_id="train-estimate")
        start = gr.Button("Train", variant="primary", elem_id="train-start")
        if public:
            html(f'<p class="hint">{SPACE_NOTE}</p>')
    form: list[Any] = [
        *(loss, model, reward_model, examples, held_out, held_out_set, epochs, max_steps, batch_size, learning_rate),
        *(beta, seed, max_length, loss_type, likelihood, aggregation, nonpositive, reward_value, anchor, other),
    ]

    def on_plan(library: Library, *values: object) -> list[Any]:
        form = Form(*values)
        remarks = "\n".join(
            filter(None, [words(library, form) for words in (unknown_words, overlap_words, bundled_words)])
        )
        data = _hint(data_words(library, form))
        parts = own_parts(library, form)
        offer = gr.update(
            visible=parts is not None, value=f"Hold out {parts[1]:,} of your own instead" if parts else ""
        )
        try:
            planned = plan(library, form, public)
        except ConfigError as problem:
            return ["Train", _hint(str(problem), "warn"), data, offer, note(remarks)]
        # Anybody's: a pace says nothing about whose run it was.
        pace = known_pace(reader.supervisor.runs(), planned.config.model, planned.config.loss)
        words = plan_words(planned, pace)
        return [words.button, _hint(words.estimate), data, offer, note(remarks)]

    def on_hold_out(library: Library, *values: object) -> list[Any]:
        parts = own_parts(library, Form(*values))
        return [*parts, ""] if parts else [gr.skip()] * 3

    def on_loss(value: str, rate: object, beta: object, *options: object) -> list[Any]:
        # Other losses' fields are hidden, not cleared: what was set comes back with the loss.
        visible = {name: gr.update(visible=shown_now) for name, shown_now in _of_loss(value).items()}
        visible["beta"] = gr.update(visible=_of_loss(value)["beta"], value=own_value(value, "beta", beta))
        return [
            formula_html(value, *options),
            *visible.values(),
            gr.update(visible=value == "demo-stepwise"),
            own_value(value, "learning_rate", rate),
        ]

    def on_preset(library: Library, name: str) -> list[Any]:
        try:
            library, chosen = preset_form(name, library)
        except StepwiseDPOError as problem:
            return [gr.skip(), error(str(problem)), *[gr.skip()] * len(filled)]
        opened = library.current.name
        return [library, note(f"Trains on {opened}, which is now open in the Data tab."), *fill(library, chosen)]

    def on_show(library: Library, held_out_set: object, kept: object, shown_before: bool) -> list[Any]:
        restored = None if shown_before else kept_form(kept, library.names, public)
        if restored is not None:
            return [True, None, *fill(library, restored)]  # no preset: each of them can be chosen
        unchanged: list[Any] = [gr.skip()] * len(filled)
        unchanged[Form._fields.index("held_out_set")] = gr.update(
            choices=[(_NEXT_WORDS, ""), *library.names], value=held_out_set if held_out_set in library.names else ""
        )
        return [True, gr.skip(), *unchanged[:-1], _sets(library)]

    kept, shown_before = shared.kept_form, gr.State(False)
    filled = [*form, formula, policy_note, stepwise, kept, data_set]
    planned = ([shared.library, *form], [start, estimate, data, hold_out, odd])
    in_formula = [form[Form._fields.index(name)] for name in _IN_FORMULA]
    loss.input(
        on_loss,
        [loss, learning_rate, beta, *in_formula],
        [formula, reward_model, beta, loss_type, stepwise, learning_rate],
        show_progress="hidden",
        trigger_mode="always_last",  # arrow keys are faster than answers
    ).then(None, form, [kept, message], js=_CHANGED_JS, show_progress="hidden")
    for field in form[1:]:
        # What a visitor changes, by the browser alone; what fills the form keeps it as well.
        field.input(None, form, [kept, message], js=_CHANGED_JS, show_progress="hidden")
    for option in in_formula:
        option.input(formula_html, [loss, *in_formula], formula, show_progress="hidden", trigger_mode="always_last")
    hold_out.click(on_hold_out, planned[0], [examples, held_out, held_out_set], show_progress="hidden").then(
        None, form, [kept, message], js=_CHANGED_JS, show_progress="hidden"
    )
    model.change(_note_of, model, policy_note, show_progress="hidden", trigger_mode="always_last")
    preset.input(
        on_preset,
        [shared.library, preset],
        [shared.library, message, *filled],
        show_progress="hidden",
        trigger_mode="always_last",
    ).then(on_plan, *planned, show_progress="hidden")
    tab.select(
        on_show,
        [shared.library, held_out_set, kept, shown_before],
        [shown_before, preset, *filled],
        show_progress="hidden",
    )
    # Not shared.library.change: Gradio would hash the whole library at each event that may change it. One event for all
    # of these, since a change often brings others: a late answer to an earlier one would cover the last one's.
    changes = [tab.select, *(field.change for field in form)]
    gr.on(changes, on_plan, *planned, show_progress="hidden", trigger_mode="always_last")
    data_tab.let_open(data_set, message).then(on_plan, *planned, show_progress="hidden")
    return Fields(form, start, message, filled, on_plan, planned[1])


@contextmanager
def _explained(term: str) -> Iterator[None]:
    """Lay out a field with a "what is this" at the end of its label; the page hides both where it hides the field."""
    with gr.Row(elem_classes="explained"):
        yield
        html(what(term))


def _sets(library: Library) -> Any:
    return gr.Dropdown(choices=library.names, value=library.open_name)


def _of_loss(loss: str) -> dict[str, bool]:
    """Which fields a loss has of those that not all have."""
    stepwise = loss == "demo-stepwise"
    return {"reward_model": stepwise, "beta": not stepwise, "loss_type": not stepwise}


def _note_of(model: object) -> str:
    words = POLICY_NOTES.get(model, "") if isinstance(model, str) else ""
    return f'<p class="hint">{words}</p>'


def _hint(words: str, kind: str = "") -> str:
    return f'<p class="hint {kind}">{shown(words)}</p>' if words else ""


def _number(value: object, label: str, minimum: float, elem_id: str, **options: Any) -> gr.Number:
    return gr.Number(value, label=label, minimum=minimum, min_width=72, elem_id=elem_id, **options)  # type: ignore[arg-type]  # a Form's values are objects


def _model(
    label: str, models: Sequence[str], value: object, public: bool, elem_id: str, visible: bool = True
) -> gr.Dropdown:
    return gr.Dropdown(
        list(models),
        value=str(value),
        allow_custom_value=not public,
        label=label,
        elem_id=elem_id,
        visible=visible,
    )
