"""Muon for a model's matrices and AdamW for the rest, as one optimiser.

Muon (Jordan 2024, as torch has it) orthogonalises the momentum of a matrix before it takes a step. Small models learn
to copy numbers out of a prompt in far fewer optimiser steps with it than with AdamW alone.
"""

from typing import Any

import torch
from torch import nn

POSITION_RATE = 10
"""T5's position biases learn so many times faster: they have to move by whole units, the others by hundredths."""


class MuonAndAdamW(torch.optim.Optimizer):
    """One optimiser for Trainer, scheduler and checkpoints; its learning rates are scheduled together.

    Args:
        model: embeddings, biases and norms go to AdamW; every other matrix to Muon.
        learning_rate: AdamW's.
        muon_learning_rate: Muon's, on the scale of AdamW's updates (arXiv 2502.16982, section 2.2).
        weight_decay: of both, but for relative position biases, which have none.
    """

    def __init__(
        self, model: nn.Module, learning_rate: float, muon_learning_rate: float, weight_decay: float = 0.01
    ) -> None:
        embeddings = {
            id(parameter)
            for module in model.modules()
            if isinstance(module, nn.Embedding)
            for parameter in module.parameters()
        }
        matrices: list[nn.Parameter] = []
        biases: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and id(parameter) not in embeddings:
                matrices.append(parameter)
            else:
                (biases if "relative_attention_bias" in name else others).append(parameter)
        self.parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(
                matrices, lr=muon_learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(
                [
                    {"params": others, "weight_decay": weight_decay},
                    {"params": biases, "weight_decay": 0.0, "lr": POSITION_RATE * learning_rate},
                ],
                lr=learning_rate,
                betas=(0.9, 0.98),
                fused=True,
            ),
        )
        # The same dictionaries as the parts have: a scheduler that sets a rate here sets it there.
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure, so no loss to return
        """Take a step with both."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint needs."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]
