"""A dictionary that forgets what was used longest ago, so that it never grows beyond a limit."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedCache(Generic[Key, Value]):
    """Keeps values up to a total size, those used last.

    Args:
        limit: of the sizes of all entries together; infinite where nothing shall be forgotten.
        size_of: of one entry; at least 1, so that their number is bounded as well.
    """

    def __init__(self, limit: float, size_of: Callable[[Key, Value], int]) -> None:
        self._limit, self._size_of = limit, size_of
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        """The number of entries."""
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        """Whether a value is kept; that is no use of it."""
        return key in self._entries

    def get(self, key: Key) -> Value | None:
        """Give a value and count that as its use; None if it isn't kept."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: Key, value: Value) -> None:
        """Keep a value as the one used last; one that is larger than the limit alone isn't kept."""
        self._forget(key)
        size = self._size_of(key, value)
        if size > self._limit:
            return
        self._entries[key] = value
        self._size += size
        while self._size > self._limit:
            self._forget(next(iter(self._entries)))

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._size = 0

    def _forget(self, key: Key) -> None:
        if key in self._entries:
            self._size -= self._size_of(key, self._entries.pop(key))
