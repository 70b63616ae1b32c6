"""What a line of pretraining keeps in its folder: what it was begun with, and checkpoints that can be gone on from."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import TrainerState

from stepwise_dpo.errors import RunError
from stepwise_dpo.learning.checkpoints import MANIFEST, Checkpoint, faults, find_checkpoints

_STATE = "trainer_state.json"
_NEEDED = ("config.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "tokenizer.json", _STATE)


def check_same_line(line: str, folder: Path) -> None:
    """Write down what a line is begun with, or compare it with what the folder's line was begun with.

    Args:
        line: the plan and what else makes the line what it is, as text.
        folder: the line's; made if it doesn't exist.

    Raises:
        RunError: the folder holds another line, or one that can't be told.
    """
    file, beside = folder / "line.json", folder / ".line.json"
    try:
        begun = file.read_bytes()
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(line.encode())
        beside.replace(file)  # whole or not at all: half of it would be another plan
        return
    except OSError as error:
        raise RunError(
            f"{str(file)!r} can't be read, so nobody knows whose line this is: {error.strerror}; choose another "
            "folder, or remove this one"
        ) from error
    if begun != line.encode():
        raise RunError(
            f"{str(folder)!r} holds a line of another plan or with other prompts left out, or its line.json is "
            "damaged; choose another folder, or remove it"
        )


def checkpoints(folder: Path, on_skipped: Callable[[str], None] | None = None) -> list[Path]:
    """Find a line's checkpoints, the earliest first, without those that are damaged.

    Each has a manifest that every file is compared with. One of a line that was begun before there were manifests has
    none; of such a one each part must be there and be readable to its end, which doesn't show a changed weight.

    Args:
        folder: the line's.
        on_skipped: told of each damaged one, with what is wrong with it, the newest first.
    """
    sound = []
    for checkpoint in find_checkpoints(folder):
        if not (wrong := _faults(checkpoint)):
            sound.append(checkpoint.path)
        elif on_skipped is not None:
            on_skipped(f"{checkpoint.path.name} ({'; '.join(wrong)})")
    return sound[::-1]


def measurements(checkpoint: Path) -> list[dict[str, float]]:
    """What a line had measured when it saved this checkpoint; see `pretraining.pretrain`."""
    return measurements_of(TrainerState.load_from_json(str(checkpoint / _STATE)))


def measurements_of(state: TrainerState) -> list[dict[str, float]]:
    """What a line has measured so far; see `pretraining.pretrain`."""
    return [
        {"global_step": float(entry["step"]), **{k: v for k, v in entry.items() if k.startswith("solve_rate")}}
        for entry in state.log_history
        if "solve_rate" in entry
    ]


def _faults(checkpoint: Checkpoint) -> list[str]:
    sealed = (checkpoint.path / MANIFEST).exists()
    wrong = faults(checkpoint.path) if sealed else _faults_without_manifest(checkpoint.path)
    if wrong:
        return wrong
    try:
        measured = measurements(checkpoint.path)
        if measured[-1]["global_step"] == checkpoint.global_step and all(0 <= m["solve_rate"] <= 1 for m in measured):
            return []
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        pass  # it is JSON, but not a Trainer's
    return [f"{_STATE} doesn't hold the line's measurements up to global_step {checkpoint.global_step}"]


def _faults_without_manifest(folder: Path) -> list[str]:
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    broken = [path.name for path in sorted(folder.iterdir()) if path.name not in missing and not _is_whole(path)]
    return [*(f"{name} is missing" for name in missing), *(f"{name} can't be read to its end" for name in broken)]


def _is_whole(file: Path) -> bool:
    """Whether a file of a kind whose end shows can be read to its end."""
    try:
        if file.suffix == ".json":
            json.loads(file.read_bytes())
        elif file.suffix == ".safetensors":
            with safe_open(file, "pt"):
                pass
        elif file.suffix in (".bin", ".pt", ".pth"):
            return zipfile.is_zipfile(file)  # what torch.save writes; its table of contents comes last
    except (OSError, ValueError, RecursionError, SafetensorError):
        return False
    return True
