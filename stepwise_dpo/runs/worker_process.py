"""A worker's process as the supervisor holds it: waiting as a spare, then at work on one run, then ended."""

import json
import os
import select
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.processes import creation_time, group_memory, is_zombie, signal_group
from stepwise_dpo.runs.threads import waiting

if TYPE_CHECKING:
    import subprocess

_ALLOCATOR = {
    # Keep gradient buffers: to give them back to the system at every step costs a good part of it on a CPU.
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}


class WorkerProcess:
    """Leads a process group of its own, and is reaped only after the rest of that group was ended.

    Args:
        process: just started, with a pipe to its standard input.
        ready: read end of a pipe into which it writes once it has imported everything; None where nobody asks.

    Attributes:
        owner: whose run it works on, a hash; None for whoever runs the app.
        over: which limit it passed, in words; None if none.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", ready: int | None = None) -> None:
        self._process = process
        self._ready = ready
        self._is_ready = False
        self._lock = threading.Lock()
        self._code: int | None = None
        self._assigned = 0.0
        self.pid = process.pid
        self.create_time = creation_time(process.pid)
        self.owner: str | None = None
        self.over: str | None = None

    @property
    def seconds(self) -> float:
        """Since it was given its run."""
        return time.monotonic() - self._assigned

    def assign(self, run: RunDirectory, *, resume: bool = False) -> bool:
        """Tell it which run to do, or to go on with; False when it is not there any more."""
        asked = json.dumps({"run": str(run.path.resolve()), "resume": resume}) + "\n"
        self._assigned = time.monotonic()
        assert self._process.stdin is not None
        try:
            # Not through a buffer, whose rest would be written at closing and fail a second time.
            os.write(self._process.stdin.fileno(), asked.encode())
        except BrokenPipeError:
            return False
        finally:
            self.close()
        return True

    def wait_until_ready(self, seconds: float) -> bool:
        """Whether it has imported everything within that time."""
        if self._ready is not None and select.select([self._ready], [], [], seconds)[0]:
            self._is_ready = os.read(self._ready, 1) != b""  # nothing is what a process says that ended instead
            self._forget_ready()
        return self._is_ready

    def poll(self) -> int | None:
        """Its exit code, as `subprocess` gives it; None while it lives. Ends what it left behind in its group."""
        with self._lock:
            if self._code is None and is_zombie(self.pid):
                # Until it is reaped nobody else can get its pid, so the group can't be another's.
                signal_group(self.pid, signal.SIGKILL)
                self._code = self._process.wait()
            return self._code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, unless it has ended."""
        with self._lock:
            if self._code is None:
                signal_group(self.pid, number)

    def memory(self) -> int:
        """Resident memory of the whole group in bytes."""
        return group_memory(self.pid)

    def close(self) -> None:
        """Close the pipes: a spare then ends by itself, a worker has what it needs."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._forget_ready()

    def _forget_ready(self) -> None:
        if self._ready is not None:
            os.close(self._ready)
            self._ready = None


def worker_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Complete the environment of this process for a worker's; what is set there already stays."""
    # The worker must find this very package, also when `python …/app.py` runs from another folder.
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join([package, *filter(None, [base.get("PYTHONPATH")])])
    return {**_ALLOCATOR, **waiting(base), **base, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"}
