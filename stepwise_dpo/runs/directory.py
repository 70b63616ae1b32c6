"""The run directory: the only thing that the training process and everyone else share.

    config.json      RunConfig as submitted, written before the process starts
    status.json      replaced atomically; see `RunStatus`
    ticket.json      whose run it is, see `runs.ticket`; none where the command line trains
    metrics.jsonl    append-only, one complete line per write; readers ignore an unfinished last line
    events.log       the worker's output, its middle left out when it grows too long; see `runs.event_log`
    stop             exists once somebody asked the run to stop
    rewards.json     process rewards of every example
    environment.json versions, data hashes and whatever else a figure may depend on; see `runs.provenance`
    report.json      {"before": {…}, "after": {…}, "change": {…}}; see `learning.evaluation`
    examples.jsonl   held-out examples before and after, one line each; see `learning.evaluation`
    checkpoint-N/    the training after N optimiser steps, complete and verifiable; see `learning.checkpoints`
    final/           a normal Transformers checkpoint with its tokenizer, and a manifest as a checkpoint has it
    reward_model/    the same of a reward model that was trained with the policy

Nothing here imports torch.
"""

import errno
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from io import FileIO
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from stepwise_dpo.errors import ConfigError, RunError
from stepwise_dpo.learning.checkpoints import Checkpoint, clear_hidden, faults, find_checkpoints, readable_bytes
from stepwise_dpo.preferences.faults import seen, short
from stepwise_dpo.preferences.model_faults import first_field
from stepwise_dpo.runs.config import RunConfig, make_config

_Kind = TypeVar("_Kind", bound=BaseModel)
State = Literal["queued", "starting", "running", "stopping", "finished", "stopped", "interrupted", "failed"]

ACTIVE: tuple[State, ...] = ("queued", "starting", "running", "stopping")
"""States in which a process is, or will be, at work."""

REMOVED = ".removed-"
"""Begins the name of what is being removed: no run any more."""

_NOTHING_KEPT = "ended before anything could be kept"

_MAX_STATUS_BYTES, _MAX_RECORD_BYTES = 2**20, 2**28

Pid = Annotated[int, Field(gt=0, lt=2**31)]
"""A process's number, which is asked about and may be sent signals."""

Seconds = Annotated[float, Field(gt=-(2**53), lt=2**53)]
"""A time: differences and paces of such are finite."""

Count = Annotated[int, Field(ge=0, lt=2**53)]


# A dataclass of pydantic's: a model takes no arguments by position, and copies itself unchecked.
@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class RunStatus:
    """Where a run stands.

    Attributes:
        state: one of `State`.
        pid: the process that trains, None before it exists.
        create_time: when that process was created, in seconds since 1970; a pid alone may have been given anew.
        global_step: optimiser steps done.
        max_steps: optimiser steps to do; 0 while unknown.
        phase: what it does now, in words for a person.
        started: seconds since 1970.
        updated: seconds since 1970, of this status.
        error: why it failed, one line; None otherwise.

    Raises:
        ValidationError: a value is of another type, or out of range.
    """

    state: State
    pid: Pid | None = None
    create_time: Seconds | None = None
    global_step: Count = 0
    max_steps: Count = 0
    phase: str = ""
    started: Seconds = 0.0
    updated: Seconds = 0.0
    error: str | None = None

    @property
    def active(self) -> bool:
        """Whether a process is, or will be, at work."""
        return self.state in ACTIVE

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.time() - self.started


def new_run_id(loss: str) -> str:
    """Make an id that sorts by time and is unique: "20261122-153000-dpo-1a2b"."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{loss}-{secrets.token_hex(2)}"


WRITTEN = (
    *("status.json", "metrics.jsonl", "rewards.json", "report.json", "examples.jsonl", "environment.json"),
    *("events.log", "notes.txt", "final", "reward_model"),
)
"""What a run writes beside its configuration and its checkpoints."""

_RESULTS = ("metrics.jsonl", "rewards.json", "report.json", "examples.jsonl")


class _Record(BaseModel):
    """What every reader of a record relies on; whatever else it holds is left to those who know it."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class _Metrics(_Record):
    global_step: Seconds = 0
    time: Seconds = 0


class _Report(_Record):
    before: dict[str, float | None] | None = None
    after: dict[str, float | None] | None = None
    change: dict[str, float | None] | None = None


class _Environment(_Record):
    versions: dict[str, Any]
    data: dict[str, Any]
    weights: dict[str, Any] = {}  # older runs noted none
    resumed: list[Any] = []
    characters: float | None = Field(None, gt=0)  # nor these


_METRICS = TypeAdapter(_Metrics)


class RunDirectory:
    """Reads and writes one run's files.

    Args:
        path: the directory; created by `create`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def id(self) -> str:
        """The directory's name."""
        return self.path.name

    @property
    def final(self) -> Path:
        """Where the trained model is, once there is one."""
        return self.path / "final"

    @property
    def events(self) -> Path:
        """The worker's output."""
        return self.path / "events.log"

    def exists(self) -> bool:
        """Whether there is a run here."""
        return (self.path / "config.json").is_file()

    def create(self, config: RunConfig) -> None:
        """Make the directory and save the configuration verbatim.

        A run that failed before its first optimiser step (a wrong model name, say) may be started over in its place.

        Raises:
            RunError: it holds a run already, or files of somebody's that a run would write over; or it can't be
                written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.exists():
                there = [name for name in WRITTEN if (self.path / name).exists()]
                if foreign := [*there, *sorted(path.name for path in self.path.glob("checkpoint-*"))]:
                    raise RunError(
                        f"{str(self.path)!r} holds {foreign[0]!r}, which a run would write over; choose another output "
                        "directory"
                    )
            elif self.status().state != "failed" or (self.path / "metrics.jsonl").exists():
                raise RunError(f"{str(self.path)!r} already holds a run; choose another output directory")
            for leftover in ("stop", "events.log", "environment.json", *_RESULTS):
                (self.path / leftover).unlink(missing_ok=True)
            # The configuration makes it a run, so it comes last: a run without a status could neither begin nor end.
            self.write_status(RunStatus("queued", started=time.time()))
            write_atomically(self.path / "config.json", config.model_dump_json(indent=1) + "\n")
        except OSError as error:
            raise RunError(f"run directory {str(self.path)!r} can't be written: {error}") from error

    def config(self) -> RunConfig:
        """The configuration as it was submitted.

        Raises:
            RunError: there is none, or it isn't readable by this version.
        """
        try:
            return make_config(self.read_json("config.json"))
        except ConfigError as error:
            raise RunError(f"run {self.id!r}: config.json: {error}") from error

    def write_status(self, status: RunStatus) -> None:
        """Replace the status atomically; `updated` becomes now."""
        content = json.dumps(asdict(replace(status, updated=time.time())))
        write_atomically(self.path / "status.json", content + "\n")

    def write_last_status(self, status: RunStatus) -> None:
        """Write a status even where a full disk has no room for a second file: over the old one, then not atomically.

        Raises:
            RunError: not even that works.
        """
        try:
            self.write_status(status)
        except OSError:
            content = (json.dumps(asdict(replace(status, updated=time.time()))) + "\n").encode()
            try:
                _overwrite(self.path / "status.json", content)
            except OSError as error:
                raise RunError(f"run {self.id!r}: status.json can't be written: {error.strerror}") from error

    def status(self) -> RunStatus:
        """Read the status as last written; whether its process still lives is the supervisor's question.

        Raises:
            RunError: there is none, or it is damaged.
        """
        content = self.read_json("status.json", _MAX_STATUS_BYTES)
        try:
            return RunStatus(**content)
        except (ValidationError, TypeError) as error:
            raise RunError(f"run {self.id!r}: status.json {_status_fault(error, content)}") from error

    def forget_results(self) -> None:
        """Take away what a run has made that is about to begin again: models, metrics, records of its examples.

        What it depends on (environment.json) stays, to be compared with what is there now.

        Raises:
            RunError: a file can't be removed.
        """
        try:
            for model in ("final", "reward_model"):
                if (self.path / model).exists():  # moved away first: half a model shall not be seen
                    hidden = clear_hidden(self.path)
                    os.replace(self.path / model, hidden / model)
                    shutil.rmtree(hidden, ignore_errors=True)
            for name in _RESULTS:
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"run {self.id!r} can't begin again: {error}") from error

    def append_metrics(self, metrics: Mapping[str, float]) -> None:
        """Append one line of metrics in a single write, so that a reader never sees half of it without noticing."""
        line = orjson.dumps(dict(metrics)) + b"\n"
        path = self.path / "metrics.jsonl"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                written = os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise RunError(f"run {self.id!r}: metrics.jsonl can't be written: {error.strerror}") from error
        if written != len(line):
            raise RunError(f"run {self.id!r}: metrics.jsonl can't be written, is the disk full?")

    def metrics_size(self) -> int:
        """Bytes of metrics.jsonl, after they were forced to the disk."""
        try:
            with open(self.path / "metrics.jsonl", "rb") as file:
                os.fsync(file.fileno())
                return os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return 0

    def cut_metrics(self, size: int) -> None:
        """Forget the metrics behind so many bytes: a run that goes on from there will write them again.

        Raises:
            RunError: there are fewer; somebody has changed the file.
        """
        path = self.path / "metrics.jsonl"
        content = path.read_bytes() if path.exists() else b""
        if len(content) < size:
            raise RunError(
                f"run {self.id!r}: metrics.jsonl has {len(content)} bytes, but had {size} when the checkpoint was "
                "written; put the old file back"
            )
        if len(content) > size:
            write_atomically(path, content[:size].decode())

    def metrics(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Read the complete lines after a byte offset: (records, the offset to go on from).

        An offset at which no line begins comes from before a resume, which cuts the file and writes on: all lines are
        read then, as for 0, and so a reader learns what took the place of what it knows.

        A line that a full disk tore stays torn when the next one follows; it is passed over, and so is one that says no
        number where every reader expects one.
        """
        if not (self.path / "metrics.jsonl").is_file():  # a pipe would have no end
            return [], 0
        try:
            with open(self.path / "metrics.jsonl", "rb") as file:
                if not 0 < offset <= os.fstat(file.fileno()).st_size:  # it may come from outside
                    offset = 0
                file.seek(max(0, offset - 1))
                if offset and file.read(1) != b"\n":
                    offset = file.seek(0)
                content = file.read()
        except FileNotFoundError:
            return [], 0
        complete = content[: content.rfind(b"\n") + 1]
        sound = filter(_METRICS.validator.isinstance_python, _json_lines(complete))
        return list(sound), offset + len(complete)

    def request_stop(self) -> None:
        """Ask the run to stop after its current optimiser step and keep what is there.

        Raises:
            RunError: the wish can't be written.
        """
        try:
            (self.path / "stop").touch()
        except OSError as error:
            raise RunError(f"run {self.id!r} can't be asked to stop: {error.strerror}") from error

    def forget_stop(self) -> None:
        """Take back that somebody asked the run to stop."""
        (self.path / "stop").unlink(missing_ok=True)

    def stop_requested(self) -> bool:
        """Whether somebody asked the run to stop."""
        return (self.path / "stop").exists()

    def lost_by_force(self) -> str | None:
        """What to say of a run that was asked to stop and ended by force; None if its trained policy is there."""
        if (self.final / "config.json").exists():
            return None
        kept = self.checkpoints()
        return f"ended before the policy was saved; {kept[0].path.name} is kept" if kept else _NOTHING_KEPT

    def checkpoints(self, *, verify: bool = False) -> list[Checkpoint]:
        """Complete checkpoints, the newest first.

        Args:
            verify: read every file and compare its hash, not only its size.
        """
        return [found for found in find_checkpoints(self.path) if not faults(found.path, contents=verify)]

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Replace environment.json.

        Raises:
            RunError: it can't be written, as with all records that are replaced.
        """
        self._replace("environment.json", json.dumps(environment, indent=1) + "\n")

    def environment(self) -> dict[str, Any] | None:
        """What the run's figures depend on beside its configuration; None before its models were loaded.

        Raises:
            RunError: it can't be read, or lacks what a run that goes on is compared by.
        """
        if not (self.path / "environment.json").exists():
            return None
        environment = self.read_json("environment.json")
        self.checked("environment.json", environment, _Environment)
        return environment

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Replace report.json."""
        self._replace("report.json", json.dumps(report, indent=1) + "\n")

    def report(self) -> dict[str, Any] | None:
        """Evaluation before and after and the change, as far as there is one yet; None before.

        Raises:
            RunError: it can't be read, or one of them is not an object of numbers, each null where there is none.
        """
        if not (self.path / "report.json").exists():
            return None
        report = self.read_json("report.json")
        self.checked("report.json", report, _Report)
        return report

    def write_rewards(self, rewards: Mapping[str, Any]) -> None:
        """Replace rewards.json."""
        self._replace("rewards.json", json.dumps(rewards) + "\n")

    def rewards(self) -> dict[str, Any] | None:
        """Process rewards of the training examples; None when no reward model took part, or not yet."""
        return self.read_json("rewards.json") if (self.path / "rewards.json").exists() else None

    def write_examples(self, examples: Iterable[Mapping[str, Any]]) -> None:
        """Replace examples.jsonl."""
        self._replace("examples.jsonl", "".join(json.dumps(example) + "\n" for example in examples))

    def examples(self) -> list[dict[str, Any]]:
        """Held-out examples before and after training; [] before the end.

        Raises:
            RunError: the file can't be read.
        """
        try:
            with _opened(self.path / "examples.jsonl") as file:
                return _json_lines(file.read())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunError(f"run {self.id!r}: examples.jsonl can't be read: {error.strerror}") from error

    def _replace(self, name: str, content: str) -> None:
        try:
            write_atomically(self.path / name, content)
        except OSError as error:
            why = f"{name} can't be written: {error.strerror}; make room on the disk, then resume the run"
            raise RunError(f"run {self.id!r}: {why}") from error

    def checked(self, name: str, content: Mapping[str, Any], kind: type[_Kind]) -> _Kind:
        """Make a model of a record that was read.

        Raises:
            RunError: it doesn't fit; the message names the part.
        """
        try:
            return kind.model_validate(content)
        except ValidationError as error:
            raise RunError(f"run {self.id!r}: {name}: {first_field(error)} is damaged") from error

    def read_json(self, name: str, most: int = _MAX_RECORD_BYTES) -> dict[str, Any]:
        """Read a record.

        Raises:
            RunError: there is none, it has more bytes than `most`, or it is no object of JSON.
        """
        try:
            with _opened(self.path / name) as file:
                if (size := os.fstat(file.fileno()).st_size) > most:
                    sizes = f"{readable_bytes(size)}, and at most {readable_bytes(most)} are read"
                    raise RunError(f"run {self.id!r}: {name} has {sizes}")
                content = orjson.loads(file.read())
        except FileNotFoundError as error:
            raise RunError(f"{str(self.path)!r} is not a run directory: it has no {name}") from error
        except (OSError, orjson.JSONDecodeError) as error:
            raise RunError(f"run {self.id!r}: {name} can't be read: {error}") from error
        if not isinstance(content, dict):
            raise RunError(f"run {self.id!r}: {name} must hold an object")
        return content


def _opened(path: Path) -> FileIO:
    """Open a regular file; a pipe would be waited for without end.

    Raises:
        OSError: it can't be opened, or is something else.
    """
    file = FileIO(path, opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file")
    return file


def _status_fault(error: ValidationError | TypeError, content: Mapping[str, Any]) -> str:
    foreign = ("missing", "unexpected_keyword_argument")
    if isinstance(error, TypeError) or any(problem["type"] in foreign for problem in error.errors()):
        return f"has unexpected fields: {[short(name) for name in sorted(content)[:10]]}"
    part = first_field(error)
    return f"names an unknown state {seen(content[part])}" if part == "state" else f"has an unusable {part}"


def _json_lines(content: bytes) -> list[dict[str, Any]]:
    records = []
    for line in content.splitlines():
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue  # see `RunDirectory.metrics`
        if isinstance(record, dict):
            records.append(record)
    return records


def list_runs(runs_dir: str | os.PathLike[str]) -> list[RunDirectory]:
    """All runs below a folder, the newest first; [] when the folder doesn't exist."""
    try:
        paths = list(Path(runs_dir).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for path in paths:
        try:
            # A link may lead anywhere: whoever deletes, reads or writes a run shall stay below this folder.
            if not path.is_symlink() and not path.name.startswith(REMOVED) and RunDirectory(path).exists():
                # Written once, when the run was made; ids sort by time only where nobody chose them.
                found.append(((path / "config.json").stat().st_mtime_ns, path.name, RunDirectory(path)))
        except OSError:
            continue  # somebody is deleting it
    return [run for _, _, run in sorted(found, key=lambda known: known[:2], reverse=True)]


def write_atomically(path: Path, content: str) -> None:
    """Write a file so that a reader, or a crash, sees either the old content or the new."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _overwrite(path: Path, content: bytes) -> None:
    """Write over a file's contents, which takes no new room where they are about as long; undone if it fails."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        before = os.read(descriptor, os.fstat(descriptor).st_size)
        written = os.pwrite(descriptor, content, 0)
        if written < len(content):
            os.pwrite(descriptor, before[:written], 0)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(descriptor, len(content))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
