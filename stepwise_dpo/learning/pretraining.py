"""Where the bundled models come from: a small T5 that learns to solve generated problems, from nothing.

One line of training gives both: an early point of it solves some problems and fails others, which is what preference
training needs of a policy; its end solves nearly all, which makes it a judge of steps without a single label (see the
likelihood head in `rewards`). Every problem is drawn when it is asked for and seen once.
"""

import hashlib
import json
import math
import os
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NoReturn

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from stepwise_dpo.errors import ConfigError, RunError
from stepwise_dpo.learning.evaluation import answer_prompts
from stepwise_dpo.learning.loading import Policy
from stepwise_dpo.learning.optimiser import MuonAndAdamW
from stepwise_dpo.learning.pretraining_line import check_same_line, checkpoints, measurements, measurements_of
from stepwise_dpo.learning.rewards import Progress
from stepwise_dpo.learning.sound_trainer import SoundTrainer
from stepwise_dpo.preferences.pairs import Step
from stepwise_dpo.preferences.synthetic import FAMILIES, MAX_NUMBER, STEPS, Solution, draw_solution, solves

SORTED_BATCHES = 4
"""So many batches are sorted by length together; see `SolvedProblems`."""

ANSWERS_AT_ONCE = 120

HELD_OUT_SEED = -1
"""Of the problems on which the line measures itself; training leaves them out."""


@dataclass(frozen=True)
class PretrainingPlan:
    """One line of training; the defaults are those of the bundled models.

    Attributes:
        steps: optimiser steps of the whole line.
        warmup, span, cooldown: the learning rates rise over `warmup` steps, fall as a cosine that would reach zero
            after `span`, and over the last `cooldown` steps linearly to zero.
        batch_size: problems per optimiser step.
        learning_rate, muon_learning_rate: their peaks, see `MuonAndAdamW`.
        seed: of weights, problems and order.
        d_model, d_ff, layers, decoder_layers, heads: the T5's shape; `generate` needs decoder_layers <= layers.
        position_bias: standard deviation with which T5's relative position biases begin. Its own, far smaller, is even
            attention, and a model that can't tell places in a prompt apart learns to copy numbers very slowly.
        vocabulary: pieces of the tokenizer.
        measure_every: optimiser steps between two checkpoints, each with its solve rate on held-out problems.
        held_out: how many of those there are.
        families, problem_steps, max_number: which problems, see `draw_solution`.
        grow: over so many optimiser steps, the longest problem grows from the fewest computations to the most: a model
            learns to take the numbers of short problems first.

    Raises:
        ConfigError: the shape isn't one of a T5 that can answer, or the learning rates never begin to fall.
    """

    steps: int = 4_000
    warmup: int = 200
    span: int = 7_000
    cooldown: int = 1_750
    batch_size: int = 48
    learning_rate: float = 1e-3
    muon_learning_rate: float = 3e-3
    seed: int = 11
    d_model: int = 256
    d_ff: int = 768
    layers: int = 3
    decoder_layers: int = 2
    heads: int = 16
    position_bias: float = 1.5
    vocabulary: int = 640
    measure_every: int = 250
    held_out: int = 120
    families: tuple[str, ...] = FAMILIES
    problem_steps: tuple[int, int] = STEPS
    grow: int = 1_750
    max_number: int = MAX_NUMBER

    def __post_init__(self) -> None:
        """Check the shape now rather than after an hour."""
        if self.d_model % self.heads:
            raise ConfigError(f"d_model ({self.d_model}) must be a multiple of heads ({self.heads})")
        if not 0 <= self.warmup < self.span:
            raise ConfigError(f"warmup ({self.warmup}) must be below span ({self.span}), and neither below 0")
        if self.decoder_layers > self.layers:
            raise ConfigError(
                f"decoder_layers ({self.decoder_layers}) must not exceed layers ({self.layers}): Transformers' "
                "generate fails on such a T5"
            )


class SolvedProblems(Dataset[dict[str, list[int]]]):
    """Problems with their right solutions as token ids, the same at an index whatever was read before.

    Read in order, they come in batches of similar lengths: half of each batch would be padding otherwise. A few batches
    are drawn together, sorted by length, cut, and put into any order.

    Args:
        policy: whose tokenizer and layout to use.
        plan: seed, families, and the size of a batch.
        avoid: prompts that must not occur; another problem takes such a one's place.
    """

    def __init__(self, policy: Policy, plan: PretrainingPlan, avoid: Collection[str] = ()) -> None:
        self.step_tokenizer = policy.step_tokenizer()
        self.plan, self.avoid = plan, avoid
        self._group, self._drawn = -1, list[dict[str, list[int]]]()

    def __len__(self) -> int:
        return self.plan.steps * self.plan.batch_size

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        group, place = divmod(index, self.plan.batch_size * SORTED_BATCHES)
        if group != self._group:
            self._group, self._drawn = group, self._draw_group(group)
        return self._drawn[place]

    def _draw_group(self, group: int) -> list[dict[str, list[int]]]:
        size = self.plan.batch_size
        indices = range(group * size * SORTED_BATCHES, (group + 1) * size * SORTED_BATCHES)
        fewest, most = self.plan.problem_steps
        grown = min(1.0, group * SORTED_BATCHES / max(1, self.plan.grow))
        most = fewest + int(grown * (most - fewest))
        rows = [self._encode(_draw(self.plan, self.plan.seed, index, self.avoid, most)) for index in indices]
        rows.sort(key=lambda row: len(row["input_ids"]) + len(row["labels"]))
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        random.Random(f"{self.plan.seed}:{group}").shuffle(batches)
        return [row for batch in batches for row in batch]

    def _encode(self, solution: Solution) -> dict[str, list[int]]:
        labels, _ = self.step_tokenizer.encode_steps([Step(text) for text in solution.steps])
        return {"input_ids": self.step_tokenizer.encode_prompt(solution.prompt), "labels": labels}


def pretrain(
    plan: PretrainingPlan,
    folder: str | os.PathLike[str],
    *,
    avoid: Iterable[str] = (),
    stop_at_solve_rate: float | None = None,
    on_measured: Callable[[dict[str, float]], None] | None = None,
    on_skipped: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Train the line, or go on with it from the folder's last checkpoint that is sound.

    Without a sound one it begins again. Damaged ones after it are written anew on the way.

    Args:
        plan: what to train; must be the one the folder was begun with.
        folder: keeps a checkpoint for each measurement.
        avoid: prompts that must not be trained on.
        stop_at_solve_rate: end at the first measurement that reaches this, instead of after all steps.
        on_measured: told each new measurement.
        on_skipped: told of each damaged checkpoint, with what is wrong with it.
        progress: told the optimiser steps done and to do.

    Returns:
        the measurements so far: `global_step`, `solve_rate`, and `solve_rate/FAMILY` each.

    Raises:
        RunError: the folder holds the line of another plan, of other prompts to avoid, or of nobody knows which; a
            checkpoint can't be saved; a gradient or a weight is not finite.
    """
    folder = Path(folder)
    avoided = frozenset(avoid)
    digest = hashlib.sha256("\n".join(sorted(avoided)).encode()).hexdigest()
    check_same_line(json.dumps({"plan": asdict(plan), "avoided": digest}, indent=1) + "\n", folder)
    torch.manual_seed(plan.seed)
    tokenizer = build_tokenizer(plan)
    policy = Policy("the model in training", build_model(plan, tokenizer), tokenizer)
    optimiser = MuonAndAdamW(policy.model, plan.learning_rate, plan.muon_learning_rate)
    held_out = held_out_problems(plan)
    measuring = _SolveRate(policy, held_out, plan.measure_every, stop_at_solve_rate, on_measured, progress)
    trainer = _LineTrainer(
        policy.model,
        TrainingArguments(
            output_dir=str(folder),
            max_steps=plan.steps,
            per_device_train_batch_size=plan.batch_size,
            bf16=_has_fast_bfloat16(),
            use_cpu=not torch.cuda.is_available(),
            seed=plan.seed,
            data_seed=plan.seed,
            logging_steps=50,
            save_steps=plan.measure_every,
            report_to=[],
            remove_unused_columns=False,
            train_sampling_strategy="sequential",
        ),
        train_dataset=SolvedProblems(policy, plan, {*avoided, *(solution.prompt for solution in held_out)}),
        data_collator=DataCollatorForSeq2Seq(tokenizer, policy.model),
        processing_class=tokenizer,
        callbacks=[measuring],
        optimizers=(optimiser, LambdaLR(optimiser, partial(rate_factor, plan))),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    last = next(reversed(checkpoints(folder, on_skipped)), None)
    if last is not None:
        done = measurements(last)
        reached = stop_at_solve_rate is not None and any(m["solve_rate"] >= stop_at_solve_rate for m in done)
        if reached or done[-1]["global_step"] >= plan.steps:
            return done
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    return measurements_of(trainer.state)


def solve_rates(policy: Policy, problems: Sequence[Solution]) -> dict[str, float]:
    """Let a policy answer problems greedily: `solve_rate`, 0..1, and `solve_rate/FAMILY`."""
    was_training = policy.model.training
    policy.model.eval()
    solved: dict[str, list[bool]] = {}
    for start in range(0, len(problems), ANSWERS_AT_ONCE):
        batch = problems[start : start + ANSWERS_AT_ONCE]
        answers = answer_prompts(policy, [problem.prompt for problem in batch])
        for problem, answer in zip(batch, answers, strict=True):
            solved.setdefault(problem.family, []).append(solves(problem.prompt, answer.steps))
    policy.model.train(was_training)
    families = {f"solve_rate/{family}": fmean(right) for family, right in sorted(solved.items())}
    return {"solve_rate": fmean(right for family in solved.values() for right in family), **families}


def held_out_problems(plan: PretrainingPlan) -> list[Solution]:
    """The problems that a line measures itself on and leaves out of its training."""
    return [_draw(plan, HELD_OUT_SEED, index, ()) for index in range(plan.held_out)]


def rate_factor(plan: PretrainingPlan, global_step: int) -> float:
    """Which part of their peaks the learning rates have at an optimiser step, 0..1."""
    if global_step < plan.warmup:
        return global_step / plan.warmup
    progress = (global_step - plan.warmup) / (plan.span - plan.warmup)
    left = (plan.steps - global_step) / max(1, plan.cooldown)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress))) * max(0.0, min(1.0, left))


def build_tokenizer(plan: PretrainingPlan) -> PreTrainedTokenizerFast:
    """Build the line's tokenizer: digits one by one, words and signs as pieces, and a byte for everything else.

    No text is unknown to it, and a line break comes back as one, so that it can stand between steps.
    """
    texts = []
    for index in range(4_000):
        solution = _draw(plan, plan.seed, index, ())
        texts.append("\n".join((solution.prompt, *solution.steps)))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # A digit, a line break, a word with the space before it, signs with the spaces around them, spaces.
            pre_tokenizers.Split(Regex(r"\p{N}|\n| ?\p{L}+| ?[^\s\p{L}\p{N}]+ ?|\s"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=plan.vocabulary,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", clean_up_tokenization_spaces=False
    )


def build_model(plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast) -> T5ForConditionalGeneration:
    """Build the untrained T5; its weights are drawn from torch's generator."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=plan.d_model,
        d_kv=plan.d_model // plan.heads,
        d_ff=plan.d_ff,
        num_heads=plan.heads,
        num_layers=plan.layers,
        num_decoder_layers=plan.decoder_layers,
        feed_forward_proj="relu",
        tie_word_embeddings=True,
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    model = T5ForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if "relative_attention_bias" in name:
            nn.init.normal_(parameter, std=plan.position_bias)
    return model


def _has_fast_bfloat16() -> bool:
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    # Without oneDNN the question has no such name.
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())  # type: ignore[no-untyped-call]


def _draw(plan: PretrainingPlan, seed: int, index: int, avoid: Collection[str], most: int | None = None) -> Solution:
    steps = (plan.problem_steps[0], most or plan.problem_steps[1])
    return draw_solution(seed, index, families=plan.families, steps=steps, max_number=plan.max_number, avoid=avoid)


class _LineTrainer(SoundTrainer):
    """A `SoundTrainer` whose examples have no ids: a message about a bad step names none."""

    def refuse_step(self, what: str) -> NoReturn:
        """Stop training because of what the next optimiser step would be made of.

        Raises:
            RunError: always.
        """
        raise RunError(
            f"{what} at global_step {self.state.global_step + 1}; training stopped before that step could change the "
            f"weights, and {self.what_is_kept()}; give a plan with lower learning rates"
        )


class _SolveRate(TrainerCallback):
    """Measures the solve rate on held-out problems before each checkpoint is written, so that it is saved with it."""

    def __init__(
        self,
        policy: Policy,
        held_out: Sequence[Solution],
        every: int,
        stop_at_solve_rate: float | None,
        on_measured: Callable[[dict[str, float]], None] | None,
        progress: Progress | None,
    ) -> None:
        self.policy, self.held_out, self.every, self.stop_at = policy, held_out, every, stop_at_solve_rate
        self.on_measured, self.progress = on_measured, progress

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count the step; measure and save every so often and at the end."""
        if self.progress is not None:
            self.progress(state.global_step, state.max_steps)
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        measured = solve_rates(self.policy, self.held_out)
        state.log_history.append({"step": state.global_step, **measured})
        if self.on_measured is not None:
            self.on_measured(measurements_of(state)[-1])
        control.should_save = True
        if self.stop_at is not None and measured["solve_rate"] >= self.stop_at:
            control.should_training_stop = True
