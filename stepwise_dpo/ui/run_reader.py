"""Runs as the page reads them, over and over: only what has changed since the last look is read again."""

import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gradio.utils import get_upload_folder

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.config import RunConfig
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.discarding import sweep
from stepwise_dpo.runs.notes import read_note
from stepwise_dpo.runs.own_runs import OwnRuns
from stepwise_dpo.runs.supervisor import Supervisor
from stepwise_dpo.runs.ticket import owner_hash, read_ticket
from stepwise_dpo.ui.curves import CurveCache, Curves, smooth, thinned
from stepwise_dpo.ui.places import places_of_this_machine, without_places
from stepwise_dpo.ui.runs_view import RunView, file_size, look
from stepwise_dpo.ui.training_figures import Drawn

SPARK_POINTS = 40
KEPT_FACTS = 500

LOOK_SECONDS = 0.1
"""How old a look at the runs may be that all sessions' questions share."""


class Facts(NamedTuple):
    """What the run table says about a run beyond its status.

    Attributes:
        config: as saved; None where it can't be read.
        loss: the newest training loss, None before the first.
        spark: the smoothed loss, thinned.
        before: the report's figures before training, {} while there are none; None where one isn't defined.
        after: and after it.
        change: after minus before, with the ends of its interval; {} where it wasn't measured.
        note: a person's.
    """

    config: RunConfig | None
    loss: float | None
    spark: tuple[float, ...]
    before: dict[str, float | None]
    after: dict[str, float | None]
    change: dict[str, float | None]
    note: str


class RunReader:
    """Reads runs for all sessions of a page.

    Args:
        supervisor: of the runs.
        public: whether strangers read them, each their own, and learn of no place on this machine.
    """

    def __init__(self, supervisor: Supervisor, public: bool = False) -> None:
        self.supervisor = supervisor
        self.public = public
        self._places = places_of_this_machine(supervisor.runs_dir, Path(get_upload_folder())) if public else []
        self._curves = CurveCache()
        self._facts: OrderedDict[str, tuple[object, Facts]] = OrderedDict()
        self._lock = threading.Lock()
        self._looked: tuple[float, list[tuple[str | None, RunView]]] = (-LOOK_SECONDS, [])
        self._looking = threading.Lock()

    def own(self, visitor: str) -> OwnRuns:
        """The runs that a visitor may see: on a public page the visitor's own, else all."""
        return OwnRuns(self.supervisor, visitor if self.public else None)

    def tell(self, text: str) -> str:
        """Write an error or a log as a visitor may read it."""
        return without_places(text, self._places)

    def views(self, visitor: str) -> list[RunView]:
        """Read where a visitor's runs stand, the newest first; those that were discarded and have ended are deleted."""
        sweep(self.supervisor)
        return look(self.own(visitor))

    def recent_views(self, visitor: str) -> list[RunView]:
        """As `views`, but up to LOOK_SECONDS old: reading all runs costs the same for one session as for fifty."""
        with self._looking:
            if time.monotonic() - self._looked[0] >= LOOK_SECONDS:
                sweep(self.supervisor)
                views = [(_owner(view.run), view) for view in look(OwnRuns(self.supervisor))]
                self._looked = (time.monotonic(), views)
            known = self._looked[1]
        if not self.public:
            return [view for _, view in known]
        own = owner_hash(visitor) if visitor else None
        return [view for owner, view in known if own is not None and owner == own]

    def curves(self, run: RunDirectory) -> Curves:
        """Read a run's metrics."""
        return self._curves.of(run)

    def drawn(self, view: RunView) -> Drawn:
        """Read what is drawn of a run."""
        config = self.facts(view).config
        judged = view.loss == "stepwise" or (config is not None and config.reward_model is not None)
        return Drawn(view.run.id, view.name, view.loss or "dpo", self.curves(view.run), view.status.max_steps, judged)

    def facts(self, view: RunView) -> Facts:
        """Read what the table says about a run; what hasn't changed isn't read again."""
        sizes = [file_size(view.run.path / name) for name in ("metrics.jsonl", "report.json", "notes.txt")]
        stamp = (*sizes, view.status.state, _changed(view.run))
        with self._lock:
            known = self._facts.get(view.run.id)
            if known is not None and known[0] == stamp:
                return known[1]
        facts = self._read(view)
        with self._lock:
            self._facts[view.run.id] = (stamp, facts)
            self._facts.move_to_end(view.run.id)
            while len(self._facts) > KEPT_FACTS:
                self._facts.popitem(last=False)
        return facts

    def _read(self, view: RunView) -> Facts:
        config: RunConfig | None = None
        report: dict[str, dict[str, float | None]] = {}
        note = ""
        try:
            config = view.run.config()
            report = view.run.report() or {}
            note = read_note(view.run)
        except RunError:
            pass  # the opened run says what is wrong with it; a row of the table shows what there is
        curves = self.curves(view.run)
        values = smooth(curves.points("loss")[1])
        values = values[np.isfinite(values)]
        spark = tuple(values[thinned(values, SPARK_POINTS)].tolist())
        before, after, change = (report.get(part) or {} for part in ("before", "after", "change"))
        return Facts(config, curves.last("loss"), spark, before, after, change, note)


def _owner(run: RunDirectory) -> str | None:
    ticket = read_ticket(run)
    return ticket.owner if ticket else None


def _changed(run: RunDirectory) -> int:
    """When a run's files were last replaced, which their sizes alone may not tell."""
    try:
        return run.path.stat().st_mtime_ns
    except OSError:
        return 0
