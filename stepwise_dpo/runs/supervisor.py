"""Start, stop and watch the processes in which runs happen.

What a run is doing is derived from facts: its status file, and whether the process named there (by pid and creation
time) is alive. So a restart of the page's server loses nothing, and a killed worker is seen as what it is.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.config import RunConfig
from stepwise_dpo.runs.directory import RunDirectory, RunStatus, list_runs, new_run_id

STOP_GRACE_SECONDS = 30.0
"""From the request to stop until SIGTERM, unless the worker answers by saying that it is stopping."""

KEEP_GRACE_SECONDS = 600.0
"""From that answer until SIGTERM: time to save and to evaluate, which takes minutes for a large model on a CPU."""

QUEUED_SECONDS = 60.0
"""A run without a process for longer than this never got one."""

KILL_GRACE_SECONDS = 5.0
"""From SIGTERM to SIGKILL."""

_ALLOCATOR = {
    # Keep gradient buffers: to give them back to the system at every step costs a good part of it on a CPU.
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}

_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""The page, a browser and other runs share the cores: a thread that waits by spinning keeps others from working."""


class Supervisor:
    """Runs below one folder.

    Args:
        runs_dir: the folder; created when the first run starts.
    """

    def __init__(self, runs_dir: str | os.PathLike[str]) -> None:
        self.runs_dir = Path(runs_dir)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def start(self, config: RunConfig, max_active: int | None = None) -> RunDirectory:
        """Create a run and start its process; returns at once.

        Args:
            config: what to do.
            max_active: refuse when so many runs are active already.

        Raises:
            RunError: the limit is reached, the folder can't be written, or the process can't be started.
        """
        with self._lock:  # between the count and the start nobody else may start
            active = [run for run in self.runs() if self.status(run).active]
            if max_active is not None and len(active) >= max_active:
                raise RunError(f"run {active[0].id!r} is still active; wait for its end or stop it, then train again")
            return self._start(config)

    def _start(self, config: RunConfig) -> RunDirectory:
        run = RunDirectory(self.runs_dir / new_run_id(config.loss))
        run.create(config)
        try:
            with open(run.events, "ab") as events:
                # A pipe would block the worker as soon as nobody reads it.
                process = subprocess.Popen(
                    [sys.executable, "-m", "stepwise_dpo.runs.worker", str(run.path.resolve()), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=events,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=_environment(os.environ),
                )
        except OSError as error:
            run.write_status(replace(run.status(), state="failed", error=f"the process could not be started: {error}"))
            raise RunError(f"run {run.id!r}: the process could not be started: {error}") from error
        self._processes[run.id] = process
        return run

    def run(self, run_id: str) -> RunDirectory:
        """Find a run by its id.

        Raises:
            RunError: no such run, or the id is not a plain name.
        """
        for known in list_runs(self.runs_dir):
            if known.id == run_id:
                return known
        raise RunError(f"there is no run {run_id[:80]!r}")

    def runs(self) -> list[RunDirectory]:
        """All runs, the newest first."""
        return list_runs(self.runs_dir)

    def status(self, run: RunDirectory) -> RunStatus:
        """Where a run stands, judged by its status file and its process; a dead process's status is corrected.

        Raises:
            RunError: the status can't be read.
        """
        status = run.status()
        if not status.active or self._alive(run, status):
            return status
        if status.pid is None and run.id not in self._processes and time.time() - status.updated < QUEUED_SECONDS:
            return status
        status = run.status()  # it may have ended properly between the two looks
        if not status.active:
            return status
        code = self._exit_code(run.id)
        if code is None:
            corrected = replace(status, state="interrupted", error="its process is gone")
        elif code == -signal.SIGKILL and not run.stop_requested():
            corrected = replace(status, state="failed", error="killed, probably out of memory")
        elif run.stop_requested():
            kept = (run.final / "config.json").exists()
            corrected = replace(status, state="stopped", error=None if kept else "ended before anything could be kept")
        else:
            corrected = replace(status, state="failed", error=_last_line(run) or f"the process ended with code {code}")
        run.write_status(corrected)
        return corrected

    def stop(self, run: RunDirectory) -> None:
        """Ask a run to stop and keep what is there; a process that doesn't is ended. Returns at once."""
        status = self.status(run)
        if not status.active:
            return
        run.request_stop()
        threading.Thread(target=self._end, args=(run,), daemon=True).start()

    def delete(self, run: RunDirectory) -> None:
        """Remove a run and everything in it.

        Raises:
            RunError: it is still active, or its files can't be removed.
        """
        if self.status(run).active:
            raise RunError(f"run {run.id!r} is still active; stop it first")
        try:
            shutil.rmtree(run.path)
        except OSError as error:
            raise RunError(f"run {run.id!r} can't be removed: {error}") from error

    def _end(self, run: RunDirectory) -> None:
        """Wait for a stopping run; end its process group in stages when it doesn't."""
        asked = time.monotonic()
        while run.exists() and (status := self.status(run)).active:  # whoever discards a run deletes it meanwhile
            waited = time.monotonic() - asked
            grace = KEEP_GRACE_SECONDS if status.state == "stopping" else STOP_GRACE_SECONDS
            if waited > grace + KILL_GRACE_SECONDS:
                self._signal(run, status, signal.SIGKILL)
            elif waited > grace:
                self._signal(run, status, signal.SIGTERM)
            time.sleep(0.2)

    def _signal(self, run: RunDirectory, status: RunStatus, number: signal.Signals) -> None:
        """Send a signal to the worker's whole group; a process that leads none (a command line's) gets it alone."""
        if status.pid is None or not self._alive(run, status):
            return
        try:
            if os.getpgid(status.pid) == status.pid:
                os.killpg(status.pid, number)
            else:
                os.kill(status.pid, number)
        except ProcessLookupError:
            return  # it ended between the look and the signal

    def _alive(self, run: RunDirectory, status: RunStatus) -> bool:
        process = self._processes.get(run.id)
        if process is not None:
            return process.poll() is None  # also reaps it
        if status.pid is None or status.create_time is None:
            return False
        try:
            found = psutil.Process(status.pid)
            return abs(found.create_time() - status.create_time) < 1 and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def _exit_code(self, run_id: str) -> int | None:
        process = self._processes.get(run_id)
        return None if process is None else process.poll()


def _environment(base: Mapping[str, str]) -> dict[str, str]:
    # The worker must find this very package, also when `python …/app.py` runs from another folder.
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join([package, *filter(None, [base.get("PYTHONPATH")])])
    return {**_ALLOCATOR, **_THREADS, **base, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"}


def _last_line(run: RunDirectory) -> str:
    """The last line that the worker printed, which for an unexpected error is the exception itself."""
    lines = run.events.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else ""
