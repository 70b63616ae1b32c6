"""Which runs can go on, from where, and whether the disk has room for a run.

What makes a checkpoint sound is said in `learning.checkpoints`. Nothing here imports torch, so that the page can ask.
"""

import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from stepwise_dpo.errors import RunError
from stepwise_dpo.learning.checkpoints import Checkpoint, faults, find_checkpoints, readable_bytes
from stepwise_dpo.runs.config import RunConfig
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.processes import lives
from stepwise_dpo.runs.provenance import data_hashes

CHECKPOINT_WEIGHTS = 3
"""A checkpoint holds the weights, and AdamW's two moments of each."""

BEGINS_AGAIN = "no checkpoint has been written, so the run begins again at optimiser step 0"

_CLOSE = 1.5  # times what a run will write: less room than this is worth a warning


@dataclass(frozen=True)
class ResumePoint:
    """Where a run goes on.

    Attributes:
        checkpoint: the newest sound one; None where the run has none and begins again.
        skipped: newer ones that are not sound, each with what is wrong with it, the newest first.
    """

    checkpoint: Checkpoint | None
    skipped: list[str]

    @property
    def global_step(self) -> int:
        """Optimiser steps that needn't be done again."""
        return 0 if self.checkpoint is None else self.checkpoint.global_step

    def __str__(self) -> str:
        if self.checkpoint is None:
            return BEGINS_AGAIN
        skipped = "".join(f"; skipped {fault}" for fault in self.skipped)
        return f"resuming from {self.checkpoint.path.name}{skipped}"


class _Disk(BaseModel):
    model_config = ConfigDict(strict=True)

    warning: str | None = None


class _Resumed(BaseModel):
    """What a run noted when it went on, or began; older runs noted none of these."""

    model_config = ConfigDict(strict=True)

    skipped: list[str] = []
    warnings: list[str] = []
    disk: _Disk = _Disk()


class _Began(_Resumed):
    resumed: list[_Resumed] = []


def refuse_to_resume(directory: RunDirectory) -> str | None:
    """Say why a run can't be resumed, as far as that is seen at a glance (sizes of files, no hashes); None if it can.

    A run without any checkpoint can: it begins again. One whose checkpoints are all damaged can't, since somebody may
    still have their files, and beginning again would write over what is left of them.

    Raises:
        RunError: it is no run, or its status is damaged.
    """
    status = directory.status()
    if status.state == "finished":
        return f"run {directory.id!r} has finished; there is nothing left to train"
    if status.active and status.pid != os.getpid() and lives(status.pid, status.create_time):
        return f"run {directory.id!r} is still active (process {status.pid}); stop it first"
    if not find_checkpoints(directory.path):
        if status.state == "stopped" and directory.final.exists():
            return (
                f"run {directory.id!r} has no checkpoint to go on from, and beginning again would take away the model "
                "that it kept; start a new run"
            )
        return None
    if not directory.checkpoints():
        found = find_checkpoints(directory.path)
        return _all_damaged(directory, [_words(one, faults(one.path, contents=False)) for one in found])
    return None


def find_resume_point(directory: RunDirectory) -> ResumePoint:
    """Find the newest checkpoint whose every file is what was written; none where none has been written yet.

    Raises:
        RunError: all that there are are damaged.
    """
    skipped: list[str] = []
    for checkpoint in find_checkpoints(directory.path):
        wrong = faults(checkpoint.path)
        if not wrong:
            return ResumePoint(checkpoint, skipped)
        skipped.append(_words(checkpoint, wrong))
    if skipped:
        raise RunError(_all_damaged(directory, skipped))
    return ResumePoint(None, [])


def check_same_data(directory: RunDirectory, config: RunConfig, point: ResumePoint) -> None:
    """Refuse to go on with other data than the run began with.

    Raises:
        RunError: a file has changed since, or nobody knows.
        DataError: a file can't be read.
    """
    environment = directory.environment()
    if environment is None:
        if point.checkpoint is None:
            return  # it was cut off before it had read them, or all that it made of them is made again
        raise RunError(f"run {directory.id!r} can't be resumed: without environment.json nobody knows its data")
    before, now = environment["data"], data_hashes(config)
    changed = [f"{name} ({getattr(config, name)!r})" for name in now if before.get(name) != now[name]]
    if changed:
        raise RunError(
            f"run {directory.id!r} can't be resumed: {' and '.join(changed)} changed since it began; put the old file "
            "back, or start a new run"
        )


def check_same_weights(directory: RunDirectory, config: RunConfig, now: Mapping[str, str]) -> None:
    """Refuse to go on with other models than the run began with: a folder, or the Hub, may hold new ones.

    Args:
        directory: the run's.
        config: the run's.
        now: `weights_hash` of each model as it was loaded now, by the setting that names it.

    Raises:
        RunError: a model is another one.
    """
    before = (directory.environment() or {}).get("weights", {})  # older runs noted none
    changed = [f"{name} ({getattr(config, name)!r})" for name in now if before.get(name, now[name]) != now[name]]
    if changed:
        raise RunError(
            f"run {directory.id!r} can't be resumed: {' and '.join(changed)} changed since it began, in weights or in "
            "settings; put the old files back, or start a new run"
        )


def bytes_to_write(config: RunConfig, weights: int, trained_judge: int, global_steps: int) -> int:
    """Estimate the most that a run's folder will hold at a time.

    Args:
        config: the run's.
        weights: size of the policy, in bytes.
        trained_judge: size of the reward model where it is trained, else 0.
        global_steps: optimiser steps of the whole run.

    Returns:
        bytes: the trained models, and `save_total_limit` checkpoints beside the one that is being written.
    """
    models = weights + trained_judge
    if config.save_steps is None:
        return models  # the checkpoint of a stop is written if there is room then
    checkpoints = min(config.save_total_limit + 1, math.ceil(global_steps / config.save_steps))
    return models * (1 + CHECKPOINT_WEIGHTS * checkpoints)


def check_disk(directory: RunDirectory, needed: int) -> dict[str, Any]:
    """Find out before a run whether the disk has room for it.

    Returns:
        {"needed_bytes", "free_bytes", "warning": a sentence if it will be close, else None}.

    Raises:
        RunError: it has not.
    """
    free = shutil.disk_usage(directory.path).free
    room = f"{readable_bytes(needed)} of disk and {readable_bytes(free)} are free in {str(directory.path)!r}"
    if needed > free:
        raise RunError(
            f"the run needs up to {room}; make room, write elsewhere, or keep fewer checkpoints (save_total_limit, "
            "save_steps)"
        )
    warning = f"the run needs up to {room}: that is close" if needed * _CLOSE > free else None
    return {"needed_bytes": needed, "free_bytes": free, "warning": warning}


def noted_at_start(directory: RunDirectory) -> list[str]:
    """Give what a run wrote when it last began: checkpoints that it skipped and why, and what it warned of.

    Raises:
        RunError: environment.json can't be read, or is damaged where it says that.
    """
    began = directory.checked("environment.json", directory.environment() or {}, _Began)
    last = [began, *began.resumed][-1]
    said = [f"skipped {fault} when it was resumed" for fault in last.skipped]
    return [*said, *last.warnings, *filter(None, [last.disk.warning])]


def _words(checkpoint: Checkpoint, wrong: list[str]) -> str:
    return f"{checkpoint.path.name} ({', '.join(wrong)})"


def _all_damaged(directory: RunDirectory, found: list[str]) -> str:
    return (
        f"run {directory.id!r} can't be resumed: {'; '.join(found)}; put their files back, or remove these "
        "checkpoints: then it begins again at optimiser step 0"
    )
