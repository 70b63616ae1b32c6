import json
import os
import pickle
import time
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences import pairs as module
from stepwise_dpo.preferences import rows
from stepwise_dpo.preferences.pairs import (
    PreferencePair,
    Step,
    divergence,
    dump_pairs,
    first_error,
    load_pairs,
    parse_pairs,
    save_pairs,
)
from stepwise_dpo.preferences.step_splitting import split_steps

ROW = {"prompt": "1 + 1?", "chosen": ["1 + 1 = 2", {"text": "Answer: 2", "label": True}], "rejected": ["Answer: 3"]}


def make_pair(chosen=("a", "b"), rejected=("a", "c"), **fields):
    return PreferencePair("p", [Step(*_args(s)) for s in chosen], [Step(*_args(s)) for s in rejected], **fields)


def _args(step):
    return (step,) if isinstance(step, str) else step


def message(data, source="f.json"):
    with pytest.raises(DataError) as caught:
        parse_pairs(data if isinstance(data, (bytes, str)) else json.dumps(data), source)
    return str(caught.value)


def changed(path, value):
    """One row with the value at a path such as ("chosen", 1, "label") replaced."""
    row = json.loads(json.dumps(ROW))
    at = row
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return [row]


class TestConstruction:
    def test_positional_steps_and_lists(self):
        pair = PreferencePair(prompt="p", chosen=[Step("a", True)], rejected=[Step("b")])
        assert (pair.chosen, pair.rejected, pair.id, pair.meta) == ((Step("a", True),), (Step("b", None),), "", {})

    def test_frozen(self):
        with pytest.raises(FrozenInstanceError):
            make_pair().prompt = "q"
        with pytest.raises(FrozenInstanceError):
            Step("a").label = True

    def test_replace_pickle_and_hash(self):
        pair = make_pair(id="7", meta={"k": [1]})
        assert replace(pair, id="8").id == "8"
        assert pickle.loads(pickle.dumps(pair)) == pair
        assert hash(pair) == hash(replace(pair))

    def test_meta_is_not_the_callers_dict(self):
        meta = {"k": 1}
        pair = make_pair(meta=meta)
        meta["k"] = 2
        assert pair.meta == {"k": 1}

    @pytest.mark.parametrize("text", ["", " \n\t", None, 3, "\ud800", "x" * 100_001])
    def test_bad_text(self, text):
        with pytest.raises(DataError, match="text must"):
            Step(text)
        with pytest.raises(DataError, match="prompt must"):
            PreferencePair(text, [Step("a")], [Step("b")])

    @pytest.mark.parametrize("label", [0, 1, "true", 1.0, []])
    def test_a_label_is_a_bool_or_none(self, label):
        with pytest.raises(DataError, match="label must be true, false or null"):
            Step("a", label)

    @pytest.mark.parametrize(
        ("chosen", "expected"),
        [
            ([], "chosen must have 1 to 1,000 steps, not 0"),
            ("a", 'chosen must be a sequence of Step, not "a"'),
            (None, "chosen must be a sequence of Step, not null"),
            (["a"], r'chosen\[0\] must be a Step, not "a"'),
            ([Step("a")] * 1_001, "chosen must have 1 to 1,000 steps, not 1,001"),
        ],
    )
    def test_bad_side(self, chosen, expected):
        with pytest.raises(DataError, match=expected):
            PreferencePair("p", chosen, [Step("b")])

    def test_a_thousand_steps_are_allowed(self):
        assert len(make_pair(chosen=["a"] * 1_000).chosen) == 1_000

    @pytest.mark.parametrize(
        ("meta", "expected"),
        [
            ({"a": float("nan")}, "meta.a must be a finite number, not nan"),
            ({"a": [1, {"b": float("inf")}]}, r"meta.a\[1\].b must be a finite number"),
            ({"a": 2**64}, "meta.a must be an integer within 64 bits, not 18446744073709551616"),
            ({"a": -(2**63) - 1}, "meta.a must be an integer within 64 bits"),
            ({"a": 10**5000}, "an integer of 25 digits or more"),
            ({1: 2}, "meta must have strings as keys, not 1"),
            ({"a": (1,)}, "meta.a must be JSON, not a tuple"),
            ({"a": "\udfff"}, r"meta.a must be valid Unicode; it has the lone surrogate \\udfff"),
            ({"\udfff": 1}, "a key of meta must be valid Unicode"),
            ({"a": list(range(10_000))}, "at most 10,000 values"),
            ([], "meta must be an object, not a list of 0"),
        ],
    )
    def test_bad_meta(self, meta, expected):
        with pytest.raises(DataError, match=expected):
            make_pair(meta=meta)

    def test_meta_that_contains_itself(self):
        meta = {}
        meta["a"] = meta
        with pytest.raises(DataError, match="nested at most 20 levels"):
            make_pair(meta=meta)

    @pytest.mark.parametrize("id_", [7, None, "x" * 201, "\ud800"])
    def test_bad_id(self, id_):
        with pytest.raises(DataError, match="id must be"):
            make_pair(id=id_)


class TestReadings:
    @pytest.mark.parametrize(
        ("labels", "expected"), [([True, False, False], 1), ([True, True], None), ([None, False], 1), ([None], None)]
    )
    def test_first_error(self, labels, expected):
        assert first_error([Step("a", label) for label in labels]) == expected

    @pytest.mark.parametrize(
        ("chosen", "rejected", "expected"),
        [("ab", "ac", 1), ("ab", "xb", 0), ("ab", "abc", 2), ("abc", "ab", 2), ("ab", "ab", 2)],
    )
    def test_divergence(self, chosen, rejected, expected):
        assert divergence(make_pair(chosen, rejected)) == expected

    def test_no_problems(self):
        assert make_pair([("a", True), ("b", True)], [("a", True), ("c", False)]).problems() == []
        assert make_pair().problems() == []

    @pytest.mark.parametrize(
        ("chosen", "rejected", "expected"),
        [
            ("ab", "ab", "chosen and rejected are identical, so there is nothing to prefer"),
            ("abc", "ab", "rejected is only the beginning of the other side (its first 2 steps)"),
            ("ab", "abc", "chosen is only the beginning of the other side (its first 2 steps)"),
            (["a", ("b", False)], "ac", "chosen step 2 is labelled wrong"),
            (
                "ab",
                [("a", True), ("c", True)],
                "every rejected step is labelled right, so the labels don't say what is wrong with it",
            ),
            (
                [("a", True), "b"],
                [("a", False), "c"],
                "step 1, the same on both sides, is labelled right on one and wrong on the other",
            ),
        ],
    )
    def test_each_problem(self, chosen, rejected, expected):
        assert make_pair(chosen, rejected).problems() == [expected]


class TestSplitSteps:
    @pytest.mark.parametrize(
        ("text", "separator", "expected"),
        [
            ("a\n\n  b \r\n c", "\n", ["a", "b", "c"]),
            ("Step 1: a Step 2: b", "\n", ["Step 1: a", "Step 2: b"]),
            ("\nstep 1: a step 2 : b\n", "\n", ["step 1: a", "step 2 : b"]),
            ("Step 1: a Step 2: b\nStep 3: c", "\n", ["Step 1: a Step 2: b", "Step 3: c"]),
            ("First. Step 1: a", "\n", ["First.", "Step 1: a"]),
            ("one step", "\n", ["one step"]),
            ("a || b||c ||", " || ", ["a", "b", "c"]),
            ("a\nb", " || ", ["a\nb"]),
            ("Step 1: a Step 2: b ||", " || ", ["Step 1: a", "Step 2: b"]),
            ("Doorstep 1: a", "\n", ["Doorstep 1: a"]),
            (" \n ", "\n", []),
            ("", "\n", []),
        ],
    )
    def test_table(self, text, separator, expected):
        assert split_steps(text, separator) == expected

    def test_empty_separator(self):
        with pytest.raises(DataError, match="separator must not be empty"):
            split_steps("a", "")

    @given(
        st.lists(st.text("ab .1=", min_size=1).map(str.strip).filter(bool), min_size=2), st.sampled_from(["\n", " || "])
    )
    def test_joined_steps_come_back(self, steps, separator):
        assert split_steps(separator.join(steps), separator) == steps


class TestParsing:
    def test_native(self):
        row = {**ROW, "id": "x", "meta": {"source": "hand"}}
        chosen = [Step("1 + 1 = 2"), Step("Answer: 2", True)]
        expected = PreferencePair("1 + 1?", chosen, [Step("Answer: 3")], "x", {"source": "hand"})
        assert parse_pairs(json.dumps([row]), "f.json") == [expected]

    def test_historic(self):
        rows = [{"prompt": "p", "chosen": "Step 1: a\nStep 2: b", "rejected": "Step 1: a Step 2: c"}]
        (pair,) = parse_pairs(json.dumps(rows), "f.json")
        assert pair == make_pair(("Step 1: a", "Step 2: b"), ("Step 1: a", "Step 2: c"), id="1")

    def test_missing_ids_are_row_numbers(self):
        rows = [ROW, {**ROW, "id": "x"}, {**ROW, "id": None}, {**ROW, "id": ""}]
        assert [p.id for p in parse_pairs(json.dumps(rows), "f.json")] == ["1", "x", "3", "4"]

    def test_null_label_and_meta_count_as_missing(self):
        assert parse_pairs(json.dumps(changed(["chosen", 1, "label"], None)), "f.json")[0].chosen[1].label is None
        assert parse_pairs(json.dumps(changed(["meta"], None)), "f.json")[0].meta == {}

    def test_case_16_one_byte_order_mark_and_emoji_and_right_to_left(self):
        data = json.dumps(changed(["prompt"], "\U0001f600 שלום"), ensure_ascii=False)
        for with_mark in (b"\xef\xbb\xbf" + data.encode(), "\ufeff" + data):
            assert parse_pairs(with_mark, "f.json")[0].prompt == "\U0001f600 שלום"
        assert "is not JSON" in message("\ufeff\ufeff" + data)

    def test_json_lines(self):
        line = json.dumps(changed(["prompt"], "a\u2028b")[0], ensure_ascii=False)
        pairs = parse_pairs(f"{line}\r\n\n{line}", "f.JSONL")
        assert [p.id for p in pairs] == ["1", "3"]
        assert pairs[0].prompt == "a\u2028b"
        assert message(f"{line}\n\n{{]", "f.jsonl").startswith("f.jsonl: line 3: is not JSON: ")
        assert message("\n\n", "f.jsonl") == "f.jsonl: has 0 rows; expected 1 to 100,000"
        assert message(f"{line}\n3", "f.jsonl").startswith("f.jsonl: line 2: must be an object with prompt, chosen, ")

    def test_empty(self):
        assert message("[]") == "f.json: has 0 rows; expected 1 to 100,000"
        assert message(b" \n") == "f.json: the file is empty; expected a JSON list of rows"

    def test_json_lines_under_another_name_gets_a_hint(self):
        assert message(json.dumps(ROW) + "\n" + json.dumps(ROW)).endswith("its name must end in .jsonl")

    @pytest.mark.parametrize(
        ("path", "value", "expected"),
        [
            (["prompt"], " ", 'prompt must be a non-blank string, not " "'),
            (["prompt"], 3, "prompt must be a non-blank string, not 3"),
            (["prompt"], "x" * 100_001, f'prompt must have at most 100,000 characters, not 100,001: "{"x" * 40}..."'),
            (["chosen"], [], "chosen must have 1 to 1,000 steps, not 0"),
            (["chosen"], "\n", "chosen must have 1 to 1,000 steps, not 0"),
            (["chosen"], ["a"] * 1_001, "chosen must have 1 to 1,000 steps, not 1,001"),
            (["rejected"], None, "rejected must be a list of steps or a string, not null"),
            (["rejected"], {"text": "a"}, "rejected must be a list of steps or a string, not an object"),
            (["rejected", 0], 7, "rejected[0] must be a string or an object with text, not 7"),
            (["rejected", 0], "", 'rejected[0] must be a non-blank string, not ""'),
            (["chosen", 1, "text"], [], "chosen[1].text must be a non-blank string, not a list of 0"),
            (["chosen", 1, "label"], 1, "chosen[1].label must be true, false or null, not 1"),
            (["chosen", 1], {"label": True}, "chosen[1].text is missing"),
            (["chosen", 1, "labl"], True, "chosen[1].labl: unknown key; known are text, label"),
            (["chosen", 0], {"text": "b", "lable": True}, "chosen[0].lable: unknown key; did you mean 'label'?"),
            (["chosenn"], "a", "chosenn: unknown key; known are prompt, chosen, rejected, id, meta"),
            (["id"], 7, "id must be a string of at most 200 characters, not 7"),
            (["meta"], [], "meta must be an object, not a list of 0"),
            (["meta"], {"a": 2**64}, "meta.a must be an integer within 64 bits, not 18446744073709551616"),
            (["prompt"], "\ud83d", "prompt must be valid Unicode; it has the lone surrogate \\ud83d at character 0"),
            (["rejected", 0], "\x1b[31m", None),
        ],
    )
    def test_each_field(self, path, value, expected):
        rows = [ROW, *changed(path, value)]
        if expected is None:
            assert parse_pairs(json.dumps(rows), "f.json")[1].rejected[0].text == value
        else:
            assert f"f.json: row 2: {expected}" in message(rows)

    def test_a_misspelt_key_is_named_with_the_nearest(self):
        row = {"prompt": "p", "chosn": "a", "rejected": "b"}
        assert message([row]).splitlines() == [
            "f.json: row 1: chosn: unknown key; did you mean 'chosen'? (and 1 other problem)",
            "f.json: row 1: chosen is missing",
        ]

    def test_ten_problems_are_listed_at_most(self):
        lines = message([*range(50)]).splitlines()
        assert lines[0] == (
            "f.json: row 1: must be an object with prompt, chosen, rejected, not 0 (and 9 or more other problems)"
        )
        assert len(lines) == 10
        assert lines[9].startswith("f.json: row 10: ")

    @pytest.mark.parametrize(
        ("right", "places"),
        [
            ([], "rows 1-20"),
            (range(1, 19), "rows 1 and 20"),
            ([2, 5, 8, 9, 12], "rows 1-2, 4-5, 7-8 and 9 more"),
            ([0, *range(4, 20)], "rows 2-4"),
        ],
    )
    def test_one_problem_of_many_rows_is_said_once(self, right, places):
        rows = [ROW if number in right else {"question": "q"} for number in range(20)]
        assert message(rows) == f"f.json: {places}: must have prompt, chosen, rejected, and has question"

    def test_a_file_of_another_format_is_not_read_to_its_end(self):
        rows = [{"question": "q"}] * 1_000
        assert message([*rows, 3]).startswith("f.json: rows 1-1000 and perhaps others: must have prompt")

    def test_what_was_seen_is_shown_without_control_characters(self):
        assert message(changed(["prompt\x1b[31m"], 1)).startswith("f.json: row 1: prompt\\u001b[31m: unknown key")

    @pytest.mark.parametrize(
        ("rows", "expected"),
        [
            ([{**ROW, "id": "x"}, ROW, {**ROW, "id": "x"}], 'row 3: id "x" must be unique, but row 1 has it too'),
            ([{**ROW, "id": "2"}, ROW], 'row 2: id "2" must be unique, but row 1 has it too'),
        ],
    )
    def test_equal_ids(self, rows, expected):
        assert message(rows) == f"f.json: {expected}"

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            ("{}", "f.json: expected a JSON list of rows, not an object"),
            ('"x"', 'f.json: expected a JSON list of rows, not "x"'),
            ("[1,\n 2", "f.json: is not JSON: Expecting ',' delimiter at line 2 column 3"),
            (b"[\n\xff]", "f.json: line 2: is not UTF-8 text (byte 0xff at offset 2)"),
            (b'["\xed\xa0\x80"]', "f.json: row 1: is not UTF-8 text (byte 0xed at offset 2, line 1)"),
        ],
    )
    def test_case_16_whole_file(self, data, expected):
        assert message(data) == expected

    @pytest.mark.parametrize(
        ("rows", "place"),
        [
            ('[{"prompt": "p", "chosen": ["a"], "rejected": ["b"]},\n {"prompt": "BAD"}]', "row 2: prompt"),
            ('[{"chosen": ["a", {"label": true, "text": "aBAD"}]}]', "row 1: chosen[1].text"),
            ('[{}, {"prompt": "p", "prompt": "BAD", "prompt": "q"}]', "row 2: prompt"),  # also where it is overruled
            ('[{"meta": {"\\ufffd": [1, {"k": "BAD"}]}}]', "row 1: meta.\ufffd[1].k"),
            ('[{"meta": {"a": {"BAD": 1}}}]', "row 1: a key of meta.a"),
            ('[{"BAD": 1}]', "row 1: a key"),
            ('[{"prompt": "p", BAD}]', "row 1:"),  # the byte breaks the row
            ('[{}, {"prompt": "BAD', "row 2:"),  # and here the end is missing
            ('[{"prompt": "BAD"}, {"chosen": ]', "row 1: prompt"),  # what comes later doesn't matter
            ('[{"id": %s, "prompt": "BAD"}]' % ("9" * 5_000), "row 1: prompt"),
            ('\ufeff \n [{"prompt": "é👍BAD"}]', "row 1: prompt"),
        ],
    )  # fmt: skip
    def test_case_16_bad_utf_8_is_refused_with_row_and_field(self, rows, place):
        data = rows.encode().replace(b"BAD", b"\xc3\x28\xff")
        at = data.index(b"\xc3\x28")
        line = data[:at].count(10) + 1
        assert message(data) == f"f.json: {place} is not UTF-8 text (byte 0xc3 at offset {at}, line {line})"

    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ('{"prompt": "p"}\n\n{"prompt": "BAD"}\n{"prompt": "BAD"}', "line 3: prompt"),
            ('{"prompt": "p"}\n{"rejected": ["a", "BAD"]}', "line 2: rejected[1]"),
            ('{"prompt": "p"}\nBAD\n', "line 2:"),
            ('\n{"prompt": "BAD\n"}', "line 2:"),
            ("BAD", "line 1:"),
        ],
    )
    def test_case_16_bad_utf_8_in_json_lines(self, text, place):
        data = text.encode().replace(b"BAD", b"\xff")
        assert message(data, "f.jsonl") == f"f.jsonl: {place} is not UTF-8 text (byte 0xff at offset {data.index(255)})"

    @pytest.mark.parametrize(
        "text",
        [
            *("BAD", "{BAD", "[BAD", "[{}BAD", '[{"a": 1}, BAD', '[{"a": }, {"b": "BAD"}]', '{"prompt": "BAD"}'),
            "[" * 100_000 + "BAD",
        ],
    )
    def test_case_16_a_byte_outside_of_rows_is_named_by_its_offset(self, text):
        data = text.encode().replace(b"BAD", b"\xff")
        assert message(data) == f"f.json: line 1: is not UTF-8 text (byte 0xff at offset {len(text.split('BAD')[0])})"

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("NaN", "meta.x must be a finite number, not nan"),
            ("-Infinity", "meta.x must be a finite number, not -inf"),
            ("1e999", "meta.x must be a finite number, not inf"),
            ('"\\ud800"', "meta.x must be valid Unicode; it has the lone surrogate \\ud800 at character 0"),
            ("1" * 5_000, "meta.x must be an integer within 64 bits, not an integer of 25 digits or more"),
            ("-" + "1" * 5_000, "meta.x must be an integer within 64 bits, not an integer of 25 digits or more"),
            ('{"a": 1, "a": 1}', "meta.x.a is given twice"),
            ("[" * 30 + "]" * 30, "meta must be nested at most 20 levels deep"),
        ],
    )
    def test_case_16_json_that_python_would_accept(self, value, expected):
        row = json.dumps(ROW)[:-1] + f', "meta": {{"x": {value}}}}}'
        assert message(f"[{json.dumps(ROW)}, {row}]") == f"f.json: row 2: {expected}"

    def test_case_16_repeated_keys(self):
        text = '[{"prompt": "p", "prompt": "q", "chosen": [{"text": "a", "text": "b"}], "rejected": "c"}]'
        assert message(text).splitlines() == [
            "f.json: row 1: prompt is given twice (and 1 other problem)",
            "f.json: row 1: chosen[0].text is given twice",
        ]

    @pytest.mark.parametrize("source", ["f.json", "f.jsonl"])
    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            ("[" * 100_000 + "]" * 100_000, "is nested too deeply"),
            ('{"a":' * 100_000 + "1" + "}" * 100_000, "is nested too deeply"),
            ("[" * 5_000_000, "is nested too deeply"),
            (json.dumps([{f"k{i}": 1 for i in range(100_000)}]), "has k0, k1"),
            ("9" * 5_000_000, "not an integer of 25 digits or more"),
        ],
        ids=["lists", "objects", "open", "keys", "digits"],
    )
    def test_case_15_hostile_input_is_refused_in_a_second(self, data, expected, source):
        if source == "f.jsonl" and expected.startswith("has k0"):
            data = data[1:-1]
        start = time.perf_counter()
        assert expected in message(data, source)
        assert time.perf_counter() - start < 1

    def test_case_15_a_file_that_is_too_large_is_refused_in_a_second(self, tmp_path):
        for name in ("f.json", "f.jsonl"):
            with (tmp_path / name).open("wb") as file:
                file.truncate(2**40)  # a hole: no byte of it is stored
            start = time.perf_counter()
            with pytest.raises(DataError, match=f"{name}: is larger than 64 MiB"):
                load_pairs(tmp_path / name)
            assert time.perf_counter() - start < 1

    def test_case_15_size_limits(self, monkeypatch):
        assert message(b" " * (rows.MAX_BYTES + 1)) == "f.json: is larger than 64 MiB"
        monkeypatch.setattr(rows, "MAX_PAIRS", 2)
        assert message([ROW] * 3) == "f.json: has 3 rows; expected 1 to 2"
        assert message("\n".join([json.dumps(ROW)] * 3), "f.jsonl") == "f.jsonl: has 3 rows; expected 1 to 2"
        assert len(parse_pairs(json.dumps([ROW] * 2), "f.json")) == 2


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
sides = st.lists(st.builds(Step, texts, st.sampled_from([None, True, False])), min_size=1, max_size=4)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abé\u2028 ."), inner, max_size=3),
    max_leaves=8,
)
metas = st.dictionaries(st.text("abé"), values, max_size=3)
pair_lists = st.lists(
    st.builds(PreferencePair, texts, sides, sides, texts, metas), min_size=1, max_size=4, unique_by=lambda pair: pair.id
)


class TestFiles:
    @given(pair_lists)
    def test_round_trip(self, pairs):
        text = dump_pairs(pairs)
        again = parse_pairs(text.encode(), "f.json")
        assert again == pairs
        # Equality takes 1, 1.0 and True for the same; the text doesn't.
        assert dump_pairs(again) == text

    @given(pair_lists)
    @settings(max_examples=30)
    def test_round_trip_through_files(self, tmp_path_factory, pairs):
        for name in ("f.json", "f.jsonl"):
            path = tmp_path_factory.mktemp("pairs") / name
            save_pairs(pairs, path)
            assert load_pairs(path) == pairs
            assert os.listdir(path.parent) == [name]

    def test_layout(self):
        pair = make_pair([("é", True), "b"], [("c", False)], id="1", meta={"k": [1]})
        assert dump_pairs([pair]) == (
            "[\n  {\n"
            '    "id": "1",\n'
            '    "prompt": "p",\n'
            '    "chosen": [\n      {"text": "é", "label": true},\n      {"text": "b"}\n    ],\n'
            '    "rejected": [\n      {"text": "c", "label": false}\n    ],\n'
            '    "meta": {"k": [1]}\n'
            "  }\n]\n"
        )

    def test_pairs_without_ids_are_written_without_and_numbered_when_read(self):
        text = dump_pairs([make_pair(), make_pair()])
        assert '"id"' not in text
        assert [p.id for p in parse_pairs(text, "f.json")] == ["1", "2"]

    @pytest.mark.parametrize("ids", [("x", "x"), ("2", "")])
    def test_what_could_not_be_read_back_is_not_written(self, tmp_path, ids):
        path = tmp_path / "f.json"
        with pytest.raises(DataError, match=r"row 2: id .* must be unique, but row 1 has it too"):
            save_pairs([make_pair(id=id_) for id_ in ids], path)
        assert not path.exists()

    def test_none_or_too_many_are_not_written(self, monkeypatch):
        with pytest.raises(DataError, match="the pairs: has 0 rows; expected 1 to 100,000"):
            dump_pairs([])
        size = len(dump_pairs([make_pair()]))
        monkeypatch.setattr(module, "MAX_BYTES", size)
        assert len(dump_pairs([make_pair()])) == size
        monkeypatch.setattr(module, "MAX_BYTES", size - 1)
        with pytest.raises(DataError, match="the pairs: would take more than"):
            dump_pairs([make_pair()])

    def test_a_failed_save_leaves_the_earlier_file_alone(self, tmp_path, monkeypatch):
        path = tmp_path / "f.json"
        save_pairs([make_pair(id="old")], path)

        def fail(source, target):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(DataError, match="can't be written: No space left on device"):
            save_pairs([make_pair(id="new")], path)
        assert os.listdir(tmp_path) == ["f.json"]
        assert load_pairs(path)[0].id == "old"

    def test_paths_that_can_not_be_read_or_written(self, tmp_path):
        for path, expected in [
            (tmp_path / "none.json", "none.json: can't be read: No such file"),
            (tmp_path, "is a folder; expected a .json or .jsonl file"),
            ("/dev/zero", "is not a regular file"),
            ("a\0b", "a path can't contain a null byte"),
            (tmp_path / ("x" * 300), "can't be read: File name too long"),
        ]:
            with pytest.raises(DataError, match=expected):
                load_pairs(path)
        with pytest.raises(DataError, match="a path can't contain a null byte"):
            save_pairs([make_pair()], "a\0b")
        with pytest.raises(DataError, match="can't be written: No such file"):
            save_pairs([make_pair()], tmp_path / "none" / "f.json")

    def test_an_unreadable_file(self, tmp_path, monkeypatch):
        # Permissions don't stop root, as which tests often run, so the refusal is simulated.
        (tmp_path / "f.json").write_text("[]")

        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("builtins.open", refuse)
        with pytest.raises(DataError, match=r"f\.json: can't be read: Permission denied"):
            load_pairs(tmp_path / "f.json")

    def test_a_file_that_is_too_large(self, tmp_path, monkeypatch):
        monkeypatch.setattr(rows, "MAX_BYTES", 10)
        (tmp_path / "f.json").write_text("[" + " " * 20 + "]")
        with pytest.raises(DataError, match="is larger than"):
            load_pairs(tmp_path / "f.json")


def test_a_pair_that_was_read_has_every_field_of_one_that_was_made():
    (read,) = parse_pairs(json.dumps([ROW]), "f.json")
    for made in (read, read.chosen[0], read.rejected[0]):
        assert replace(made) == made
