"""Batches are bounded by the memory that they take, and what comes out doesn't depend on them."""

import pytest

from stepwise_dpo.learning import batching
from stepwise_dpo.learning.batching import Shape, batches, row_bytes
from stepwise_dpo.learning.evaluation import answer_prompts, pair_logps, sample_answers
from stepwise_dpo.learning.loading import load_policy
from stepwise_dpo.learning.rewards import LLMRewardModel


@pytest.fixture(scope="module")
def tiny():
    return load_policy("tiny")


def sizes(model, lengths, most):
    return [len(batch) for batch in batches(model, lengths, lambda length: Shape(1, length, length), most)]


def test_short_items_are_bounded_by_their_number_and_long_ones_by_memory(tiny):
    model = tiny.model
    assert sizes(model, [10] * 7, 3) == [3, 3, 1]
    longest = next(n for n in range(1, 10**6) if row_bytes(model, n, n) > batching.BATCH_BYTES / 2)
    assert sizes(model, [longest] * 3, 3) == [1, 1, 1]  # two of them would take more than a batch may
    assert sizes(model, [longest - 1] * 4, 3) == [2, 2]
    # The padding counts: beside a long row a short one takes as much memory.
    assert sizes(model, [10, 10, longest, 10], 9) == [2, 1, 1]
    assert sizes(model, [10 * longest], 9) == [1]  # never fewer than one
    assert sizes(model, [], 9) == []


def test_a_row_of_the_bundled_policy_takes_what_was_measured():
    model = load_policy("policy").model
    assert 0.5 < row_bytes(model, 2_000, 1) / 2**30 < 0.8  # measured: 0.6 GiB
    assert row_bytes(model, 4_000, 1) == pytest.approx(4 * row_bytes(model, 2_000, 1), rel=1e-3)


@pytest.fixture
def rows_of_forwards(monkeypatch):
    """Allow batches of almost nothing, and write down the rows of every forward."""

    def watch(model):
        seen = []
        model.get_output_embeddings().register_forward_pre_hook(lambda module, args: seen.append(args[0].size(0)))
        monkeypatch.setattr(batching, "BATCH_BYTES", 1)
        return seen

    return watch


@pytest.mark.parametrize("name", ["tiny", "causal"])
def test_long_pairs_are_scored_one_by_one_with_the_same_result(name, pairs, causal_folder, rows_of_forwards):
    policy = load_policy("tiny" if name == "tiny" else str(causal_folder))
    together = pair_logps(policy, pairs, batch_size=12)
    seen = rows_of_forwards(policy.model)
    progress = []
    alone = pair_logps(policy, pairs, batch_size=12, progress=lambda *done: progress.append(done))
    assert max(seen) == 2  # a pair's two sides
    assert progress == [(n, 12) for n in range(1, 13)]
    for first, second in zip(together, alone, strict=True):
        assert first.chosen.steps == pytest.approx(second.chosen.steps, abs=1e-3)
        assert first.rejected.steps == pytest.approx(second.rejected.steps, abs=1e-3)


@pytest.mark.parametrize("name", ["tiny", "causal"])
def test_long_prompts_are_answered_one_by_one_with_the_same_result(name, pairs, causal_folder, rows_of_forwards):
    policy = load_policy("tiny" if name == "tiny" else str(causal_folder))
    prompts = [pair.prompt for pair in pairs[:4]]
    together = answer_prompts(policy, prompts, max_new_tokens=6)
    seen = rows_of_forwards(policy.model)
    assert answer_prompts(policy, prompts, max_new_tokens=6) == together
    assert max(seen) == 1
    sampled = sample_answers(policy, prompts, samples=3, max_new_tokens=6)
    assert [len(answers) for answers in sampled] == [3] * 4
    assert max(seen) == 3  # all answers to one prompt are drawn together


def test_long_rows_are_judged_one_by_one_with_the_same_result(pairs, rows_of_forwards):
    together = LLMRewardModel.from_pretrained("tiny").score_pairs(pairs[:4], "log_odds")
    judge = LLMRewardModel.from_pretrained("tiny")
    seen = rows_of_forwards(judge.model)
    progress = []
    alone = judge.score_pairs(pairs[:4], "log_odds", lambda *done: progress.append(done))
    assert max(seen) == 1
    assert [done for done, _ in progress] == list(range(1, progress[-1][1] + 1))
    for first, second in zip(together, alone, strict=True):
        assert first.chosen == pytest.approx(second.chosen, abs=1e-4)
        assert first.rejected == pytest.approx(second.rejected, abs=1e-4)
