"""The process in which a run happens: `python -m stepwise_dpo.runs.worker PARENT_PID [--ready DESCRIPTOR]`.

It waits for one line of JSON on its standard input, see `Order`, does that run and ends. With --ready it is a spare: it
imports and tries everything first, says so by a byte on that descriptor, and then waits, for as long as it takes.

Its output goes to the run's events.log. It ends by itself when the process that started it is gone; at SIGTERM it notes
first how far it came.
"""

import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import psutil
from pydantic import BaseModel, ConfigDict, PlainValidator

from stepwise_dpo.errors import StepwiseDPOError
from stepwise_dpo.runs.config import MAX_PATH, RunConfig
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.quick_import import without_collection

if TYPE_CHECKING:
    from stepwise_dpo.learning.loading import Policy

PARENT_POLL_SECONDS = 1.0
BEHIND_THE_PAGE = 5
"""Niceness: where cores are few, clicks are answered while a run computes; alone it is as fast as ever."""


def _path(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_PATH:
        raise ValueError(f"must be a path of 1 to {MAX_PATH:,} characters")
    return value


class Order(BaseModel):
    """What the parent asks for, in one line of JSON.

    Attributes:
        run: the run's directory.
        resume: whether to go on from a checkpoint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    run: Annotated[str, PlainValidator(_path)]
    resume: bool


def main(arguments: list[str], train: Callable[[RunConfig, Path], object] | None = None) -> int:
    """Train what the parent asks for.

    Args:
        arguments: the parent's pid; "--ready" and a file descriptor for a spare.
        train: does the run; if not given, `runs.training.run`, or its `resume` where that is asked.

    Returns:
        0 when the run finished or was stopped, or when there was none; 1 when it failed or was ended by SIGTERM.
    """
    parent, ready = int(arguments[0]), int(arguments[2]) if arguments[1:2] == ["--ready"] else None
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    # TRL 1.16 uses names that Transformers 5.23 already calls old; in a run's log that would look like a problem.
    warnings.filterwarnings("ignore", category=FutureWarning)
    loaded: Policy | None = None  # what a spare has in memory already
    if ready is not None:
        # What can't be imported now can't be for the run that comes either, which has a log to say so.
        with suppress(Exception):
            loaded = _prepare()
        with suppress(BrokenPipeError):  # a run came meanwhile, and nobody asks any more
            os.write(ready, b"1")
        os.close(ready)
    line = sys.stdin.readline()
    if not line:
        return 0  # the parent has ended, or wants no spare any more
    order = Order.model_validate(json.loads(line))  # pydantic's own parser refuses a path that is no UTF-8
    directory = RunDirectory(order.run)
    _take_over(directory)
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        (train or _training(resume=order.resume, loaded=loaded))(directory.config(), directory.path)
    except StepwiseDPOError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("ended by SIGTERM", file=sys.stderr, flush=True)
        return 1
    return 0


def _take_over(directory: RunDirectory) -> None:
    """Write to the run's log, read nothing more, and say that this process is the run's."""
    log = os.open(directory.events, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, target)
    os.close(log)
    os.close(nothing)
    directory.write_status(
        replace(
            directory.status(), state="starting", phase="loading", pid=os.getpid(),
            create_time=psutil.Process().create_time(),
        )
    )  # fmt: skip


def _interrupt(number: int, frame: object) -> None:
    """Turn the first SIGTERM into an exception, at which the run notes its end; the supervisor repeats the signal."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _training(*, resume: bool, loaded: "Policy | None" = None) -> Callable[[RunConfig, Path], object]:
    # Not at the top: torch and TRL take seconds, and the watch of the parent must run meanwhile.
    from stepwise_dpo.runs import training

    if resume:
        return lambda config, path: training.resume(path, loaded)
    return lambda config, path: training.run(config, path, loaded)


def _prepare() -> "Policy":
    """Import what any run needs, load the bundled policy and rehearse with it: no run's configuration is known yet."""
    with without_collection():  # Accelerate's own full one, before training, is short then
        from stepwise_dpo.learning.evaluation import evaluate_policy
        from stepwise_dpo.learning.loading import load_policy
        from stepwise_dpo.learning.names import DATA_DIR, POLICY
        from stepwise_dpo.learning.step_dataset import build_dataset
        from stepwise_dpo.preferences.pairs import load_pairs

        _training(resume=False)
        policy = load_policy(POLICY)
        # Libraries import and set up much when they are first used, for which the first loss would have to wait.
        with suppress(StepwiseDPOError):  # no run needs this set
            pairs = load_pairs(DATA_DIR / "heldout_prm.json")[:8]
            build_dataset(pairs, policy.step_tokenizer())
            evaluate_policy(policy, pairs)
        return policy


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    print("the process that started this run is gone; ending", file=sys.stderr, flush=True)
    # Not sys.exit: this isn't the main thread, and the main thread may be deep inside a matrix product.
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    if hasattr(os, "nice"):  # not on Windows
        os.nice(BEHIND_THE_PAGE)
    sys.exit(main(sys.argv[1:]))
