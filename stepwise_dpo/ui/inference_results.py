"""Inference results, one record per example: reading what a run wrote, and writing a comparison in the same form."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from stepwise_dpo.errors import DataError, RunError
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.runs.export import disarmed
from stepwise_dpo.ui.comparison import SIDES, Compared, Likelihood, Measured, Reply, Seen, log_ratios

Record = Mapping[str, Any]


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
    prefix = "before_" if which == "before" else ""
    try:
        steps = {
            side: [
                Step(text, label) for text, label in zip(record[f"{side}_steps"], record[f"{side}_labels"], strict=True)
            ]
            for side in SIDES
        }
        pair = PreferencePair(str(record["prompt"]), steps["chosen"], steps["rejected"], str(record["id"]))
        sides = {
            side: Likelihood(
                tuple(float(value) for value in record[f"{prefix}{side}_step_logps"]),
                int(record[f"{prefix}{side}_tokens"]),
            )
            for side in SIDES
        }
        trained_on = record.get("in_training")
        return Measured(
            pair,
            Seen(sides["chosen"], sides["rejected"], _reply(record[f"{prefix}answer"])),
            trained_on if isinstance(trained_on, bool) else None,
        )
    except KeyError as problem:
        raise RunError(
            f"line {number} of this run's examples.jsonl lacks {problem}: an earlier version wrote it"
        ) from None
    except (DataError, TypeError, ValueError) as problem:
        raise RunError(f"line {number} of this run's examples.jsonl can't be read: {problem}") from problem


def _reply(answer: Record | None) -> Reply | None:
    if answer is None:
        return None
    rewards = answer["process_rewards"]
    return Reply(
        tuple(str(step) for step in answer["steps"]),
        bool(answer["complete"]),
        answer["solved"],
        None if rewards is None else tuple(float(value) for value in rewards),
    )
