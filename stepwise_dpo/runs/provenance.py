"""What a run's figures depend on beside its configuration: environment.json.

Nothing here imports torch; what only torch knows comes as arguments.
"""

import hashlib
import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import stepwise_dpo
from stepwise_dpo.errors import DataError
from stepwise_dpo.runs.config import RunConfig

_LIBRARIES = ("torch", "transformers", "trl", "datasets", "accelerate", "tokenizers", "safetensors", "numpy")
_ROUNDING = ("threads", "processes", "device")


def describe_environment(config: RunConfig, **more: Any) -> dict[str, Any]:
    """Describe what a run depends on.

    Args:
        config: the run's.
        more: further facts, threads or devices, say.

    Returns:
        versions, seed, the data files' hashes, the commit of this package's repository (None where it is
        installed without one), and what else was given.

    Raises:
        DataError: a data file can't be read.
    """
    return {
        "versions": {"stepwise-dpo": stepwise_dpo.__version__, "python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "git_commit": git_commit(Path(stepwise_dpo.__file__).parents[1]),
        "seed": config.seed,
        "data": data_hashes(config),
        **more,
    }


def data_hashes(config: RunConfig) -> dict[str, str]:
    """SHA-256 of each data file, by the setting that names it.

    Raises:
        DataError: one can't be read.
    """
    hashes = {}
    for name in ("data", "eval_data"):
        path = getattr(config, name)
        if path is not None:
            try:
                with open(path, "rb") as file:
                    hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise DataError(f"{name} {os.fspath(path)!r} can't be read: {error.strerror}") from error
    return hashes


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say which versions, and what of the machine, make a run's numbers round in another way: ["threads 1, now 2"].

    Args:
        before: environment.json of the run.
        now: the same of this process.
    """
    pairs = [(before["versions"], now["versions"], before["versions"]), (before, now, _ROUNDING)]
    return [
        f"{name} {old[name]}, now {new.get(name)}"
        for old, new, names in pairs
        for name in names
        if name in old and old[name] != new.get(name)
    ]


def git_commit(root: Path) -> str | None:
    """The commit that is checked out in a repository's root; None where there is none, or it can't be read.

    No repository further up counts: around an installed package that is the one of whoever uses it. Read from git's
    own files, so that a machine without git can say it too.
    """
    place = root / ".git"
    try:
        if place.is_file():  # a worktree: the file names the place
            place = root / place.read_text().removeprefix("gitdir:").strip()
        if (place / "HEAD").is_file():
            return _resolve(place, (place / "HEAD").read_text().strip())
    except (OSError, UnicodeDecodeError):
        pass  # no run shall fail for want of this
    return None


def _resolve(place: Path, head: str) -> str | None:
    if not head.startswith("ref: "):
        return head
    name = head.removeprefix("ref: ")
    common = place / "commondir"
    for root in (place, place / common.read_text().strip() if common.is_file() else place):
        if (root / name).is_file():
            return (root / name).read_text().strip()
        packed = root / "packed-refs"
        if packed.is_file() and (match := re.search(rf"^(\S+) {re.escape(name)}$", packed.read_text(), re.MULTILINE)):
            return match[1]
    return None  # nothing is committed yet


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
