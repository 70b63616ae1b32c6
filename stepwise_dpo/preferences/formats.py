"""Foreign formats: pairs as Hugging Face `datasets` and back, labelled solutions from what others publish.

The only module that knows another format than ours.

Data set columns     id, prompt, chosen and rejected (lists of {"text", "label"}), meta (JSON text, because a column has
                     one type).
Labelled solutions   native rows (each side of a pair is a solution), and TRL's stepwise supervision
                     {"prompt": str, "completions": [str], "labels": [bool | null], "id"?: str, "meta"?: object}.
TRL preference       {"prompt": str, "chosen": str, "rejected": str}: written only; the steps joined by line breaks.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.checks import checked
from stepwise_dpo.preferences.faults import RowFaults, refuse
from stepwise_dpo.preferences.pairs import PreferencePair, Step, is_stepwise, pair_of_row, pair_row
from stepwise_dpo.preferences.row_models import PairRow, Solution, StepwiseRow
from stepwise_dpo.preferences.rows import read_rows

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

COLUMNS = ("id", "prompt", "chosen", "rejected", "meta")


@dataclass(frozen=True, slots=True)
class LabelledSolution:
    """One solution with what is known of its steps: what a process reward model learns from.

    Attributes:
        prompt: the problem.
        steps: the texts of the solution's steps, 1 to MAX_STEPS.
        labels: for each step, whether it is right; None where nobody said.

    Raises:
        DataError: a text is blank, too long or not valid Unicode; a label is neither bool nor None; there are not as
            many labels as steps.
    """

    prompt: str
    steps: tuple[str, ...]
    labels: tuple[bool | None, ...]

    def __post_init__(self) -> None:
        """Check all fields."""
        fields = {"prompt": self.prompt, "steps": list(self.steps), "labels": list(self.labels)}
        found = checked(Solution, fields)
        refuse(found if isinstance(found, list) else [])


def to_dataset_dict(train: Sequence[PreferencePair], test: Sequence[PreferencePair] | None = None) -> "DatasetDict":
    """Put pairs into a DatasetDict with the split train and, if given, test; from_dataset gives equal pairs back."""
    import datasets  # takes a second to import

    steps = datasets.List({"text": datasets.Value("string"), "label": datasets.Value("bool")})
    text = datasets.Value("string")
    features = datasets.Features({"id": text, "prompt": text, "chosen": steps, "rejected": steps, "meta": text})
    splits = {"train": train} if test is None else {"train": train, "test": test}
    return datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict(
                {column: [row[column] for row in map(_row, pairs)] for column in COLUMNS}, features=features
            )
            for name, pairs in splits.items()
        }
    )


def from_dataset(dataset: "Dataset") -> list[PreferencePair]:
    """Read the pairs of one split that to_dataset_dict made.

    Raises:
        DataError: a column is missing, or a row isn't a valid pair (with its number, from 1).
    """
    names = dataset.column_names
    if isinstance(names, Mapping):
        raise DataError(f"expected one split of the data set, not all of them; choose from {', '.join(names)}")
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise DataError(f"the data set has no column {missing[0]!r}; its columns are {', '.join(names)}")
    pairs = []
    for number, row in enumerate(dataset, 1):
        try:
            pairs.append(_pair(row))
        except (DataError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(f"row {number} of the data set: {error}") from error
    return pairs


def labelled_solutions(pairs: Sequence[PreferencePair]) -> list[LabelledSolution]:
    """Take both sides of every pair as solutions of their own, in order."""
    return [
        LabelledSolution(pair.prompt, tuple(step.text for step in side), tuple(step.label for step in side))
        for pair in pairs
        for side in (pair.chosen, pair.rejected)
    ]


def dump_trl_preference(pairs: Sequence[PreferencePair]) -> str:
    """Write pairs as JSON Lines for TRL's DPOTrainer: steps become lines of one text; labels, id and meta are lost.

    Where a step has a line break of its own, what reads the file can't tell it from the end of a step; see
    `steps_with_line_breaks`.
    """
    rows = (
        {
            "prompt": pair.prompt,
            "chosen": "\n".join(step.text for step in pair.chosen),
            "rejected": "\n".join(step.text for step in pair.rejected),
        }
        for pair in pairs
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def dump_trl_stepwise(pairs: Sequence[PreferencePair]) -> str:
    """Write both sides of every pair as JSON Lines of TRL's stepwise supervision; repeated solutions once.

    A step without a label has null, which `load_labelled_solutions` reads and TRL itself does not.

    Raises:
        DataError: two solutions with the same prompt and steps contradict each other in a label.
    """
    found = list(enumerate(labelled_solutions(pairs)))
    # Pairs are what people count; a pair has two solutions.
    solutions, _ = _without_repetitions([(i // 2 + 1, solution) for i, solution in found], "the pairs", "pair")
    return "".join(
        json.dumps({"prompt": s.prompt, "completions": list(s.steps), "labels": list(s.labels)}, ensure_ascii=False)
        + "\n"
        for s in solutions
    )


def steps_with_line_breaks(pairs: Sequence[PreferencePair]) -> int:
    """Count the steps whose text has a line break."""
    return sum("\n" in step.text for pair in pairs for side in (pair.chosen, pair.rejected) for step in side)


def unlabelled_steps(pairs: Sequence[PreferencePair]) -> int:
    """Count the steps without a label."""
    return sum(step.label is None for pair in pairs for side in (pair.chosen, pair.rejected) for step in side)


def load_labelled_solutions(path: str | os.PathLike[str]) -> tuple[list[LabelledSolution], int]:
    """Read solutions with labelled steps from a JSON list, or from one row per line when the name ends in .jsonl.

    Rows are native pairs or TRL's stepwise supervision, told apart by their keys. The limits are those of
    `pairs.parse_pairs`.

    Returns:
        the distinct solutions in the file's order, and how many repetitions of the same prompt and steps were left out.
        A label that only a repetition has is kept.

    Raises:
        DataError: the file can't be read, a row is not usable (file, row and field are named), or two rows contradict
            each other about a step of the same solution.
    """
    source = os.fspath(path)
    unit, rows = read_rows(path)
    found: list[tuple[int, LabelledSolution]] = []
    faults = RowFaults(unit)
    for number, row in rows:
        read = checked(StepwiseRow, row) if is_stepwise(row) else pair_row(row)
        if isinstance(read, StepwiseRow):
            found.append((number, LabelledSolution(read.prompt, tuple(read.steps), tuple(read.labels))))
        elif isinstance(read, PairRow):
            found += [(number, solution) for solution in labelled_solutions([pair_of_row(read, number)])]
        else:
            faults.add(number, read)
            if faults.enough:
                break
    faults.refuse(source)
    return _without_repetitions(found, source, unit)


def _row(pair: PreferencePair) -> dict[str, Any]:
    chosen, rejected = (
        [{"text": step.text, "label": step.label} for step in side] for side in (pair.chosen, pair.rejected)
    )
    meta = json.dumps(pair.meta, ensure_ascii=False, allow_nan=False)
    return {"id": pair.id, "prompt": pair.prompt, "chosen": chosen, "rejected": rejected, "meta": meta}


def _pair(row: Mapping[str, Any]) -> PreferencePair:
    chosen, rejected = ([Step(step["text"], step["label"]) for step in row[side]] for side in ("chosen", "rejected"))
    return PreferencePair(row["prompt"], chosen, rejected, row["id"], json.loads(row["meta"]))


def _without_repetitions(
    found: Sequence[tuple[int, LabelledSolution]], source: str, unit: str
) -> tuple[list[LabelledSolution], int]:
    first: dict[tuple[str, tuple[str, ...]], tuple[int, LabelledSolution]] = {}
    for number, solution in found:
        key = (solution.prompt, solution.steps)
        if key not in first:
            first[key] = (number, solution)
            continue
        earlier_number, earlier = first[key]
        labels = []
        for step, (old, new) in enumerate(zip(earlier.labels, solution.labels, strict=True), 1):
            if {old, new} == {True, False}:
                raise DataError(
                    f"{source}: {unit} {number}: step {step} is labelled {'right' if new else 'wrong'}, but "
                    f"{unit} {earlier_number} says the opposite of the same prompt and steps; correct one of them"
                )
            labels.append(new if old is None else old)
        first[key] = (earlier_number, LabelledSolution(solution.prompt, solution.steps, tuple(labels)))
    return [solution for _, solution in first.values()], len(found) - len(first)
