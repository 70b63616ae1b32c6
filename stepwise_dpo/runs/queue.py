"""The line of runs that wait for their turn: first come, first served, and not too many."""

from collections.abc import Iterator, Mapping

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.limits import QueueLimits


class Queue:
    """Runs in the order in which they were asked for. Not made for two threads; its holder has a lock.

    Args:
        limits: how many may wait, and how many may belong to one owner.
    """

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._waiting: dict[str, tuple[RunDirectory, str | None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[RunDirectory]:
        return iter([run for run, _ in self._waiting.values()])

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._waiting

    def check_room(self, owner: str | None, running: Mapping[str, str | None], free: int) -> None:
        """Refuse one more run where there are enough.

        Args:
            owner: whose run it would be; None is not counted by owner.
            running: the owners of the runs that are at work, by run id.
            free: how many runs could start at once.

        Raises:
            RunError: how many there are, and what to do.
        """
        most = self._limits.per_owner
        if owner is not None and most is not None:
            own = [*(of for _, of in self._waiting.values()), *running.values()].count(owner)
            if own >= most:
                raise RunError(
                    f"you have {own} runs that run or wait already, and at most {most} are allowed; stop one or wait "
                    "for its end, then train again"
                )
        if len(self) >= self._limits.waiting + free:
            raise RunError(f"{len(self)} runs wait already, which is the limit; try again later")

    def join(self, run: RunDirectory, owner: str | None) -> None:
        """Put a run at the end of the line."""
        self._waiting[run.id] = (run, owner)

    def leave(self, run_id: str) -> bool:
        """Take a run out of the line; False if it isn't in it."""
        return self._waiting.pop(run_id, None) is not None

    def first(self) -> tuple[RunDirectory, str | None]:
        """Take the next run out of the line, and its owner."""
        return self._waiting.pop(next(iter(self._waiting)))

    def place(self, run_id: str) -> int:
        """A run's place in the line, from 1; 0 if it isn't in it."""
        return next((place for place, known in enumerate(self._waiting, 1) if known == run_id), 0)
