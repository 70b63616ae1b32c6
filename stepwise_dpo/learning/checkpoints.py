"""Folders of a training, checkpoints and trained models, that are complete or not there, and that can prove it.

A folder is written below a hidden folder, every file is forced to the disk, a manifest of sizes and SHA-256 comes
last, and only then the folder gets its name. So a crash at any moment leaves what there was. What
happens to the files afterwards (a disk's fault, somebody's hand), the manifest reveals.

Nothing here imports torch.
"""

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError

from stepwise_dpo.errors import RunError, StepwiseDPOError
from stepwise_dpo.preferences.model_faults import first_fault

HIDDEN = ".saving"
"""Below the run's directory: what is being written, and nothing that anybody may read."""

MANIFEST = "manifest.json"

OWN_STATE = "stepwise_dpo.json"
"""What our trainer adds to a checkpoint of the Trainer's."""

_MAX_MANIFEST_BYTES = 2**20

_NAME = re.compile(r"checkpoint-([1-9][0-9]*)")


class Checkpoint(NamedTuple):
    """A folder that has a checkpoint's name; whether it is sound, `faults` says."""

    global_step: int
    path: Path


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    size: int = Field(ge=0, lt=2**63)
    sha256: str = Field(max_length=64)


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    files: dict[Annotated[str, Field(max_length=4096)], _File]
    sha256: str = Field(max_length=64)


class OwnState(BaseModel):
    """What our trainer adds to a checkpoint.

    Attributes:
        train_tokens: tokens that were trained on so far.
        reference: by row, the reference's log-probability of either side, in nats.
        beside: what the trainer's maker asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    train_tokens: int = Field(ge=0)
    reference: dict[Annotated[str, Field(pattern="^[0-9]{1,9}$")], tuple[float, float]]
    beside: dict[str, Any]


def find_checkpoints(run_dir: Path) -> list[Checkpoint]:
    """Everything below a run's directory that has a checkpoint's name, the newest first."""
    if not run_dir.is_dir():
        return []
    found = [
        Checkpoint(int(match[1]), path)
        for path in run_dir.iterdir()
        if (match := _NAME.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()
    ]
    return sorted(found, reverse=True)


def faults(folder: Path, *, contents: bool = True) -> list[str]:
    """Say what is wrong with a sealed folder, a clause per file; [] for a sound one.

    Args:
        folder: a checkpoint or a trained model.
        contents: compare the files' hashes too; sizes alone take no time, but miss a flipped bit.
    """
    try:
        manifest = _Manifest.model_validate_json(_read_manifest(folder))
        place = folder.resolve()
    except FileNotFoundError:
        return [f"{MANIFEST} is missing: the checkpoint is not complete"]
    except ValidationError as error:
        return [f"{MANIFEST} can't be read: {first_fault(error)}"]
    except (OSError, ValueError) as error:
        return [f"{MANIFEST} can't be read: {error}"]
    if manifest.sha256 != _of_manifest({name: file.model_dump() for name, file in manifest.files.items()}):
        return [f"{MANIFEST} is damaged"]
    found = []
    for name, expected in manifest.files.items():
        try:
            status = (folder / name).stat()
            # A manifest may come from anywhere, with a model: nothing else is read for it, and no pipe waited for.
            if not stat.S_ISREG(status.st_mode) or not (folder / name).resolve().is_relative_to(place):
                found.append(f"{name} is no file of this folder")
            elif status.st_size != expected.size:
                found.append(f"{name} has {status.st_size} bytes instead of {expected.size}")
            elif contents and _hash(folder / name) != expected.sha256:
                found.append(f"{name} has other contents than were written")
        except FileNotFoundError:
            found.append(f"{name} is missing")
        except (OSError, ValueError) as error:
            found.append(f"{name} can't be read: {getattr(error, 'strerror', None) or error}")
    return found


def is_sealed(folder: Path) -> bool:
    """Whether a folder has a manifest of ours, sound or not; another program's file of that name is none."""
    try:
        manifest = json.loads(_read_manifest(folder))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError):
        return True
    return isinstance(manifest, dict) and {"files", "sha256"} <= manifest.keys()


def read_own_state(folder: Path) -> OwnState:
    """Read what our trainer has added to a checkpoint.

    Raises:
        RunError: it isn't there, or is not what our trainer writes.
    """
    try:
        return OwnState.model_validate_json((folder / OWN_STATE).read_bytes())
    except OSError as error:
        raise RunError(f"{folder.name}: {OWN_STATE} can't be read: {error.strerror}") from error
    except ValidationError as error:
        raise RunError(f"{folder.name}: {OWN_STATE} can't be read: {first_fault(error)}") from error


def clear_hidden(run_dir: Path) -> Path:
    """Give the hidden folder, empty: what a crash has left there was never part of the run."""
    hidden = run_dir / HIDDEN
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir(parents=True, exist_ok=True)
    return hidden


def seal(folder: Path) -> None:
    """Force a folder's files to the disk and write their manifest, last of all."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        _fsync(path)
        files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": _hash(path)}
    content = json.dumps({"files": files, "sha256": _of_manifest(files)}, separators=(",", ":"))
    with open(folder / MANIFEST, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    for path in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        _fsync(path)


def publish(folder: Path, destination: Path) -> None:
    """Give a folder below the hidden one its place, in a single step; what had the place before is removed."""
    if destination.exists():
        os.replace(destination, folder.with_name(f"old-{destination.name}"))
    os.replace(folder, destination)
    _fsync(destination.parent)
    shutil.rmtree(folder.parent, ignore_errors=True)


def prune(run_dir: Path, newest: int, keep: int) -> None:
    """Remove old checkpoints.

    Args:
        run_dir: where they are.
        newest: the global_step of the one that was just sealed; it stays, whatever `keep` says. Later ones, which can
            only be damaged ones that a resumed run passed over, stay too: training will replace them.
        keep: how many to keep, `newest` included; damaged ones don't count, and so each of the others that would be
            kept is read whole.
    """
    kept = 1
    for checkpoint in find_checkpoints(run_dir):
        if checkpoint.global_step >= newest:
            continue
        if kept < keep and not faults(checkpoint.path):
            kept += 1
            continue
        # Moved away first: half a checkpoint shall not be seen.
        away = clear_hidden(run_dir) / checkpoint.path.name
        os.replace(checkpoint.path, away)
        shutil.rmtree(away.parent, ignore_errors=True)


@contextmanager
def saving(what: str, folder: Path) -> Iterator[None]:
    """Turn the many ways in which a full disk announces itself into one error.

    Args:
        what: the thing that is saved, for the message.
        folder: where; the message says how much is free there.

    Raises:
        RunError: it can't be saved.
    """
    try:
        yield
    except StepwiseDPOError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        # Nobody can use what is in the hidden folder; without it there is room for the run's last words.
        shutil.rmtree(folder / HIDDEN, ignore_errors=True)
        free = shutil.disk_usage(folder).free
        raise RunError(
            f"{what} can't be saved: {error} ({readable_bytes(free)} are free in {str(folder)!r}); what was saved "
            "before is untouched; make room there, then resume the run"
        ) from error


def readable_bytes(count: float) -> str:
    """Write a number of bytes for people: 12.3 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _read_manifest(folder: Path) -> bytes:
    status = (folder / MANIFEST).stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_MANIFEST_BYTES:
        raise ValueError("it is no file of ours")
    return (folder / MANIFEST).read_bytes()


def _of_manifest(files: dict[str, dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    """Force a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
