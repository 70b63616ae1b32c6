"""Which of a session's requests came last."""

import threading
from collections import OrderedDict
from collections.abc import Hashable


class Newest:
    """Tells which request of a session came last: loading a model is slow, and its late answer must not cover a newer.

    Args:
        sessions: how many are remembered; the session's name comes from the browser.
    """

    def __init__(self, sessions: int = 1_000) -> None:
        self._sessions = sessions
        self._last: OrderedDict[str, tuple[int, Hashable]] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, session: str, work: Hashable = None) -> int:
        """Note a new request; returns its ticket.

        Args:
            session: whose.
            work: what it works on until `end`, so that a request for the same can leave it alone; see `works_on`.
        """
        with self._lock:
            ticket = self._last.pop(session, (0, None))[0] + 1
            self._last[session] = (ticket, work)
            if len(self._last) > self._sessions:
                self._last.popitem(last=False)
            return ticket

    def end(self, session: str, ticket: int) -> None:
        """Note that a request's work is over; it stays the last one, if it is."""
        with self._lock:
            if self._last.get(session, (0, None))[0] == ticket:
                self._last[session] = (ticket, None)

    def works_on(self, session: str, work: Hashable) -> bool:
        """Whether the last request is still at this very work."""
        with self._lock:
            return work is not None and self._last.get(session, (0, None))[1] == work

    def is_last(self, session: str, ticket: int) -> bool:
        """Whether no later request has begun; a forgotten session's answer is shown."""
        with self._lock:
            return self._last.get(session, (ticket, None))[0] == ticket
