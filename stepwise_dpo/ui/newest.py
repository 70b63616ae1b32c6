"""Which of a session's requests came last."""

import threading
from collections import OrderedDict


class Newest:
    """Tells which request of a session came last: loading a model is slow, and its late answer must not cover a newer.

    Args:
        sessions: how many are remembered; the session's name comes from the browser.
    """

    def __init__(self, sessions: int = 1_000) -> None:
        self._sessions = sessions
        self._last: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, session: str) -> int:
        """Note a new request; returns its ticket."""
        with self._lock:
            ticket = self._last.pop(session, 0) + 1
            self._last[session] = ticket
            if len(self._last) > self._sessions:
                self._last.popitem(last=False)
            return ticket

    def is_last(self, session: str, ticket: int) -> bool:
        """Whether no later request has begun; a forgotten session's answer is shown."""
        with self._lock:
            return self._last.get(session, ticket) == ticket
