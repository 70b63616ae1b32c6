"""A run's metrics by column, read on as the file grows: what charts and the run table draw."""

import math
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stepwise_dpo.runs.directory import RunDirectory

Floats = npt.NDArray[np.float64]


class Curves:
    """Every metric's values over the optimiser steps; a value that is no finite number is a gap, kept as NaN."""

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self._columns: dict[str, tuple[array[float], array[float]]] = {}
        self._lock = threading.Lock()  # a visitor draws while another one's look reads on
        self.extend(records)

    def __contains__(self, key: str) -> bool:
        return key in self._columns

    def extend(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add records of metrics.jsonl; evaluation lines are those with eval_ keys."""
        with self._lock:
            for record in records:
                if "global_step" not in record:
                    continue
                step = float(record["global_step"])
                for key, value in record.items():
                    if key == "global_step" or (key == "time" and "loss" not in record):
                        continue
                    steps, values = self._columns.setdefault(key, (array("d"), array("d")))
                    steps.append(step)
                    values.append(_number(value))

    def points(self, key: str) -> tuple[Floats, Floats]:
        """Give (optimiser steps, values) of a metric, both empty where no record has it."""
        with self._lock:
            steps, values = self._columns.get(key, (array("d"), array("d")))
            return np.array(steps), np.array(values)

    def last(self, key: str) -> float | None:
        """Give a metric's newest value; None where there is none or it is no number."""
        _, values = self._columns.get(key, (array("d"), array("d")))
        return values[-1] if values and math.isfinite(values[-1]) else None

    def count(self, key: str) -> int:
        """How many records have a metric."""
        return len(self._columns[key][0]) if key in self._columns else 0


class CurveCache:
    """Keeps the curves of the runs that were looked at last, and reads only what their files have grown by.

    Args:
        kept: how many runs.
    """

    def __init__(self, kept: int = 12) -> None:
        self._kept = kept
        self._known: OrderedDict[Path, tuple[int, int, Curves]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, run: RunDirectory) -> Curves:
        """Read a run's curves as far as they are written."""
        path = run.path / "metrics.jsonl"
        with self._lock:
            try:
                found = path.stat()
            except OSError:
                self._known.pop(path, None)
                return Curves()
            inode, offset, curves = self._known.get(path, (found.st_ino, 0, Curves()))
            if inode != found.st_ino or found.st_size < offset:
                offset, curves = 0, Curves()  # another file took its place, as at a resume
            records, offset = run.metrics(offset)
            if records:
                curves.extend(records)
            self._known[path] = (found.st_ino, offset, curves)
            self._known.move_to_end(path)
            while len(self._known) > self._kept:
                self._known.popitem(last=False)
            return curves


def smooth(values: Floats, weight: float = 0.8) -> Floats:
    """Average exponentially, corrected for the start so that the first value is itself; gaps stay gaps."""
    smoothed = np.full(len(values), np.nan)
    total = share = 0.0
    for index, value in enumerate(values.tolist()):
        if not math.isfinite(value):
            continue
        total = weight * total + (1 - weight) * value
        share = weight * share + (1 - weight)
        smoothed[index] = total / share
    return smoothed


def thinned(values: Floats, limit: int) -> npt.NDArray[np.intp]:
    """Choose at most `limit` points: of each stretch its lowest and highest, so that no spike is lost, and both ends.

    Returns:
        their indices, in order.
    """
    count = len(values)
    if count <= limit:
        return np.arange(count)
    width = math.ceil(count / (limit // 2 - 1))
    stretches = math.ceil(count / width)
    padded = np.full(stretches * width, np.nan)
    padded[:count] = values
    rows = padded.reshape(stretches, width)
    filled = ~np.isnan(rows).all(axis=1)
    starts = np.arange(stretches)[filled] * width
    low = np.where(np.isnan(rows), np.inf, rows)[filled].argmin(axis=1)
    high = np.where(np.isnan(rows), -np.inf, rows)[filled].argmax(axis=1)
    return np.unique(np.concatenate([[0, count - 1], starts + low, starts + high])).astype(np.intp)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan
