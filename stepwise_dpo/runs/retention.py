"""What a public page forgets: runs that ended, the examples that visitors trained on, and uploads, after a day."""

import hashlib
import logging
import math
import os
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.example_files import example_folder, used_names
from stepwise_dpo.runs.leftovers import sweep_folder
from stepwise_dpo.runs.supervisor import Supervisor

DAY_SECONDS = 24 * 60 * 60.0
HOUR_SECONDS = 60 * 60.0

_log = logging.getLogger(__name__)


def upload_folder(runs_dir: Path) -> Path:
    """Make the folder for what visitors upload and download, the same after a restart, readable by nobody else.

    Gradio's own is shared with every Gradio app of this machine, and Gradio deletes only the files that this very
    process has taken in to the end: what a killed server leaves, or a broken upload, would stay.

    Raises:
        RunError: it can't be made, or somebody else has made it.
    """
    name = hashlib.sha256(str(runs_dir.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"stepwise-dpo-{name}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise RunError(f"the folder for uploads, {str(folder)!r}, can't be made: {error.strerror}") from error
    foreign = hasattr(os, "getuid") and found.st_uid != os.getuid()
    if foreign or not stat.S_ISDIR(found.st_mode):
        raise RunError(f"the folder for uploads, {str(folder)!r}, belongs to somebody else; remove it, or set TMPDIR")
    return folder


def repeat_hourly(*tasks: Callable[[], object]) -> None:
    """Do things again and again, an hour apart; doesn't return, whatever becomes of them."""
    while True:
        for task in tasks:
            try:
                task()
            except Exception:
                # Not only our own errors: where a thread ends unseen, nothing is deleted from then on.
                _log.exception("what is old can't be deleted now; the next try is in an hour")
        time.sleep(HOUR_SECONDS)


def forget_uploads(folder: Path, seconds: float = DAY_SECONDS) -> int:
    """Delete files so old, and folders that became empty; returns how many files. No link is followed."""
    oldest = time.time() - seconds
    gone = 0
    for place, _, names in os.walk(folder, topdown=False):
        for path in map(Path(place).joinpath, names):
            try:
                if path.lstat().st_ctime < oldest:
                    path.unlink()
                    gone += 1
            except OSError as error:
                _log.warning("uploaded file %r is kept: %s", path.name, error)
        try:
            if Path(place) != folder and not os.listdir(place) and os.lstat(place).st_mtime < oldest:
                os.rmdir(place)
        except OSError:
            continue  # somebody has just written there
    return gone


def forget(supervisor: Supervisor, seconds: float = DAY_SECONDS) -> list[str]:
    """Delete runs that ended so long ago, example files as old that no run reads any more, and what `leftovers` knows.

    Of a run that can't be read counts when something in it was last written.

    Args:
        supervisor: of the runs.
        seconds: how long things are kept.

    Returns:
        names of what was deleted.
    """
    oldest = time.time() - seconds
    deleted = []
    for run in supervisor.runs():
        try:
            if _ended(supervisor, run) < oldest:
                supervisor.delete(run)
                deleted.append(run.id)
        except (OSError, RunError) as error:
            _log.warning("run %r is kept: %s", run.id, error)
    deleted += sweep_folder(supervisor.runs_dir)
    used = used_names(supervisor.runs())
    for file in example_folder(supervisor.runs_dir).glob("*.json"):
        try:
            if file.name not in used and file.lstat().st_mtime < oldest:
                file.unlink()
                deleted.append(file.name)
        except OSError as error:
            _log.warning("example file %r is kept: %s", file.name, error)
    return deleted


def _ended(supervisor: Supervisor, run: RunDirectory) -> float:
    """When a run ended, in seconds since 1970; infinity while it is active."""
    try:
        status = supervisor.status(run)
    except RunError:
        return run.path.stat().st_mtime
    return math.inf if status.active else status.updated
