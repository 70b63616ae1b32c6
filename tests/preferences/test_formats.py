import json
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.formats import (
    COLUMNS,
    LabelledSolution,
    from_dataset,
    labelled_solutions,
    load_labelled_solutions,
    to_dataset_dict,
)
from stepwise_dpo.preferences.pairs import PreferencePair, Step, load_pairs
from stepwise_dpo.preferences.synthetic import generate_pairs

DATA = Path(__file__).parents[2] / "data"

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


# ------------------------------------------------------------------------------------------------- labelled solutions


def write(tmp_path, rows, name="data.json"):
    path = tmp_path / name
    text = "".join(json.dumps(row) + "\n" for row in rows) if name.endswith("l") else json.dumps(rows)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    return path


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_both_kinds_of_rows_are_told_apart(tmp_path, name):
    rows = [
        {"prompt": "p", "chosen": [{"text": "a", "label": True}, "b"], "rejected": [{"text": "c", "label": False}]},
        {"prompt": "q", "completions": ["d", "e"], "labels": [True, None]},
    ]
    assert load_labelled_solutions(write(tmp_path, rows, name)) == (
        [
            LabelledSolution("p", ("a", "b"), (True, None)),
            LabelledSolution("p", ("c",), (False,)),
            LabelledSolution("q", ("d", "e"), (True, None)),
        ],
        0,
    )


def test_the_bundled_data_are_labelled_solutions():
    pairs = load_pairs(DATA / "heldout_prm.json")
    solutions, repeated = load_labelled_solutions(DATA / "heldout_prm.json")
    assert repeated == 0
    assert solutions == labelled_solutions(pairs)
    assert [solution.labels for solution in solutions[:2]] == [
        tuple(step.label for step in side) for side in (pairs[0].chosen, pairs[0].rejected)
    ]


def test_repetitions_are_left_out_and_their_labels_kept(tmp_path):
    rows = [
        {"prompt": "p", "completions": ["a", "b"], "labels": [True, None]},
        {"prompt": "p", "completions": ["a"], "labels": [True]},
        {"prompt": "p", "completions": ["a", "b"], "labels": [None, False]},
        {"prompt": "p", "chosen": ["a"], "rejected": ["a", "b"]},
    ]
    solutions = [LabelledSolution("p", ("a", "b"), (True, False)), LabelledSolution("p", ("a",), (True,))]
    assert load_labelled_solutions(write(tmp_path, rows)) == (solutions, 3)


def test_a_contradiction_is_refused(tmp_path):
    rows = [{"prompt": "p", "completions": ["a", "b"], "labels": [True, label]} for label in (True, False)]
    with pytest.raises(DataError, match=r"data\.json: row 2: step 2 is labelled wrong, but row 1 says the opposite"):
        load_labelled_solutions(write(tmp_path, rows))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"labels": [True, -100]}, r"labels\[1\] must be true, false or null, not -100; a step without a label has nu"),
        ({"labels": [True, 1]}, r"labels\[1\] must be true, false or null, not 1$"),
        ({"labels": [True]}, "labels must have one entry for each of the 2 completions, not 1"),
        ({"labels": "++"}, 'labels must be a list, not "\\+\\+"'),
        ({"completions": "a b"}, 'completions must be a list, not "a b"'),
        ({"completions": [], "labels": []}, "completions must have 1 to 1,000 steps, not 0"),
        ({"completions": ["a", " "]}, r'completions\[1\] must be a non-blank string, not " "'),
        ({"completions": ["a", {"text": "b"}]}, r"completions\[1\] must be a non-blank string, not an object"),
        ({"prompt": None}, "prompt must be a non-blank string, not null"),
        ({"lables": [True]}, "lables: unknown key"),
    ],
)
def test_a_bad_stepwise_row_is_named(tmp_path, changes, expected):
    good = {"prompt": "p", "completions": ["a", "b"], "labels": [True, False]}
    with pytest.raises(DataError, match=rf"data\.jsonl: line 2: {expected}"):
        load_labelled_solutions(write(tmp_path, [good, {**good, **changes}], "data.jsonl"))


def test_what_else_can_be_wrong_with_a_file(tmp_path):
    for content, expected in [
        ("", "the file is empty"),
        ("{}", "expected a JSON list of rows, not an object"),
        ("[]", "has 0 rows"),
        ("[1]", "row 1: must be an object"),
        ('[{"prompt": "p", "completions": ["a"], "labels": [true], "labels": [false]}]', "labels is given twice"),
        ('[{"prompt": "p", "chosen": ["a"], "rejected": [{"text": "b", "label": -100}]}]', r"rejected\[0\]\.label"),
        ('[{"prompt": "p", "completions": ["a"]}]', "row 1: labels is missing"),
    ]:
        path = tmp_path / "f.json"
        path.write_text(content)
        with pytest.raises(DataError, match=rf"f\.json: (row 1: )?{expected}"):
            load_labelled_solutions(path)
    for path, expected in [(tmp_path / "none.json", "No such file"), (tmp_path, "is a folder")]:
        with pytest.raises(DataError, match=expected):
            load_labelled_solutions(path)


def test_a_labelled_solution_checks_itself():
    with pytest.raises(DataError, match="labels must have one entry for each of the 2 steps, not 1"):
        LabelledSolution("p", ("a", "b"), (True,))
    with pytest.raises(DataError, match=r"labels\[0\] must be true, false or null, not -100"):
        LabelledSolution("p", ("a",), (-100,))
