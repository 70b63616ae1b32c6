"""The models in data/models keep what their cards say."""

import json
import re
from dataclasses import asdict

import pytest
from safetensors import safe_open

from stepwise_dpo.errors import DataError
from stepwise_dpo.learning import onpolicy
from stepwise_dpo.learning.evaluation import Answer
from stepwise_dpo.learning.loading import load_policy
from stepwise_dpo.learning.names import BUNDLED, DATA_DIR, MODELS_DIR, POLICY, REWARD
from stepwise_dpo.learning.onpolicy import sample_mistake_in_each, sample_mistakes
from stepwise_dpo.learning.policy_benchmark import policy_report, run_policy
from stepwise_dpo.learning.pretraining import PretrainingPlan, held_out_problems, solve_rates
from stepwise_dpo.learning.reward_benchmark import judge_pairs, reward_report, tuned_threshold
from stepwise_dpo.learning.rewards import LLMRewardModel
from stepwise_dpo.preferences.pairs import first_error, load_pairs
from stepwise_dpo.preferences.synthetic import check_solution, draw_solution, generate_pairs, solves

MB = 1_000_000
HELD_OUT = load_pairs(DATA_DIR / "heldout_prm.json")
COMPARED_ON = load_pairs(DATA_DIR / "onpolicy_heldout_prm.json")


@pytest.fixture(scope="module")
def policy():
    return load_policy(POLICY)


@pytest.fixture(scope="module")
def judge():
    return LLMRewardModel.from_pretrained(REWARD)


@pytest.mark.parametrize("name", BUNDLED)
def test_folders_are_small_ordinary_and_tell_nothing_of_their_makers_machine(name):
    folder = MODELS_DIR / name
    assert {file.name for file in folder.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
    }
    for file in folder.iterdir():
        assert file.stat().st_size < 10 * MB
        assert file.suffix in (".json", ".safetensors", ".md")
    for text in ("config.json", "README.md"):
        assert "/tmp" not in (folder / text).read_text(encoding="utf-8")
    with safe_open(folder / "model.safetensors", "pt") as weights:
        shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118  # no mapping
    count = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes)
    assert 1e6 <= count <= 4.5e6


def test_the_policy_solves_some_and_fails_others(policy):
    report = policy_report(run_policy(policy, HELD_OUT))
    assert 0.35 <= report["solve_rate"] <= 0.70
    rates = [family["solve_rate"] for family in report["per_family"].values()]
    assert max(rates) - min(rates) >= 0.2


@pytest.mark.parametrize("pairs", [HELD_OUT, generate_pairs(120, 90_017)], ids=["held-out", "fresh"])
def test_the_reward_model_finds_the_first_wrong_step(judge, pairs):
    threshold = tuned_threshold(judge_pairs(judge, load_pairs(DATA_DIR / "synthetic_prm.json")))
    report = reward_report(judge_pairs(judge, pairs), threshold)
    assert report["process_bench"]["f1"] >= 90
    assert report["auroc"] >= 0.97


def test_rewards_drop_at_the_wrong_step(judge):
    dropped = 0
    for pair, rewards in zip(HELD_OUT, judge.score_pairs(HELD_OUT), strict=True):
        wrong, scores = first_error(pair.rejected), rewards.rejected
        dropped += scores[wrong] < 0 and all(score > 0 for score in scores[:wrong])
    assert dropped >= 0.9 * len(HELD_OUT)


def test_the_demo_data_are_the_policys_own_mistakes(policy):
    pairs = load_pairs(DATA_DIR / "onpolicy_prm.json")
    assert len(pairs) >= 200
    assert not {pair.prompt for pair in pairs} & {pair.prompt for pair in [*HELD_OUT, *COMPARED_ON]}
    for pair in [*pairs, *COMPARED_ON]:
        for side, right in ((pair.chosen, True), (pair.rejected, False)):
            texts = [step.text for step in side]
            assert solves(pair.prompt, texts) is right
            assert [step.label for step in side] == check_solution(pair.prompt, texts)
        assert pair.meta["first_error"] == first_error(pair.rejected)
    # Drawn again, most are the same; another machine's arithmetic may draw some others.
    avoid = {pair.prompt for name in ("synthetic", "heldout") for pair in load_pairs(DATA_DIR / f"{name}_prm.json")}
    again = [(pair.prompt, pair.rejected) for pair in sample_mistakes(policy, 40, 21, avoid=avoid)]
    assert len([pair for pair in pairs[:40] if (pair.prompt, pair.rejected) in again]) >= 20


def test_sampling_mistakes_is_seeded_and_avoids(policy):
    first = sample_mistakes(policy, 12, 5)
    assert first == sample_mistakes(policy, 12, 5)
    assert len({pair.prompt for pair in first}) == 12
    other = sample_mistakes(policy, 12, 5, avoid={first[0].prompt})
    assert first[0].prompt not in {pair.prompt for pair in other}


def test_the_demo_is_compared_on_problems_that_nobody_chose(policy):
    """Not on those that the policy fails at: another policy would solve some of them by chance."""
    names = ("synthetic", "heldout", "onpolicy")
    used = {pair.prompt for name in names for pair in load_pairs(DATA_DIR / f"{name}_prm.json")}
    drawn = []
    for index in range(len(COMPARED_ON)):
        drawn.append(draw_solution(1021, index, avoid=used).prompt)
        used.add(drawn[-1])
    assert [pair.prompt for pair in COMPARED_ON] == drawn
    again = sample_mistake_in_each(policy, 20, 1021, avoid=used - set(drawn))
    assert [pair.prompt for pair in again] == drawn[:20]
    assert again == sample_mistake_in_each(policy, 20, 1021, avoid=used - set(drawn))
    assert {pair.meta["temperature"] for pair in again} > {1.0}  # easy problems take several tries
    for pair in again:
        assert not solves(pair.prompt, [step.text for step in pair.rejected])


def test_a_mistake_in_each_is_found_at_the_last_try_or_told(policy, monkeypatch):
    problems = [draw_solution(5, index) for index in range(3)]
    # A right answer is no mistake, nor is what nobody can read, nor a right beginning without an end.
    useless = [list(problems[0].steps), ["1 + \x07 = 2", "Answer: 2"], list(problems[2].steps[:1])]
    replies = iter([*useless, *[["1 + 1 = 3", "Answer: 3"]] * 3])

    def answer(policy, prompts, **options):
        asked.append(options["temperature"])
        return [[Answer(next(replies), True)] for _ in prompts]

    asked = []
    monkeypatch.setattr(onpolicy, "sample_answers", answer)
    monkeypatch.setattr(onpolicy, "MAX_TRIES", 2)
    made = sample_mistake_in_each(policy, 3, 5)
    assert [pair.prompt for pair in made] == [problem.prompt for problem in problems]
    assert asked == [1.0, pytest.approx(onpolicy.WARMER)]
    replies = iter([list(problem.steps) for problem in problems] * 2)
    with pytest.raises(DataError, match="made no usable mistake in 2 answers to"):
        sample_mistake_in_each(policy, 3, 5)


@pytest.mark.parametrize("name", BUNDLED)
def test_cards_name_their_command_and_plan(name):
    card = (MODELS_DIR / name / "README.md").read_text(encoding="utf-8")
    assert f"python -m stepwise_dpo models pretrain {name}" in card
    plan = json.loads(card.split("```json\n")[1].split("```")[0])
    assert plan == json.loads(json.dumps(asdict(PretrainingPlan())))
    (claimed,) = re.findall(r"solve rate, greedy, .* held-out problems \| ([\d.]+)%", card)
    measured = solve_rates(load_policy(name), held_out_problems(PretrainingPlan()))["solve_rate"]
    assert 100 * measured == pytest.approx(float(claimed), abs=2)
