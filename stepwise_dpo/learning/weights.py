"""A model's weights: what they are, and how much they take."""

import hashlib

import torch
from torch import nn


def weights_hash(model: nn.Module, *more: str) -> str:
    """SHA-256 of a model's weights, bit for bit, with their names and shapes; those that are tied count once.

    Args:
        model: on any device, in any precision.
        more: what else makes the model what it is.
    """
    digest = hashlib.sha256("\0".join(more).encode())
    for name, weight in model.named_parameters():
        digest.update(f"\0{name} {weight.dtype} {tuple(weight.shape)}\0".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
