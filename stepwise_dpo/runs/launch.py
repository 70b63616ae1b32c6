"""How many processes train together, and which of them this one is, as torch's and Accelerate's launchers say it."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from stepwise_dpo.errors import ConfigError


class Launch(NamedTuple):
    """A process among those that train together.

    Attributes:
        processes: how many there are.
        rank: which one this is, from 0; the first one writes.
        local_rank: which one it is on its machine, from 0.
    """

    processes: int
    rank: int
    local_rank: int


def read_launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """Read WORLD_SIZE, RANK and LOCAL_RANK; without them there is one process.

    Raises:
        ConfigError: one is no number, or out of range.
    """
    processes = _whole(environment, "WORLD_SIZE", 1)
    rank = _whole(environment, "RANK", 0)
    if rank >= processes:
        raise ConfigError(
            f"the environment variable RANK is {rank}, but WORLD_SIZE says that there "
            f"{'is one process' if processes == 1 else f'are {processes} processes'}, counted from 0; unset both, or "
            "let `accelerate launch` set them"
        )
    return Launch(processes, rank, _whole(environment, "LOCAL_RANK", 0))


def is_first_process() -> bool:
    """Whether this is the only process, or the one of several that writes."""
    return read_launch().rank == 0


def _whole(environment: Mapping[str, str], name: str, least: int) -> int:
    """Read a whole number of at least so much, which is also what counts where the variable isn't set."""
    text = environment.get(name, str(least))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least):
        raise ConfigError(
            f"the environment variable {name} must be a whole number from {least} on, not {text[:80]!r}; unset it, or "
            "let `accelerate launch` set it"
        )
    return int(text)
