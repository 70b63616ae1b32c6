"""How this process was launched: alone, or as one of several that train together."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.preferences.faults import short

MAX_PROCESSES = 100_000


class Launched(NamedTuple):
    """What `accelerate launch` and `torchrun` say in the environment of every process that they start.

    Attributes:
        world_size: how many processes train together.
        rank: which of them this one is, from 0; only the first writes and shows.
        local_rank: the same among those of its machine, which is the number of its GPU.
    """

    world_size: int
    rank: int
    local_rank: int

    @property
    def alone(self) -> bool:
        """Whether this is the only process."""
        return self.world_size == 1


def launched(environment: Mapping[str, str] | None = None) -> Launched:
    """Read WORLD_SIZE, RANK and LOCAL_RANK; a process of which they say nothing is alone.

    Args:
        environment: of the process; this one's own if not given.

    Raises:
        ConfigError: one is no whole number within reach; a launcher writes such numbers, so somebody else set it.
    """
    said = os.environ if environment is None else environment
    size = _number(said, "WORLD_SIZE", 1, 1, MAX_PROCESSES)
    return Launched(size, *(_number(said, name, 0, 0, size - 1) for name in ("RANK", "LOCAL_RANK")))


def _number(environment: Mapping[str, str], name: str, default: int, lowest: int, highest: int) -> int:
    text = environment.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and lowest <= int(text) <= highest):
        raise ConfigError(
            f"the environment variable {name} must be a whole number from {lowest} to {highest:,}, not "
            f"{short(text)!r}: unset it, or leave it to `accelerate launch`"
        )
    return int(text)
