"""What the trainer reads: pairs as columns of tokens, steps and process rewards, and the batches made of them.

B = pairs, N = 2B rows (chosen, then rejected), T = tokens, S = steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from trl.trainer.dpo_trainer import DataCollatorForPreference

from stepwise_dpo.learning.losses import NO_STEP
from stepwise_dpo.learning.rewards import LLMRewardModel
from stepwise_dpo.learning.tokenization import StepTokenizer
from stepwise_dpo.preferences.pairs import PreferencePair

SIDES = ("chosen", "rejected")


def build_dataset(
    pairs: Sequence[PreferencePair],
    steps: StepTokenizer,
    max_length: int | None = None,
    judge: LLMRewardModel | None = None,
) -> Dataset:
    """Tokenise pairs into the columns that the trainer reads.

    Columns: `row` (index into `pairs`), `length` (tokens of the prompt and the longer side, for
    `train_sampling_strategy` "group_by_length"), `prompt_ids`, and for each side `*_ids`, `*_step_ids` and, given a
    judge, `*_process_rewards`, one value per step.

    Args:
        pairs: the examples.
        steps: how to tokenise.
        max_length: the most tokens of prompt and answer.
        judge: gives the process rewards; asked only after every pair has been found short enough.

    Raises:
        DataError: a pair is too long, or the judge can't read it.
        ModelError: a reward isn't a finite number.
    """
    examples: list[dict[str, Any]] = []
    for row, encoded in enumerate(steps.encode_pairs(pairs, max_length)):
        length = len(encoded.prompt_ids) + max(len(encoded.chosen_ids), len(encoded.rejected_ids))
        examples.append({"row": row, "length": length, **vars(encoded)})
    if judge is not None:
        for example, (chosen, rejected) in zip(examples, judge.score_pairs(pairs), strict=True):
            example |= {"chosen_process_rewards": chosen, "rejected_process_rewards": rejected}
    return Dataset.from_list(examples)


@dataclass
class StepCollator(DataCollatorForPreference):
    """TRL's collator, plus what belongs to steps.

    Added to the batch: `row` (B,), `step_ids` (N, T) with -1 for prompt and padding, and where the examples have them
    `ref_token_logps` (N, T), 0 at prompt and padding, `process_rewards` (N, S) and `step_mask` (N, S).
    """

    STEP_KEYS = ("row", "step_ids", "ref_token_logps", "process_rewards", "step_mask")

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad a list of examples to one batch."""
        batch: dict[str, Any] = super().torch_call(examples)
        is_completion = batch["completion_mask"].bool()  # (N, T)
        batch["row"] = torch.tensor([example["row"] for example in examples])

        def column(name: str) -> list[Any]:
            return [example[f"{side}_{name}"] for side in SIDES for example in examples]

        def at_completion(name: str, fill: float, dtype: torch.dtype) -> Tensor:
            flat = torch.tensor([value for row in column(name) for value in row], dtype=dtype)
            return torch.full(is_completion.shape, fill, dtype=dtype).masked_scatter(is_completion, flat)

        batch["step_ids"] = at_completion("step_ids", NO_STEP, torch.long)
        if "chosen_ref_token_logps" in examples[0]:
            batch["ref_token_logps"] = at_completion("ref_token_logps", 0, torch.float32)
        if "chosen_process_rewards" in examples[0]:
            rewards = [torch.tensor(values, dtype=torch.float32) for values in column("process_rewards")]
            batch["process_rewards"], batch["step_mask"] = padded_steps(rewards)
        return batch


def padded_steps(rewards: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad one value per step of N solutions to (N, S), with a mask of the real ones."""
    values = nn.utils.rnn.pad_sequence(list(rewards), batch_first=True)
    counts = torch.tensor([len(solution) for solution in rewards], device=values.device)
    return values, torch.arange(values.size(1), device=values.device) < counts[:, None]
