"""Where a command's results go: files, tables, a place checked before minutes of work."""

import csv
import io
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.learning.estimates import Estimate
from stepwise_dpo.runs.directory import write_atomically
from stepwise_dpo.runs.export import disarmed


def make_parent(path: str | os.PathLike[str]) -> None:
    """Make the folder of a result, before minutes of work are spent on it.

    Raises:
        ConfigError: it can't be made.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{os.fspath(path)!r} can't be written: {error}") from error


def check_place(path: str | os.PathLike[str], inputs: Iterable[str] = ()) -> None:
    """Find out before minutes of work whether a file can be written there.

    Args:
        path: of the result.
        inputs: files that the command reads, none of which may be written over.

    Raises:
        ConfigError: it can't.
    """
    for file in inputs:
        if os.path.exists(path) and os.path.exists(file) and os.path.samefile(path, file):
            raise ConfigError(f"{os.fspath(path)!r} is what the command reads; name another file for the result")
    make_parent(path)
    if Path(path).is_dir():
        raise ConfigError(f"{os.fspath(path)!r} is a folder; name a file")
    try:
        with tempfile.TemporaryFile(dir=Path(path).parent):
            pass
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)!r} can't be written: {error}") from error


def check_folder(path: str | os.PathLike[str], own_file: str, what: str) -> None:
    """Find out before anything is read whether a folder may be written over.

    Args:
        path: of the folder, which needn't exist.
        own_file: what an earlier result of the same kind holds.
        what: how the message calls such a result.

    Raises:
        ConfigError: it holds something else, can't be looked into, or is a file.
    """
    try:
        names = os.listdir(path) if os.path.lexists(path) else []
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)!r} can't be written: {error}") from error
    if names and own_file not in names:
        raise ConfigError(f"{os.fspath(path)!r} holds other files than {what}; name a new folder")


def write(path: str | os.PathLike[str], content: str) -> None:
    """Write a result, all of it or nothing.

    Raises:
        ConfigError: it can't be written.
    """
    try:
        write_atomically(Path(path), content)
    except (OSError, UnicodeEncodeError) as error:
        raise ConfigError(f"{os.fspath(path)!r} can't be written: {error}") from error


def as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """The plain columns of records; lists and objects are only in the JSON lines."""
    columns = [name for name, value in records[0].items() if not isinstance(value, (list, dict))]
    columns = [name for name in columns if name not in ("answer", "before_answer")]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for record in records:
        cells = {name: record[name] for name in columns}
        writer.writerow({name: disarmed(cell) if isinstance(cell, str) else cell for name, cell in cells.items()})
    return buffer.getvalue()


def report_table(report: Mapping[str, Mapping[str, float]]) -> str:
    """Lay out the figures before and after, and the change with its 95% interval where it was measured.

    A solve rate says of how many answers it is.
    """
    before, after, change = (report.get(part) or {} for part in ("before", "after", "change"))
    lines = [f"{'':28}{'before':>12}{'after':>12}" + (f"{'change':>12}  95% interval" if change else "")]
    for name in before:
        shown = name
        if name == "trained_on":
            if not before[name]:
                continue
            shown = "pairs on trained problems"
        if "solve_rate" in before and "answers" in before:
            if name == "answers":
                continue
            if name == "solve_rate":
                shown = f"solve_rate, of {before['answers']:.0f} answers"
        cells = [f"{figures[name]:12.4g}" for figures in (before, after) if name in figures]
        if (moved := Estimate.read(change, name)) is not None:
            cells.append(f"{moved.value:+12.4g}")
            if moved.interval is not None:
                cells.append("  {:+.4g} to {:+.4g}".format(*moved.interval))
        lines.append(f"{shown:28}{''.join(cells)}")
    return "\n".join(lines)


def quiet_libraries() -> None:
    """Keep Transformers' own bars and notes away from ours."""
    from datasets.utils.logging import disable_progress_bar
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    disable_progress_bar()
