"""The process in which a run happens: `python -m stepwise_dpo.runs.worker RUN_DIR PARENT_PID`.

Its output goes to the run's events.log. It ends by itself when the process that started it is gone.
"""

import os
import sys
import threading
import time
import warnings
from dataclasses import replace

import psutil

from stepwise_dpo.errors import StepwiseDPOError
from stepwise_dpo.runs.directory import RunDirectory

PARENT_POLL_SECONDS = 1.0


def main(arguments: list[str]) -> int:
    """Train what RUN_DIR describes; 0 when it finished or was stopped, 1 when it failed."""
    path, parent = arguments
    directory = RunDirectory(path)
    # First of all: from now on anybody can tell whether this process lives.
    directory.write_status(
        replace(
            directory.status(), state="starting", phase="loading", pid=os.getpid(),
            create_time=psutil.Process().create_time(),
        )
    )  # fmt: skip
    # TRL 1.16 uses names that Transformers 5.23 already calls old; in a run's log that would look like a problem.
    warnings.filterwarnings("ignore", category=FutureWarning)
    threading.Thread(target=_end_with_parent, args=(int(parent),), daemon=True).start()
    # Not at the top: torch and TRL take seconds, and the watch above must run meanwhile.
    from stepwise_dpo.runs.training import run

    try:
        run(directory.config(), directory.path)
    except StepwiseDPOError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    print("the process that started this run is gone; ending", file=sys.stderr, flush=True)
    # Not sys.exit: this isn't the main thread, and the main thread may be deep inside a matrix product.
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
