"""Models in the page's own process: loaded once each, loaded again when their files have changed, a few kept."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from stepwise_dpo.ui.heavy import import_learning

Model = TypeVar("Model")
Item = TypeVar("Item")
Version = tuple[tuple[str, int, int, int], ...]

CHUNK = 16
"""Examples that are scored before somebody else gets a turn: small enough that a click is answered at once."""

_YIELD_SECONDS = 0.01

_loading = threading.Lock()
"""Of all models: Transformers changes how torch builds modules while it loads one, and imports parts of itself."""


def version_of(name: str) -> Version:
    """Tell apart what lay in a model's folder at different times: a resumed run puts new weights where the old were.

    Args:
        name: what `load_policy` takes.

    Returns:
        (name, time of change, size, inode) of each file; () for what is no folder here, which doesn't change.
    """
    try:
        folder = Path(name).expanduser()
        files = [(file.name, file.stat()) for file in folder.iterdir()] if folder.is_dir() else []
    except (OSError, RuntimeError, ValueError):
        return ()  # what is wrong with it is said by loading it
    return tuple(sorted((file, stat.st_mtime_ns, stat.st_size, stat.st_ino) for file, stat in files))


class LoadedModels(Generic[Model]):
    """The models used last. Who waits for one that is being loaded keeps nobody from using another.

    Args:
        load: loads a model by its name; called once what it needs of torch and Transformers is imported.
        kept: how many stay in memory.
    """

    def __init__(self, load: Callable[[str], Model], kept: int) -> None:
        self._load, self._kept = load, kept
        self._models: OrderedDict[str, tuple[Version, Model]] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, name: str) -> bool:
        """Whether this model is in memory, in whatever version."""
        return name in self._models

    def get(self, name: str) -> Model:
        """Give a model as it is on disk now, and load it if need be.

        Raises:
            StepwiseDPOError: it can't be loaded.
        """
        if (model := self._find(name, version_of(name))) is not None:
            return model
        with _loading:
            # Taken before the files are read: if they change meanwhile, the next one to ask loads them again.
            version = version_of(name)
            if (model := self._find(name, version)) is not None:
                return model  # somebody else has loaded it meanwhile
            import_learning()
            model = self._load(name)
            with self._lock:
                self._models[name] = (version, model)
                self._models.move_to_end(name)
                while len(self._models) > self._kept:
                    self._models.popitem(last=False)
            return model

    def _find(self, name: str, version: Version) -> Model | None:
        with self._lock:
            known = self._models.get(name)
            if known is None or known[0] != version:
                return None
            self._models.move_to_end(name)
            return known[1]


def in_turns(items: Sequence[Item], size: int = CHUNK) -> Iterator[Sequence[Item]]:
    """Cut long work into parts, each of which takes a model's lock anew.

    Yields:
        the parts, with a moment between two: a lock isn't fair, and without it nobody else would get the model.
    """
    for start in range(0, len(items), size):
        if start:
            time.sleep(_YIELD_SECONDS)
        yield items[start : start + size]
