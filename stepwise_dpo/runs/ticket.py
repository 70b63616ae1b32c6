"""What the supervisor notes beside a run: whose it is, and in which server's queue it stands.

    ticket.json      {"owner": a hash or null, "server": pid, "server_create_time": seconds since 1970, "resume": bool}

Kept apart from config.json, which is the configuration and nothing else, and from status.json, which the run's own
process writes.
"""

import hashlib
import json
import os
from dataclasses import asdict
from typing import Annotated

import psutil
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.directory import Pid, RunDirectory, Seconds, write_atomically
from stepwise_dpo.runs.processes import lives

NAME = "ticket.json"
_MAX_BYTES = 2**16


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class Ticket:
    """A run's place in the world.

    Attributes:
        owner: `owner_hash` of the visitor's secret; None for a run of whoever runs the app.
        server: pid of the process that accepted the run.
        server_create_time: when that process was created, in seconds since 1970.
        resume: whether it shall go on from a checkpoint, and not begin.

    Raises:
        ValidationError: a value is of another type, or out of range.
    """

    owner: Annotated[str, Field(max_length=64)] | None
    server: Pid
    server_create_time: Seconds
    resume: bool = False

    @property
    def server_lives(self) -> bool:
        """Whether the process that accepted the run is still there to start it."""
        return lives(self.server, self.server_create_time)


def new_ticket(owner: str | None, *, resume: bool = False) -> Ticket:
    """Make a ticket for a run that this process accepts; `owner` is a hash already."""
    return Ticket(owner, os.getpid(), psutil.Process().create_time(), resume)


def owner_hash(secret: str | None) -> str | None:
    """Hash a visitor's secret of 256 random bits: enough to recognise its holder, useless to become one.

    Raises:
        RunError: the secret is empty; a visitor without one owns nothing.
    """
    if secret is None:
        return None
    if not secret:
        raise RunError("this browser has no secret of its own yet; reload the page")
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def write_ticket(run: RunDirectory, ticket: Ticket) -> None:
    """Replace a run's ticket.

    Raises:
        RunError: it can't be written.
    """
    try:
        write_atomically(run.path / NAME, json.dumps(asdict(ticket)) + "\n")
    except OSError as error:
        raise RunError(f"run {run.id!r}: {NAME} can't be written: {error.strerror}") from error


def read_ticket(run: RunDirectory) -> Ticket | None:
    """Read a run's ticket; None where there is none (a run of the command line) or it can't be understood.

    So a damaged ticket makes a run nobody's: hidden from strangers, never shown to the wrong one.
    """
    try:
        return Ticket(**run.read_json(NAME, _MAX_BYTES))
    except (RunError, TypeError, ValidationError):
        return None
