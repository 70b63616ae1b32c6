"""What a policy prefers, and what it answers: measured step by step, before and after training.

B = pairs in a batch, N = 2B rows, T = tokens.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from stepwise_dpo.errors import ConfigError, DataError, ModelError
from stepwise_dpo.learning.batching import Shape, batches
from stepwise_dpo.learning.estimates import paired_means
from stepwise_dpo.learning.loading import Policy
from stepwise_dpo.learning.losses import NO_STEP, sum_per_step
from stepwise_dpo.learning.rewards import LLMRewardModel, Progress
from stepwise_dpo.learning.seq2seq import IGNORED, score_completions
from stepwise_dpo.learning.tokenization import EncodedPair
from stepwise_dpo.preferences.pairs import PreferencePair
from stepwise_dpo.preferences.synthetic import is_known, solves

SMALL_WEIGHTS = 100_000_000
SMALL_ANSWERS = 32
"""A policy with fewer weights answers so many prompts at the same time, also if training has smaller batches: what it
keeps of each is little, and most of its time goes into the calls."""

MIN_TEMPERATURE = 1e-3
"""Below, logits that are divided by it leave the range of float32, and nothing would be random anyway."""


@dataclass(frozen=True)
class SolutionLogps:
    """A policy's log-probability of one solution.

    Attributes:
        steps: of each step, summed over its tokens, in nats.
        tokens: the number of tokens of the whole solution.
    """

    steps: list[float]
    tokens: int

    @property
    def mean(self) -> float:
        """Nats per token."""
        return sum(self.steps) / self.tokens


@dataclass(frozen=True)
class PairLogps:
    """A policy's log-probabilities of both sides of a pair."""

    chosen: SolutionLogps
    rejected: SolutionLogps

    @property
    def margin(self) -> float:
        """Mean log-likelihood of chosen minus that of rejected, in nats per token."""
        return self.chosen.mean - self.rejected.mean

    @property
    def preferred(self) -> Literal["chosen", "rejected", "tie"]:
        """Which side the policy finds more likely per token."""
        if self.margin == 0:
            return "tie"
        return "chosen" if self.margin > 0 else "rejected"


@dataclass(frozen=True)
class Answer:
    """What a policy answered.

    Attributes:
        steps: the answer's steps; [] when it ended at once.
        complete: False when the limit on new tokens cut it off.
        process_rewards: of each step; None without a reward model.
        solved: whether the final answer is right; None where no checker knows the problem.
    """

    steps: list[str]
    complete: bool
    process_rewards: list[float] | None = None
    solved: bool | None = None


@dataclass(frozen=True)
class Evaluation:
    """One policy on one set of pairs; `answers` belong to the first pairs of `logps`."""

    logps: list[PairLogps]
    answers: list[Answer]

    def summary(self) -> dict[str, float]:
        """The figures of a report.

        `preference_accuracy` (fraction of pairs whose chosen side is more likely per token), `mean_margin` (nats per
        token), `logps/chosen` and `logps/rejected` (nats per solution), `pairs`; and where a checker knows every
        answered problem, `solve_rate` and the number of `answers`.
        """
        figures = {
            "pairs": float(len(self.logps)),
            "preference_accuracy": fmean(logps.preferred == "chosen" for logps in self.logps),
            "mean_margin": fmean(logps.margin for logps in self.logps),
            "logps/chosen": fmean(sum(logps.chosen.steps) for logps in self.logps),
            "logps/rejected": fmean(sum(logps.rejected.steps) for logps in self.logps),
        }
        solved = self.solved
        if solved is not None:
            figures["solve_rate"] = fmean(solved)
            figures["answers"] = float(len(solved))
        return figures

    @property
    def solved(self) -> list[bool] | None:
        """Whether each answer is right; None without answers, or where no checker knows one of the problems."""
        solved = [answer.solved for answer in self.answers if answer.solved is not None]
        return solved if solved and len(solved) == len(self.answers) else None


def evaluate_policy(
    policy: Policy,
    pairs: Sequence[PreferencePair],
    *,
    reward_model: LLMRewardModel | None = None,
    answers: int = 0,
    max_new_tokens: int = 128,
    max_length: int | None = None,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure what a policy prefers on all pairs, and let it answer the first few prompts.

    Args:
        policy: the model; it is put into eval mode for the time of the call.
        pairs: at least one.
        reward_model: judges the answers' steps.
        answers: how many prompts to answer, greedily.
        max_new_tokens: the most tokens of an answer.
        max_length: the most tokens of prompt and answer of a pair.
        batch_size: the most pairs per forward and prompts per generation, see `batching`; a small policy answers
            `SMALL_ANSWERS` together.
        progress: told how far it is, in pairs and answers together.

    Raises:
        DataError: no pairs, one is too long, or the reward model can't read an answer.
        ModelError: a log-probability or a reward is not a finite number.
    """
    if not pairs:
        raise DataError("there are no examples to evaluate on")
    model = policy.model
    was_training = model.training
    model.eval()
    try:
        wanted = min(answers, len(pairs))

        def report(scored: int, answered: int) -> None:
            if progress is not None:
                progress(scored + answered, len(pairs) + wanted)

        logps = pair_logps(
            policy,
            pairs,
            max_length=max_length,
            batch_size=batch_size,
            progress=lambda scored, _: report(scored, 0),
        )
        answered: list[Answer] = []
        together = max(batch_size, SMALL_ANSWERS if model.num_parameters() < SMALL_WEIGHTS else 1)
        for start in range(0, wanted, together):
            prompts = [pair.prompt for pair in pairs[start : min(start + together, wanted)]]
            answered += answer_prompts(policy, prompts, max_new_tokens=max_new_tokens)
            report(len(pairs), len(answered))
    finally:
        model.train(was_training)
    # The first pairs, as many as there are answers.
    judged = [_judge(pair, answer, reward_model) for pair, answer in zip(pairs, answered, strict=False)]
    return Evaluation(logps, judged)


@torch.no_grad()
def pair_logps(
    policy: Policy,
    pairs: Sequence[PreferencePair],
    *,
    max_length: int | None = None,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> list[PairLogps]:
    """Score both sides of every pair, in the order of `pairs`.

    Args:
        policy: the model.
        pairs: what to score.
        max_length: the most tokens of prompt and one side; None: as many as the model reads and memory holds.
        batch_size: the most pairs of a forward; fewer where they are long, see `batching`.
        progress: told pairs done and to do.

    Raises:
        DataError: a pair is longer than `max_length` tokens.
        ModelError: a log-probability is not a finite number.
    """
    steps = policy.step_tokenizer()

    def shape_of(pair: EncodedPair) -> Shape:
        prompt, completion = len(pair.prompt_ids), max(len(pair.chosen_ids), len(pair.rejected_ids))
        if policy.is_encoder_decoder:
            return Shape(2, max(prompt, completion), completion)
        return Shape(2, prompt + completion, prompt + completion)

    results: list[PairLogps] = []
    all_encoded = steps.encode_pairs(pairs, max_length)
    for encoded in batches(policy.model, all_encoded, shape_of, batch_size):
        rows = [(pair.prompt_ids, pair.chosen_ids, pair.chosen_step_ids) for pair in encoded]
        rows += [(pair.prompt_ids, pair.rejected_ids, pair.rejected_step_ids) for pair in encoded]
        sides = _solution_logps(policy, rows)
        for index, side in enumerate(sides):
            if not math.isfinite(side.mean):
                pair = pairs[len(results) + index % len(encoded)]
                raise ModelError(
                    f"model {policy.name!r} gives an answer of example {pair.name!r} a "
                    f"log-probability of {side.mean}; its weights seem to be damaged"
                )
        results += [
            PairLogps(chosen, rejected)
            for chosen, rejected in zip(sides[: len(encoded)], sides[len(encoded) :], strict=True)
        ]
        if progress is not None:
            progress(len(results), len(pairs))
    return results


def answer_prompts(policy: Policy, prompts: Sequence[str], *, max_new_tokens: int = 128) -> list[Answer]:
    """Answer prompts greedily, together as far as memory allows; rewards and correctness are left open."""
    return _generate(policy, prompts, max_new_tokens, do_sample=False)


def sample_answers(
    policy: Policy,
    prompts: Sequence[str],
    *,
    samples: int,
    temperature: float = 1.0,
    seed: int = 0,
    max_new_tokens: int = 128,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> list[list[Answer]]:
    """Answer prompts by drawing tokens from the model's whole distribution; rewards and correctness are left open.

    Args:
        policy: the model.
        prompts: what to answer.
        samples: answers for each prompt, at least 1.
        temperature: at least MIN_TEMPERATURE; what the logits are divided by.
        seed: the same for the same answers, given equal prompts and batch size; the caller's random state stays as it
            is.
        max_new_tokens: the most tokens of an answer.
        batch_size: the most answers written at the same time, fewer to long prompts; all those to one prompt always
            are.
        progress: told how many prompts are done.

    Returns:
        for each prompt its answers.

    Raises:
        ConfigError: samples or temperature is out of range.
    """
    if samples < 1:
        raise ConfigError(f"samples must be at least 1, not {samples}")
    if not MIN_TEMPERATURE <= temperature < math.inf:
        raise ConfigError(
            f"temperature must be at least {MIN_TEMPERATURE}, not {temperature}; greedy answers need no sampling"
        )
    together = max(1, batch_size // samples)
    device = policy.model.device
    answers: list[list[Answer]] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for start in range(0, len(prompts), together):
            batch = prompts[start : start + together]
            rows = _generate(
                policy,
                batch,
                max_new_tokens,
                do_sample=True,
                temperature=temperature,
                num_return_sequences=samples,
                # Transformers' own default is the best 50 tokens, which is another distribution.
                top_k=0,
                top_p=1.0,
            )
            answers += [rows[first : first + samples] for first in range(0, len(rows), samples)]
            if progress is not None:
                progress(len(answers), len(prompts))
    return answers


def measure_change(pairs: Sequence[PreferencePair], before: Evaluation, after: Evaluation) -> dict[str, float]:
    """Say by how much the figures of a report changed, after minus before.

    Args:
        pairs: what both evaluations measured.
        before: on them.
        after: on them, with as many answers.

    Returns:
        the figures of `Evaluation.summary` that both have, in its units, but for the counts; each with `/low` and
        `/high`, the ends of its 95% interval by the paired bootstrap over prompts, see `paired_means`.
    """
    columns: dict[str, list[Sequence[float]]] = {
        "preference_accuracy": [[logps.preferred == "chosen" for logps in one.logps] for one in (before, after)],
        "mean_margin": [[logps.margin for logps in one.logps] for one in (before, after)],
        "logps/chosen": [[sum(logps.chosen.steps) for logps in one.logps] for one in (before, after)],
        "logps/rejected": [[sum(logps.rejected.steps) for logps in one.logps] for one in (before, after)],
    }
    if before.solved is not None and after.solved is not None:
        columns["solve_rate"] = [before.solved, after.solved]
    figures: dict[str, float] = {}
    for name, sides in columns.items():
        values = np.array(sides, dtype=np.float64).T
        prompts = [pair.prompt for pair in pairs[: len(values)]]  # answers belong to the first pairs
        figures |= paired_means(values, prompts)["change"].flat(name)
    return figures


def compare_evaluations(pairs: Sequence[PreferencePair], before: Evaluation, after: Evaluation) -> list[dict[str, Any]]:
    """One record per pair: what each policy prefers and answers, and what it makes of every step.

    Scores are mean log-likelihoods in nats per token; `…_step_logps` and `…_step_logratios` are sums over a step's
    tokens in nats; `…_tokens` is a solution's number of tokens.
    """
    records: list[dict[str, Any]] = []
    for index, pair in enumerate(pairs):
        record: dict[str, Any] = {"id": pair.id, "prompt": pair.prompt}
        for prefix, evaluation in (("", after), ("before_", before)):
            logps = evaluation.logps[index]
            answer = evaluation.answers[index] if index < len(evaluation.answers) else None
            record |= {
                f"{prefix}model_output": None if answer is None else "\n".join(answer.steps),
                f"{prefix}chosen_score": logps.chosen.mean,
                f"{prefix}rejected_score": logps.rejected.mean,
                f"{prefix}preferred": logps.preferred,
                f"{prefix}answer": None if answer is None else asdict(answer),
                f"{prefix}chosen_step_logps": logps.chosen.steps,
                f"{prefix}rejected_step_logps": logps.rejected.steps,
                f"{prefix}chosen_tokens": logps.chosen.tokens,
                f"{prefix}rejected_tokens": logps.rejected.tokens,
            }
        for side in ("chosen", "rejected"):
            first, second = (getattr(evaluation.logps[index], side).steps for evaluation in (before, after))
            record[f"{side}_steps"] = [step.text for step in getattr(pair, side)]
            record[f"{side}_labels"] = [step.label for step in getattr(pair, side)]
            record[f"{side}_step_logratios"] = [new - old for old, new in zip(first, second, strict=True)]
        records.append(record)
    return records


@torch.no_grad()
def _generate(policy: Policy, prompts: Sequence[str], max_new_tokens: int, **how: Any) -> list[Answer]:
    """Let a policy write, together as far as memory allows; `how` goes to Transformers' `generate`."""
    steps = policy.step_tokenizer()
    model, pad, eos = policy.model, policy.tokenizer.pad_token_id, policy.tokenizer.eos_token_id
    encoded = [torch.tensor(steps.encode_prompt(prompt)) for prompt in prompts]
    width = max(map(len, encoded))
    if steps.position_limit is not None:
        if width > steps.position_limit - (0 if policy.is_encoder_decoder else 1):
            longest = max(range(len(prompts)), key=lambda index: len(encoded[index]))
            raise DataError(
                f"the prompt {prompts[longest][:80]!r} has {width} tokens, too many for the {steps.position_limit} "
                f"positions of model {policy.name!r}; shorten it, or choose another model"
            )
        # An answer that runs into the end of the model's positions is marked incomplete, as any other that is cut off.
        room = steps.position_limit - (0 if policy.is_encoder_decoder else width)
        if room < max_new_tokens and not policy.is_encoder_decoder and len({len(ids) for ids in encoded}) > 1:
            # One by one: a short prompt's answer must not end where its longest neighbour's has to.
            each = [_generate(policy, [prompt], max_new_tokens, **how) for prompt in prompts]
            return [answer for answers in each for answer in answers]
        max_new_tokens = min(max_new_tokens, room)
    samples = how.get("num_return_sequences", 1)
    parts = list(
        batches(policy.model, range(len(prompts)), lambda index: Shape(samples, len(encoded[index]), 1), len(prompts))
    )
    if len(parts) > 1:
        each = [_generate(policy, [prompts[index] for index in part], max_new_tokens, **how) for part in parts]
        return [answer for answers in each for answer in answers]
    # A causal model goes on at the right end of its input, so padding stands at the left. An encoder may count its
    # positions from the first column, as BART's does, so there it stands at the right, as in training.
    side = "right" if policy.is_encoder_decoder else "left"
    input_ids = nn.utils.rnn.pad_sequence(encoded, True, pad, padding_side=side)
    attention_mask = nn.utils.rnn.pad_sequence([torch.ones_like(ids) for ids in encoded], True, 0, padding_side=side)
    with _whole_distribution(policy):
        generated = model.generate(
            input_ids=input_ids.to(model.device),
            attention_mask=attention_mask.to(model.device),
            max_new_tokens=max_new_tokens,
            **how,
        )
    completions = generated[:, 1:] if policy.is_encoder_decoder else generated[:, width:]
    answers = []
    for row in completions.tolist():
        complete = eos in row
        ids = row[: row.index(eos)] if complete else row
        answers.append(Answer(steps.decode_steps(ids), complete))
    return answers


@contextmanager
def _whole_distribution(policy: Policy) -> Iterator[None]:
    """While a policy writes, ignore the ways of decoding that its folder asks for: its distribution is measured.

    Transformers fills whatever a call leaves open from the model's own configuration.
    """
    model, tokenizer = policy.model, policy.tokenizer
    own = model.generation_config
    model.generation_config = GenerationConfig(
        num_beams=1,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
    )
    try:
        yield
    finally:
        model.generation_config = own


def _solution_logps(policy: Policy, rows: Sequence[tuple[list[int], list[int], list[int]]]) -> list[SolutionLogps]:
    """Score rows of (prompt ids, completion ids, step ids of the completion)."""

    def padded(values: list[list[int]], fill: int) -> Tensor:
        tensors = [torch.tensor(row) for row in values]
        return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=fill).to(policy.model.device)

    input_ids = padded([prompt + ids for prompt, ids, _ in rows], policy.tokenizer.pad_token_id)  # (N, T)
    attention_mask = padded([[1] * (len(prompt) + len(ids)) for prompt, ids, _ in rows], 0)
    labels = padded([[IGNORED] * len(prompt) + ids for prompt, ids, _ in rows], IGNORED)
    step_ids = padded([[NO_STEP] * len(prompt) + steps for prompt, _, steps in rows], NO_STEP)[:, 1:]
    if policy.is_encoder_decoder:
        log_probs = score_completions(policy.model, input_ids, attention_mask, labels).log_probs
        assert log_probs is not None
    else:
        logits = policy.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits[:, :-1]
        targets = input_ids[:, 1:, None]
        log_probs = logits.float().log_softmax(dim=-1).gather(2, targets).squeeze(2)  # (N, T-1)
    counts = [max(steps) + 1 for _, _, steps in rows]
    # Summed in float64: a log-ratio is a small difference of such sums.
    sums = sum_per_step(log_probs.cpu().double(), step_ids.cpu(), max(counts))  # (N, S)
    return [
        SolutionLogps(row[:count].tolist(), len(ids))
        for row, count, (_, ids, _) in zip(sums, counts, rows, strict=True)
    ]


def _judge(pair: PreferencePair, answer: Answer, reward_model: LLMRewardModel | None) -> Answer:
    """Add process rewards and correctness to an answer."""
    rewards: list[float] | None = None
    if reward_model is not None:
        try:
            rewards = reward_model.score_solutions([(pair.prompt, answer.steps)])[0] if answer.steps else []
        except (DataError, ModelError) as error:
            raise type(error)(f"the policy's answer to example {pair.name!r}: {error}") from error
    solved = solves(pair.prompt, answer.steps) if is_known(pair.prompt) else None
    return Answer(answer.steps, answer.complete, rewards, solved)
