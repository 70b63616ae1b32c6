import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stepwise_dpo.errors import ConfigError, RunError
from stepwise_dpo.learning.bundling import calibration_of, checkpoint_of, load_checkpoint, save_policy, save_reward
from stepwise_dpo.learning.evaluation import answer_prompts
from stepwise_dpo.learning.head_settings import HeadSettings
from stepwise_dpo.learning.loading import Policy, load_policy
from stepwise_dpo.learning.pretraining import (
    HELD_OUT_SEED,
    PretrainingPlan,
    SolvedProblems,
    build_model,
    build_tokenizer,
    pretrain,
    rate_factor,
)
from stepwise_dpo.learning.pretraining_line import checkpoints
from stepwise_dpo.learning.rewards import LLMRewardModel
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.preferences.synthetic import draw_solution, generate_pairs, solves

SMALL = PretrainingPlan(
    steps=6,
    warmup=2,
    span=6,
    cooldown=2,
    grow=2,
    batch_size=4,
    d_model=32,
    d_ff=64,
    layers=1,
    decoder_layers=1,
    heads=2,
    vocabulary=300,
    measure_every=2,
    held_out=6,
)
MINIATURE = PretrainingPlan(
    steps=400,
    warmup=40,
    span=400,
    cooldown=100,
    batch_size=32,
    d_model=64,
    d_ff=128,
    layers=2,
    decoder_layers=2,
    heads=8,
    vocabulary=400,
    measure_every=400,
    held_out=50,
    families=("chain",),
    problem_steps=(2, 2),
    max_number=20,
)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(SMALL)


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    folder = tmp_path_factory.mktemp("line")
    return folder, pretrain(SMALL, folder)


@pytest.mark.parametrize(
    "text", ["12 + 345 = 357", "Answer: 7", "a\n\nb", "naïve ≤ 雪 🪜", " two  spaces ", "x\ty", ""]
)
def test_every_text_comes_back(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_digits_stand_alone_and_the_separator_is_a_line_break(tokenizer):
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("12 + 345")["input_ids"])
    assert [piece for piece in pieces if piece.isdigit()] == ["1", "2", "3", "4", "5"]
    policy = Policy("small", build_model(SMALL, tokenizer), tokenizer)
    assert policy.step_tokenizer().separator == "\n"


def test_problems_depend_on_their_index_alone(tokenizer):
    policy = Policy("small", build_model(SMALL, tokenizer), tokenizer)
    forwards, backwards = SolvedProblems(policy, SMALL), SolvedProblems(policy, SMALL)
    rows = [forwards[index] for index in range(20)]
    assert [backwards[index] for index in reversed(range(20))] == rows[::-1]
    # The same problems as are drawn one by one, only in another order.
    drawn = [draw_solution(SMALL.seed, index, steps=(2, 2)) for index in range(16)]  # the short ones come first
    expected = sorted(policy.step_tokenizer().encode_prompt(solution.prompt) for solution in drawn)
    assert sorted(row["input_ids"] for row in rows[:16]) == expected


def test_learning_rates_rise_fall_and_cool_down():
    plan = PretrainingPlan(steps=100, warmup=10, span=210, cooldown=40)
    factors = [rate_factor(plan, step) for step in (0, 5, 10, 60, 80, 100)]
    assert factors == pytest.approx([0, 0.5, 1, (1 + 2**-0.5) / 2, 0.5 * (1 + math.cos(0.35 * math.pi)) / 2, 0])


def test_what_is_to_be_avoided_is_not_trained_on(tokenizer):
    policy = Policy("small", build_model(SMALL, tokenizer), tokenizer)
    prompt = draw_solution(SMALL.seed, 0, steps=(2, 2)).prompt
    ids = policy.step_tokenizer().encode_prompt(prompt)
    assert any(SolvedProblems(policy, SMALL)[index]["input_ids"] == ids for index in range(16))
    assert not any(SolvedProblems(policy, SMALL, {prompt})[index]["input_ids"] == ids for index in range(16))


def test_an_interrupted_line_ends_where_an_uninterrupted_one_does(line, tmp_path):
    folder, measured = line
    assert [m["global_step"] for m in measured] == [2, 4, 6]
    begun = pretrain(SMALL, tmp_path, stop_at_solve_rate=0.0)  # any rate will do: stops at the first measurement
    assert [m["global_step"] for m in begun] == [2]
    assert pretrain(SMALL, tmp_path) == measured
    one, other = (load_checkpoint(checkpoint_of(path)).model.state_dict() for path in (folder, tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert pretrain(SMALL, tmp_path) == measured  # nothing is left to do


def test_case_07_pickled_weights_of_a_line_are_not_read(line, tmp_path):
    checkpoint = tmp_path / "checkpoint-6"
    shutil.copytree(checkpoint_of(line[0]), checkpoint)
    torch.save(load_checkpoint(checkpoint).model.state_dict(), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        load_checkpoint(checkpoint)


def test_another_plan_needs_another_folder(line):
    with pytest.raises(RunError, match="another plan"):
        pretrain(replace(SMALL, seed=1), line[0])
    with pytest.raises(RunError, match="other prompts left out"):
        pretrain(SMALL, line[0], avoid=["Start with 1."])


def flip(file):
    """Change a bit of the last weight."""
    content = bytearray(file.read_bytes())
    content[-50] ^= 0x40
    file.write_bytes(content)


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_damaged_checkpoint_is_passed_over_and_written_anew(line, tmp_path):
    copy = shutil.copytree(line[0], tmp_path / "line")
    flip(copy / "checkpoint-6" / "model.safetensors")
    shutil.copytree(copy / "checkpoint-4", copy / "checkpoint-4 (copy)")
    shutil.copytree(copy / "checkpoint-4", copy / "checkpoint-foo")
    assert checkpoint_of(copy).name == "checkpoint-4"
    skipped = []
    assert pretrain(SMALL, copy, on_skipped=skipped.append) == line[1]
    assert skipped == ["checkpoint-6 (model.safetensors has other contents than were written)"]
    one, other = (load_checkpoint(checkpoint_of(folder)).model.state_dict() for folder in (line[0], copy))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("optimizer.pt", Path.unlink, "is missing"),
        ("scheduler.pt", Path.unlink, "is missing"),
        ("optimizer.pt", cut, "to its end"),
        ("scheduler.pt", cut, "to its end"),
        ("rng_state.pth", cut, "to its end"),
        ("model.safetensors", cut, "to its end"),
        ("config.json", cut, "to its end"),
        ("trainer_state.json", cut, "to its end"),
        ("trainer_state.json", lambda file: file.write_text("{}"), "doesn't hold the line's measurements"),
        ("trainer_state.json", lambda file: file.write_text("[]"), "doesn't hold the line's measurements"),
    ],
)
def test_each_part_of_a_checkpoint_must_be_there(line, tmp_path, name, damage, says, sealed):
    copy = shutil.copytree(line[0], tmp_path / "line")
    if not sealed:  # as lines were written before their checkpoints had manifests
        for checkpoint in copy.glob("checkpoint-*"):
            (checkpoint / "manifest.json").unlink()
    assert [checkpoint.name for checkpoint in checkpoints(copy)] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    damage(copy / "checkpoint-6" / name)
    skipped = []
    assert [checkpoint.name for checkpoint in checkpoints(copy, skipped.append)] == ["checkpoint-2", "checkpoint-4"]
    (words,) = skipped
    assert words.startswith(f"checkpoint-6 ({name} ")
    if not sealed:
        assert says in words


def test_a_line_that_cannot_be_told_is_refused(tmp_path):
    (tmp_path / "line.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunError, match=r"line.json is damaged; choose another folder"):
        pretrain(SMALL, tmp_path)
    (tmp_path / "line.json").unlink()
    (tmp_path / "line.json").mkdir()
    with pytest.raises(RunError, match=r"line.json' can't be read"):
        pretrain(SMALL, tmp_path)


def test_a_step_that_would_break_the_weights_ends_the_line(tmp_path):
    with pytest.raises(RunError, match=r"global_step 1; .* nothing was saved; give a plan with lower learning rates"):
        pretrain(replace(SMALL, position_bias=float("inf")), tmp_path)


@pytest.mark.parametrize("shape", [{"layers": 1, "decoder_layers": 2}, {"d_model": 30, "heads": 4}])
def test_a_shape_that_cannot_answer_is_refused_at_once(shape):
    with pytest.raises(ConfigError, match="must"):
        PretrainingPlan(**shape)


def test_checkpoints_are_found_by_what_they_solve(line, tmp_path):
    assert checkpoint_of(line[0], 0.0).name == "checkpoint-2"
    assert checkpoint_of(line[0]).name == "checkpoint-6"
    with pytest.raises(RunError, match=r"no checkpoint .* solves 100%"):
        checkpoint_of(line[0], 1.0)
    with pytest.raises(RunError, match="holds no checkpoint"):
        checkpoint_of(tmp_path)


def test_bundled_models_are_ordinary_folders(line, tmp_path):
    policy = load_checkpoint(checkpoint_of(line[0]))
    measured = save_policy(policy, tmp_path / "policy", SMALL, 6, ["python -m …"])
    assert measured["solve_rate"] == 0
    again = load_policy(str(tmp_path / "policy"))
    assert again.model.dtype == torch.float32
    ours, theirs = policy.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)  # rounded to what the file holds
    card = (tmp_path / "policy" / "README.md").read_text(encoding="utf-8")
    assert "python -m …" in card
    assert '"vocabulary": 300' in card

    pairs = generate_pairs(24, 3)
    report = save_reward(
        policy, tmp_path / "reward", SMALL, 6, ["x"], calibration_pairs=pairs[:12], held_out_pairs=pairs[12:]
    )
    judge = LLMRewardModel.from_pretrained(str(tmp_path / "reward"))
    assert judge.settings.head == "likelihood"
    assert (judge.settings.scale, judge.settings.bias) != (1.0, 0.0)
    assert f"{report['auroc']:.4f}" in (tmp_path / "reward" / "README.md").read_text(encoding="utf-8")
    for name in ("policy", "reward"):
        config = json.loads((tmp_path / name / "config.json").read_text(encoding="utf-8"))
        assert "_name_or_path" not in config  # no place of the machine that made it


def test_a_line_that_is_no_judge_yet_writes_nothing(line, tmp_path):
    policy = load_checkpoint(checkpoint_of(line[0]))
    one_step = [PreferencePair(pair.prompt, pair.chosen[:1], pair.rejected[:1]) for pair in generate_pairs(24, 3)]
    flipped = [
        PreferencePair(pair.prompt, *([Step(side[0].text, not side[0].label)] for side in (pair.chosen, pair.rejected)))
        for pair in one_step
    ]
    # A judge that finds right steps likelier finds wrong ones likelier by the opposite labels, or the other way round.
    judge = LLMRewardModel(policy.model, policy.tokenizer, HeadSettings("likelihood"))
    refused = []
    for pairs in (one_step, flipped):
        try:
            calibration_of(judge, pairs)
        except RunError:
            refused.append(pairs)
    (pairs,) = refused
    with pytest.raises(RunError, match="no judge; train it for more steps"):
        save_reward(policy, tmp_path / "reward", SMALL, 6, ["x"], calibration_pairs=pairs, held_out_pairs=pairs)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute where it has two cores to itself
def test_a_miniature_of_the_bundled_line_learns_to_solve(tmp_path):
    measured = pretrain(MINIATURE, tmp_path)
    checkpoint = checkpoint_of(tmp_path)
    history = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert losses[-1] < 0.5  # nats per token; it began at about 5
    assert measured[-1]["solve_rate"] >= 0.25

    policy = load_checkpoint(checkpoint)
    fresh = [
        draw_solution(HELD_OUT_SEED - 1, index, families=("chain",), steps=(2, 2), max_number=20)
        for index in range(100)
    ]
    answers = answer_prompts(policy, [solution.prompt for solution in fresh])
    solved = sum(solves(solution.prompt, answer.steps) for solution, answer in zip(fresh, answers, strict=True))
    assert solved >= 25
