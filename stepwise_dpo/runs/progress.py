"""Progress bars for work that reports (done, total)."""

from typing import Any

from tqdm.auto import tqdm


class ProgressBar:
    """A bar on standard error, drawn from the first report on and closed by the last; TQDM_DISABLE=1 hides it.

    Args:
        description: what is going on.
        unit: what is counted.
        leave: whether the finished bar stays on the screen.
    """

    def __init__(self, description: str, unit: str, leave: bool = True) -> None:
        self._settings = {"desc": description, "unit": unit, "leave": leave, "dynamic_ncols": True}
        self._bar: tqdm[Any] | None = None

    def __call__(self, done: int, total: int) -> None:
        """Draw that `done` of `total` are done."""
        if self._bar is None or self._bar.total != total:
            self.close()
            self._bar = tqdm(total=total, **self._settings)
        self._bar.update(done - self._bar.n)
        if done == total:
            self.close()

    def close(self) -> None:
        """Take the bar away, or leave it as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
