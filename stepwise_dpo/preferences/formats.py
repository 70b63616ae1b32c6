"""Preference pairs as Hugging Face `datasets`, and back. The only module that knows another format than ours.

Columns: id, prompt, chosen and rejected (lists of {"text", "label"}), meta (JSON text, because a column has one type).
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.pairs import PreferencePair, Step

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

COLUMNS = ("id", "prompt", "chosen", "rejected", "meta")


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


def _row(pair: PreferencePair) -> dict[str, Any]:
    chosen, rejected = (
        [{"text": step.text, "label": step.label} for step in side] for side in (pair.chosen, pair.rejected)
    )
    meta = json.dumps(pair.meta, ensure_ascii=False, allow_nan=False)
    return {"id": pair.id, "prompt": pair.prompt, "chosen": chosen, "rejected": rejected, "meta": meta}


def _pair(row: Mapping[str, Any]) -> PreferencePair:
    chosen, rejected = ([Step(step["text"], step["label"]) for step in row[side]] for side in ("chosen", "rejected"))
    return PreferencePair(row["prompt"], chosen, rejected, row["id"], json.loads(row["meta"]))
