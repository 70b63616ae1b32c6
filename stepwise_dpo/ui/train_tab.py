"""Train: a form that starts a run in its own process, live curves, stop, and the list of runs."""

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio.components import Component

from stepwise_dpo.errors import ConfigError, RunError, StepwiseDPOError
from stepwise_dpo.learning.names import POLICY, TINY
from stepwise_dpo.preferences.pairs import PreferencePair, dump_pairs, save_pairs
from stepwise_dpo.runs.config import PRESETS, make_config
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.limits import check_public
from stepwise_dpo.runs.supervisor import Supervisor
from stepwise_dpo.ui.components import Shared, asset, choice_list, error, html, note, plots, plots_value
from stepwise_dpo.ui.figures import Chart, training_charts
from stepwise_dpo.ui.judges import JUDGES, POLICIES, POLICY_NOTES, check_model_name
from stepwise_dpo.ui.library import Library
from stepwise_dpo.ui.runs_view import RunView, chip_html, find, head_html, look, runs_html, signature
from stepwise_dpo.ui.text import MINUS, counted

LOSSES = [("DPO + imitation", "demo"), ("DPO", "demo-dpo"), ("Step-wise", "demo-stepwise")]
"""What the form offers, by the preset that says what it is."""

DEMO = PRESETS["demo"]
"""What the form begins with, so that the first click shows something."""

_FORMULAS = {
    "demo": "formula_dpo_imitation.html",
    "demo-dpo": "formula_dpo.html",
    "demo-stepwise": "formula_stepwise.html",
}

DEMO_EXAMPLES, DEMO_HELD_OUT = 450, 120
HELD_OUT_SET = "heldout_prm.json"
_NEXT_WORDS = "the next ones of the same set"

MANY_ANSWERS, FEW_ANSWERS = 200, 8
"""The most held-out problems that a model answers before and after, one that writes fast and one that doesn't."""

SPACE_NOTE = "Runs on this public page are deleted when it restarts."


class Form(NamedTuple):
    """What the form holds, in the order of its components; nothing of it is trusted."""

    loss: object
    model: object
    reward_model: object
    examples: object
    held_out: object
    held_out_set: object
    epochs: object
    max_steps: object
    batch_size: object
    learning_rate: object
    beta: object
    seed: object
    max_length: object
    likelihood: object
    aggregation: object
    nonpositive: object
    reward_value: object


class TrainTab(NamedTuple):
    """What the page's timer needs of this tab."""

    live: list[Component]
    seen: gr.State


def build(shared: Shared, tab: gr.Tab, supervisor: Supervisor, public: bool, chip: gr.HTML) -> TrainTab:
    """Lay out the tab and connect its events; `chip` is the page's, updated with the rest."""
    with gr.Row(elem_classes="split"):
        with gr.Column(elem_classes="choose"):
            loss = gr.Radio(LOSSES, value="demo", label="Loss", elem_id="train-loss")
            formula = html(asset(_FORMULAS["demo"]), elem_id="train-formula")
            model = _model_field("Policy model", POLICIES, public, "train-model")
            policy_note = html(f'<p class="hint">{POLICY_NOTES[POLICY]}</p>', elem_id="train-hint")
            reward_model = _model_field("Reward model", JUDGES, public, "train-reward-model", visible=False)
            with gr.Row():
                examples = gr.Number(
                    DEMO_EXAMPLES,
                    label="Train on the first",
                    info="examples",
                    minimum=1,
                    precision=0,
                    min_width=100,
                    elem_id="train-examples",
                )
                held_out = gr.Number(
                    DEMO_HELD_OUT,
                    label="Compare on",
                    info="examples",
                    minimum=0,
                    precision=0,
                    min_width=100,
                    elem_id="train-held-out",
                )
            held_out_set = gr.Dropdown(
                [(_NEXT_WORDS, ""), HELD_OUT_SET],
                value=HELD_OUT_SET,
                label="which are",
                filterable=False,
                elem_id="train-held-out-set",
            )
            with gr.Row():
                epochs = gr.Number(
                    DEMO["epochs"], label="Epochs", info="passes", minimum=0, min_width=100, elem_id="train-epochs"
                )
                max_steps = gr.Number(
                    0,
                    label="Steps at most",
                    info="0: no limit",
                    minimum=0,
                    precision=0,
                    min_width=100,
                    elem_id="train-max-steps",
                )
            with gr.Row():
                batch_size = gr.Number(
                    DEMO["batch_size"],
                    label="Batch, pairs",
                    minimum=1,
                    precision=0,
                    min_width=100,
                    elem_id="train-batch",
                )
                learning_rate = gr.Number(
                    DEMO["learning_rate"], label="Learning rate", minimum=0, min_width=100, elem_id="train-rate"
                )
            with gr.Row():
                beta = gr.Number(DEMO["beta"], label="Beta", minimum=0, min_width=100, elem_id="train-beta")
                seed = gr.Number(42, label="Seed", minimum=0, precision=0, min_width=100, elem_id="train-seed")
            max_length = gr.Number(
                1024,
                label="Longest example",
                info="tokens; longer ones are refused",
                minimum=2,
                precision=0,
                elem_id="train-max-length",
            )
            with gr.Accordion("Step-wise options", open=False, visible=False, elem_id="train-stepwise") as options:
                likelihood = gr.Dropdown(
                    [("mean per token", "mean"), ("sum", "sum")], value="mean", label="Log-likelihood", filterable=False
                )
                aggregation = gr.Dropdown(
                    ["sum", "mean", "min", "last", "product", ("sum up to the first error", "until_error")],
                    value="sum",
                    label="Step rewards become one number by",
                    filterable=False,
                )
                nonpositive = gr.Dropdown(
                    [("train towards rejected", "train"), ("skip the pair", "skip"), ("clamp to zero", "clamp")],
                    value="train",
                    label="A preference of zero or less",
                    filterable=False,
                )
                reward_value = gr.Dropdown(
                    [
                        (f"centred (2p {MINUS} 1)", "centered"),
                        ("probability", "probability"),
                        ("log-odds (nats)", "log_odds"),
                    ],
                    value="centered",
                    label="Scale of step rewards",
                    filterable=False,
                )
            if public:
                html(f'<p class="hint">{SPACE_NOTE}</p>')
            start = gr.Button("Train", variant="primary", elem_id="train-start")
            message = html(elem_id="train-message")
            listing = choice_list(elem_id="train-runs")
        with gr.Column(elem_classes="look"):
            head = html(elem_id="train-head")
            stop = gr.Button("Stop and keep", size="sm", visible=False, elem_id="train-stop")
            charts = plots(elem_id="train-charts")
    seen = gr.State(None)
    live = [chip, listing, head, charts, stop]
    fields = [
        *(loss, model, reward_model, examples, held_out, held_out_set, epochs, max_steps, batch_size, learning_rate),
        *(beta, seed, max_length, likelihood, aggregation, nonpositive, reward_value),
    ]

    def on_loss(value: str, rate: object, beta: object) -> list[Any]:
        stepwise = value == "demo-stepwise"
        # Other losses' fields are hidden, not cleared: what was set comes back with the loss.
        shown = [gr.update(visible=stepwise), gr.update(visible=stepwise)]
        scale = gr.update(visible=not stepwise, value=own_value(value, "beta", beta))
        return [asset(_FORMULAS[value]), *shown, scale, own_value(value, "learning_rate", rate)]

    def on_model(name: str) -> str:
        return f'<p class="hint">{POLICY_NOTES[name]}</p>' if name in POLICY_NOTES else ""

    def on_plan(library: Library, *values: object) -> str:
        return button_words(library, Form(*values))

    def on_show(library: Library, held_out_set: object) -> Any:
        return gr.update(
            choices=[(_NEXT_WORDS, ""), *library.names], value=held_out_set if held_out_set in library.names else ""
        )

    def on_start(library: Library, *values: object) -> list[Any]:
        try:
            run = start_run(supervisor, library, Form(*values), public)
        except StepwiseDPOError as problem:
            return [error(str(problem)), gr.skip(), gr.skip(), *[gr.skip()] * len(live)]
        return ["", run.id, *updates(supervisor, run.id)]

    def on_choose(event: gr.EventData) -> list[Any]:
        key = event._data.get("key") if isinstance(event._data, dict) else None
        view = find(look(supervisor), key)
        return [view.run.id if view else "", *updates(supervisor, key)]

    def on_stop(run_id: str) -> list[Any]:
        try:
            run = supervisor.run(str(run_id))  # this very run: never whichever happens to be active
            if not supervisor.status(run).active:
                return [note("This run has ended already."), *updates(supervisor, run_id)]
            supervisor.stop(run)
        except StepwiseDPOError as problem:
            return [error(str(problem)), *updates(supervisor, run_id)]
        return ["", *updates(supervisor, run_id)]

    loss.input(
        on_loss,
        [loss, learning_rate, beta],
        [formula, reward_model, options, beta, learning_rate],
        show_progress="hidden",
    )
    model.change(on_model, model, policy_note, show_progress="hidden", trigger_mode="always_last")
    tab.select(on_show, [shared.library, held_out_set], held_out_set, show_progress="hidden")
    for field in (examples, held_out, held_out_set, epochs, max_steps, batch_size):
        field.change(on_plan, [shared.library, *fields], start, show_progress="hidden", trigger_mode="always_last")
    # Not shared.library.change: Gradio would hash the whole library at every tick of the timer.
    tab.select(on_plan, [shared.library, *fields], start, show_progress="hidden")
    start.click(on_start, [shared.library, *fields], [message, shared.run_id, seen, *live], show_progress="hidden")
    listing.choose(on_choose, None, [shared.run_id, seen, *live], show_progress="hidden", trigger_mode="always_last")
    stop.click(on_stop, shared.run_id, [message, seen, *live], show_progress="hidden")
    return TrainTab(live, seen)


def own_value(loss: str, name: str, value: object) -> object:
    """Give a loss's own value of a setting where the form still holds another loss's; what somebody typed stays."""
    own = {key: PRESETS[key].get(name) for _, key in LOSSES}
    return own[loss] if own.get(loss) is not None and value in own.values() else value


def updates(supervisor: Supervisor, run_id: object, seen: object = None) -> list[Any]:
    """Read the runs and write what the live components show: [seen, chip, list, head, charts, stop button].

    Args:
        supervisor: of the runs.
        run_id: the run that the session has chosen.
        seen: what the last update returned first; if nothing has changed since, nothing is sent.
    """
    views = look(supervisor)
    current = find(views, run_id)
    now = signature(views, current)
    if now == seen:
        return [gr.skip()] * 6
    records = current.run.metrics()[0] if current else []
    newest = find(views, None)
    chip_records = records if newest == current or newest is None else newest.run.metrics()[0]
    return [
        now,
        chip_html(views, chip_records),
        runs_html(views, current),
        head_html(current, records),
        plots_value(_charts(current, records)),
        _stop_button(current),
    ]


def start_run(supervisor: Supervisor, library: Library, form: Form, public: bool) -> RunDirectory:
    """Check the form, write the examples beside the runs and start.

    Raises:
        StepwiseDPOError: what has to be changed in the form or the examples.
    """
    train_pairs, held_out, held_out_name = split(library, form)
    settings = settings_of(form, len(held_out), public)
    folder = supervisor.runs_dir.resolve() / "data"
    # Checked before anything is written.
    config = make_config(settings, {"data": str(folder)})
    if public:
        steps = planned_steps(len(train_pairs), config.epochs, config.max_steps, config.batch_size)
        check_public(config, examples=len(train_pairs), held_out=len(held_out), steps=steps)
    settings["data"] = str(write_examples(folder, library.current.name, train_pairs))
    if held_out:
        settings["eval_data"] = str(write_examples(folder, held_out_name, held_out))
    config = make_config(settings)
    return supervisor.start(config)


def settings_of(form: Form, held_out: int, public: bool) -> dict[str, Any]:
    """Write the form as a run's settings; the values' ranges are checked by `make_config`.

    Args:
        form: what the browser sent.
        held_out: how many examples there are to compare on.
        public: whether models come from the lists only.
    """
    model = check_model_name(form.model, POLICIES, public)
    # Anything else than one of the form's choices is left to `make_config`, which says what there is.
    kind = PRESETS[str(form.loss)] if form.loss in [key for _, key in LOSSES] else {"loss": form.loss}
    settings: dict[str, Any] = {
        **{name: kind[name] for name in ("loss", "loss_type") if name in kind},
        "model": model,
        "epochs": _number(form.epochs, "epochs"),
        "max_steps": _whole(form.max_steps, "steps at most") or None,
        "batch_size": _whole(form.batch_size, "batch"),
        "learning_rate": _number(form.learning_rate, "learning rate"),
        "beta": _number(form.beta, "beta"),
        "seed": _whole(form.seed, "seed"),
        "max_length": _whole(form.max_length, "longest example"),
        # The small models answer in no time.
        "generate": min(held_out, MANY_ANSWERS if model in (POLICY, TINY) else FEW_ANSWERS),
        "max_new_tokens": 96,
    }
    if settings["loss"] == "stepwise":
        settings |= {
            "reward_model": check_model_name(form.reward_model, JUDGES, public),
            "likelihood": form.likelihood,
            "aggregation": form.aggregation,
            "nonpositive": form.nonpositive,
            "reward_value": form.reward_value,
        }
    return settings


def split(library: Library, form: Form) -> tuple[Sequence[PreferencePair], Sequence[PreferencePair], str]:
    """Take the first examples of the open set to train on, and those to compare on.

    Returns:
        pairs to train on; pairs to compare on, which are the first of the set that the form names, or the next of the
            open one (also when it names that: nobody shall compare on what was trained on); the name of their set.

    Raises:
        ConfigError: there are none, the numbers are not usable, or there is no such set.
    """
    pairs = library.current.pairs
    if not pairs:
        raise ConfigError("this example set is empty; add or load examples in the Data tab")
    train, held_out = _whole(form.examples, "examples to train on"), _whole(form.held_out, "examples to compare on")
    if train < 1 or held_out < 0:
        raise ConfigError("train on at least one example, and compare on none or more")
    if form.held_out_set in ("", library.current.name):
        return pairs[:train], pairs[train : train + held_out], library.current.name
    for known in library.sets:
        if known.name == form.held_out_set:
            return pairs[:train], known.pairs[:held_out], known.name
    raise ConfigError(f"there is no example set {str(form.held_out_set)[:80]!r} to compare on; choose another")


def write_examples(folder: Path, name: str, pairs: Sequence[PreferencePair]) -> Path:
    """Save examples under a name that their content decides, so that runs on the same data share a file.

    Raises:
        StepwiseDPOError: the file can't be written.
    """
    slug = re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem).strip("-")[:40] or "examples"
    digest = hashlib.sha256(dump_pairs(pairs).encode()).hexdigest()[:12]
    target = folder / f"{slug}-{len(pairs)}-{digest}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise RunError(f"the folder of runs can't be written: {problem.strerror}") from problem
    if not target.exists():
        save_pairs(pairs, target)
    return target


def planned_steps(examples: int, epochs: float, max_steps: int | None, batch_size: int) -> int:
    """Count a run's optimiser steps as the Trainer does: the last, smaller batch of an epoch is a step too."""
    return max_steps or math.ceil(epochs * math.ceil(examples / batch_size))


def button_words(library: Library, form: Form) -> str:
    """Say on the button what it will do; only "Train" where the form is not usable yet."""
    try:
        train_pairs, _, _ = split(library, form)
        steps = planned_steps(
            len(train_pairs),
            _number(form.epochs, "epochs"),
            _whole(form.max_steps, "steps at most"),
            max(1, _whole(form.batch_size, "batch")),
        )
    except ConfigError:
        return "Train"
    return f"Train {counted(steps, 'step')}"


def _model_field(label: str, models: Sequence[str], public: bool, elem_id: str, visible: bool = True) -> gr.Dropdown:
    return gr.Dropdown(
        list(models),
        value=models[0],
        allow_custom_value=not public,
        label=label,
        info="one of these" if public else "one of these, a folder, or a Hub id",
        elem_id=elem_id,
        visible=visible,
    )


def _charts(view: RunView | None, records: list[dict[str, Any]]) -> list[Chart]:
    """Draw a run's charts: empty ones while it may still fill them, none once it ended without a step."""
    if view is None or not (records or view.status.active):
        return []
    return training_charts(records, view.loss, view.status.max_steps)


def _stop_button(view: RunView | None) -> Any:
    active = view is not None and view.status.active
    asked = active and view is not None and view.stop_requested
    return gr.update(visible=active, interactive=not asked, value="Stopping…" if asked else "Stop and keep")


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{name}: give a number")
    return float(value)


def _whole(value: object, name: str) -> int:
    number = _number(value, name)
    if number != int(number):
        raise ConfigError(f"{name}: give a whole number, not {value}")
    return int(number)
