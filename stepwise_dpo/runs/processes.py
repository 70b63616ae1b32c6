"""Facts about processes: whether one still is the one that it was, what a group uses, and signals to it.

A pid alone proves nothing, the system gives it anew; with the time of its creation it does.
"""

import os
import signal

import psutil


def creation_time(pid: int) -> float | None:
    """When a process was created, in seconds since 1970; None when there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def lives(pid: int | None, create_time: float | None) -> bool:
    """Whether the process that was created then is still at work; one that only waits to be reaped isn't."""
    if pid is None or create_time is None:
        return False
    try:
        found = psutil.Process(pid)
        return abs(found.create_time() - create_time) < 1 and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_zombie(pid: int) -> bool:
    """Whether a child has ended and waits to be reaped; also when it is gone altogether."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to the group that a process leads; one that leads none (a command line's) gets it alone.

    The caller has made sure that the pid still means that process.
    """
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        # It ended between the look and the signal; macOS says "not permitted" where only zombies are left.
        return


def group_members(leader: int) -> list[int]:
    """The pids of a process group, also of members whose parent is gone."""
    members = []
    for pid in psutil.pids():
        try:
            if os.getpgid(pid) == leader:
                members.append(pid)
        except (ProcessLookupError, PermissionError):
            continue
    return members


def group_memory(leader: int) -> int:
    """Resident memory of a process group in bytes; pages that members share count for each."""
    total = 0
    for pid in group_members(leader):
        try:
            total += psutil.Process(pid).memory_info().rss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total
