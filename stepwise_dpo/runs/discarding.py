"""Discard a run: end it and, once its process has ended, delete it.

The wish is a file in the run's directory, so that it outlasts the page that it was made on and the server's restart:
whoever looks at the runs next carries it out.
"""

from contextlib import suppress

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.supervisor import Supervisor

FILE = "discard"


def discard(supervisor: Supervisor, run: RunDirectory) -> None:
    """End a run, which need not keep anything now, and delete it when it has ended; returns at once.

    Raises:
        RunError: its files can't be written or removed.
    """
    try:
        (run.path / FILE).touch()
    except OSError as error:
        raise RunError(f"run {run.id!r} can't be discarded: {error.strerror}") from error
    supervisor.kill(run)
    sweep(supervisor)


def is_discarded(run: RunDirectory) -> bool:
    """Whether somebody asked for this run to be discarded."""
    return (run.path / FILE).exists()


def sweep(supervisor: Supervisor) -> None:
    """Delete the runs that were discarded and have ended by now."""
    for run in supervisor.runs():
        if is_discarded(run):
            with suppress(RunError):  # still active, or another look deletes it just now; the next look tries again
                supervisor.delete(run)
