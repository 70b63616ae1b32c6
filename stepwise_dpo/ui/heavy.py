"""The import of what judges and generates: torch and Transformers take seconds, so the page is up before they are.

Transformers fills its names when they are asked for, and two threads that ask at the same time can find them missing.
So every first use goes through here.
"""

import threading

from stepwise_dpo.runs.quick_import import without_collection

_imported = False
_lock = threading.Lock()


def import_learning() -> None:
    """Import torch, Transformers and what of this package needs them; at once where that has been done."""
    global _imported
    with _lock:
        if _imported:
            return
        with without_collection():
            import stepwise_dpo.learning.evaluation
            import stepwise_dpo.learning.rewards  # noqa: F401
        _imported = True


def import_learning_soon(seconds: float) -> None:
    """Import it in the background, so that the first visitor who wants scores doesn't wait for it.

    Args:
        seconds: from now; the page is drawn first.
    """
    timer = threading.Timer(seconds, import_learning)
    timer.daemon = True
    timer.start()
