import copy
import dataclasses

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration

from stepwise_dpo.errors import ConfigError, DataError, ModelError
from stepwise_dpo.learning.evaluation import (
    Answer,
    Evaluation,
    PairLogps,
    SolutionLogps,
    answer_prompts,
    compare_evaluations,
    evaluate_policy,
    measure_change,
    pair_logps,
    sample_answers,
)
from stepwise_dpo.learning.loading import Policy, load_policy
from stepwise_dpo.learning.rewards import LLMRewardModel
from stepwise_dpo.learning.tiny import build_tiny_tokenizer
from stepwise_dpo.learning.tokenization import StepTokenizer


@pytest.fixture(params=["tiny", "causal"])
def policy(request, causal_folder):
    return load_policy("tiny" if request.param == "tiny" else str(causal_folder))


def test_logps_dont_depend_on_the_batch(policy, pairs):
    together = pair_logps(policy, pairs, batch_size=5)
    for pair, logps in zip(pairs, together, strict=True):
        (alone,) = pair_logps(policy, [pair])
        assert logps.chosen.steps == pytest.approx(alone.chosen.steps, abs=1e-3)
        assert logps.rejected.steps == pytest.approx(alone.rejected.steps, abs=1e-3)
        assert len(logps.chosen.steps) == len(pair.chosen)


def test_logps_equal_a_plain_forward(policy, pairs):
    pair = pairs[0]
    steps = StepTokenizer(policy.tokenizer, policy.is_encoder_decoder)
    prompt, (ids, step_ids) = steps.encode_prompt(pair.prompt), steps.encode_steps(pair.chosen)
    with torch.no_grad():
        if policy.is_encoder_decoder:
            logits = policy.model(input_ids=torch.tensor([prompt]), labels=torch.tensor([ids])).logits[0]
        else:
            logits = policy.model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    values = logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)]
    expected = [values[torch.tensor(step_ids) == step].sum().item() for step in range(len(pair.chosen))]
    (logps,) = pair_logps(policy, [pair])
    assert logps.chosen.steps == pytest.approx(expected, rel=1e-5)
    assert logps.chosen.mean == pytest.approx(values.mean().item(), rel=1e-5)


def test_answers_dont_depend_on_padding(policy, pairs):
    prompts = [pair.prompt for pair in pairs[:3]]
    assert answer_prompts(policy, prompts, max_new_tokens=12) == [
        answer_prompts(policy, [prompt], max_new_tokens=12)[0] for prompt in prompts
    ]


def test_answers_of_an_encoder_that_counts_positions_dont_depend_on_padding():
    """BART's encoder has a learned vector for each column, which T5's has not."""
    tokenizer = build_tiny_tokenizer()
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        decoder_start_token_id=1,
        forced_eos_token_id=None,
    )
    torch.manual_seed(5)
    model = BartForConditionalGeneration(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(10 if weight.ndim == 2 else 1)  # so that answers depend on the prompt
    policy = Policy("bart", model, tokenizer)
    prompts = ["12 + 3", "a much longer prompt, 12 + 3 = ?", "7", "mid size prompt"]
    answers = answer_prompts(policy, prompts, max_new_tokens=12)
    assert answers == [answer_prompts(policy, [prompt], max_new_tokens=12)[0] for prompt in prompts]
    assert len({tuple(answer.steps) for answer in answers}) == 4


def test_samples_depend_on_the_seed_alone(policy, pairs):
    prompts = [pair.prompt for pair in pairs[:3]]
    settings = {"samples": 4, "max_new_tokens": 6, "batch_size": 8}
    told = []
    before = torch.get_rng_state()
    first = sample_answers(policy, prompts, seed=1, **settings, progress=lambda *words: told.append(words))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert sample_answers(policy, prompts, seed=1, **settings) == first
    assert sample_answers(policy, prompts, seed=2, **settings) != first
    assert [len(answers) for answers in first] == [4, 4, 4]
    assert any(answers[0] != answers[1] for answers in first)
    assert told == [(2, 3), (3, 3)]  # two prompts with four answers each fill a batch of eight


def test_samples_are_drawn_from_the_whole_distribution(policy, pairs):
    """The first token of 1,000 answers has the frequencies of softmax(logits / temperature)."""
    prompt, temperature, n = pairs[0].prompt, 0.5, 1_000
    ids = policy.step_tokenizer().encode_prompt(prompt)
    with torch.no_grad():
        if policy.is_encoder_decoder:
            start = torch.tensor([[policy.model.config.decoder_start_token_id]])
            logits = policy.model(input_ids=torch.tensor([ids]), decoder_input_ids=start).logits[0, -1]
        else:
            logits = policy.model(input_ids=torch.tensor([ids])).logits[0, -1]
    expected = (logits / temperature).softmax(0)
    drawn = torch.zeros_like(expected)
    generate = policy.model.generate

    def spy(**options):
        rows = generate(**options)
        first = rows[:, 1] if policy.is_encoder_decoder else rows[:, len(ids)]
        drawn.add_(torch.bincount(first, minlength=len(expected)))
        return rows

    policy.model.generate = spy
    sample_answers(policy, [prompt], samples=n, temperature=temperature, max_new_tokens=1)
    assert (drawn > 0).sum() > 50  # more than Transformers' default of the best 50
    error = (expected * (1 - expected) / n).sqrt()
    assert ((drawn / n - expected).abs() < 5 * error + 1 / n).all()


@pytest.mark.parametrize("settings", [{"samples": 0}, {"samples": 1, "temperature": 0.0}])
def test_sampling_out_of_range(policy, settings):
    with pytest.raises(ConfigError, match="must be"):
        sample_answers(policy, ["p"], **settings)


def test_an_answer_is_split_into_steps(policy, pairs):
    """A policy that has learnt one solution by heart gives it back, step by step."""
    prompt = pairs[0].prompt
    steps = StepTokenizer(policy.tokenizer, policy.is_encoder_decoder)
    ids, _ = steps.encode_steps(pairs[0].chosen)

    def say_by_heart(input_ids, **options):
        start = [[0]] if policy.is_encoder_decoder else input_ids.tolist()
        return torch.tensor([start[0] + ids])

    policy.model.generate = say_by_heart
    (answer,) = answer_prompts(policy, [prompt])
    assert answer == Answer([step.text for step in pairs[0].chosen], complete=True)


def evaluation(*gaps):
    """Pairs of one-step, two-token solutions with the given chosen minus rejected log-likelihood per token."""
    return Evaluation([PairLogps(SolutionLogps([-4 + 2 * gap], 2), SolutionLogps([-4.0], 2)) for gap in gaps], [])


def test_summary():
    figures = evaluation(0.5, -0.25, 0.0, 1.0).summary()
    assert figures["preference_accuracy"] == 0.5  # a tie is no preference
    assert figures["mean_margin"] == pytest.approx((0.5 - 0.25 + 1.0) / 4)
    assert figures["logps/rejected"] == -4
    assert "solve_rate" not in figures
    solved = Evaluation(evaluation(1.0).logps, [Answer([], True, None, True), Answer([], True, None, False)])
    assert solved.summary()["solve_rate"] == 0.5
    unknown = Evaluation(evaluation(1.0).logps, [Answer([], True, None, True), Answer([], True, None, None)])
    assert "solve_rate" not in unknown.summary()


def test_compare_gives_log_ratios_of_steps(pairs):
    before, after = evaluation(0.5), evaluation(-0.5)
    pair = copy.deepcopy(pairs[0])
    (record,) = compare_evaluations([pair], before, after)
    assert (record["before_preferred"], record["preferred"]) == ("chosen", "rejected")
    assert record["chosen_step_logratios"] == [-2.0]
    assert record["rejected_step_logratios"] == [0.0]
    assert record["chosen_score"] == -2.5
    assert (record["before_chosen_step_logps"], record["chosen_step_logps"]) == ([-3.0], [-5.0])
    assert (record["before_rejected_tokens"], record["rejected_tokens"]) == (2, 2)


def test_evaluate_policy(policy, pairs):
    judge = LLMRewardModel.from_pretrained("tiny")
    told = []
    policy.model.train()
    result = evaluate_policy(
        policy, pairs[:5], reward_model=judge, answers=3, max_new_tokens=6, batch_size=2,
        progress=lambda *words: told.append(words),
    )  # fmt: skip
    assert policy.model.training
    assert len(result.logps) == 5
    assert len(result.answers) == 3
    assert all(answer.solved is False for answer in result.answers)  # the problems are known, the weights random
    assert all(len(answer.process_rewards) == len(answer.steps) for answer in result.answers)
    assert told == [(2, 8), (4, 8), (5, 8), (8, 8)]
    assert result.summary()["solve_rate"] == 0


def test_answers_in_several_parts(pairs, monkeypatch):
    monkeypatch.setattr("stepwise_dpo.learning.evaluation.SMALL_WEIGHTS", 1)
    told = []
    result = evaluate_policy(
        load_policy("tiny"), pairs[:5], answers=3, max_new_tokens=6, batch_size=2,
        progress=lambda *words: told.append(words),
    )  # fmt: skip
    assert len(result.answers) == 3
    assert told[-2:] == [(7, 8), (8, 8)]


def seen(margins, solved):
    """An evaluation of pairs with these margins, each side of one step and one token."""
    logps = [PairLogps(SolutionLogps([margin - 1.0], 1), SolutionLogps([-1.0], 1)) for margin in margins]
    return Evaluation(logps, [Answer([], True, solved=right) for right in solved])


def test_a_change_is_of_the_same_pairs(pairs):
    before, after = seen([-1.0, 1.0] * 20, [True, False] * 20), seen([0.5, 1.5] * 20, [True, True] * 20)
    many = [dataclasses.replace(pairs[0], prompt=str(number)) for number in range(40)]
    change = measure_change(many, before, after)
    assert (change["preference_accuracy"], change["mean_margin"], change["solve_rate"]) == (0.5, 1.0, 0.5)
    # Margins grew by 1.5 and 0.5 in turn: the mean of 40 draws has a standard error of 0.5 / sqrt(40).
    assert change["mean_margin/low"] == pytest.approx(1 - 1.96 * 0.079, abs=0.02)
    assert change["mean_margin/high"] == pytest.approx(1 + 1.96 * 0.079, abs=0.02)
    assert 0.3 < change["solve_rate/low"] < 0.4
    assert change["logps/chosen"] == pytest.approx(1.0)
    assert change["logps/rejected"] == 0
    assert "logps/rejected/low" not in change  # the same for all
    assert "solve_rate" not in measure_change(many, before, seen([0.5, 1.5] * 20, [True, None] * 20))
    answered = measure_change(many, seen([1.0] * 40, [True, False]), seen([1.0] * 40, [False, False]))
    assert answered["solve_rate"] == -0.5  # fewer answers than pairs
    together = measure_change([pairs[0]] * 40, before, after)
    assert together["solve_rate"] == 0.5
    assert "solve_rate/low" not in together  # a single problem


def test_an_answer_that_the_judge_cant_read_names_its_example(pairs):
    judge = LLMRewardModel.from_pretrained("tiny")
    with torch.no_grad():
        judge.model.shared.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match=f"answer to example '{pairs[0].id}': .+ isn't finite"):
        evaluate_policy(load_policy("policy"), pairs[:1], reward_model=judge, answers=1, max_new_tokens=9)


def test_nothing_to_evaluate_on(policy):
    with pytest.raises(DataError, match="no examples"):
        evaluate_policy(policy, [])


def test_weights_that_are_no_numbers_are_refused(pairs):
    policy = load_policy("tiny")
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="weights seem to be damaged"):
        pair_logps(policy, pairs[:2])


def test_ways_of_decoding_that_a_folder_asks_for_change_nothing(pairs):
    plain, odd = load_policy("policy"), load_policy("policy")
    own = odd.model.generation_config
    own.min_new_tokens, own.min_p, own.temperature, own.num_beams = 90, 0.9, 0.1, 3
    prompts = [pair.prompt for pair in pairs[:3]]
    assert answer_prompts(odd, prompts) == answer_prompts(plain, prompts)
    assert sample_answers(odd, prompts, samples=2) == sample_answers(plain, prompts, samples=2)
    assert odd.model.generation_config is own


def test_an_answer_does_not_end_where_its_neighbours_positions_do(causal_folder):
    policy = load_policy(str(causal_folder))
    policy.model.config.max_position_embeddings = 60
    (alone,) = answer_prompts(policy, ["short"])
    assert answer_prompts(policy, ["short", "x" * 50])[0] == alone
    with pytest.raises(DataError, match="too many for the 60"):
        answer_prompts(policy, ["x" * 80])
