"""TRL's DPOTrainer, made to know steps, process rewards and encoder-decoder models.

What changes against the parent, and nothing else:

- examples are `PreferencePair`s; steps are tokenised one by one and travel as `step_ids` beside the tokens;
- encoder-decoder models train (TRL dropped them in 0.29), see `seq2seq`;
- the reference's log-probabilities are computed once, per token: ahead of training, kept as columns, and the reference
  is then let go; or as training first meets an example;
- `loss="stepwise"` returns our loss in place of TRL's; TRL still computes its own on the same forward, because all its
  metrics come with it and cost nothing beside that forward;
- process rewards and per-step log-ratios are logged;
- every pair of an optimiser step weighs the same, also where a batch of it is short;
- a training can be resumed (`resume`) as if it had never stopped: a checkpoint holds what this trainer adds;
- a loss that is not finite ends the training; what else must not be broken, see `sound_trainer`.

B = pairs, N = 2B rows (chosen, then rejected), T = tokens, S = steps.
"""

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NoReturn, get_args
from unittest import mock

import torch
from accelerate.utils import is_peft_model
from datasets import Dataset
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.utils import ModelOutput
from trl import DPOConfig, DPOTrainer
from trl.trainer import dpo_trainer

from stepwise_dpo.errors import ConfigError, DataError, RunError
from stepwise_dpo.learning.checkpoints import OWN_STATE, OwnState, read_own_state
from stepwise_dpo.learning.length_groups import LengthGroups
from stepwise_dpo.learning.loading import switch_off_dropout
from stepwise_dpo.learning.losses import (
    Aggregation,
    Likelihood,
    NonPositive,
    Side,
    aggregate_steps,
    stepwise_loss,
    sum_per_step,
)
from stepwise_dpo.learning.names import SMOOTHED_LOSS_TYPES
from stepwise_dpo.learning.rewards import NEUTRAL, LLMRewardModel
from stepwise_dpo.learning.seq2seq import TokenScores, enable_causal_layout
from stepwise_dpo.learning.sound_trainer import SaveAfterEvaluation, SoundTrainer, name_examples
from stepwise_dpo.learning.step_dataset import SIDES, StepCollator, build_dataset, padded_steps
from stepwise_dpo.learning.tokenization import StepTokenizer
from stepwise_dpo.learning.uneven import gathering_real, keep_first, real_examples
from stepwise_dpo.learning.unread_options import UNREAD, refuse_unfelt_noise, refuse_unread
from stepwise_dpo.preferences.pairs import PreferencePair

Loss = Literal["dpo", "stepwise"]
FrozenScores = Literal["ahead", "as_needed"]

ReferenceScores = dict[int, tuple[Tensor, Tensor]]
"""By row: the reference's log-probability of every token of chosen and of rejected, in nats."""

_IS_LOADED = "policy and tokenizer come loaded, see `loading.load_policy`"
_SCORED_ONCE = "the reference scores every example once"

_UNREAD = {
    **UNREAD,
    "model_init_kwargs": _IS_LOADED,
    "trust_remote_code": _IS_LOADED,
    "pad_token": _IS_LOADED,
    "disable_dropout": "dropout is always off, so that policy and reference begin alike",
    "truncation_mode": "nothing is ever cut off, and max_length refuses what is longer",
    "padding_free": "every batch is padded",
    "length_column_name": "lengths are in the column 'length'",
    "precompute_ref_log_probs": "frozen_scores says when the reference scores",
    "precompute_ref_batch_size": "the reference scores in training's batches, so that both round alike",
    "sync_ref_model": _SCORED_ONCE,
    "ref_model_mixup_alpha": _SCORED_ONCE,
    "ref_model_sync_steps": _SCORED_ONCE,
    "load_best_model_at_end": "checkpoints are for resuming; save_strategy 'best' writes one at each best evaluation",
}

_READ_BY_DPO_ONLY = (
    "loss_type", "loss_weights", "ld_alpha", "f_divergence_type", "f_alpha_divergence_coef", "label_smoothing",
    "use_weighting", "discopop_tau",
)  # fmt: skip
_READ_BY_STEPWISE_ONLY = ("likelihood", "nonpositive", "anchor_to_reference")

_REWARD_WEIGHTS = "reward_model.safetensors"

_REFERENCE_ROWS = 64
"""So many examples' reference scores go into a checkpoint: enough to tell one model from another."""


@dataclass
class StepwiseDPOConfig(DPOConfig):
    """TRL's DPOConfig, plus which loss to use and the options of the step-wise one.

    Three of the parent's defaults differ, because they serve large models on GPUs: gradient checkpointing is off,
    bfloat16 is off, and every optimiser step is logged. An option that the trainer or the chosen loss doesn't read is
    refused. `beta` passes with "stepwise" too: it scales the logged `rewards/*`.

    Attributes:
        loss: "dpo" hands over to TRL and its `loss_type`; "stepwise" is `losses.stepwise_loss`.
        likelihood: see `losses.stepwise_loss`.
        aggregation: see `losses.aggregate_steps`.
        nonpositive: see `losses.stepwise_loss`.
        anchor_to_reference: see `losses.stepwise_loss`.
        train_reward_model: score steps anew in every batch with gradients, and update the reward model as well.
        frozen_scores: when reference and frozen reward model score an example: all of them "ahead" of training, after
            which the reference is let go; or "as_needed", when training first meets it, so that the first optimiser
            step comes at once. The values are the same.
    """

    gradient_checkpointing: bool = False
    bf16: bool | None = False
    logging_steps: float = 1
    loss: str = field(default="dpo", metadata={"help": "dpo or stepwise"})
    likelihood: str = field(default="mean", metadata={"help": "mean or sum over a completion's tokens"})
    aggregation: str = field(
        default="sum", metadata={"help": "sum, mean, min, last, product or until_error over a solution's steps"}
    )
    nonpositive: str = field(default="train", metadata={"help": "train, skip or clamp a preference <= 0"})
    anchor_to_reference: bool = field(default=False, metadata={"help": "use log-ratios in the step-wise margin"})
    train_reward_model: bool = field(default=False, metadata={"help": "update the reward model as well"})
    frozen_scores: str = field(default="ahead", metadata={"help": "score with frozen models ahead, or as_needed"})

    def __post_init__(self) -> None:
        """Check our own options, and refuse what isn't read.

        Raises:
            ConfigError: an option has none of its words, would do nothing, or two don't go together.
        """
        refuse_unread(self, _UNREAD)
        super().__post_init__()
        for name, words in (
            ("loss", get_args(Loss)),
            ("likelihood", get_args(Likelihood)),
            ("aggregation", get_args(Aggregation)),
            ("nonpositive", get_args(NonPositive)),
            ("frozen_scores", get_args(FrozenScores)),
        ):
            if getattr(self, name) not in words:
                raise ConfigError(f"{name} must be one of {', '.join(words)}, not {getattr(self, name)!r}")
        if self.train_reward_model and self.loss != "stepwise":
            raise ConfigError("train_reward_model needs loss 'stepwise': no other loss depends on the reward model")
        if self.train_sampling_strategy == "batch_rebalance":
            raise ConfigError(
                "train_sampling_strategy 'batch_rebalance' makes batches of uneven sizes, whose examples would weigh "
                "unevenly; choose 'group_by_length', which has few padding tokens too"
            )
        refuse_unread(self, self._unread_by_loss())

    def _unread_by_loss(self) -> dict[str, str]:
        """Why the chosen loss doesn't read an option, by the option's name."""
        if self.loss == "stepwise":
            return dict.fromkeys(_READ_BY_DPO_ONLY, "only loss 'dpo' reads it")
        unread = dict.fromkeys(_READ_BY_STEPWISE_ONLY, "only loss 'stepwise' reads it")
        if not set(self.loss_type) & set(SMOOTHED_LOSS_TYPES):
            unread["label_smoothing"] = f"of TRL's loss types only {', '.join(SMOOTHED_LOSS_TYPES)} read it"
        if "discopop" not in self.loss_type:
            unread["discopop_tau"] = "only loss_type 'discopop' reads it"
        if self.f_divergence_type != "alpha_divergence":
            unread["f_alpha_divergence_coef"] = "only f_divergence_type 'alpha_divergence' reads it"
        return unread


class StepwiseDPOTrainer(SoundTrainer, DPOTrainer):
    """Train a policy on preference pairs with DPO or the step-wise loss.

    Args:
        model: the policy; encoder-decoder or causal, with its dropout switched off here.
        args: the configuration.
        train_pairs: what to learn from.
        tokenizer: the policy's.
        eval_pairs: held-out pairs.
        reward_model: scores steps, every distinct one once, now or as needed; needed for "stepwise", optional for
            "dpo", where its scores are only logged. With `args.train_reward_model` it scores in every batch and is
            updated.
        ref_model: the reference; a copy of `model` as it is now by default.
        callbacks: further Trainer callbacks.
        peft_config: a PEFT configuration to wrap the policy in.
        state_beside: called when a checkpoint is written; what it returns is kept there, as JSON, for whoever resumes.

    Raises:
        ConfigError: options that don't go together.
        DataError: no pairs, or one is longer than `args.max_length`, the policy or the reward model can read.
    """

    _tag_names = ["trl", "dpo", "stepwise-dpo"]  # noqa: RUF012 (the parent's attribute)
    loss_is_scaled_for_ga = True  # `compute_loss` divides by the pairs of the whole optimiser step
    ref_model: PreTrainedModel | None

    def __init__(
        self,
        model: PreTrainedModel,
        args: StepwiseDPOConfig,
        train_pairs: Sequence[PreferencePair],
        tokenizer: PreTrainedTokenizerBase,
        eval_pairs: Sequence[PreferencePair] | None = None,
        reward_model: LLMRewardModel | None = None,
        ref_model: PreTrainedModel | None = None,
        callbacks: list[TrainerCallback] | None = None,
        peft_config: Any = None,
        state_beside: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        if not train_pairs:
            raise DataError("there are no training examples")
        if isinstance(eval_pairs, Mapping):
            raise ConfigError(
                "eval_pairs must be one sequence of pairs, not a dictionary of several: TRL logs the metrics of all "
                "under the same names; join them, or measure each by `evaluation.evaluate_policy`"
            )
        refuse_unfelt_noise(args, model)
        if args.loss == "stepwise" and reward_model is None:
            raise ConfigError("the step-wise loss needs a reward model")
        if reward_model is not None and args.aggregation == "product" and reward_model.value != "probability":
            raise ConfigError("aggregation 'product' needs a reward model whose value is 'probability'")
        self.reward_model = reward_model
        self._neutral = NEUTRAL[reward_model.value] if reward_model is not None else 0.0
        self._pairs = {"train": list(train_pairs), "eval": list(eval_pairs or [])}
        self._state_beside = state_beside
        self.ids_of_step, self._ids_are_of = [], 0
        self._left, self._eval_batches = 0, 0
        self.eval_step_logratios: dict[int, dict[str, list[float]]] = {}
        """Of the latest evaluation, in nats per step: {index into eval_pairs: {"chosen": […], "rejected": […]}}."""

        steps = StepTokenizer(
            tokenizer, bool(model.config.is_encoder_decoder), getattr(model.config, "max_position_embeddings", None)
        )
        ahead = args.frozen_scores == "ahead"
        frozen_judge = reward_model if ahead and not args.train_reward_model else None
        if reward_model is not None and frozen_judge is None:
            for pair in (*train_pairs, *(eval_pairs or ())):
                # Turning it into tokens finds what the judge can't read now, rather than in the middle of an epoch.
                reward_model.pair_rows(pair)
        train_dataset, eval_dataset = (
            build_dataset(pairs, steps, args.max_length, frozen_judge) for pairs in self._pairs.values()
        )

        switch_off_dropout(model)
        if ref_model is None and not is_peft_model(model) and peft_config is None:
            # TRL would load it again by name, which is the wrong model when the name is a checkpoint's.
            ref_model = copy.deepcopy(model)
        if ref_model is not None:
            switch_off_dropout(ref_model)
        with _causal_layout_in_trl():
            super().__init__(
                model=model,
                ref_model=ref_model,
                args=args,
                data_collator=StepCollator(tokenizer.pad_token_id, pad_to_multiple_of=args.pad_to_multiple_of),
                train_dataset=train_dataset,
                eval_dataset=eval_dataset if eval_pairs else None,
                processing_class=tokenizer,
                callbacks=callbacks,
                peft_config=peft_config,
            )
        if reward_model is not None and args.train_reward_model:
            if self.accelerator.num_processes > 1:
                raise ConfigError("train_reward_model works in one process only: its gradients are not synchronised")
            reward_model.to(self.accelerator.device)
            self.add_callback(_JudgeGradients(reward_model, args.max_grad_norm, self.refuse_step))
        self.add_callback(SaveAfterEvaluation())  # the last: others may ask for a checkpoint

        self._reference = self.ref_model or self.model
        self._met: dict[str, ReferenceScores] = {"train": {}, "eval": {}}
        if ahead:
            self.train_dataset = self._with_reference(train_dataset, self.get_train_dataloader())
            if eval_pairs:
                self.eval_dataset = self._with_reference(eval_dataset, self.get_eval_dataloader())
            del self._reference  # everything that is ever asked of it is in the columns now
        elif self.ref_model is None:
            raise ConfigError("frozen_scores 'as_needed' needs a reference of its own, which PEFT models don't have")
        self.ref_model = None
        self.precompute_ref_logps = True

    def _send_telemetry(self) -> None:
        """Report nothing: TRL tells the Hub of every trainer that is made, unless the environment forbids it."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """Keep the dataset: `build_dataset` has tokenised it, step by step, which TRL can't."""
        return dataset

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        """Group examples by length so that a resumed run goes on with the batches that it would have had."""
        if self.args.train_sampling_strategy != "group_by_length":
            sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
            return sampler
        args, dataset = self.args, self.train_dataset if train_dataset is None else train_dataset
        seed = args.seed if args.data_seed is None else args.data_seed
        return LengthGroups(
            args.train_batch_size * args.gradient_accumulation_steps, dataset[args.length_column_name], seed
        )

    def _set_signature_columns_if_needed(self) -> None:
        """Keep our columns when the Trainer drops those that the model doesn't take."""
        super()._set_signature_columns_if_needed()
        columns = ("step_ids", "ref_token_logps", "process_rewards")
        for name in ("row", "length", *(f"{side}_{column}" for side in SIDES for column in columns)):
            if name not in self._signature_columns:
                self._signature_columns.append(name)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Add the reward model's parameters where they are trained."""
        is_new = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        if is_new and self.reward_model is not None and self.args.train_reward_model:
            optimizer.add_param_group(
                {"params": list(self.reward_model.parameters()), "lr": self.args.learning_rate, "weight_decay": 0.0}
            )
        return optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], int]:
        """Take the batches of one optimiser step; the number of items is that of its pairs, in all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        pairs = sum(len(batch["row"]) for batch in batches)
        if self.accelerator.num_processes > 1 and batches:
            self._left = self._left_for_step(len(batches[0]["row"]))
            pairs = min(self._left, pairs * self.accelerator.num_processes)  # without fillers
        return batches, pairs

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: int | None = None,
    ) -> Tensor:
        """Return a batch's share of the optimiser step's loss, scalar, and log TRL's metrics and ours.

        The step's loss is the mean over its `num_items_in_batch` pairs; without that number it is the batch's own.

        Raises:
            RunError: the loss is not finite; the message names the pairs.
            ConfigError: outputs are asked for, which TRL only does for `compute_metrics` and deprecates.
        """
        if return_outputs:
            raise ConfigError("this trainer gives no outputs besides the loss; use `evaluation.evaluate_policy`")
        mode = "train" if self.model.training else "eval"
        pairs = len(inputs["row"])
        if self.accelerator.num_processes == 1:
            loss = self._loss_of(model, inputs, num_items_in_batch, mode)
        else:
            loss, pairs = self._loss_without_fillers(model, inputs, num_items_in_batch, mode)
        # Full batches only: the divisor is their number, exactly, as in the Trainer, which would divide by it always.
        return loss if num_items_in_batch is None else loss / (num_items_in_batch / pairs)

    def _loss_without_fillers(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: int | None, mode: str
    ) -> tuple[Tensor, int]:
        """This process's part in the mean loss of all processes' batches, and the number of real pairs in these."""
        pairs, rank = len(inputs["row"]), self.accelerator.process_index
        counts = real_examples(self._examples_left(mode, pairs), pairs, self.accelerator.num_processes)
        if counts[rank] < pairs:
            # A process without a real example goes along with one, for nothing: the others wait for its gradients.
            inputs = keep_first(inputs, pairs, max(1, counts[rank]))
        with gathering_real(self.accelerator, counts, pairs):
            loss = self._loss_of(model, inputs, num_items_in_batch, mode)
        # DDP averages over processes; the mean over examples is meant.
        return loss * (counts[rank] * len(counts) / sum(counts)) if mode == "train" else loss, sum(counts)

    def _examples_left(self, mode: str, pairs: int) -> int:
        """Examples of this epoch, or this evaluation, that no batch before had."""
        together = pairs * int(self.accelerator.num_processes)
        if mode == "eval":
            self._eval_batches += 1
            return len(self._pairs["eval"]) - (self._eval_batches - 1) * together
        self._left -= together
        return self._left + together

    def _left_for_step(self, pairs: int) -> int:
        """Examples of this epoch that no optimiser step before had, where a process's batch has so many pairs."""
        together = pairs * int(self.accelerator.num_processes)
        accumulated = int(self.args.gradient_accumulation_steps)
        rounded = math.floor if self.args.dataloader_drop_last else math.ceil
        updates = math.ceil(rounded(len(self._pairs["train"]) / together) / accumulated)
        return len(self._pairs["train"]) - int(self.state.global_step) % updates * accumulated * together

    def _loss_of(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any, mode: str) -> Tensor:
        """The loss of this process's examples; what is logged is of all processes'."""
        if "ref_token_logps" not in inputs:
            inputs = {**inputs, "ref_token_logps": self._reference_now(inputs, mode)}
        steps = {name: inputs[name] for name in StepCollator.STEP_KEYS if name in inputs}
        inputs = {name: value for name, value in inputs.items() if name not in steps}

        cached = TokenScores(log_probs=steps["ref_token_logps"][:, 1:])
        # TRL reduces the reference's token values exactly as it reduces the policy's, `ld_alpha` included.
        inputs["ref_chosen_logps"], inputs["ref_rejected_logps"] = self.compute_ref_log_probs(
            lambda **kwargs: cached, inputs
        )
        forward = _RememberingForward(model)
        loss: Tensor = super().compute_loss(forward, inputs, False, num_items_in_batch)

        chosen, rejected = self._sides(forward.output.log_probs, steps, mode)
        if self.args.loss == "stepwise":
            loss = stepwise_loss(
                chosen,
                rejected,
                likelihood=self.args.likelihood,
                aggregation=self.args.aggregation,
                nonpositive=self.args.nonpositive,
                anchor_to_reference=self.args.anchor_to_reference,
                neutral=self._neutral,
            ).losses.mean()
            if self.aux_loss_enabled:
                # A mixture of experts needs its load balanced under any loss; TRL adds this to its own.
                loss = loss + self.router_aux_loss_coef * forward.output.aux_loss
        if self.reward_model is not None:
            self._log_process_rewards(chosen, rejected, mode)
        if mode == "eval":
            # TRL averages the values of batches; a short last batch shall weigh by its pairs.
            pairs = self.accelerator.gather(steps["row"]).numel()
            for values in self._metrics["eval"].values():
                values += [values[-1]] * (pairs - 1)
            self._log_step_logratios(chosen, rejected, steps["row"])
        self._refuse_bad_loss(loss.detach(), steps["row"], mode)
        return loss

    def _refuse_bad_loss(self, loss: Tensor, rows: Tensor, mode: str) -> None:
        # In all processes alike: one that stopped alone would leave the others waiting for it.
        values, all_rows = self.accelerator.gather((loss, rows))
        ids = [self._pairs[mode][row].name for row in all_rows.tolist()]
        if mode == "train":
            if self._ids_are_of != self.state.global_step:
                self.ids_of_step, self._ids_are_of = [], self.state.global_step
            self.ids_of_step += ids
        bad = [value for value in values.reshape(-1).tolist() if not math.isfinite(value)]
        if bad and mode == "train":
            self.refuse_step(f"the loss became {bad[0]}")
        elif bad:
            raise RunError(
                f"the held-out loss became {bad[0]} after global_step {self.state.global_step} ({name_examples(ids)}); "
                f"{self.what_is_kept()}; lower the learning rate, or look at these examples"
            )

    def save_own_state(self, folder: Path) -> None:
        """Add our counts, the trained reward model, and scores by which the reference is known again."""
        # A pickle of the arguments, which whoever makes the trainer says again.
        (folder / "training_args.bin").unlink(missing_ok=True)
        if self.args.train_reward_model:
            assert self.reward_model is not None
            self.refuse_bad_weights(self.reward_model)
            save_model(self.reward_model, str(folder / _REWARD_WEIGHTS))
        state = OwnState(
            train_tokens=self._total_train_tokens,
            reference=self._reference_sums(),
            beside=dict(self._state_beside()),
        )
        (folder / OWN_STATE).write_text(state.model_dump_json(), encoding="utf-8")

    def resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint as if training had never stopped; nothing is left to do from one of its end.

        Args:
            checkpoint: a sound one (see `checkpoints.faults`) of a training with the same arguments, data and models.

        Raises:
            RunError: the reference is not the one that the training began with.
        """
        if self.args.frozen_scores == "as_needed":
            self.meet_first_epoch()
        state = json.loads((checkpoint / "trainer_state.json").read_bytes())
        if state["global_step"] < state["max_steps"]:
            self.train(resume_from_checkpoint=str(checkpoint))
        else:
            self._load_from_checkpoint(str(checkpoint))
            self.state.global_step = state["global_step"]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load what `save_own_state` has added too."""
        folder = Path(resume_from_checkpoint)
        state = read_own_state(folder)
        now, tolerance = self._reference_sums(), 1e-2 if self.args.bf16 else 1e-4
        for row, sums in state.reference.items():
            for before, value in zip(sums, now.get(row, sums), strict=True):
                if abs(value - before) > tolerance * max(1.0, abs(before)):
                    raise RunError(
                        f"{folder.name} was trained against another reference: example "
                        f"{self._pairs['train'][int(row)].name!r} had {before:.4f} nats there and has {value:.4f} now; "
                        "give the policy's folder back the weights that the run began with"
                    )
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._total_train_tokens = state.train_tokens
        if self.args.train_reward_model:
            assert self.reward_model is not None
            load_model(self.reward_model, str(folder / _REWARD_WEIGHTS))

    def _reference_sums(self) -> dict[str, tuple[float, float]]:
        """By row, of the first examples that the reference has scored: its log-probability of either side, in nats."""
        if self.args.frozen_scores == "ahead":
            rows = self.train_dataset.select(range(min(_REFERENCE_ROWS, len(self.train_dataset))))
            return {
                str(row["row"]): (sum(row["chosen_ref_token_logps"]), sum(row["rejected_ref_token_logps"]))
                for row in rows
            }
        met = self._met["train"]
        first = sorted(met)[:_REFERENCE_ROWS]
        return {str(row): (met[row][0].sum().item(), met[row][1].sum().item()) for row in first}

    def evaluate(self, eval_dataset: None = None, **kwargs: Any) -> dict[str, float]:
        """Evaluate on `eval_pairs`, and collect the per-step log-ratios of each anew.

        Raises:
            ConfigError: another dataset is given; the reference, which would have to score it, is gone.
        """
        if eval_dataset is not None:
            raise ConfigError("held-out examples are given as `eval_pairs` when the trainer is made")
        self.eval_step_logratios, self._eval_batches = {}, 0
        metrics: dict[str, float] = super().evaluate(**kwargs)
        return metrics

    def _sides(self, log_probs: Tensor, steps: dict[str, Tensor], mode: str) -> tuple[Side, Side]:
        """Split a batch of N rows into its two sides of B; column t of all is about token t + 1."""
        step_ids = steps["step_ids"][:, 1:]
        if self.reward_model is None:  # no steps, no rewards
            rewards = log_probs.new_zeros(log_probs.size(0), 0)
            step_mask = torch.zeros_like(rewards, dtype=torch.bool)
        elif "process_rewards" in steps:
            rewards, step_mask = steps["process_rewards"], steps["step_mask"]
        else:
            rewards, step_mask = self._score_now(steps["row"].tolist(), mode)
        columns = (log_probs, steps["ref_token_logps"][:, 1:], step_ids, rewards, step_mask)
        first, second = zip(*(column.chunk(2) for column in columns), strict=True)
        return Side(*first), Side(*second)

    def _score_now(self, rows: Sequence[int], mode: str) -> tuple[Tensor, Tensor]:
        """Process rewards of a batch, with their graph where the reward model is trained: values and mask, (N, S)."""
        assert self.reward_model is not None
        pairs = [self._pairs[mode][row] for row in rows]
        if self.args.train_reward_model:
            self.reward_model.clear_cache()  # its weights are moving
            scores = [
                self.reward_model.score(pair.prompt, [step.text for step in side])
                for solutions in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
                for pair, side in zip(pairs, solutions, strict=True)
            ]
        else:
            values = self.reward_model.score_pairs(pairs)  # what it has met before, it remembers
            scores = [torch.tensor(side) for sides in zip(*values, strict=True) for side in sides]
        rewards, step_mask = padded_steps(scores)
        return rewards.to(self.accelerator.device), step_mask.to(self.accelerator.device)

    def meet_first_epoch(self) -> None:
        """Score with the frozen models, "as_needed", all that training meets in its first epoch, in its batches.

        A run that is resumed later than that epoch rounds like one that was never interrupted.
        """
        loaders = [("train", self.get_train_dataloader())]
        if self.eval_dataset is not None:
            loaders.append(("eval", self.get_eval_dataloader()))
        for mode, loader in loaders:
            for batch in loader:
                batch = self._prepare_inputs(batch)
                self._reference_now(batch, mode)
                if self.reward_model is not None and not self.args.train_reward_model:
                    self._score_now(batch["row"].tolist(), mode)

    def _reference_now(self, inputs: dict[str, Any], mode: str) -> Tensor:
        """The reference's log-probabilities of a batch's completion tokens, 0 elsewhere: (N, T).

        An example that training meets for the first time is scored here, in this very batch: so policy and reference
        round alike at the first step.
        """
        met, rows = self._met[mode], inputs["row"].tolist()
        if any(row not in met for row in rows):
            forward = _RememberingForward(self._reference, with_graph=True)
            self.compute_ref_log_probs(
                forward, {name: value for name, value in inputs.items() if name not in StepCollator.STEP_KEYS}
            )
            values, is_completion = forward.output.log_probs.detach().float(), inputs["completion_mask"][:, 1:].bool()
            for row, *sides in zip(rows, *values.chunk(2), *is_completion.chunk(2), strict=True):
                chosen, rejected, chosen_mask, rejected_mask = sides
                met.setdefault(row, (chosen[chosen_mask].cpu(), rejected[rejected_mask].cpu()))
        is_completion = inputs["completion_mask"].bool()
        flat = torch.cat([met[row][side] for side in range(len(SIDES)) for row in rows]).to(is_completion.device)
        return torch.zeros(is_completion.shape, device=flat.device).masked_scatter(is_completion, flat)

    def _log_process_rewards(self, chosen: Side, rejected: Side, mode: str) -> None:
        values = {
            side: aggregate_steps(batch.process_rewards.detach(), batch.step_mask, self.args.aggregation, self._neutral)
            for side, batch in zip(SIDES, (chosen, rejected), strict=True)
        }
        preference = values["chosen"] - values["rejected"]
        logged = {**values, "preference": preference, "negative_fraction": (preference < 0).float()}
        for name, value in logged.items():
            # Gathered per pair: a mean of means would be wrong for uneven batches.
            self._metrics[mode][f"process_rewards/{name}"].append(self.accelerator.gather(value).mean().item())

    def _log_step_logratios(self, chosen: Side, rejected: Side, rows: Tensor) -> None:
        """Log the mean log-ratio per step of each side, in nats, and keep every pair's."""
        for name, side in zip(SIDES, (chosen, rejected), strict=True):
            step_counts = side.step_ids.amax(dim=1) + 1  # (B,)
            steps = int(self.accelerator.gather(step_counts).max())  # gathering needs one width on all ranks
            ratios = sum_per_step(side.logps - side.ref_logps, side.step_ids, steps)  # (B, S)
            ratios, step_counts, all_rows = self.accelerator.gather((ratios, step_counts, rows))
            for row, count, values in zip(all_rows.tolist(), step_counts.tolist(), ratios.tolist(), strict=True):
                self.eval_step_logratios.setdefault(row, {})[name] = values[:count]
            every = [value for pair in self.eval_step_logratios.values() for value in pair[name]]
            self._metrics["eval"][f"step_logratios/{name}"] = [fmean(every)]

    def _with_reference(self, dataset: Dataset, loader: DataLoader[Any]) -> Dataset:
        """Add the reference's log-probability of every completion token as columns.

        The batches are those of the first epoch: matrix products round differently for other shapes, and at the first
        step policy and reference shall agree to the last bit, so that the first DPO loss is ln 2.
        """
        model = self.ref_model or self.model
        found: dict[int, list[list[float]]] = {}
        self._collect_reference(model, loader, found)
        # What the first epoch leaves out (drop_last).
        missing = [row for row in range(len(dataset)) if row not in found]
        if missing:
            rest = DataLoader(
                dataset.select(missing),
                batch_size=self.args.per_device_eval_batch_size,
                collate_fn=self.data_collator,
            )
            self._collect_reference(model, self.accelerator.prepare(rest), found)
        for index, side in enumerate(SIDES):
            values = [found[row][index] for row in range(len(dataset))]
            dataset = dataset.add_column(f"{side}_ref_token_logps", values)
        return dataset

    def _collect_reference(
        self, model: nn.Module, loader: DataLoader[Any], found: dict[int, list[list[float]]]
    ) -> None:
        """Put each row's log-probabilities into `found`: {row: [of chosen tokens, of rejected tokens]}."""
        # None: shown on a terminal only.
        hidden = None if self.accelerator.is_main_process else True
        for batch in tqdm(loader, desc="Reference log-probabilities", leave=False, disable=hidden):
            batch = self._prepare_inputs(batch)
            forward = _RememberingForward(model, with_graph=True)
            self.compute_ref_log_probs(
                forward, {name: value for name, value in batch.items() if name not in StepCollator.STEP_KEYS}
            )
            gathered = [
                self.accelerator.gather(self.accelerator.pad_across_processes(tensor, dim=1)).cpu()
                for pair in zip(
                    forward.output.log_probs.detach().float().chunk(2),
                    batch["completion_mask"][:, 1:].chunk(2),
                    strict=True,
                )
                for tensor in pair
            ]  # chosen values and mask, rejected values and mask, each (B, T-1)
            rows = self.accelerator.gather(batch["row"]).tolist()
            for row, chosen, chosen_mask, rejected, rejected_mask in zip(rows, *gathered, strict=True):
                found[row] = [chosen[chosen_mask.bool()].tolist(), rejected[rejected_mask.bool()].tolist()]


class _JudgeGradients(TrainerCallback):
    """Does for the reward model's gradients what the Trainer does only for its model's: checks, clips, clears them."""

    def __init__(self, reward_model: LLMRewardModel, max_norm: float, refuse: Callable[[str], NoReturn]) -> None:
        self.reward_model = reward_model
        self.max_norm = max_norm or math.inf
        self.refuse = refuse

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Clip before the optimiser step."""
        norm = nn.utils.clip_grad_norm_(self.reward_model.parameters(), self.max_norm).item()
        if not math.isfinite(norm):
            self.refuse(f"the norm of the reward model's gradient became {norm}")

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Clear after the optimiser step."""
        self.reward_model.zero_grad()


class _RememberingForward:
    """Calls a model and keeps the output, so that one forward serves TRL's metrics and our loss.

    Args:
        model: what to call.
        with_graph: build the graph even where the caller forbids it. Attention on T5 takes other kernels without
            gradients, which round differently.
    """

    def __init__(self, model: nn.Module, with_graph: bool = False) -> None:
        self.model = model
        self.with_graph = with_graph
        self.output: ModelOutput

    def __call__(self, **kwargs: Any) -> ModelOutput:
        with torch.set_grad_enabled(self.with_graph or torch.is_grad_enabled()):
            self.output = self.model(**kwargs)
        return self.output


@contextmanager
def _causal_layout_in_trl() -> Iterator[None]:
    """While TRL builds its trainer, let its fused head for encoder-decoder models be ours.

    TRL patches policy and reference at the only right moment, before either is wrapped for a device, and has no hook
    for another head: on T5 its own calls the wrong backbone.
    """
    add_fused_lm_head: Callable[..., None] = dpo_trainer.add_fused_lm_head

    def add(model: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        if model.config.is_encoder_decoder:
            enable_causal_layout(model)
        else:
            add_fused_lm_head(model, *args, **kwargs)

    with mock.patch.object(dpo_trainer, "add_fused_lm_head", add):
        yield
