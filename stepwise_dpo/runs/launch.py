"""How many processes train together, and which of them this one is, as torch's and Accelerate's launchers say it."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel, Field, ValidationError

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.preferences.model_faults import first_field
from stepwise_dpo.runs.variables import WholeNumber

_MOST = 999_999_999


class _Variables(BaseModel):
    """What launchers set; the least of each is also what counts where it isn't set."""

    WORLD_SIZE: WholeNumber = Field(1, ge=1, le=_MOST)
    RANK: WholeNumber = Field(0, ge=0, le=_MOST)
    LOCAL_RANK: WholeNumber = Field(0, ge=0, le=_MOST)


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
    try:
        said = _Variables.model_validate(environment)
    except ValidationError as error:
        name = first_field(error)
        raise ConfigError(
            f"the environment variable {name} must be a whole number from {_Variables.model_fields[name].default} on, "
            f"not {environment[name][:80]!r}; unset it, or let `accelerate launch` set it"
        ) from error
    if said.RANK >= said.WORLD_SIZE:
        raise ConfigError(
            f"the environment variable RANK is {said.RANK}, but WORLD_SIZE says that there "
            f"{'is one process' if said.WORLD_SIZE == 1 else f'are {said.WORLD_SIZE} processes'}, counted from 0; "
            "unset both, or let `accelerate launch` set them"
        )
    return Launch(said.WORLD_SIZE, said.RANK, said.LOCAL_RANK)


def is_first_process() -> bool:
    """Whether this is the only process, or the one of several that writes."""
    return read_launch().rank == 0
