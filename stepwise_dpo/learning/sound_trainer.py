"""A Trainer that leaves nothing broken on the disk.

What changes against the parent, and nothing else:

- a checkpoint is complete or not there, see `checkpoints`; it comes after the evaluation of its global_step;
- a gradient that is not finite ends the training before the optimiser applies it;
- weights that are not finite are not saved.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn
from transformers import Trainer, TrainerCallback

from stepwise_dpo.errors import RunError
from stepwise_dpo.learning.checkpoints import HIDDEN, clear_hidden, find_checkpoints, prune, publish, saving, seal


class SoundTrainer(Trainer):
    """What a trainer inherits from beside its other parent, before it.

    The heir adds `SaveAfterEvaluation` as its last callback.

    Attributes:
        ids_of_step: the examples of all batches that the next optimiser step is made of; whoever computes the loss adds
            to it, for the message that names them.
    """

    ids_of_step: list[str]

    def refuse_step(self, what: str) -> NoReturn:
        """Stop training because of what the next optimiser step would be made of.

        Raises:
            RunError: always; it names the global_step, its examples, and what is left of the training.
        """
        examples = name_examples(self.ids_of_step)
        raise RunError(
            f"{what} at global_step {self.state.global_step + 1} ({examples}); training stopped before that step could "
            f"change the weights, and {self.what_is_kept()}; lower the learning rate, or look at these examples"
        )

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """Stop before an optimiser step whose gradient is not finite: it would leave no finite weight.

        Raises:
            RunError: so it is; the message names the global_step and the examples.
        """
        norm = super()._get_grad_norm(*args, **kwargs)
        if not math.isfinite(norm) and not self.args.fp16:  # float16's loss scaling provokes such, and skips the step
            self.refuse_step(f"the gradient's norm became {float(norm)}")
        return norm

    def what_is_kept(self) -> str:
        """Say in a clause what is left when training stops now."""
        kept = find_checkpoints(Path(self.args.output_dir))
        return f"the last checkpoint is that of global_step {kept[0].global_step}" if kept else "nothing was saved"

    def refuse_bad_weights(self, model: nn.Module) -> None:
        """Stop where a model has weights that are not finite.

        Raises:
            RunError: it has; the message names the global_step and a weight.
        """
        bad = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
        if bad:
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            raise RunError(
                f"weights are not finite after global_step {self.state.global_step} ({bad[0]}{more}), so they were not "
                f"saved, and {self.what_is_kept()}; lower the learning rate"
            )

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Save the policy, unless its weights are not finite.

        Raises:
            RunError: they are not.
        """
        self.refuse_bad_weights(self.model)
        super().save_model(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint, all of it or nothing, and remove old ones.

        Raises:
            RunError: the disk is full, or the weights are not finite.
        """
        run_dir, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        writes = self.args.should_save
        with saving(name, run_dir):
            hidden = clear_hidden(run_dir) if writes else run_dir / HIDDEN
            self.accelerator.wait_for_everyone()
            limit = self.args.save_total_limit
            # Where the Trainer writes. It would remove old ones there, all but a best one, which has moved away.
            self.args.output_dir, self.args.save_total_limit = str(hidden), None
            try:
                # Past TRL's own, which adds a model card to the run's directory.
                Trainer._save_checkpoint(self, model, trial)
            finally:
                self.args.output_dir, self.args.save_total_limit = str(run_dir), limit
                self.state.best_model_checkpoint = None
            if writes:
                self.save_own_state(hidden / name)
            self.accelerator.wait_for_everyone()  # each process writes a random state of its own
            if writes:
                seal(hidden / name)
                publish(hidden / name, run_dir / name)
                if limit is not None:
                    prune(run_dir, self.state.global_step, limit)
        self.accelerator.wait_for_everyone()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Refuse what the Trainer only warns of; and say nothing of tied weights, which are in a file under one name.

        Raises:
            RunError: a weight has no value in the checkpoint, or a value has no weight.
        """
        weights = self.model.state_dict()
        loaded = {weight.data_ptr() for name, weight in weights.items() if name not in load_result.missing_keys}
        wrong = [name for name in load_result.missing_keys if weights[name].data_ptr() not in loaded]
        wrong += load_result.unexpected_keys
        if wrong:
            raise RunError(f"the checkpoint is not one of this policy: {', '.join(wrong[:4])} don't match")

    def save_own_state(self, folder: Path) -> None:
        """Write into a checkpoint what the heir needs to resume; called in the one process that writes."""


class SaveAfterEvaluation(TrainerCallback):
    """Lets a checkpoint at an epoch's end wait for that epoch's evaluation.

    The Trainer saves first. Whoever resumed from there would go on with the next epoch, and the evaluation would be
    missing, or depend on whether the crash came before or after it.
    """

    def __init__(self) -> None:
        self._waits = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put off a checkpoint that an evaluation follows."""
        evaluation_follows = args.eval_strategy == "epoch" and (
            float(state.epoch).is_integer() or state.global_step >= state.max_steps
        )
        if control.should_save and evaluation_follows:
            control.should_save, self._waits = False, True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save now: the Trainer evaluates first where both are due."""
        if self._waits:
            control.should_save, self._waits = True, False


def name_examples(ids: Sequence[str]) -> str:
    """Name examples in a message: a batch is small enough to be named whole, a large one is not read to its end."""
    shown = ", ".join(repr(name) for name in ids[:16])
    return f"{'example' if len(ids) == 1 else 'examples'} {shown}" + (f" and {len(ids) - 16} more" if ids[16:] else "")
