"""Start, stop and watch the processes in which runs happen; who has to wait, waits in a queue.

What a run is doing is derived from facts: its status file, and whether the process named there (by pid and creation
time) is alive. So a restart of the page's server loses nothing, and a killed worker is seen as what it is.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from stepwise_dpo.errors import RunError, StepwiseDPOError
from stepwise_dpo.learning.checkpoints import HIDDEN
from stepwise_dpo.runs.checkpoints import refuse_to_resume
from stepwise_dpo.runs.config import RunConfig
from stepwise_dpo.runs.directory import RunDirectory, RunStatus, State, list_runs, new_run_id
from stepwise_dpo.runs.event_log import cap_log, last_line
from stepwise_dpo.runs.example_files import example_folder, files_of, used_names
from stepwise_dpo.runs.leftovers import put_away, sweep_folder, sweep_run
from stepwise_dpo.runs.limits import QueueLimits, RunLimits
from stepwise_dpo.runs.pace import step_seconds
from stepwise_dpo.runs.processes import lives, signal_group
from stepwise_dpo.runs.queue import Queue
from stepwise_dpo.runs.ticket import new_ticket, owner_hash, read_ticket, write_ticket
from stepwise_dpo.runs.worker_process import WorkerProcess, worker_environment

STOP_GRACE_SECONDS = 30.0
"""From the request to stop until SIGTERM, unless the worker answers by saying that it is stopping. It can't while it
computes a batch or writes a checkpoint: where optimiser steps take long, it has the time of two of them."""

KEEP_GRACE_SECONDS = 600.0
"""From that answer until SIGTERM: time to save and to evaluate, which takes minutes for a large model on a CPU."""

KILL_GRACE_SECONDS = 5.0
"""From SIGTERM to SIGKILL."""

QUEUED_SECONDS = 60.0
"""A queued run without a ticket (the command line's, for a moment) that is older than this never got a process."""

TICK_SECONDS = 0.25
"""How often the runs of this server are looked after; nothing is done while there are none."""

SPARE_PATIENCE_SECONDS = 20.0
"""How long a run has its start to itself before the next spare takes a core for its imports, where another run may
start beside it."""

WORKER = (sys.executable, "-m", "stepwise_dpo.runs.worker")

_log = logging.getLogger(__name__)


class Recovered(NamedTuple):
    """What a server found when it started.

    Attributes:
        interrupted: runs whose process is gone.
        queued: runs that never started; they wait again, in the order in which they did.
    """

    interrupted: list[RunDirectory]
    queued: list[RunDirectory]


class _Wish(NamedTuple):
    """That a run shall stop.

    Attributes:
        run: which one.
        asked: when that was, by the monotonic clock.
        deaf_until: when the worker was last seen at what it can't be disturbed in, by the same clock; else `asked`.
        step: how long an optimiser step of this run takes, in seconds; 0 while nobody knows.
    """

    run: RunDirectory
    asked: float
    deaf_until: float
    step: float


class Supervisor:
    """Runs below one folder.

    Args:
        runs_dir: the folder; created when the first run starts.
        limits: what one run may use.
        queue_limits: how many may run and wait. Runs of the command line in the same folder count as running.
    """

    def __init__(
        self,
        runs_dir: str | os.PathLike[str],
        limits: RunLimits | None = None,
        queue_limits: QueueLimits | None = None,
    ) -> None:
        self.runs_dir = Path(runs_dir)
        self.limits = limits or RunLimits()
        self.queue_limits = queue_limits or QueueLimits()
        self._queue = Queue(self.queue_limits)
        self._live: dict[str, WorkerProcess] = {}
        self._stopping: dict[str, _Wish] = {}
        self._lost: dict[str, str] = {}  # runs whose turn came to nothing, and why: their status files may not say so
        self._spare: WorkerProcess | None = None
        self._keep_warm = False
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()  # around everything above; `status` and what only reads do without

    # ------------------------------------------------------------------------------------------------- start and stop

    def start(
        self, config: RunConfig, owner: str | None = None, write: Callable[[], object] | None = None
    ) -> RunDirectory:
        """Create a run; its process starts at once, or when its turn comes. Returns at once.

        Args:
            config: what to do.
            owner: the secret of the visitor who asks, of which a hash is kept; None for whoever runs the app.
            write: writes the example files that the configuration names; called once there is room for the run.

        Raises:
            RunError: too many runs wait, the folder can't be written, or the process can't be started.
            StepwiseDPOError: as `write`.
        """
        hashed = owner_hash(owner)
        with self._lock:  # between the count and the start nobody else may start
            self._check_room(hashed)
            while (path := self.runs_dir / new_run_id(config.loss)).exists():
                continue  # twenty clicks in one second
            run = RunDirectory(path)
            try:
                if write is not None:
                    write()
                run.create(config)
                write_ticket(run, new_ticket(hashed))
            except StepwiseDPOError:
                shutil.rmtree(run.path, ignore_errors=True)  # half a run is none
                self._forget_examples(config)
                raise
            self._line_up(run, hashed)
        return run

    def resume(self, run: RunDirectory) -> None:
        """Go on with a run that ended early, from its last sound checkpoint, when its turn comes. Returns at once.

        It stays whose it was. One that has no checkpoint yet begins again.

        Raises:
            RunError: it has finished, is active, or its checkpoints are damaged; or as `start`.
        """
        with self._lock:
            if self.status(run).active:
                raise RunError(f"run {run.id!r} is still active; stop it first")
            if (reason := refuse_to_resume(run)) is not None:
                raise RunError(reason)
            ticket = read_ticket(run)
            owner = ticket.owner if ticket else None
            self._check_room(owner)
            self._let_go(run)
            try:
                run.forget_stop()
                write_ticket(run, new_ticket(owner, resume=True))
                run.write_status(replace(run.status(), state="queued", pid=None, create_time=None, error=None))
            except OSError as error:
                raise RunError(f"run {run.id!r} can't be resumed: {error.strerror}") from error
            self._line_up(run, owner)

    def _let_go(self, run: RunDirectory) -> None:
        """Forget what was still to be done about a run that has just ended, so that none of it hits its next process.

        A process that has written how its run ended may take seconds to leave; it has nothing to do any more.
        """
        self._stopping.pop(run.id, None)
        worker = self._live.pop(run.id, None)
        while worker is not None and worker.poll() is None:
            worker.signal(signal.SIGKILL)
            time.sleep(0.01)

    def _check_room(self, owner: str | None) -> None:
        running = {run_id: worker.owner for run_id, worker in self._live.items() if worker.poll() is None}
        self._queue.check_room(owner, running, self._free())

    def _line_up(self, run: RunDirectory, owner: str | None) -> None:
        """Let a queued run wait for its turn, which may be now."""
        self._lost.pop(run.id, None)
        self._queue.join(run, owner)
        self._advance()
        self._look_after()
        if run.id in self._lost:
            raise RunError(f"run {run.id!r}: {self._lost[run.id]}")

    def stop(self, run: RunDirectory) -> None:
        """Ask a run to stop and keep what is there; a process that doesn't is ended. Returns at once.

        Raises:
            RunError: its status can't be read, or the wish can't be written.
        """
        with self._lock:
            if run.id in self._queue:
                self._leave_queue(run)
            elif self.status(run).active:
                run.request_stop()
                self._wait_for(run)

    def kill(self, run: RunDirectory) -> None:
        """End a run without a chance to keep anything: for one that is to be deleted. Returns at once.

        Raises:
            RunError: as `stop`.
        """
        with self._lock:
            if run.id in self._queue:
                self._leave_queue(run)
            elif (status := self.status(run)).active:
                run.request_stop()  # it may still wait in another server's queue
                self._signal(run, status, signal.SIGKILL)
                self._wait_for(run)

    def _wait_for(self, run: RunDirectory) -> None:
        """Have the end of a run waited for that was asked to stop, from the first time on that it was asked."""
        if run.id not in self._stopping:
            now = time.monotonic()
            self._stopping[run.id] = _Wish(run, now, now, step_seconds(run) or 0.0)
        self._look_after()

    def delete(self, run: RunDirectory) -> None:
        """Remove a run, everything in it, and the examples that a page wrote for it and no other run is trained on.

        A run whose status can't be read is removed as well.

        Raises:
            RunError: it is still active, or its files can't be removed.
        """
        with self._lock:  # between the look and the removal nobody may resume it
            try:
                active = self.status(run).active
            except RunError:
                active = run.id in self._live  # nobody can say more, and it shall not stay for ever
            if active:
                raise RunError(f"run {run.id!r} is still active; stop it first")
            try:
                config = run.config()
            except RunError:
                config = None
            try:
                away = put_away(run.path)
                self._lost.pop(run.id, None)
                if config is not None:
                    self._forget_examples(config)
                shutil.rmtree(away)
            except OSError as error:
                raise RunError(f"run {run.id!r} can't be removed: {error}") from error

    def _forget_examples(self, config: RunConfig) -> None:
        """Remove the example files of a run that is gone, unless another run names them."""
        used = used_names(self.runs())
        for path in files_of(config, example_folder(self.runs_dir)):
            if path.name not in used:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    _log.warning("example file %r is kept: %s", path.name, error)

    def warm(self) -> None:
        """From now on keep one process that has imported everything, so that a run's first step comes at once."""
        with self._lock:
            self._keep_warm = True
            self._look_after()

    def wait_until_warm(self, seconds: float) -> bool:
        """Wait until the spare process is ready; False if there is none by then."""
        deadline = time.monotonic() + seconds
        while self._spare is None and time.monotonic() < deadline:
            time.sleep(0.05)
        spare = self._spare
        return spare is not None and spare.wait_until_ready(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """End the spare process; runs go on. When this process ends, its spare does so by itself, and its runs do."""
        with self._lock:
            self._keep_warm = False
            if self._spare is not None:
                self._spare.close()
                self._spare.signal(signal.SIGTERM)
                self._spare = None

    def recover(self) -> Recovered:
        """Set right what a server before this one left: to be called once, when a server starts.

        A run whose process is gone becomes "interrupted". One that waited when its server ended was promised and has
        lost nothing, so it waits again. What was being written or removed when a process was killed goes.
        """
        with self._lock:
            sweep_folder(self.runs_dir)
            found = Recovered([], [])
            waiting = []
            for run in self.runs():
                try:
                    status, ticket = run.status(), read_ticket(run)
                    if status.state == "queued" and ticket is not None and not ticket.server_lives:
                        write_ticket(run, new_ticket(ticket.owner, resume=ticket.resume))
                        waiting.append((status.started, run, ticket.owner))
                    elif not self.status(run).active:
                        sweep_run(run)
                        if status.active:
                            found.interrupted.append(run)
                except (OSError, RunError) as error:
                    _log.warning("run %r is left alone: %s", run.id, error)
            for _, run, owner in sorted(waiting, key=lambda known: (known[0], known[1].id)):
                self._queue.join(run, owner)
                found.queued.append(run)
            self._advance()
            self._look_after()
            return found

    # --------------------------------------------------------------------------------------------------------- reading

    def run(self, run_id: object, owner: str | None = None) -> RunDirectory:
        """Find a run by its id, which may come from anywhere: it is compared with what there is, never used as a path.

        Args:
            run_id: the name of the run's directory.
            owner: the secret of the visitor who asks; None may see every run.

        Raises:
            RunError: no such run; another's is none as well.
        """
        for known in self.runs(owner):
            if known.id == run_id:
                return known
        raise RunError(f"there is no run {str(run_id)[:80]!r}")

    def runs(self, owner: str | None = None) -> list[RunDirectory]:
        """All runs, or one visitor's, the newest first.

        Args:
            owner: the visitor's secret; None for all runs, "" (a browser without a secret) for none.
        """
        found = list_runs(self.runs_dir)
        if owner is None:
            return found
        hashed = owner_hash(owner) if owner else None
        return [run for run in found if hashed and (ticket := read_ticket(run)) and ticket.owner == hashed]

    def place(self, run: RunDirectory) -> int:
        """A run's place in this server's queue, from 1; 0 when it doesn't wait there."""
        with self._lock:
            return self._queue.place(run.id)

    def status(self, run: RunDirectory) -> RunStatus:
        """Where a run stands, judged by its status file and its process; a dead process's status is corrected.

        Raises:
            RunError: the status can't be read.
        """
        status = run.status()
        if not status.active or self._goes_on(run, status):
            return status
        with self._lock:  # who looks at the same time shall find the process too, or how it ended
            status = run.status()  # it may have ended properly between the two looks
            if not status.active or self._goes_on(run, status):
                return status
            state, error = self._ending(run, status)
            corrected = replace(status, state=state, error=error)
            with suppress(RunError):  # where it can't be written it is true nevertheless
                run.write_last_status(corrected)
            return corrected

    def _is_lost(self, run: RunDirectory, status: RunStatus) -> bool:
        """Whether an active run's turn came to nothing; the command line may have begun or resumed it since."""
        return run.id in self._lost and status.state in ("queued", "starting")

    def _ending(self, run: RunDirectory, status: RunStatus) -> tuple[State, str | None]:
        """How a run ended whose process couldn't say so itself."""
        worker = self._live.get(run.id)
        code = worker.poll() if worker else None
        if self._is_lost(run, status):
            return "failed", self._lost[run.id]
        if status.state == "queued":
            return "interrupted", "the server in whose queue it waited is gone"
        if worker is None or code is None:
            return "interrupted", "its process is gone"
        if worker.over is not None:
            return "failed", worker.over
        if run.stop_requested():
            return "stopped", run.lost_by_force()
        if code == -signal.SIGKILL:
            return "failed", "killed, probably out of memory"
        return "failed", last_line(run.events).removeprefix("error: ") or f"the process ended with code {code}"

    def _goes_on(self, run: RunDirectory, status: RunStatus) -> bool:
        """Whether an active run is waited for by a server, or worked on by a process."""
        if self._is_lost(run, status):
            return False
        if status.state == "queued":
            if run.id in self._queue:
                return True
            ticket = read_ticket(run)
            return ticket.server_lives if ticket else time.time() - status.updated < QUEUED_SECONDS
        worker = self._live.get(run.id)
        return worker.poll() is None if worker else lives(status.pid, status.create_time)

    # ---------------------------------------------------------------------------------------------------- looking after

    def _look_after(self) -> None:
        """Have the thread at work that ends, limits and starts what this server is responsible for."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._tend, name="supervisor", daemon=True)
            self._thread.start()

    def _tend(self) -> None:
        while True:
            with self._lock:
                try:
                    self._tick()
                except (OSError, RunError) as error:  # a full disk, say; the next look may find it better
                    _log.warning("runs can't be looked after: %s", error)
                wants_spare = self._keep_warm and self._spare is None
                if not (self._live or self._queue or self._stopping or wants_spare):
                    self._thread = None
                    return
            time.sleep(TICK_SECONDS)

    def _tick(self) -> None:
        # One run that can't be read or written shall not keep the others from being looked after.
        for run_id, worker in list(self._live.items()):
            run = RunDirectory(self.runs_dir / run_id)
            if worker.poll() is not None:
                try:
                    self.status(run)  # writes how it ended, if it couldn't itself
                    cap_log(run.events)
                except (OSError, RunError) as error:
                    _log.warning("how run %r ended can't be noted: %s", run_id, error)
                del self._live[run_id]
                continue
            try:
                cap_log(run.events)
            except OSError as error:
                _log.warning("the log of run %r can't be shortened: %s", run_id, error)
            memory = worker.memory() if self.limits.memory_bytes is not None else 0
            worker.over = worker.over or self.limits.exceeded(memory, worker.seconds)
            if worker.over is not None:
                worker.signal(signal.SIGKILL)
        for wish in list(self._stopping.values()):
            try:
                self._press(wish)
            except RunError as error:
                _log.warning("run %r is not waited for any more: %s", wish.run.id, error)
                del self._stopping[wish.run.id]
        for run in self._queue:
            if run.stop_requested():  # by another process
                self._leave_queue(run)
        self._advance()
        if self._keep_warm and self._spare is None and self._may_warm():
            self._spare = self._spawn(None)

    def _press(self, wish: _Wish) -> None:
        """Wait for a stopping run; end its process group in stages when it doesn't."""
        run, now = wish.run, time.monotonic()
        status = self.status(run) if run.exists() else None
        if status is None or not status.active:
            del self._stopping[run.id]
            return
        waited, grace = now - wish.deaf_until, max(STOP_GRACE_SECONDS, 2 * wish.step)
        if status.state == "starting":
            grace = 0.0  # a worker that is still importing has nothing to keep, and can't listen
        elif status.state == "stopping":
            waited, grace = now - wish.asked, KEEP_GRACE_SECONDS + wish.step  # first it ends its optimiser step
        elif _has_trained(status) and not run.final.exists():  # it saves, and hears of the stop when that is done
            grace = KEEP_GRACE_SECONDS
        elif (run.path / HIDDEN).exists() and now - wish.asked < KEEP_GRACE_SECONDS:  # so it does with a checkpoint
            self._stopping[run.id] = wish._replace(deaf_until=now)
            return
        if waited > grace:
            self._signal(run, status, signal.SIGKILL if waited > grace + KILL_GRACE_SECONDS else signal.SIGTERM)

    def _signal(self, run: RunDirectory, status: RunStatus, number: signal.Signals) -> None:
        """Send a signal to the process group that works on a run, whoever started it."""
        if run.id in self._live:
            self._live[run.id].signal(number)
        elif status.pid is not None and status.state != "queued" and lives(status.pid, status.create_time):
            signal_group(status.pid, number)

    def _leave_queue(self, run: RunDirectory) -> None:
        self._queue.leave(run.id)
        try:
            status = run.status()
            words = "stopped before it went on" if status.global_step else "stopped before it started"
            stopped = replace(status, state="stopped", phase="stopped", error=words)
            run.write_last_status(stopped)
        except RunError as error:
            self._lose(run, str(error))
        self._advance()

    def _lose(self, run: RunDirectory, why: str) -> None:
        """Note that a run which has left the queue won't start, in its status if that can be written."""
        _log.warning("run %r is not started: %s", run.id, why)
        self._lost[run.id] = why
        with suppress(RunError):  # unreadable: who makes it readable again finds out
            self.status(run)

    def _advance(self) -> None:
        """Start those whose turn it is, and tell the others their place."""
        while self._queue and self._free() > 0:
            self._launch(*self._queue.first())
        waiting = {}
        for run in self._queue:
            try:
                waiting[run.id] = run, run.status()
            except RunError as error:  # damaged, or removed by hand
                self._queue.leave(run.id)
                self._lose(run, str(error))
        for place, (run, status) in enumerate(waiting.values(), 1):
            words = f"waiting, place {place} of {len(waiting)}"
            if status.phase != words:
                with suppress(OSError):  # a full disk: it waits all the same
                    run.write_status(replace(status, phase=words))

    def _free(self) -> int:
        """How many runs may start now."""
        active = sum(worker.poll() is None for worker in self._live.values())
        for run in self.runs():
            if run.id in self._live or run.id in self._queue:
                continue
            try:
                status = self.status(run)
            except RunError:
                continue  # what can't be read doesn't run
            active += status.active and status.state != "queued"
        return self.queue_limits.concurrent - active

    def _launch(self, run: RunDirectory, owner: str | None) -> None:
        worker, self._spare = self._spare, None
        try:
            if worker is None or not self._give(run, owner, worker):
                worker = self._spawn(run)
                self._give(run, owner, worker)  # one that is gone already is found by the next look
        except (OSError, RunError) as error:  # no such program, a full disk, a damaged run
            if worker is not None and run.id not in self._live:
                worker.close()  # it ends, nobody will give it anything
                worker.signal(signal.SIGTERM)
            self._lose(run, f"the process could not be started: {error}")

    def _give(self, run: RunDirectory, owner: str | None, worker: WorkerProcess) -> bool:
        """Give a run to a process; False when the process is gone."""
        worker.owner = owner
        # Before the worker knows, which from then on writes the status itself.
        run.write_status(
            replace(run.status(), state="starting", phase="loading", pid=worker.pid, create_time=worker.create_time)
        )
        self._live[run.id] = worker
        ticket = read_ticket(run)
        return worker.assign(run, resume=ticket is not None and ticket.resume)

    def _may_warm(self) -> bool:
        """Whether a spare's imports are worth a core now: beside a run that trains only if another one may start."""
        if len(self._live) < self.queue_limits.concurrent:
            return all(worker.seconds > SPARE_PATIENCE_SECONDS for worker in self._live.values())
        return any(self._ends_soon(run_id) for run_id in self._live)

    def _ends_soon(self, run_id: str) -> bool:
        try:
            return _has_trained(RunDirectory(self.runs_dir / run_id).status())
        except RunError:  # damaged
            return False

    def _spawn(self, run: RunDirectory | None) -> WorkerProcess:
        """Start a process, for a run or as a spare.

        Raises:
            OSError: it can't be started.
        """
        ready, signals = os.pipe()
        arguments = [str(os.getpid()), *(["--ready", str(signals)] if run is None else [])]
        # A pipe for its output would block it as soon as nobody reads. A spare opens its run's log when it has a run.
        try:
            with open(os.devnull if run is None else run.events, "ab") as events:
                process = subprocess.Popen(
                    [*WORKER, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=events,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=worker_environment(os.environ),
                    pass_fds=[signals],
                )
        except OSError:
            os.close(ready)
            raise
        finally:
            os.close(signals)
        return WorkerProcess(process, ready)


def _has_trained(status: RunStatus) -> bool:
    """Whether all optimiser steps are done, so that a run saves or evaluates."""
    return 0 < status.max_steps <= status.global_step
