"""One visitor's runs: whatever a page does with runs for somebody goes through here, so nobody reaches another's."""

from collections.abc import Callable
from pathlib import Path

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.config import RunConfig
from stepwise_dpo.runs.directory import RunDirectory, RunStatus
from stepwise_dpo.runs.discarding import discard
from stepwise_dpo.runs.supervisor import Supervisor


class OwnRuns:
    """The runs that somebody may see, stop, read and download.

    Args:
        supervisor: of all runs.
        owner: the visitor's secret; "" owns nothing; None is whoever runs the app, who may do everything.
    """

    def __init__(self, supervisor: Supervisor, owner: str | None = None) -> None:
        self._supervisor, self._owner = supervisor, owner

    @property
    def runs_dir(self) -> Path:
        """The folder of all runs."""
        return self._supervisor.runs_dir

    def runs(self) -> list[RunDirectory]:
        """All runs of this owner, the newest first."""
        return self._supervisor.runs(self._owner)

    def run(self, run_id: object) -> RunDirectory:
        """Find a run by its id, which may come from anywhere.

        Raises:
            RunError: no such run; another's is none as well.
        """
        return self._supervisor.run(run_id, self._owner)

    def status_or_damage(self, run: RunDirectory) -> RunStatus:
        """Read where a run stands; one that can't be read has failed, with the reason: so it is seen, and deleted.

        Raises:
            RunError: it is gone.
        """
        try:
            return self.status(run)
        except RunError as damage:
            if not run.exists():
                raise
            return RunStatus("failed", error=str(damage))

    def status(self, run: RunDirectory) -> RunStatus:
        """Where a run stands.

        Raises:
            RunError: the status can't be read.
        """
        return self._supervisor.status(run)

    def start(self, config: RunConfig, write: Callable[[], object] | None = None) -> RunDirectory:
        """Create a run of this owner; it begins when its turn comes.

        Args:
            config: what to do.
            write: as of `Supervisor.start`.

        Raises:
            StepwiseDPOError: as `Supervisor.start`.
        """
        return self._supervisor.start(config, self._owner, write)

    def stop(self, run_id: object) -> RunDirectory:
        """Ask a run to stop and keep what is there; one that has ended stays as it is.

        Raises:
            RunError: no such run.
        """
        run = self.run(run_id)
        self._supervisor.stop(run)
        return run

    def resume(self, run_id: object) -> RunDirectory:
        """Go on with a run that ended early.

        Raises:
            RunError: no such run, or as `Supervisor.resume`.
        """
        run = self.run(run_id)
        self._supervisor.resume(run)
        return run

    def discard(self, run_id: object) -> None:
        """Stop a run, and delete it when it has ended.

        Raises:
            RunError: no such run, or its files can't be written.
        """
        discard(self._supervisor, self.run(run_id))

    def delete(self, run_id: object) -> None:
        """Remove a run that has ended.

        Raises:
            RunError: no such run, it is active, or its files can't be removed.
        """
        self._supervisor.delete(self.run(run_id))
