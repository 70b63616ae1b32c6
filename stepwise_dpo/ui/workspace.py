"""What each visitor has changed, kept on disk, so that a refresh, another day or a restart of the server loses nothing.

    <folder>/<hash of the visitor's token>/
      index.json             {"version": 1, "open": name, "sets": [{"name", "file", "sha256"}]}, replaced atomically
      <name>-<hash>.jsonl    the examples of one changed or added set; never written twice with other content

The token is a secret of the visitor's browser: whoever has it finds these examples. It is never written.

A crash between two writes leaves either the old or the new index, and the files of both: files go only after the index
that no longer names them is there. A file that can't be read back is named in a message and left where it is.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple
from weakref import WeakValueDictionary

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.model_faults import first_fault
from stepwise_dpo.preferences.pairs import PreferencePair, dump_lines, parse_pairs
from stepwise_dpo.runs.directory import write_atomically
from stepwise_dpo.runs.retention import repeat_hourly
from stepwise_dpo.ui.library import MAX_NAME, MAX_SETS, ExampleSet, Library

INDEX = "index.json"
MAX_BYTES = 256 * 2**20
MIN_TOKEN, MAX_TOKEN = 16, 200
RECENT = 16
PURGE_EVERY = 600.0  # seconds

_MAX_INDEX_BYTES = 2**20
_MAX_ENTRIES = 1_000  # more than MAX_SETS: those whose files are damaged stay too
_MAX_KEPT_NAME = 300  # a bundled file's, or MAX_NAME, with what `_free_name` adds

_FOLDER = re.compile(r"[0-9a-f]{32}")


class Loaded(NamedTuple):
    """A visitor's sets, and what could not be read back, in sentences."""

    library: Library
    messages: list[str]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(max_length=_MAX_KEPT_NAME, pattern=r"^[^\x00]*$")
    # Of this folder, and "" for a set without examples. As `_write` names it: never a way to another folder.
    file: str = Field(max_length=100, pattern=r"^([A-Za-z0-9-]+\.jsonl)?$")
    sha256: str = Field(pattern="^([0-9a-f]{64})?$")


class _Index(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1]
    open: str = Field(max_length=_MAX_KEPT_NAME)
    sets: list[_Entry] = Field(max_length=_MAX_ENTRIES)


class Workspace:
    """Keeps what visitors change.

    Args:
        folder: made when something is kept first.
        bundled: what a visitor starts from; only what differs from it is kept.
        max_bytes: of one visitor's files.
        keep_seconds: after how long without a visit a visitor's things are deleted; None keeps them.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        bundled: Library,
        max_bytes: int = MAX_BYTES,
        keep_seconds: float | None = None,
    ) -> None:
        self.bundled = bundled
        self._folder = Path(folder)
        self._max_bytes = max_bytes
        self._keep_seconds = keep_seconds
        self._lock = threading.Lock()
        # Reading thousands of examples back takes seconds, and only memory still has what undo needs.
        self._recent: OrderedDict[str, Library] = OrderedDict()
        self._copies: dict[str, set[str]] = {}  # by folder in _recent: the sets that conflicts made
        # Gradio keeps a closed page's state for an hour: whoever loads the page anew shall not bring a whole copy.
        self._alive: WeakValueDictionary[tuple[str, str], ExampleSet] = WeakValueDictionary()
        self._purged = 0.0

    def load(self, visitor: object) -> Loaded:
        """Find a visitor's sets again: the bundled ones, with the changes, and the added ones.

        Args:
            visitor: the token; one that is "" or no token gets the bundled sets.
        """
        folder = self._of(visitor)
        if folder is None:
            return Loaded(self.bundled, [])
        with self._lock:
            self._purge_at_times()
            if (folder / INDEX).exists():
                os.utime(folder / INDEX)  # a visit
            return self._stored(folder)

    def save(self, visitor: object, library: Library, before: Library | None = None) -> list[str]:
        """Keep what differs between two states of a visitor's library, and which set is open.

        Where another tab of the same browser has changed the same set meanwhile, its version is kept under a name of
        its own.

        Args:
            visitor: the token; without one nothing is kept.
            library: the state to keep.
            before: the state before the change; by default what is kept already.

        Returns:
            What is worth knowing about it, in sentences.

        Raises:
            DataError: it can't be kept, and why; what was kept before still is.
        """
        folder = self._of(visitor)
        if folder is None:
            return []
        with self._lock:
            try:
                return self._save(folder, library, before)
            except OSError as problem:
                raise DataError(f"your examples could not be kept on disk: {problem.strerror}") from problem
            except ValidationError as problem:
                raise DataError(f"your examples could not be kept on disk: {first_fault(problem)}") from problem

    def purge(self, max_age_seconds: float) -> int:
        """Delete the things of visitors who have not been here for so long; returns how many visitors."""
        with self._lock:
            return self._purge(max_age_seconds)

    def purge_hourly(self) -> None:
        """From now on delete what is too old, also where nobody comes whose visit would be the occasion."""
        if (keep_seconds := self._keep_seconds) is not None:
            task = partial(self.purge, keep_seconds)
            threading.Thread(target=repeat_hourly, args=(task,), name="purge", daemon=True).start()

    def _of(self, visitor: object) -> Path | None:
        if not isinstance(visitor, str) or not MIN_TOKEN <= len(visitor) <= MAX_TOKEN:
            return None
        return self._folder / hashlib.sha256(visitor.encode("utf-8", "replace")).hexdigest()[:32]

    def _stored(self, folder: Path) -> Loaded:
        if folder.name in self._recent:
            self._recent.move_to_end(folder.name)
            return Loaded(self._recent[folder.name], [])
        entries, opened, messages = _read_index(folder)
        library = self.bundled
        for entry in entries:
            try:
                kept = self._shared(folder, entry.name, _read_pairs(folder, entry))
            except DataError as problem:
                messages.append(str(problem))
                continue
            library = library.updated(kept) if library.get(kept.name) else _appended(library, kept)
        if opened in library.names:
            library = library.opened(opened)
        if entries and not messages:
            self._remember(folder, library)
        return Loaded(library, messages)

    def _shared(self, folder: Path, name: str, pairs: tuple[PreferencePair, ...]) -> ExampleSet:
        """Make a set of what was read back, out of what a session still holds of it, or what is bundled."""
        earlier = self._alive.get((folder.name, name)) or self.bundled.get(name)
        return ExampleSet(name, pairs) if earlier is None else earlier.sharing(pairs)

    def _save(self, folder: Path, library: Library, before: Library | None) -> list[str]:
        stored = self._stored(folder).library
        entries, _, problems = _read_index(folder)
        before = before or stored
        known = {entry.name: entry for entry in entries}
        messages: list[str] = []
        written: list[ExampleSet] = []
        kept = stored
        for changed in library.sets:
            old = before.get(changed.name)
            if old is not None and old.pairs is changed.pairs:
                continue
            other = stored.get(changed.name)
            if other is not None and not _precedes(other, old, changed):
                # An earlier copy that the other tab has gone on from is replaced: else each edit would leave one.
                copies = self._copies.setdefault(folder.name, set())
                name = _copy_of(kept, copies, other) or _free_name(changed.name, kept.names)
                copies.add(name)
                written.append(ExampleSet(name, other.pairs))
                kept = kept.updated(written[-1]) if kept.get(name) else _appended(kept, written[-1])
                messages.append(f"Another tab has changed {changed.name} too; its version is kept as {name}.")
            kept = kept.updated(changed) if kept.get(changed.name) else _appended(kept, changed)
            known.pop(changed.name, None)
            if not _same(changed, self.bundled.get(changed.name)):
                written.append(changed)
        for gone in set(before.names) - set(library.names):
            known.pop(gone, None)
            self._copies.get(folder.name, set()).discard(gone)  # the name may become somebody's own
            kept = kept.without(gone) if gone in kept.names else kept
        kept = kept.opened(library.open_name)
        if len(kept.sets) > MAX_SETS:
            raise DataError(f"at most {MAX_SETS} example sets are kept; remove one that you don't need")
        # What this save replaces takes no room beside it.
        room = self._max_bytes - _taken(
            folder, {entry.file for entry in entries} - {one.file for one in known.values()}
        )
        for one in written:
            known[one.name], size = self._write(folder, one, room)
            room -= size
        index = _Index(version=1, open=library.open_name, sets=list(known.values()))
        if problems:
            # Never replaced by a new one: it may still be mended by hand.
            os.replace(folder / INDEX, folder / f"damaged-{secrets.token_hex(4)}-{INDEX}")
        _write_index(folder, index)
        needed = {entry.file for entry in known.values()}
        for entry in entries:
            if entry.file and entry.file not in needed and _is_intact(folder, entry):
                (folder / entry.file).unlink()
        if not any(folder.glob(f"damaged-*-{INDEX}")):  # which may name them
            named = needed | {entry.file for entry in entries}
            for file in folder.glob("*.jsonl"):
                if file.name not in named:  # a save ended before its index was written
                    file.unlink()
        self._remember(folder, kept)
        return messages

    def _write(self, folder: Path, examples: ExampleSet, room: int) -> tuple[_Entry, int]:
        """Write a set's file, unless the same is there already; the second value is how many bytes that took."""
        if not examples.pairs:
            return _Entry(name=examples.name, file="", sha256=""), 0
        text = dump_lines(examples.pairs)
        data = text.encode()
        digest = hashlib.sha256(data).hexdigest()
        slug = re.sub(r"[^A-Za-z0-9]+", "-", Path(examples.name).stem).strip("-")[:40] or "examples"
        entry = _Entry(name=examples.name, file=f"{slug}-{digest[:16]}.jsonl", sha256=digest)
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / entry.file
        if target.exists():
            return entry, 0
        if len(data) > room:
            raise DataError(
                f"your examples take more than the {self._max_bytes // 2**20} MiB that are kept for you; remove a "
                "set that you don't need. Until then this change lasts only until the page is closed: download it"
            )
        write_atomically(target, text)
        return entry, len(data)

    def _remember(self, folder: Path, library: Library) -> None:
        for known in library.sets:
            if known is not self.bundled.get(known.name):
                self._alive[(folder.name, known.name)] = known
        self._recent[folder.name] = library
        self._recent.move_to_end(folder.name)
        while len(self._recent) > RECENT:
            self._copies.pop(self._recent.popitem(last=False)[0], None)

    def _purge_at_times(self) -> None:
        if self._keep_seconds is not None and time.monotonic() - self._purged > PURGE_EVERY:
            self._purged = time.monotonic()
            self._purge(self._keep_seconds)

    def _purge(self, max_age_seconds: float) -> int:
        if not self._folder.is_dir():
            return 0
        oldest = time.time() - max_age_seconds
        gone = 0
        for folder in self._folder.iterdir():
            if not _FOLDER.fullmatch(folder.name) or folder.is_symlink():
                continue
            index = folder / INDEX
            try:
                last = (index if index.exists() else folder).stat().st_mtime
            except OSError:
                continue  # it has just gone
            if last < oldest:
                shutil.rmtree(folder, ignore_errors=True)
                self._recent.pop(folder.name, None)
                self._copies.pop(folder.name, None)
                gone += 1
        return gone


def _taken(folder: Path, but: set[str]) -> int:
    """How many bytes a visitor's files take, but those."""
    return sum(file.stat().st_size for file in folder.glob("*") if file.name not in but)


def _precedes(kept: ExampleSet, before: ExampleSet | None, changed: ExampleSet) -> bool:
    """Whether what is kept is a state that the changed set has come from, or is it already."""
    earlier = [version.pairs for version in (*changed.history, *changed.future)]
    return _same(kept, before) or _same(kept, changed) or any(kept.pairs == pairs for pairs in earlier)


def _same(one: ExampleSet | None, other: ExampleSet | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.pairs is other.pairs or one.pairs == other.pairs


def _appended(library: Library, kept: ExampleSet) -> Library:
    return Library((*library.sets, kept), library.open_name)


def _copy_of(library: Library, copies: set[str], other: ExampleSet) -> str | None:
    """Find, among the sets that conflicts made, one that holds an earlier version of another tab's set."""
    earlier = [version.pairs for version in (*other.history, *other.future)]
    found = [known for known in library.sets if known.name in copies]
    return next((known.name for known in found if any(known.pairs == pairs for pairs in earlier)), None)


def _free_name(name: str, taken: list[str]) -> str:
    number = 2
    while f"{name} ({number})" in taken:
        number += 1
    return f"{name} ({number})"


def _read_index(folder: Path) -> tuple[list[_Entry], str, list[str]]:
    """Read which sets there are, which is open, and what is wrong with the index."""
    path = folder / INDEX
    try:
        if path.stat().st_size > _MAX_INDEX_BYTES:
            raise ValueError("no index of ours")
        index = _Index.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return [], "", []
    except (OSError, ValueError):
        words = f"What you changed earlier can't be found again: {folder.name}/{INDEX} is damaged. It is left as it is."
        return [], "", [words]
    return index.sets, index.open, []


def _read_pairs(folder: Path, entry: _Entry) -> tuple[PreferencePair, ...]:
    if not entry.file:
        return ()
    place = f"{folder.name}/{entry.file}"
    name = entry.name[:MAX_NAME]
    try:
        data = (folder / entry.file).read_bytes()
    except OSError as problem:
        raise DataError(f"{name} can't be read back: {place}: {problem.strerror}.") from problem
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise DataError(f"{name} can't be read back: {place} is damaged. It is left as it is.")
    return tuple(parse_pairs(data, place))


def _is_intact(folder: Path, entry: _Entry) -> bool:
    try:
        return hashlib.sha256((folder / entry.file).read_bytes()).hexdigest() == entry.sha256
    except OSError:
        return False


def _write_index(folder: Path, index: _Index) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / INDEX, json.dumps(index.model_dump(), indent=1) + "\n")
