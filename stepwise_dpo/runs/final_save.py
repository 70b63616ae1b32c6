"""The last save of a run: the trained models get their places whole and sealed, or not at all."""

from typing import TYPE_CHECKING

from stepwise_dpo.learning.checkpoints import HIDDEN, clear_hidden, publish, saving, seal
from stepwise_dpo.runs.directory import RunDirectory

if TYPE_CHECKING:
    from stepwise_dpo.learning.rewards import LLMRewardModel
    from stepwise_dpo.learning.trainer import StepwiseDPOTrainer


def save_models(
    directory: RunDirectory, trainer: "StepwiseDPOTrainer", reward_model: "LLMRewardModel | None", *, writes: bool
) -> None:
    """Save the policy as `final`, and a reward model that was trained with it as `reward_model`.

    Both are complete below the hidden folder before either gets its place, and `final` gets it last: where it is,
    nothing is missing.

    Args:
        directory: the run's.
        trainer: holds the policy.
        reward_model: the trained one; None where none was trained.
        writes: whether this is the process that writes. All processes call this: each may hold a part of the weights.

    Raises:
        RunError: the disk is full, or weights are not finite; what had these places before still has.
    """
    # Apart from the policy: a folder that gets its place takes what is beside it away.
    policy, judge = directory.path / HIDDEN / "final", directory.path / HIDDEN / "trained" / "reward_model"
    with saving("the trained policy", directory.path):
        if writes:
            clear_hidden(directory.path)
        trainer.save_model(str(policy))
        if not writes:
            return
        # A pickle of the arguments; config.json says the same and is safe to share.
        (policy / "training_args.bin").unlink(missing_ok=True)
        seal(policy)
        if reward_model is not None:
            trainer.refuse_bad_weights(reward_model)
            reward_model.save_pretrained(judge)
            seal(judge)
            publish(judge, directory.path / judge.name)
        publish(policy, directory.final)
