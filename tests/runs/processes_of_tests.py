"""Waiting for processes, and seeing whether they are gone."""

import os
import time

import psutil


def wait_for(condition, seconds=120):
    """Wait until a condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    return value


def group_of(pid):
    """Every process of a group that can still do something."""
    members = []
    for other in psutil.process_iter():
        try:
            if os.getpgid(other.pid) == pid and other.status() != psutil.STATUS_ZOMBIE:
                members.append(other)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return members
