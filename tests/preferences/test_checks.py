import json
import pickle
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.checks import MAX_KEYS, checked, text_faults
from stepwise_dpo.preferences.pairs import PreferencePair, Step, is_stepwise, pair_row, parse_pairs
from stepwise_dpo.preferences.row_models import StepwiseRow

ROW = {"prompt": "p", "chosen": ["a", {"text": "b", "label": True}], "rejected": "c\nd", "id": "x", "meta": {"k": 1}}
STEPWISE = {"prompt": "p", "completions": ["a"], "labels": [True]}


def faults(row):
    found = checked(StepwiseRow, row) if is_stepwise(row) else pair_row(row)
    return found if isinstance(found, list) else []


def test_blank_is_what_strip_leaves_nothing_of():
    characters = map(chr, (i for i in range(sys.maxunicode + 1) if not 0xD800 <= i < 0xE000))
    blank = [c for c in characters if c.isspace() or not c.isprintable()]
    assert [c for c in blank if text_faults(c, "x")] == [c for c in blank if not c.strip()]
    assert text_faults("a", "x") == []


def test_a_pair_that_was_read_is_like_one_that_was_built():
    (read,) = parse_pairs(json.dumps([ROW]), "f.json")
    built = PreferencePair("p", [Step("a"), Step("b", True)], [Step("c"), Step("d")], "x", {"k": 1})
    assert read == built
    assert hash(read) == hash(built)
    assert repr(read) == repr(built)
    assert pickle.loads(pickle.dumps(read)) == built
    assert type(read.meta) is dict


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({**ROW, "\ud800": 1}, ["\\ud800: unknown key; known are prompt, chosen, rejected, id, meta"]),
        ({**ROW, "rejected": [{"\udfff": 1}]}, ["rejected[0].\\udfff: unknown key; known are text, label"]),
        ({**ROW, 7: 1}, ["7: unknown key; known are prompt, chosen, rejected, id, meta"]),
        ({**STEPWISE, "completion": 1}, ["completion: unknown key; known are prompt, completions, labels, id, meta"]),
        ({"prompt": "p", "labels": [], "completion": []}, ["completion: unknown key; did you mean 'completions'?"]),
        ({**STEPWISE, "completions": 7, "labels": [None] * 1_001}, ["completions must be a list, not 7"]),
        ({**STEPWISE, "labels": [True, "x"]}, ["labels must have one entry for each of the 1 completions, not 2"]),
        ({**ROW, "chosen": [{"text": "a", "label": -100}]}, ["chosen[0].label must be true, false or null, not -100"]),
        ({**ROW, "meta": {7: {"a": 1}, 10**5000: 1}}, ["meta must have strings as keys, not 7"]),
    ],
)
def test_what_is_said_of_a_row(row, expected):
    found = faults(row)
    assert [words for words, start in zip(found, expected, strict=False) if not words.startswith(start)] == []
    assert len(found) >= len(expected)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {**ROW, **{f"k{i}": 1 for i in range(200_000)}},
            "has 200,005 keys; known are prompt, chosen, rejected, id, me",
        ),
        (
            {**ROW, "chosen": [{f"k{i}": 1 for i in range(MAX_KEYS + 1)}]},
            f"chosen[0] has {MAX_KEYS + 1} keys; known are text, label",
        ),
        ({**ROW, "chosen": [{f"k{i}": 1 for i in range(MAX_KEYS)}] * 1_000}, "chosen[0].k0: unknown key; known are"),
        ({**ROW, "chosen": [0] * 1_000_000}, "chosen must have 1 to 1,000 steps, not 1,000,000"),
        (
            {**STEPWISE, "labels": [0] * 1_000_000},
            "labels must have one entry for each of the 1 completions, not 10000",
        ),
        ({**STEPWISE, "completions": 7, "labels": [None] * 1_000_000}, "completions must be a list, not 7"),
    ],
    ids=["keys", "keys of a step", "keys of steps", "steps", "labels", "labels without steps"],
)
def test_case_15_a_row_of_many_faults_is_refused_in_a_second(row, expected):
    start = time.process_time()
    assert faults(row)[0].startswith(expected)
    assert time.process_time() - start < 1


odd = st.recursive(
    st.sampled_from(["a", "", " ", "\ud800", "x" * 201, "x" * 100_001, 0, -100, 2**70, 1.5, None, True]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "label", "tex", "\ud800", "a"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("prompt", "chosen", "rejected", "id", "meta", "x"), odd))
    | st.fixed_dictionaries({"prompt": odd, "completions": odd, "labels": odd})
)
def test_every_fault_is_said_in_our_words(row):
    for words in faults(row):
        assert any(ours in words for ours in ("must ", "unknown key", " is missing"))
        assert words.isprintable()


def test_the_error_drags_none_of_pydantics_along():
    with pytest.raises(DataError) as caught:
        parse_pairs(json.dumps([{**ROW, "id": 7}]), "f.json")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
