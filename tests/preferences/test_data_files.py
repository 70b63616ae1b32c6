from pathlib import Path

import pytest

from stepwise_dpo.preferences.pairs import Step, dump_pairs, load_pairs
from stepwise_dpo.preferences.synthetic import CORRUPTIONS, FAMILIES, check_solution, generate_pairs, solves

DATA = Path(__file__).parents[2] / "data"
TRAINING, HELD_OUT = DATA / "synthetic_prm.json", DATA / "heldout_prm.json"


def test_both_files_are_what_their_commands_make():
    training = generate_pairs(240, 7)
    held_out = generate_pairs(120, 1007, avoid={pair.prompt for pair in training})
    assert TRAINING.read_bytes().decode() == dump_pairs(training)
    assert HELD_OUT.read_bytes().decode() == dump_pairs(held_out)
    assert load_pairs(TRAINING) == training
    assert load_pairs(HELD_OUT) == held_out


def test_the_commands_are_documented():
    text = (DATA / "README.md").read_text(encoding="utf-8")
    command = "python -m stepwise_dpo data generate"
    assert f"{command} --n 240 --seed 7 --output data/synthetic_prm.json\n" in text
    held_out = "--n 120 --seed 1007 --avoid data/synthetic_prm.json --output data/heldout_prm.json\n"
    assert f"{command} {held_out}" in text


def test_no_prompt_is_in_both():
    prompts = [pair.prompt for path in (TRAINING, HELD_OUT) for pair in load_pairs(path)]
    assert len(set(prompts)) == len(prompts) == 360


@pytest.mark.parametrize("path", [TRAINING, HELD_OUT], ids=lambda path: path.stem)
def test_all_labels_agree_with_the_checker(path):
    pairs = load_pairs(path)
    for pair in pairs:
        for side in (pair.chosen, pair.rejected):
            assert [step.label for step in side] == check_solution(pair.prompt, [step.text for step in side])
        assert solves(pair.prompt, [step.text for step in pair.chosen])
        assert not solves(pair.prompt, [step.text for step in pair.rejected])
        assert pair.problems() == []
    assert {pair.meta["family"] for pair in pairs} == set(FAMILIES)
    assert {pair.meta["corruption"] for pair in pairs} == set(CORRUPTIONS)


def test_the_historic_rows_are_split_into_steps():
    first, second = load_pairs(DATA / "historic_two_rows.json")
    assert [len(side) for pair in (first, second) for side in (pair.chosen, pair.rejected)] == [3, 3, 3, 3]
    assert first.rejected[1] == Step("Step 2: 15 - 10 = 5 are left.")
    assert (first.id, second.id, second.problems()) == ("1", "2", [])
