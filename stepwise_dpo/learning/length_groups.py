"""Batches of examples of similar length, the same ones for the same seed and epoch, also after a resume."""

from collections.abc import Iterator, Sequence

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices


class LengthGroups(LengthGroupedSampler):
    """Transformers' sampler of batches with little padding, with an order of its own for every epoch.

    Transformers draws from torch's global generator, which stands elsewhere after a resume, and gives each group's
    batches from the longest down, which the loss curve shows as a saw. Here what is random comes from seed and epoch,
    and batches are shuffled; only the one with the longest example has its place, the second. Memory that doesn't
    suffice for it fails soon, and with the optimiser's state in it, which the first step makes; and that first step,
    for whose loss somebody waits, is of usual length.

    Args:
        batch_size: examples that are grouped: those of one optimiser step on one device.
        lengths: of the examples, in tokens.
        seed: of the order.
    """

    def __init__(self, batch_size: int, lengths: Sequence[int], seed: int) -> None:
        super().__init__(batch_size, lengths=list(lengths))
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; Accelerate's loader does."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        indices = get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        full = len(indices) // self.batch_size
        # The batch of the longest example is number 0. What doesn't fill a batch has to stay at the end.
        others = (1 + torch.randperm(max(full - 1, 0), generator=generator)).tolist()
        for batch in [*others[:1], *range(min(full, 1)), *others[1:], full]:
            yield from indices[batch * self.batch_size : (batch + 1) * self.batch_size]
