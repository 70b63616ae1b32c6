import subprocess
import sys

import datasets
import pytest

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.formats import COLUMNS, from_dataset, to_dataset_dict
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.preferences.synthetic import generate_pairs

PAIRS = [
    PreferencePair(
        "p \U0001f600", [Step("a", True), Step("b")], [Step("c", False)], "x", {"n": 2**63, "f": 1.5, "l": [None, {}]}
    ),
    PreferencePair("q", [Step("a\nb")], [Step("c\u2028d")]),
    *generate_pairs(12, 1),
]


def test_round_trip_through_the_disk(tmp_path):
    to_dataset_dict(PAIRS, PAIRS[:1]).save_to_disk(tmp_path / "d")
    loaded = datasets.load_from_disk(tmp_path / "d")
    assert isinstance(loaded, datasets.DatasetDict)
    assert tuple(loaded["train"].column_names) == COLUMNS
    assert loaded["train"][0]["chosen"] == [{"text": "a", "label": True}, {"text": "b", "label": None}]
    assert from_dataset(loaded["train"]) == PAIRS
    assert from_dataset(loaded["test"]) == PAIRS[:1]


def test_without_a_test_split():
    made = to_dataset_dict(PAIRS)
    assert list(made) == ["train"]
    assert from_dataset(made["train"]) == PAIRS


def test_the_splits_have_one_schema_even_without_labels():
    unlabelled = [PreferencePair("p", [Step("a")], [Step("b")])]
    made = to_dataset_dict(PAIRS, unlabelled)
    assert made["train"].features == made["test"].features
    assert from_dataset(made["test"]) == unlabelled


def test_all_splits_at_once_are_refused():
    with pytest.raises(DataError, match="expected one split of the data set, not all of them; choose from train, test"):
        from_dataset(to_dataset_dict(PAIRS, PAIRS))


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match="has no column 'rejected'"):
        from_dataset(to_dataset_dict(PAIRS)["train"].remove_columns("rejected"))


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("prompt", " ", "row 2 of the data set: prompt must be a non-blank string"),
        ("chosen", [], "row 2 of the data set: chosen must have 1 to 1,000 steps, not 0"),
        ("meta", "{", "row 2 of the data set: Expecting property name"),
        ("meta", None, "row 2 of the data set: the JSON object must be str"),
    ],
)
def test_a_bad_row_is_named(column, value, expected):
    dataset = to_dataset_dict(PAIRS)["train"]
    rows = [{**row, column: value} if i == 1 else row for i, row in enumerate(dataset)]
    with pytest.raises(DataError, match=expected):
        from_dataset(datasets.Dataset.from_list(rows, features=dataset.features))


def test_importing_the_module_does_not_import_datasets():
    code = "import sys, stepwise_dpo.preferences.formats; sys.exit('datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
