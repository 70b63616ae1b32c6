"""Several processes train on each example once, also where the last batch is too small for all of them.

Accelerate fills that batch up with examples from the beginning, so that every process has as many; these would count
twice. Here each process drops its fillers, and what is gathered holds the real examples only.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from accelerate import Accelerator
from torch import Tensor


def real_examples(left: int, batch_size: int, processes: int) -> list[int]:
    """Count the real examples of each process's batch.

    Args:
        left: examples that no batch before this one had.
        batch_size: examples of a full batch, per process.
        processes: how many; they are filled in order.
    """
    return [min(max(left - rank * batch_size, 0), batch_size) for rank in range(processes)]


def keep_first(inputs: dict[str, Any], pairs: int, kept: int) -> dict[str, Any]:
    """Cut a batch of B pairs, N = 2B rows of chosen then rejected, down to its first `kept` pairs."""
    rows = torch.tensor([*range(kept), *range(pairs, pairs + kept)])
    cut = {}
    for name, value in inputs.items():
        if not isinstance(value, Tensor):
            cut[name] = value
        elif value.size(0) == 2 * pairs and name != "row":
            cut[name] = value[rows.to(value.device)]
        else:
            cut[name] = value[:kept]
    return cut


@contextmanager
def gathering_real(accelerator: Accelerator, counts: Sequence[int], batch_size: int) -> Iterator[None]:
    """Let an accelerator gather only what belongs to real examples.

    Tensors of a row per example may have another number of rows in each process: `counts`. Of scalars, which sum up a
    whole batch, those of processes without a real example are left out. (`gather_for_metrics` alone would take the last
    batch's number of examples for a number of processes.)
    """
    gather = accelerator.gather
    own = counts[accelerator.process_index]

    def real(tensor: Any) -> Any:
        if isinstance(tensor, tuple):
            return tuple(map(real, tensor))
        if tensor.dim() == 0:
            values = gather(tensor).reshape(-1)
            return values[torch.tensor([count > 0 for count in counts], device=values.device)]
        padded = tensor.new_zeros(batch_size, *tensor.shape[1:])
        padded[:own] = tensor[:own]
        parts = gather(padded).split(batch_size)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    with (
        mock.patch.object(accelerator, "gather", real),
        mock.patch.object(accelerator, "gather_for_metrics", lambda tensor, *_: real(tensor)),
    ):
        yield
