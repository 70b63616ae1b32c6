"""What a run may use, how many may run and wait, and what a public page allows: all in one place."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stepwise_dpo.errors import ConfigError, RunError
from stepwise_dpo.learning.names import BUNDLED, HUB_DEFAULT, TINY
from stepwise_dpo.runs.config import RunConfig

GIB = 2**30


@dataclass(frozen=True)
class RunLimits:
    """What one run may use; a run that uses more is ended, and its error names the limit.

    Attributes:
        memory_bytes: resident memory of all its processes together, in bytes; None: no limit.
        seconds: time from the start of its process; None: no limit.
    """

    memory_bytes: int | None = None
    seconds: float | None = None

    def exceeded(self, memory_bytes: int, seconds: float) -> str | None:
        """Say which limit a run has passed; None while it is within all of them."""
        if self.memory_bytes is not None and memory_bytes > self.memory_bytes:
            gib = f"{self.memory_bytes / GIB:g}"
            return f"used more than {gib} GiB of memory (limit --max-memory {gib})"
        if self.seconds is not None and seconds > self.seconds:
            minutes = f"{self.seconds / 60:g}"
            return f"ran longer than {minutes} minutes (limit --max-minutes {minutes})"
        return None


@dataclass(frozen=True)
class QueueLimits:
    """How many runs there may be at once.

    Attributes:
        concurrent: running at a time; more would share the same cores and memory.
        waiting: waiting for their turn.
        per_owner: running or waiting that belong to one visitor; None: no limit.
    """

    concurrent: int = 1
    waiting: int = 20
    per_owner: int | None = None

    def __post_init__(self) -> None:
        if self.concurrent < 1 or self.waiting < 0 or (self.per_owner is not None and self.per_owner < 1):
            raise RunError("at least one run at a time, and per visitor; no fewer than none waiting")


@dataclass(frozen=True)
class PublicCaps:
    """The most that a stranger's run may ask for on a public page.

    Attributes:
        examples: to train on.
        held_out: to compare on.
        steps: optimiser steps.
        batch_size: pairs per forward.
        gradient_accumulation: batches per optimiser step.
        max_length: tokens of an example.
        max_new_tokens: tokens of a generated answer.
        models: every model that may be named, as policy or as reward model.
        settings: every setting that may be another than its default.
        save_steps: fewest optimiser steps between two checkpoints.
    """

    examples: int = 1000
    held_out: int = 300
    steps: int = 500
    batch_size: int = 32
    gradient_accumulation: int = 8
    max_length: int = 1024
    max_new_tokens: int = 128
    models: tuple[str, ...] = (*BUNDLED, HUB_DEFAULT, TINY)
    settings: tuple[str, ...] = (
        *("loss", "model", "reward_model", "data", "eval_data", "epochs", "max_steps", "batch_size"),
        *("gradient_accumulation", "learning_rate", "seed", "max_length", "frozen_scores", "beta", "loss_type"),
        *("likelihood", "aggregation", "nonpositive", "anchor_to_reference", "reward_value", "generate"),
        *("max_new_tokens", "save_steps", "group_by_length"),
    )
    save_steps: int = 50


PUBLIC_CAPS = PublicCaps()
PUBLIC_RUN_LIMITS = RunLimits(memory_bytes=6 * GIB, seconds=30 * 60)
PUBLIC_PER_OWNER = 2
"""One that runs and one that waits."""


def check_public_model(name: str, allowed: Sequence[str]) -> None:
    """Refuse a model that strangers may not choose.

    Raises:
        ConfigError: it isn't on the list, or a folder of that name would be loaded instead of what the list means.
    """
    if name not in allowed:
        raise ConfigError(
            f"on this public page the model must be one of {', '.join(allowed)}; run the app yourself for others"
        )
    if name not in (*BUNDLED, TINY) and Path(name).exists():
        raise ConfigError(f"model {name!r} is a folder here; on a public page only the Hub's is meant")


def check_public(
    config: RunConfig, *, examples: int, held_out: int, steps: int, caps: PublicCaps = PUBLIC_CAPS
) -> None:
    """Refuse what a public page doesn't do for strangers; whoever runs the app alone isn't bound by this.

    Args:
        config: what the visitor asks for.
        examples: pairs to train on.
        held_out: pairs to compare on.
        steps: optimiser steps that come of it.
        caps: what is allowed.

    Raises:
        ConfigError: the first thing that is too large, a setting or a model that isn't on the list.
    """
    for setting, field in RunConfig.model_fields.items():
        if setting not in caps.settings and getattr(config, setting) != field.default:
            raise ConfigError(f"on this public page {setting} can't be set; leave it out, or run the app yourself")
    for name in (config.model, config.reward_model):
        if name is not None:
            check_public_model(name, caps.models)
    if config.save_steps is not None and config.save_steps < caps.save_steps:
        raise ConfigError(f"on this public page save_steps must be at least {caps.save_steps}, or left out")
    for words, value, most in (
        ("examples to train on", examples, caps.examples),
        ("examples to compare on", held_out, caps.held_out),
        ("steps", steps, caps.steps),
        ("pairs in a batch", config.batch_size, caps.batch_size),
        ("batches per step", config.gradient_accumulation, caps.gradient_accumulation),
        ("tokens of the longest example", config.max_length, caps.max_length),
        ("tokens of an answer", config.max_new_tokens, caps.max_new_tokens),
        ("answers to generate", config.generate, caps.held_out),
    ):
        if value > most:
            raise ConfigError(
                f"on this public page a run has at most {most:,} {words}, not {value:,}; choose fewer, or run the app "
                "yourself"
            )
