"""Keep a worker's log short while the worker goes on writing to it.

The worker writes to the file itself, so that nothing it prints, not even what native code says as it crashes, can be
lost in or blocked by somebody who reads. Whoever watches the worker cuts the middle out of what has grown too long.
"""

import os
from pathlib import Path

MAX_BYTES = 2 * 2**20
"""A log longer than this is cut …"""

KEPT_BYTES = 256 * 2**10
"""… to so much of its beginning and of its end."""


def cap_log(path: Path, max_bytes: int = MAX_BYTES, kept_bytes: int = KEPT_BYTES) -> bool:
    """Cut the middle out of a log that is too long, in place: the worker has it open for appending.

    What the worker writes meanwhile is carried over, but for what comes between a look at the file's size and the call
    that follows it at once.

    Returns:
        whether it was cut.
    """
    try:
        with open(path, "r+b", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= max_bytes:
                return False
            file.seek(size - kept_bytes)
            tail = file.read(kept_bytes)
            # Whole lines at both sides of the gap, where there are lines.
            tail = tail[tail.find(b"\n") + 1 :]
            file.seek(0)
            head = file.read(kept_bytes)
            head = head[: head.rfind(b"\n") + 1] or head
            left_out = size - len(head) - len(tail)
            file.seek(len(head))
            file.write(f"[… {left_out:,} bytes left out …]\n".encode() + tail)
            end, carried = file.tell(), size
            # Of a flood, the rest belongs to the middle.
            while carried < (grown := os.fstat(file.fileno()).st_size) <= size + max_bytes:
                file.seek(carried)
                more = file.read(grown - carried)
                file.seek(end)
                file.write(more)
                end, carried = file.tell(), carried + len(more)
            os.ftruncate(file.fileno(), end)
    except FileNotFoundError:
        return False
    return True


def last_line(path: Path) -> str:
    """The last line of a log, at most 500 characters: for an unexpected error the exception itself; "" if none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 64 * 2**10))
            lines = file.read().decode("utf-8", errors="replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    return lines[-1][:500] if lines else ""
