"""What a killed process leaves in the folder of runs is found and removed: only what is ours and needed by nobody.

A run is removed under another name: so a removal that is cut short is no half a run, and is known for what it is.
"""

import logging
import os
import re
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

from stepwise_dpo.errors import RunError
from stepwise_dpo.learning.checkpoints import HIDDEN
from stepwise_dpo.runs.directory import REMOVED, WRITTEN, RunDirectory
from stepwise_dpo.runs.example_files import example_folder
from stepwise_dpo.runs.processes import lives

AT_WORK_SECONDS = 60.0
"""What changed since then somebody may still be writing: another server on the same folder, or the command line."""

_RUN_ID = re.compile(r"\d{8}-\d{6}-(?:dpo|stepwise)-[0-9a-f]{4}")
_EXAMPLES_BESIDE = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")  # of `save_pairs`
_BESIDE = re.compile(r"\.[a-z_]+\.(?:jsonl?|txt)\.[0-9a-f]{8}")  # of `write_atomically`
_OF_A_RUN = {*WRITTEN, "ticket.json", "stop", "discard", HIDDEN} - {"final", "reward_model", "notes.txt"}
"""What may go with half a run: no trained model, and nothing that a person wrote."""

_log = logging.getLogger(__name__)


def put_away(path: Path) -> Path:
    """Give a run's folder the name of one that is being removed: from one moment to the next there is no such run.

    Returns:
        the folder, to be removed; if that doesn't come about, the next server does it.

    Raises:
        OSError: it can't be renamed, or is a link.
    """
    if path.is_symlink():
        raise OSError("it is a link")
    away = path.with_name(REMOVED + secrets.token_hex(8))
    os.replace(path, away)
    return away


def sweep_folder(runs_dir: Path) -> list[str]:
    """Remove what is left of runs that were being removed or made, and of example files that were being written.

    Returns:
        the names of what is gone.
    """
    gone = []
    for path in _entries(runs_dir):
        if path.is_dir() and not path.is_symlink() and (path.name.startswith(REMOVED) or _is_half_a_run(path)):
            try:
                shutil.rmtree(path if path.name.startswith(REMOVED) else put_away(path))
                gone.append(path.name)
            except OSError as error:
                _log.warning("what is left of run %r can't be removed: %s", path.name, error)
    folder = example_folder(runs_dir)
    return gone + [path.name for path in _entries(folder) if _EXAMPLES_BESIDE.fullmatch(path.name) and _forget(path)]


def sweep_run(run: RunDirectory) -> None:
    """Remove what a killed process was writing of a run: call this for one that has ended.

    Half a checkpoint takes as much room as a whole one.
    """
    if not (run.path / HIDDEN).is_symlink():
        shutil.rmtree(run.path / HIDDEN, ignore_errors=True)
    for path in _entries(run.path):
        if _BESIDE.fullmatch(path.name):
            _forget(path)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_half_a_run(path: Path) -> bool:
    """Whether a folder is a run that was cut off while it was made: its name, no configuration, nothing of worth."""
    if not _RUN_ID.fullmatch(path.name) or (path / "config.json").exists():
        return False
    inside = _entries(path)
    if not all(one.name in _OF_A_RUN or _BESIDE.fullmatch(one.name) for one in inside):
        return False
    with suppress(RunError):
        status = RunDirectory(path).status()
        if lives(status.pid, status.create_time):
            return False
    return all(_is_old(one) for one in (path, *inside))


def _is_old(path: Path) -> bool:
    try:
        return path.lstat().st_mtime < time.time() - AT_WORK_SECONDS
    except OSError:
        return False  # somebody is at work on it


def _forget(path: Path) -> bool:
    """Remove a file that nobody can be writing any more; whether it is gone."""
    if not _is_old(path):
        return False
    try:
        path.unlink()
    except OSError as error:
        _log.warning("what is left of a file, %r, can't be removed: %s", path.name, error)
        return False
    return True
