"""Transformers' Trainer, made to teach a process reward model from labelled steps.

What changes against the parent, and nothing else:

- examples are `LabelledSolution`s; the judge itself reads them, so that training sees what scoring sees;
- the loss is the cross-entropy of the judge's verdicts on steps, plus, if wanted, the language-modelling loss;
- a mean is over the labelled steps (and over the tokens) of a whole optimiser step: two batches of 4 with gradient
  accumulation give the gradient of one batch of 8;
- `evaluate` measures the judge as a judge;
- what is saved is a reward model, not only its weights.

With x = log p(right) - log p(wrong) of a step and y its label (1 right, 0 wrong), the loss is the mean over labelled
steps of log(1 + exp(x)) - y * x. Where a head has a logit for each verdict, x is their difference, and this is their
two-way cross-entropy (the PRM loss of Math-Shepherd, arXiv 2312.08935; TRL's former PRMTrainer).

Covered: one process, any head, encoder-decoder and causal models, going on from a checkpoint.
Not covered: several processes, PEFT adapters.

S = steps of a batch's solutions laid end to end, C = tokens of the longest right solution, V = vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainingArguments

from stepwise_dpo.errors import ConfigError, DataError, RunError
from stepwise_dpo.learning.heads import Row, completion_logits
from stepwise_dpo.learning.process_metrics import (
    NO_ERROR,
    auroc,
    labelled_first_error,
    predicted_first_error,
    probabilities,
    process_bench,
)
from stepwise_dpo.learning.rewards import LLMRewardModel, Progress
from stepwise_dpo.learning.seq2seq import IGNORED
from stepwise_dpo.learning.tokenization import StepTokenizer
from stepwise_dpo.preferences.formats import LabelledSolution
from stepwise_dpo.preferences.pairs import Step

TokenRow = tuple[list[int], list[int]]
"""Token ids of a prompt and of a solution."""

EVEN_ODDS = 0.5
"""The threshold, as a probability, at which a judge says "right" while nobody has tuned another."""


@dataclass
class ProcessRewardConfig(TrainingArguments):
    """TrainingArguments, plus the weight of the language-modelling loss.

    Some of the parent's defaults differ: every optimiser step is logged as it is, nothing is reported to anybody,
    checkpoints are only written when asked for, and no memory is pinned for batches that are mostly text.

    Attributes:
        lm_weight: of the mean negative log-likelihood per token of right solutions, given their prompts, in nats. It
            keeps a model that also writes from forgetting how; 0 leaves it out.
    """

    learning_rate: float = 1e-4
    logging_steps: float = 1
    logging_nan_inf_filter: bool = False
    save_strategy: str = "no"
    remove_unused_columns: bool | None = False
    dataloader_pin_memory: bool = False
    report_to: str | list[str] | None = field(default_factory=list)
    lm_weight: float = field(default=0.0, metadata={"help": "weight of the language-modelling loss"})

    def __post_init__(self) -> None:
        """Check our own option.

        Raises:
            ConfigError: `lm_weight` is negative or not finite.
        """
        super().__post_init__()
        if not (math.isfinite(self.lm_weight) and self.lm_weight >= 0):
            raise ConfigError(f"lm_weight must be a number from 0 on, not {self.lm_weight!r}")


class ProcessRewardTrainer(Trainer):
    """Train a process reward model on solutions whose steps are labelled.

    Logged with each `loss`: `step_accuracy`, the fraction of labelled steps that the judge has on the right side of
    even odds, and `lm_loss`, in nats per token, where `lm_weight` asks for it.

    Args:
        reward_model: the judge, updated in place.
        args: the configuration.
        train_solutions: what to learn from; those without any label are left out.
        eval_solutions: held-out solutions, for `evaluate`.
        callbacks: further Trainer callbacks.

    Raises:
        ConfigError: options that don't go together, or several processes.
        DataError: no step is labelled, or the judge can't read a solution, which is too long, for example; or
            `lm_weight` is above 0, and no solution is right in all its steps.
    """

    control: TrainerControl

    def __init__(
        self,
        reward_model: LLMRewardModel,
        args: ProcessRewardConfig,
        train_solutions: Sequence[LabelledSolution],
        eval_solutions: Sequence[LabelledSolution] | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        if args.n_gpu > 1:
            raise ConfigError("a process reward model trains on one GPU; choose it with CUDA_VISIBLE_DEVICES=0")
        labelled = [solution for solution in train_solutions if has_labels(solution)]
        if not labelled:
            raise DataError(
                "no step of the training solutions is labelled right or wrong, so there is nothing to learn"
            )
        for solution in (*labelled, *(eval_solutions or ())):
            # Turning it into tokens finds what the judge can't read now, rather than in the middle of an epoch.
            try:
                reward_model.rows(solution.prompt, solution.steps)
            except DataError as error:
                raise DataError(f"the solution of {solution.prompt[:80]!r}: {error}") from error
        self.reward_model = reward_model
        super().__init__(
            model=reward_model.model,
            args=args,
            data_collator=SolutionCollator(_step_tokenizer(reward_model, labelled) if args.lm_weight else None),
            train_dataset=labelled,
            eval_dataset=list(eval_solutions) if eval_solutions else None,
            processing_class=reward_model.tokenizer,
            callbacks=callbacks,
        )
        if self.accelerator.num_processes > 1:
            raise ConfigError("a reward model is trained in one process: its gradients are not synchronised")
        # `compute_loss` divides by the counts of the whole optimiser step; the parent must not divide once more.
        self.loss_is_scaled_for_ga = True
        self._tokens = 0
        self._logged = _Sums()

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], int]:
        """Take the batches of one optimiser step; the number of items is that of labelled steps."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._tokens = sum(_tokens(batch["lm_rows"]) for batch in batches)
        return batches, sum(int((batch["labels"] != IGNORED).sum()) for batch in batches)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: int | None = None,
    ) -> Tensor:
        """Return a batch's share of the optimiser step's loss, scalar; without `num_items_in_batch` its own loss.

        Raises:
            RunError: the loss is not finite; the message names a solution.
            ConfigError: outputs are asked for, which is for `predict`.
        """
        if return_outputs:
            raise ConfigError("this trainer gives no outputs besides the loss; use the reward model's score_solutions")
        labels = inputs["labels"]  # (S,)
        is_labelled = labels != IGNORED
        # Mixed precision wraps the model's forward only, and a head may call the model's encoder on its own.
        with self.accelerator.autocast():
            log_odds = torch.cat(self.reward_model.log_odds(inputs["solutions"]))[is_labelled]
        is_right = labels[is_labelled].bool()
        loss = step_losses(log_odds, is_right).sum() / (num_items_in_batch or len(log_odds))
        self._logged.steps += len(log_odds)
        self._logged.hits += int(((log_odds > 0) == is_right).sum())
        if inputs["lm_rows"]:
            with self.accelerator.autocast():
                nll = language_nll(self.model, inputs["lm_rows"], self.processing_class.pad_token_id)
            tokens = _tokens(inputs["lm_rows"])
            loss = loss + self.args.lm_weight * nll / (self._tokens if num_items_in_batch else tokens)
            self._logged.tokens += tokens
            self._logged.nll += nll.item()
        if not torch.isfinite(loss):
            raise RunError(
                f"the loss became {loss.item()} at global_step {self.state.global_step}, on {len(inputs['solutions'])} "
                f"solutions, the first of which begins {inputs['solutions'][0][0][:80]!r}; lower the learning rate"
            )
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add our figures to those of the optimiser steps since the last time."""
        if "loss" in logs:
            logs = {**logs, **self._logged.means()}
            self._logged = _Sums()
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: Sequence[LabelledSolution] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Measure the judge on `eval_solutions` or others, see `judge_figures`; its threshold is that of even odds.

        Raises:
            DataError: there are no solutions to evaluate on, or none of their steps is labelled.
        """
        solutions = self.eval_dataset if eval_dataset is None else eval_dataset
        if not solutions:
            raise DataError("there are no solutions to evaluate on; give eval_solutions")
        figures = judge_figures(solutions, score_anew(self.reward_model, solutions))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, and hand the judge back without the old weights' scores and without mixed precision's wrapper."""
        own_forward = vars(self.model).get("forward")
        try:
            return super().train(*args, **kwargs)
        finally:
            if "forward" in vars(self.model):
                del self.model.forward
            if own_forward is not None:
                self.model.forward = own_forward
            self.model.eval()
            self.reward_model.clear_cache()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the whole judge: model, tokenizer, and how its verdict is read."""
        self.reward_model.save_pretrained(output_dir or self.args.output_dir)


@dataclass
class SolutionCollator:
    """Makes a batch of solutions.

    In it: `solutions`, a list of (prompt, steps); `labels` (S,), 1 right, 0 wrong, -100 unlabelled; and for language
    modelling `lm_rows`, a list of (prompt's token ids, solution's token ids), of solutions right in all steps.

    Args:
        steps: how to tokenise for language modelling; None leaves it out, so that `lm_rows` is empty.
    """

    steps: StepTokenizer | None = None

    def __call__(self, solutions: Sequence[LabelledSolution]) -> dict[str, Any]:
        """Collate."""
        labels = [IGNORED if label is None else int(label) for solution in solutions for label in solution.labels]
        right = [solution for solution in solutions if is_right_throughout(solution)]
        return {
            "solutions": [(solution.prompt, list(solution.steps)) for solution in solutions],
            "labels": torch.tensor(labels),
            "lm_rows": [_encode(self.steps, solution) for solution in right] if self.steps else [],
        }


def step_losses(log_odds: Tensor, is_right: Tensor) -> Tensor:
    """Cross-entropy of each verdict, in nats.

    Args:
        log_odds: of right against wrong, in nats, (S,).
        is_right: the steps' labels, bool, (S,).

    Returns:
        (S,), at least 0.
    """
    return binary_cross_entropy_with_logits(log_odds, is_right.to(log_odds.dtype), reduction="none")


def language_nll(model: PreTrainedModel, rows: Sequence[TokenRow], pad_id: int) -> Tensor:
    """How little a language model expects solutions, given their prompts.

    Args:
        model: encoder-decoder or causal.
        rows: token ids of prompts and of solutions.
        pad_id: what fills the shorter rows.

    Returns:
        sum of all solution tokens' negative log-likelihoods, in nats, scalar.
    """
    logits = completion_logits(model, [Row(tuple(prompt), tuple(ids), ()) for prompt, ids in rows], pad_id)  # (N,C+1,V)
    targets = pad_sequence([torch.tensor(ids, device=logits.device) for _, ids in rows], True, IGNORED)  # (N, C)
    return cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def score_anew(
    reward_model: LLMRewardModel, solutions: Sequence[LabelledSolution], progress: Progress | None = None
) -> list[list[float]]:
    """Log-odds of every step, in nats, by the judge as it is now rather than as it was when it scored last."""
    reward_model.clear_cache()
    texts = [(solution.prompt, solution.steps) for solution in solutions]
    scores: list[list[float]] = reward_model.score_solutions(texts, value="log_odds", progress=progress)
    reward_model.clear_cache()
    return scores


def judge_figures(
    solutions: Sequence[LabelledSolution], log_odds: Sequence[Sequence[float]], threshold: float = EVEN_ODDS
) -> dict[str, float]:
    """Say how well log-odds and labels agree.

    Args:
        solutions: with labels.
        log_odds: of each solution's steps, in nats.
        threshold: a step counts as wrong below this probability, for `process_bench/*` only.

    Returns:
        `loss` (mean over labelled steps, nats), `step_accuracy` (0..1, at even odds), `auroc` (0..1, of steps up to
        each solution's first error), and `process_bench/acc1`, `/acc2`, `/f1` (percent). What the labels don't define,
        such as `auroc` without a wrong step, is left out.

    Raises:
        DataError: no step is labelled.
    """
    pairs = [
        (label, odds)
        for solution, values in zip(solutions, log_odds, strict=True)
        for label, odds in zip(solution.labels, values, strict=True)
        if label is not None
    ]
    if not pairs:
        raise DataError("no step of these solutions is labelled right or wrong, so nothing can be measured on them")
    is_right = torch.tensor([label for label, _ in pairs])
    odds = torch.tensor([odds for _, odds in pairs], dtype=torch.float64)
    true, scores = first_errors(solutions, log_odds)
    bench = process_bench(true, [predicted_first_error(values, threshold) for values in scores])
    early = [
        (index != error, score)
        for error, values in zip(true, scores, strict=True)
        for index, score in enumerate(values if error == NO_ERROR else values[: error + 1])
    ]
    figures = {
        "loss": step_losses(odds, is_right).mean().item(),
        "step_accuracy": ((odds > 0) == is_right).double().mean().item(),
        "auroc": auroc([right for right, _ in early], [score for _, score in early]),
        **{f"process_bench/{name}": value for name, value in bench._asdict().items()},
    }
    return {name: value for name, value in figures.items() if value is not None}


def first_errors(
    solutions: Sequence[LabelledSolution], log_odds: Sequence[Sequence[float]]
) -> tuple[list[int], list[list[float]]]:
    """Of the solutions whose labels say where the first error is: its index, and the steps' probabilities, 0..1."""
    true, scores = [], []
    for solution, values in zip(solutions, log_odds, strict=True):
        index = labelled_first_error(solution.labels)
        if index is not None:
            true.append(index)
            scores.append(probabilities(values))
    return true, scores


def has_labels(solution: LabelledSolution) -> bool:
    """Whether any step is labelled."""
    return any(label is not None for label in solution.labels)


def is_right_throughout(solution: LabelledSolution) -> bool:
    """Whether every step is labelled right, so that the solution is one to imitate."""
    return all(label is True for label in solution.labels)


@dataclass
class _Sums:
    """What has been seen since the last line of the log."""

    steps: int = 0
    hits: int = 0
    tokens: int = 0
    nll: float = 0.0

    def means(self) -> dict[str, float]:
        found = {"step_accuracy": self.hits / self.steps} if self.steps else {}
        return {**found, "lm_loss": self.nll / self.tokens} if self.tokens else found


def _step_tokenizer(reward_model: LLMRewardModel, solutions: Sequence[LabelledSolution]) -> StepTokenizer:
    """What language modelling needs, after a look whether it can work."""
    if reward_model.head == "token_classification":
        raise ConfigError(
            "lm_weight must be 0 for head 'token_classification': such a model has no language-modelling head; choose "
            "another head, or leave lm_weight out"
        )
    right = [solution for solution in solutions if is_right_throughout(solution)]
    if not right:
        raise DataError("lm_weight is above 0, but no training solution is labelled right in all steps; leave it out")
    config = reward_model.model.config
    limit = getattr(config, "max_position_embeddings", None)
    steps = StepTokenizer(reward_model.tokenizer, bool(config.is_encoder_decoder), limit)
    for solution in right:
        prompt, completion = map(len, _encode(steps, solution))
        longest = max(prompt, completion) if steps.is_encoder_decoder else prompt + completion
        if limit is not None and longest > limit:
            raise DataError(
                f"the solution of {solution.prompt[:80]!r} has {prompt} + {completion} tokens, more than the {limit} "
                "positions of the model; shorten or remove it, or choose another model"
            )
    return steps


def _encode(steps: StepTokenizer, solution: LabelledSolution) -> TokenRow:
    return steps.encode_prompt(solution.prompt), steps.encode_steps([Step(text) for text in solution.steps])[0]


def _tokens(rows: Sequence[TokenRow]) -> int:
    return sum(len(ids) for _, ids in rows)
