"""The examples that a page's runs are trained on: files in the folder "data" beside the runs, shared by runs.

A file lives as long as a run that names it; its name says its content, so that runs on the same examples share one.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from stepwise_dpo.errors import RunError
from stepwise_dpo.preferences.pairs import PreferencePair, dump_pairs, save_pairs
from stepwise_dpo.runs.config import RunConfig
from stepwise_dpo.runs.directory import RunDirectory


def example_folder(runs_dir: Path) -> Path:
    """Where the examples of the runs below a folder are; an absolute path, since a run's process has its own folder."""
    return runs_dir.resolve() / "data"


def example_file(folder: Path, name: str, pairs: Sequence[PreferencePair]) -> Path:
    """Name the file for some examples: a legible part of their set's name, how many they are, and their hash."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem).strip("-")[:40] or "examples"
    digest = hashlib.sha256(dump_pairs(pairs).encode()).hexdigest()[:12]
    return folder / f"{slug}-{len(pairs)}-{digest}.json"


def write_examples(target: Path, pairs: Sequence[PreferencePair]) -> None:
    """Save examples where `example_file` says, unless they are there; then the file is as young as a new one.

    Raises:
        StepwiseDPOError: the file can't be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.utime(target)  # what is old may be deleted before the run that is to read it is there
    except FileNotFoundError:
        save_pairs(pairs, target)
    except OSError as problem:
        raise RunError(f"the folder of runs can't be written: {problem.strerror}") from problem


def files_of(config: RunConfig, folder: Path) -> set[Path]:
    """The example files that a configuration names, as far as they are in this folder."""
    return {path for path in _named(config) if path.parent == folder}


def used_names(runs: Iterable[RunDirectory]) -> set[str]:
    """The names of the files that runs are trained on; a run that can't be read can't be trained, and names none.

    Names, because a folder of runs may have been moved since.
    """
    used = set()
    for run in runs:
        try:
            used |= {path.name for path in _named(run.config())}
        except RunError:
            continue
    return used


def _named(config: RunConfig) -> set[Path]:
    return {Path(path) for path in (config.data, config.eval_data) if path}
