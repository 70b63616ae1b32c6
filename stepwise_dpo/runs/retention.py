"""What a public page forgets: runs that ended, and the examples that visitors trained on, after a day."""

import logging
import time
from pathlib import Path

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.supervisor import Supervisor

DAY_SECONDS = 24 * 60 * 60.0

_log = logging.getLogger(__name__)


def forget(supervisor: Supervisor, seconds: float = DAY_SECONDS) -> list[str]:
    """Delete runs that ended so long ago, and example files as old that no run reads any more.

    Args:
        supervisor: of the runs; the page writes the examples of its runs to "data" beside them.
        seconds: how long things are kept.

    Returns:
        names of what was deleted.
    """
    oldest = time.time() - seconds
    deleted, used = [], set()
    for run in supervisor.runs():
        try:
            status = supervisor.status(run)
            if not status.active and status.updated < oldest:
                supervisor.delete(run)
                deleted.append(run.id)
                continue
            config = run.config()
            used |= {Path(path).name for path in (config.data, config.eval_data) if path}
        except RunError as error:
            _log.warning("run %r is kept: %s", run.id, error)
    for file in (supervisor.runs_dir / "data").glob("*.json"):
        try:
            if file.name not in used and file.lstat().st_mtime < oldest:
                file.unlink()
                deleted.append(file.name)
        except OSError as error:
            _log.warning("example file %r is kept: %s", file.name, error)
    return deleted
