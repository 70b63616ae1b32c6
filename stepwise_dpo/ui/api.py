"""What the page does, for programs: endpoints that `gradio_client` calls by name, on the page's own link "API".

Everything comes as JSON and goes as JSON; examples are rows in the native format. Whoever calls is checked like whoever
clicks: an error says what to change. What no function can see any more, such as a key that a row holds twice, is
refused where the request arrives, with status 400 (`ui.request_bodies`). `visitor` is a secret of the caller's choice,
32 to 128 letters and digits, which on a public page decides whose runs are seen; elsewhere it may be left empty.
"""

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from gradio.events import api as gr_api
from pydantic import ConfigDict, ValidationError, validate_call

from stepwise_dpo.errors import ConfigError, DataError, RunError, StepwiseDPOError
from stepwise_dpo.learning.names import POLICY, REWARD
from stepwise_dpo.preferences.checker import check_solution, is_known, solves
from stepwise_dpo.preferences.checks import count_faults, text_faults
from stepwise_dpo.preferences.faults import refuse
from stepwise_dpo.preferences.pairs import PreferencePair, dump_pairs, parse_pairs
from stepwise_dpo.preferences.rows import MAX_PAIRS
from stepwise_dpo.preferences.statistics import statistics as statistics_of
from stepwise_dpo.runs import export
from stepwise_dpo.runs.config import check_aggregation, make_config, planned_steps, preset_settings
from stepwise_dpo.runs.directory import RunDirectory, RunStatus
from stepwise_dpo.runs.notes import read_note, write_note
from stepwise_dpo.runs.own_runs import OwnRuns
from stepwise_dpo.runs.pace import known_pace
from stepwise_dpo.ui import data_actions
from stepwise_dpo.ui.compare_choice import MAX_MEASURED, MAX_MEASURED_PUBLIC, STORED, Choice, both
from stepwise_dpo.ui.compare_views import remarks
from stepwise_dpo.ui.comparison import Compared, Contrast, contrasts
from stepwise_dpo.ui.draft_check import count_tokens, is_on_disk
from stepwise_dpo.ui.judges import JUDGES, POLICIES, SCALES, Judges, check_model_name
from stepwise_dpo.ui.library import ExampleSet, Library
from stepwise_dpo.ui.measuring import Measurements, Model, models_of, stored_comparison
from stepwise_dpo.ui.policies import Policies
from stepwise_dpo.ui.recipe import read_recipe
from stepwise_dpo.ui.reward_sets import MAX_LOCAL, MAX_PUBLIC, agreement, judged
from stepwise_dpo.ui.reward_views import Look
from stepwise_dpo.ui.run_exports import packed_in_cache
from stepwise_dpo.ui.run_reader import RunReader
from stepwise_dpo.ui.runs_view import last_lines
from stepwise_dpo.ui.train_form import check_size, start_again, start_on
from stepwise_dpo.ui.train_words import estimate
from stepwise_dpo.ui.waterfall import aggregated, check_known

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Row = dict[str, Any]

MAX_ROWS = 1_000
MAX_PROMPTS = 64

_SECRET = re.compile(r"[A-Za-z0-9_-]{32,128}")


class Endpoints:
    """The functions behind the names; each checks what it gets, since anybody may send anything.

    Args:
        library: the bundled example sets.
        reader: of the runs; knows whether strangers use the page.
        judges: the reward models.
        policies: the policies.
    """

    def __init__(self, library: Library, reader: RunReader, judges: Judges, policies: Policies) -> None:
        self._library, self._reader, self._public = library, reader, reader.public
        self._judges, self._policies, self._measurements = judges, policies, Measurements(policies)

    # ----------------------------------------------------------------------------------------------------- Data

    def example_sets(self) -> list[Row]:
        """List the bundled example sets: [{"name", "examples"}]."""
        return [{"name": known.name, "examples": len(known.pairs)} for known in self._library.sets]

    def examples(self, set_name: str, start: int = 0, count: int = 100) -> list[Row]:
        """Give the native rows of a bundled set: `count` of them, at most 1,000, from `start` on."""
        pairs = data_actions.open_set(self._library, set_name).library.current.pairs
        return _rows(pairs[max(0, start) :][: max(0, min(count, MAX_ROWS))])

    def validate(self, text: str, json_lines: bool = False) -> Row:
        """Read the text of a JSON or JSON Lines file: {"examples", "remarks": [{"id", "remarks"}]}, or an error."""
        pairs = parse_pairs(text, "text.jsonl" if json_lines else "text.json")
        found = [{"id": pair.id, "remarks": pair.problems()} for pair in pairs]
        return {"examples": len(pairs), "remarks": [about for about in found if about["remarks"]]}

    def generate(
        self,
        examples: int = 100,
        seed: int = 0,
        families: list[str] | None = None,
        corruptions: list[str] | None = None,
        fewest_steps: int = 3,
        most_steps: int = 7,
        largest_number: int = 100,
        avoid: list[str] | None = None,
    ) -> list[Row]:
        """Generate labelled pairs, as rows; empty lists mean all families of problems and all kinds of mistakes.

        None of the problems is in the bundled sets that `avoid` names; without it in a held-out one, with [] in any.
        """
        avoided = data_actions.to_avoid(self._library) if avoid is None else avoid
        asked = (families, corruptions, examples, seed, fewest_steps, most_steps, largest_number, avoided)
        return _rows(data_actions.generate(self._library, read_recipe(self._public, *asked)).pairs)

    def convert(self, rows: list[Row], format: str = "native") -> dict[str, str]:
        """Write rows as text of a file, "native", "trl-preference" or "trl-stepwise": {"name", "text", "remark"}."""
        pairs = _pairs(rows)
        file = data_actions.download(Library((ExampleSet("rows", tuple(pairs)),), "rows"), format)
        return {"name": file.name, "text": file.text, "remark": file.message}

    def statistics(self, rows: list[Row], other: list[Row] | None = None) -> Row:
        """Count over rows: steps per side, length gaps, places of first errors, repetitions, prompts of other sets.

        "shared_prompts" says how many of the rows have a prompt of which bundled set, and of the `other` rows if given;
        sets that share none are left out.
        """
        pairs = tuple(_pairs(rows))
        others = (ExampleSet("other", tuple(_pairs(other))),) if other else ()
        library = Library((ExampleSet("rows", pairs), *self._library.sets, *others), "rows")
        counts = {**dataclasses.asdict(statistics_of(pairs)), "shared_prompts": dict(data_actions.leaked(library))}
        return json.loads(json.dumps(counts))  # type: ignore[no-any-return]

    def count_tokens(self, row: Row, model: str = POLICY) -> dict[str, Any]:
        """Count the tokens of a row for a model that is on this machine: {"prompt", "chosen": [per step], "rejected"}.

        Or {"problem": why there are none}.
        """
        (pair,) = _pairs([row])
        (draft,) = _rows([pair])
        return count_tokens(self._policies.token_counts, is_on_disk, {"model": model, "draft": draft}, self._public)

    def check_steps(self, prompt: str, steps: list[str]) -> Row:
        """Check a solution of a generated problem: {"known", "steps": whether each is right, "solved"}.

        "known" says whether the checker knows the problem; without that, the other two are null.
        """
        refuse([*text_faults(prompt, "prompt"), *count_faults(steps, "steps")])
        if not is_known(prompt):
            return {"known": False, "steps": None, "solved": None}
        return {"known": True, "steps": check_solution(prompt, steps), "solved": solves(prompt, steps)}

    # -------------------------------------------------------------------------------------------------- Rewards

    def score_steps(
        self, prompt: str, steps: list[str], reward_model: str = REWARD, value: str = "centered"
    ) -> list[float]:
        """Score each step of a solution; value is "centered" (2p - 1), "probability" or "log_odds" (nats)."""
        name = check_model_name(reward_model, JUDGES, self._public)
        refuse(count_faults(steps, "steps"))
        return self._judges.score_solutions(name, [(prompt, steps)], value)[0]

    def score_pairs(
        self,
        rows: list[Row],
        reward_model: str = REWARD,
        value: str = "centered",
        aggregation: str = "sum",
        run_id: str = "",
        visitor: str = "",
    ) -> list[Row]:
        """Score each step of both sides: [{"id", "chosen", "rejected", "preference": aggregated chosen - rejected}].

        aggregation is "sum", "mean", "min", "last", "product" (of value "probability") or "until_error". With a run_id,
        by the reward model that this run trained.
        """
        name, pairs = self._judge(reward_model, run_id, visitor), self._scorable(rows)
        check_known(aggregation)
        check_aggregation(aggregation, value)
        scores = self._judges.score(name, pairs, value)
        neutral = SCALES[value].centre
        return [
            {
                "id": pair.id,
                "chosen": chosen,
                "rejected": rejected,
                "preference": aggregated(chosen, aggregation, neutral) - aggregated(rejected, aggregation, neutral),
            }
            for pair, (chosen, rejected) in zip(pairs, scores, strict=True)
        ]

    def agreement(self, rows: list[Row], reward_model: str = REWARD, run_id: str = "", visitor: str = "") -> Row:
        """Measure how a reward model agrees with rows: {"examples", "positive", "acc1", "acc2", "f1", "auroc", "flat"}.

        "positive" counts preferences above 0. ProcessBench's acc1, acc2 and F1 (percent) are over the first step with a
        probability below a half, AUROC (0..1) over the steps up to the first errors; null where labels don't define
        them. "flat" says that nearly all scores are the same.
        """
        name, pairs = self._judge(reward_model, run_id, visitor), self._scorable(rows)
        look = Look()
        scores = self._judges.score(name, pairs, look.quantity)
        known = {n: judged(pair, sides, look) for n, (pair, sides) in enumerate(zip(pairs, scores, strict=True))}
        return agreement(pairs, known, look)._asdict()

    def step_logps(self, rows: list[Row], model: str = POLICY, run_id: str = "", visitor: str = "") -> list[Row]:
        """Log-probability of each step, in nats, by a model, or by a run's trained one.

        [{"id", "chosen", "rejected", "margin"}]; the margin is the log-likelihood gap: mean of chosen minus that of
        rejected, in nats per token.
        What a run changed, its implicit reward per step over beta, is the difference of two such calls.
        """
        pairs = self._scorable(rows)
        logps = self._policies.logps(self._policy(model, run_id, visitor), pairs)
        return [
            {"id": pair.id, "chosen": both.chosen.steps, "rejected": both.rejected.steps, "margin": both.margin}
            for pair, both in zip(pairs, logps, strict=True)
        ]

    # ---------------------------------------------------------------------------------------------------- Train

    def start_run(
        self,
        settings: Row,
        rows: list[Row],
        held_out: list[Row] | None = None,
        visitor: str = "",
    ) -> dict[str, str]:
        """Train on rows: {"run_id"}; settings are those of `train`, or {"preset": "demo", …}, without data files."""
        named = _settings(settings)
        held_out_pairs = tuple(_pairs(held_out)) if held_out else ()
        sets = ExampleSet("rows", tuple(_pairs(rows))), ExampleSet("held-out", held_out_pairs)
        return {"run_id": start_on(self._own(visitor), named, *sets, self._public).id}

    def plan_run(self, settings: Row, examples: int, held_out: int = 0) -> Row:
        """Say what `start_run` would do on so many examples: {"max_steps", "pairs_per_step", "seconds", "measured"}.

        The optimiser steps, and about how long they take: "measured" is true where the last run of this model says so,
        and false for a guess, of a bundled model on two cores; both are null where nothing is known.
        """
        if not 1 <= examples <= MAX_PAIRS or not 0 <= held_out <= MAX_PAIRS:
            raise DataError(f"plan 1 to {MAX_PAIRS:,} examples, and 0 to {MAX_PAIRS:,} of held_out")
        config = make_config(_settings(settings), {"data": "unwritten"})
        if self._public:
            check_size(config, examples, held_out)
        steps, pairs = planned_steps(config, examples), config.batch_size * config.gradient_accumulation
        pace = known_pace(self._reader.supervisor.runs(), config.model, config.loss)
        known = estimate(config, steps, pace)
        time = {"seconds": known and known.seconds, "measured": known and known.measured}
        return {"max_steps": steps, "pairs_per_step": pairs, **time}

    def runs(self, visitor: str = "") -> list[Row]:
        """List the runs, the newest first: [{"run_id", "state", "global_step", "max_steps", "phase", "error"}]."""
        self._own(visitor)  # refuses whoever has no secret
        return [self._shown(view.run, view.status) for view in self._reader.views(visitor)]

    def run_status(self, run_id: str, visitor: str = "") -> Row:
        """Say where a run stands; its own configuration and report are in "config" and "report"."""
        run = self._own(visitor).run(run_id)
        config = export.portable(run.config()).model_dump(exclude_none=True)  # where its files lie is nobody's business
        return {**self._status(run), "config": config, "report": run.report()}

    def run_metrics(self, run_id: str, offset: int = 0, visitor: str = "") -> Row:
        """Give a run's metrics from a byte offset on: {"records", "offset": to go on from}.

        A resume cuts the file. Where no line begins at the offset any more, all records are given, as for 0: a record
        whose global_step you have takes the place of yours.
        """
        records, position = self._own(visitor).run(run_id).metrics(max(0, offset))
        return {"records": records, "offset": position}

    def run_examples(self, run_id: str, visitor: str = "") -> list[Row]:
        """Give each held-out example before and after: preferred side, answers, log-ratio of every step."""
        return self._own(visitor).run(run_id).examples()

    def run_commands(self, run_id: str, visitor: str = "") -> dict[str, str]:
        """Write what repeats a run: {"command", "accelerate", "yaml"}."""
        config = export.portable(self._own(visitor).run(run_id).config())
        return {
            "command": export.command(config, f"runs/{run_id}"),
            "accelerate": export.accelerate_command(config, f"runs/{run_id}"),
            "yaml": export.settings_yaml(config),
        }

    def run_log(self, run_id: str, visitor: str = "") -> list[str]:
        """Give the last lines of a run's log, as the page shows them of one that failed."""
        return [self._reader.tell(line) for line in last_lines(self._own(visitor).run(run_id).events)]

    def stop_run(self, run_id: str, visitor: str = "") -> Row:
        """Stop a run after its current optimiser step and keep what is there."""
        return self._status(self._own(visitor).stop(run_id))

    def resume_run(self, run_id: str, visitor: str = "") -> Row:
        """Go on with a run that ended early, from its last verified checkpoint, or from the start where it has none."""
        return self._status(self._own(visitor).resume(run_id))

    def rerun_run(self, run_id: str, visitor: str = "") -> dict[str, str]:
        """Start a run with the very configuration and examples of another: {"run_id"} of the new one."""
        return {"run_id": start_again(self._own(visitor), run_id, self._public).id}

    def discard_run(self, run_id: str, visitor: str = "") -> dict[str, str]:
        """Stop a run and keep nothing: it is deleted as soon as its process has ended, and then not among `runs`."""
        self._own(visitor).discard(run_id)
        return {"discarded": run_id}

    def delete_run(self, run_id: str, visitor: str = "") -> dict[str, str]:
        """Delete a run that has ended, with everything in it."""
        self._own(visitor).delete(run_id)
        return {"deleted": run_id}

    def note_run(self, run_id: str, text: str, visitor: str = "") -> dict[str, str]:
        """Write a note beside a run; "" removes it. "note" is what was stored: one line, without white space around."""
        run = self._own(visitor).run(run_id)
        write_note(run, text)
        return {"run_id": run_id, "note": read_note(run)}

    # -------------------------------------------------------------------------------------------------- Compare

    def answer(self, prompts: list[str], model: str = POLICY, run_id: str = "", visitor: str = "") -> list[Row]:
        """Let a model, or a run's trained one, answer up to 64 prompts greedily: [{"steps", "complete"}]."""
        if not 1 <= len(prompts) <= MAX_PROMPTS:
            raise DataError(f"give 1 to {MAX_PROMPTS} prompts, not {len(prompts)}")
        answers = self._policies.answers(self._policy(model, run_id, visitor), prompts)
        return [{"steps": answer.steps, "complete": answer.complete} for answer in answers]

    def compare(self, before: str, after: str, visitor: str = "", on: list[Row] | None = None) -> Row:
        """Compare two models on what their runs held out: {"examples", "trained_on", "figures", "remarks"}.

        With `on`, on those rows instead, at most 120 (40 on a public page): both are measured on them now.


        A model is "before:RUN_ID", what a run started from, or "after:RUN_ID", what it trained. Each figure has a name
        in "figure"; "units", how many examples or problems it is about; "share", whether it is a share of them, else it
        is in nats; and in "before", "after" and "change" a "value" with its 95% "interval", null for too few examples.
        "trained_on" is how many of the examples a model was trained on; null where nobody knows.
        """
        for key in (before, after):
            self._check_compared(key, visitor)
        models = both(models_of(self._reader.views(visitor)), Choice(before, after, STORED, 0))
        compared = stored_comparison(*models) if on is None else self._measured(models, on)
        if not compared:
            raise RunError("these runs measured different examples, or none; start both with the same held_out")
        known = [one.trained_on for one in compared]
        return {
            "examples": len(compared),
            "trained_on": None if None in known else sum(map(bool, known)),
            "figures": [_figure(contrast) for contrast in contrasts(compared)],
            "remarks": remarks(compared),
        }

    # ---------------------------------------------------------------------------------------------------- parts

    def _own(self, visitor: str) -> OwnRuns:
        if self._public and not _SECRET.fullmatch(visitor):
            raise RunError("on a public page give `visitor`: a secret of your own, 32 to 128 letters and digits")
        return self._reader.own(visitor)

    def _scorable(self, rows: list[Row]) -> list[PreferencePair]:
        limit = MAX_PUBLIC if self._public else MAX_LOCAL
        if len(rows) > limit:
            raise DataError(f"score at most {limit:,} rows at once, not {len(rows):,}")
        return _pairs(rows)

    def _measured(self, models: tuple[Model, Model], rows: list[Row]) -> tuple[Compared, ...] | None:
        limit = MAX_MEASURED_PUBLIC if self._public else MAX_MEASURED
        if not 1 <= len(rows) <= limit:
            raise DataError(f"measure 1 to {limit} rows at once, not {len(rows):,}")
        pairs = _pairs(rows)
        for model in models:
            for _ in self._measurements.measure(model, pairs):
                pass
        return self._measurements.comparison(*models, pairs)

    def _judge(self, reward_model: str, run_id: str, visitor: str) -> str:
        if not run_id:
            return check_model_name(reward_model, JUDGES, self._public)
        folder = self._trained(run_id, visitor).path / "reward_model"
        if not folder.is_dir():
            raise RunError(f"run {run_id!r} trained no reward model; leave run_id out, or name one that did")
        return str(folder)

    def _policy(self, model: str, run_id: str, visitor: str) -> str:
        if not run_id:
            return check_model_name(model, POLICIES, self._public)
        return str(self._trained(run_id, visitor).final)

    def _trained(self, run_id: str, visitor: str) -> RunDirectory:
        run = self._own(visitor).run(run_id)
        if not run.final.is_dir():
            raise RunError(f"run {run_id!r} has no trained model; wait for its end")
        return run

    def _check_compared(self, key: str, visitor: str) -> None:
        which, _, run_id = key.partition(":")
        if which not in ("before", "after") or not run_id:
            raise ConfigError(f"a model to compare is before:RUN_ID or after:RUN_ID, not {key[:80]!r}")
        self._trained(run_id, visitor)

    def _status(self, run: RunDirectory) -> Row:
        return self._shown(run, self._reader.supervisor.status(run))

    def _shown(self, run: RunDirectory, status: RunStatus) -> Row:
        shown = {name: getattr(status, name) for name in ("state", "global_step", "max_steps", "phase")}
        return {"run_id": run.id, **shown, "error": status.error and self._reader.tell(status.error)}


def build(endpoints: Endpoints) -> None:
    """Add the endpoints to the page that is being built; their names are those of the functions."""
    for name in vars(Endpoints):
        if not name.startswith("_"):
            function = getattr(endpoints, name)
            gr_api(_spoken(function), api_name=name, api_description=inspect.getdoc(function), concurrency_limit=4)
    # A file comes with a component: Gradio serves it from its cache, and deletes it there after a while.
    run_id, visitor, archive = gr.Textbox(visible=False), gr.Textbox(visible=False), gr.File(visible=False)
    cache = Path(archive.GRADIO_CACHE)

    def run_model(run_id: str, visitor: str) -> str:
        return str(packed_in_cache(endpoints._own(visitor).run(run_id), cache))

    gr.Button(visible=False).click(
        _spoken(run_model),
        [run_id, visitor],
        archive,
        api_name="run_model",
        api_description="Download the model that a run trained, as an archive of safetensors, JSON and text.",
    )


def _spoken(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Check the types of what is sent, and send our errors to the client, where Gradio hides those of the code."""
    checked = validate_call(config=ConfigDict(strict=True))(function)

    @wraps(function)
    def spoken(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            return checked(*args, **kwargs)
        except ValidationError as problem:
            names = list(inspect.signature(function).parameters)
            words = [_fault(fault["loc"], fault["msg"], names) for fault in problem.errors()[:3]]
            raise gr.Error("; ".join(words), print_exception=False) from problem
        except StepwiseDPOError as problem:
            raise gr.Error(str(problem), print_exception=False) from problem

    return spoken


def _fault(place: tuple[int | str, ...], words: str, names: list[str]) -> str:
    """Say what is wrong where; an argument that came by position is called by its name."""
    if not place:
        return words
    first = names[place[0]] if isinstance(place[0], int) and place[0] < len(names) else place[0]
    return f"{'.'.join(map(str, (first, *place[1:])))}: {words}"


def _settings(sent: Row) -> Row:
    """Put a preset's settings under those that were sent with it; the examples come otherwise."""
    chosen = dict(sent)
    if {"data", "eval_data"} & set(chosen):
        raise ConfigError("leave data and eval_data out of the settings: the examples come as rows and held_out")
    preset = chosen.pop("preset", None)
    given = {} if preset is None else preset_settings(str(preset), chosen.get("loss"))
    return {**{name: value for name, value in given.items() if name not in ("data", "eval_data")}, **chosen}


def _figure(contrast: Contrast) -> Row:
    estimates = {name: getattr(contrast, name)._asdict() for name in ("before", "after", "change")}
    return {"figure": contrast.key, "units": contrast.units, "share": contrast.share, **estimates}


def _pairs(rows: list[Row]) -> list[PreferencePair]:
    try:
        return parse_pairs(json.dumps(rows), "rows")
    except (ValueError, RecursionError) as problem:
        if isinstance(problem, DataError):
            raise
        raise DataError("rows: too deeply nested") from problem


def _rows(pairs: Sequence[PreferencePair]) -> list[Row]:
    rows: list[Row] = json.loads(dump_pairs(pairs)) if pairs else []
    return rows
