"""Inference results, one record per example: reading what a run wrote, and writing a comparison in the same form."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stepwise_dpo.errors import DataError, RunError
from stepwise_dpo.preferences.model_faults import first_fault
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.runs.export import disarmed
from stepwise_dpo.ui.comparison import SIDES, Compared, Likelihood, Measured, Reply, Seen, log_ratios

Record = Mapping[str, Any]

_Part = TypeVar("_Part")
# Not strict in this alone: JSON has lists. An answer may have more steps than an example: one for each line.
_Many = Annotated[tuple[_Part, ...], Field(max_length=10_000, strict=False)]


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    steps: _Many[str]
    complete: bool
    process_rewards: _Many[float] | None
    solved: bool | None

    @model_validator(mode="after")
    def _one_each(self) -> "_Answer":
        if self.process_rewards is not None and len(self.process_rewards) != len(self.steps):
            raise ValueError("process_rewards must have one number for each step")
        return self

    def reply(self) -> Reply:
        return Reply(self.steps, self.complete, self.solved, self.process_rewards)


class _After(BaseModel):
    """A line of examples.jsonl, as far as it is about the trained model."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    id: str
    prompt: str
    chosen_steps: _Many[str]
    chosen_labels: _Many[bool | None]
    chosen_step_logps: _Many[float]
    chosen_tokens: int = Field(ge=1)
    rejected_steps: _Many[str]
    rejected_labels: _Many[bool | None]
    rejected_step_logps: _Many[float]
    rejected_tokens: int = Field(ge=1)
    answer: _Answer | None
    in_training: bool | None = None

    @model_validator(mode="after")
    def _one_each(self) -> "_After":
        for side in SIDES:
            for part in ("labels", "step_logps"):
                if len(getattr(self, f"{side}_{part}")) != len(getattr(self, f"{side}_steps")):
                    raise ValueError(f"{side}_{part} must have one entry for each step")
        return self


_OF_A_MODEL = ("_logps", "_tokens", "answer")


class _Before(_After):
    model_config = ConfigDict(alias_generator=lambda name: f"before_{name}" if name.endswith(_OF_A_MODEL) else name)


_LINES = {"before": _Before, "after": _After}


def measured_by_run(records: Sequence[Record], which: str) -> list[Measured]:
    """Read what a run wrote of its model "before" or "after" training.

    Raises:
        RunError: the records lack something, as those of earlier versions do.
    """
    return [_measured(number, record, which) for number, record in enumerate(records, 1)]


def records(compared: Sequence[Compared]) -> list[dict[str, Any]]:
    """One record per example; scores are nats per token, log-probabilities of steps are nats."""
    found = []
    for one in compared:
        record: dict[str, Any] = {"id": one.pair.id, "prompt": one.pair.prompt}
        for prefix, seen in (("", one.after), ("before_", one.before)):
            record |= {
                f"{prefix}model_output": None if seen.reply is None else "\n".join(seen.reply.steps),
                f"{prefix}chosen_score": seen.chosen.mean,
                f"{prefix}rejected_score": seen.rejected.mean,
                f"{prefix}preferred": seen.preferred,
                f"{prefix}answer": _answer(seen.reply),
                f"{prefix}chosen_step_logps": list(seen.chosen.steps),
                f"{prefix}rejected_step_logps": list(seen.rejected.steps),
            }
        for side in SIDES:
            before, after = getattr(one.before, side), getattr(one.after, side)
            steps = getattr(one.pair, side)
            record[f"{side}_steps"] = [step.text for step in steps]
            record[f"{side}_labels"] = [step.label for step in steps]
            record[f"{side}_step_logratios"] = log_ratios(before, after)
            record[f"before_{side}_tokens"] = before.tokens
            record[f"{side}_tokens"] = after.tokens
        record["in_training"] = one.trained_on
        found.append(record)
    return found


def jsonl_text(compared: Sequence[Compared]) -> str:
    """Write everything, as JSON lines."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records(compared))


def csv_text(compared: Sequence[Compared]) -> str:
    """Write the table as CSV; texts that a spreadsheet would take for formulas get a ' in front."""
    out = io.StringIO()
    writer = csv.writer(out)
    names = ["preferred", "margin", "chosen_score", "rejected_score", "solved", "model_output"]
    writer.writerow(
        ["id", "prompt", *(f"before_{name}" for name in names), *names, "margin_change", "flipped", "in_training"]
    )
    for one in compared:
        row: list[object] = [disarmed(one.pair.id), disarmed(one.pair.prompt)]
        for seen in (one.before, one.after):
            output = "" if seen.reply is None else disarmed("\n".join(seen.reply.steps))
            row += [seen.preferred, seen.margin, seen.chosen.mean, seen.rejected.mean, seen.solved, output]
        writer.writerow([*row, one.change, one.flipped, one.trained_on])
    return out.getvalue()


def _answer(reply: Reply | None) -> dict[str, Any] | None:
    if reply is None:
        return None
    return {
        "steps": list(reply.steps),
        "complete": reply.complete,
        "process_rewards": None if reply.rewards is None else list(reply.rewards),
        "solved": reply.solved,
    }


def _measured(number: int, record: Record, which: str) -> Measured:
    where = f"line {number} of this run's examples.jsonl"
    try:
        line = _LINES[which].model_validate(record)
        pair = PreferencePair(line.prompt, _steps(line, "chosen"), _steps(line, "rejected"), line.id)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        if first["type"] == "missing":
            raise RunError(f"{where} lacks {str(first['loc'][-1])!r}: an earlier version wrote it") from None
        raise RunError(f"{where} can't be read: {first_fault(problem)}") from problem
    except DataError as problem:
        raise RunError(f"{where} can't be read: {problem}") from problem
    chosen = Likelihood(line.chosen_step_logps, line.chosen_tokens)
    rejected = Likelihood(line.rejected_step_logps, line.rejected_tokens)
    reply = None if line.answer is None else line.answer.reply()
    return Measured(pair, Seen(chosen, rejected, reply), line.in_training)


def _steps(line: _After, side: str) -> list[Step]:
    texts, labels = getattr(line, f"{side}_steps"), getattr(line, f"{side}_labels")
    return [Step(text, label) for text, label in zip(texts, labels, strict=True)]
