"""The workbench in a browser: `python app.py`, `gradio app.py`, or a Hugging Face Space."""

import argparse
import gc
import os
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from stepwise_dpo.errors import ConfigError, RunError
from stepwise_dpo.ui.gradio_environment import for_gradio

try:
    os.environ.update(for_gradio(os.environ))  # before the imports that read it
except ConfigError as problem:
    sys.exit(f"error: {problem}")
gc.disable()  # until the page is up: all that is made by then stays, and to look through it takes half a second

from stepwise_dpo.runs.limits import GIB, PUBLIC_PER_OWNER, PUBLIC_RUN_LIMITS, QueueLimits, RunLimits
from stepwise_dpo.runs.retention import forget, forget_uploads, repeat_hourly, upload_folder
from stepwise_dpo.runs.supervisor import Supervisor
from stepwise_dpo.runs.threads import waiting
from stepwise_dpo.ui.heavy import import_learning_soon
from stepwise_dpo.ui.page import build_app, launch_options  # after the environment

os.environ.update(waiting(os.environ))  # torch comes later

WARM_UP_DELAY_SECONDS = 8.0
"""First the first visitor's page, then what it scores with: the spare worker's imports take a core for seconds."""


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Step-level preference optimisation in the browser.")
    runs_dir = os.environ.get("STEPWISE_DPO_RUNS_DIR", "runs")
    parser.add_argument(
        "--runs-dir", type=_folder, default=runs_dir, metavar="DIR", help="where runs are kept (default: %(default)s)"
    )
    host = "0.0.0.0" if os.environ.get("SPACE_ID") else os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    parser.add_argument(
        "--host", type=_address, default=host, metavar="ADDRESS", help="address to listen on (default: %(default)s)"
    )
    # Without --port Gradio reads GRADIO_SERVER_PORT, or takes the first free port from 7860.
    parser.add_argument("--port", type=_port, metavar="N", help="port (default: GRADIO_SERVER_PORT, or 7860 and up)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument(
        "--public",
        action=argparse.BooleanOptionalAction,
        default=bool(os.environ.get("SPACE_ID")),
        help="strangers use the page: models from a list, short runs, nobody sees another's (default: on a Space)",
    )
    parser.add_argument(
        "--max-concurrent-runs", type=_whole, default=1, metavar="N", help="others wait (default: %(default)s)"
    )
    parser.add_argument(
        "--max-memory", type=_positive, metavar="GIB", help="end a run that uses more (default: no limit, public 6)"
    )
    parser.add_argument(
        "--max-minutes", type=_positive, metavar="N", help="end a run that takes longer (default: no limit, public 30)"
    )
    parser.add_argument(
        "--warm",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep a spare worker, half a GB of memory, so that a run starts at once (default: on)",
    )
    return parser.parse_args(arguments)


def make_supervisor(options: argparse.Namespace) -> Supervisor:
    """Build what starts and limits runs, as the options say."""
    limits = PUBLIC_RUN_LIMITS if options.public else RunLimits()
    return Supervisor(
        options.runs_dir,
        RunLimits(
            limits.memory_bytes if options.max_memory is None else int(options.max_memory * GIB),
            limits.seconds if options.max_minutes is None else options.max_minutes * 60,
        ),
        QueueLimits(concurrent=options.max_concurrent_runs, per_owner=PUBLIC_PER_OWNER if options.public else None),
    )


def report(supervisor: Supervisor) -> None:
    """Set right what an earlier server left, and say so."""
    found = supervisor.recover()
    for runs, words in ((found.interrupted, "interrupted"), (found.queued, "waiting again")):
        if runs:
            print(f"found from an earlier start, {words}: {', '.join(run.id for run in runs)}", flush=True)


def own_uploads(runs_dir: Path) -> Path | None:
    """Say to Gradio where uploads go, before the page is built; None where somebody has said it, maybe for other apps.

    Raises:
        SystemExit: that place can't be used.
    """
    if "GRADIO_TEMP_DIR" in os.environ:
        return None
    try:
        folder = upload_folder(runs_dir)
    except RunError as error:
        sys.exit(f"error: {error}")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return folder


def _folder(text: str) -> str:
    try:
        with os.scandir(text):
            return text
    except FileNotFoundError:
        is_new = text != ""
    except OSError:  # no folder, not ours to read, or a name that is too long
        is_new = False
    if not is_new:
        raise argparse.ArgumentTypeError(f"must be a folder, or the name of a new one, not {text[:80]!r}")
    return text


def _address(text: str) -> str:
    # Gradio would try a hundred ports there, for seconds each.
    try:
        found = socket.getaddrinfo(text.strip("[]") or "127.0.0.1", 0, type=socket.SOCK_STREAM)
        with socket.socket(found[0][0], socket.SOCK_STREAM) as trial:
            trial.bind(found[0][4])
    except (OSError, UnicodeError) as error:
        raise argparse.ArgumentTypeError(f"must be an address of this machine, not {text[:80]!r}") from error
    return text


def _whole(text: str) -> int:
    return _at_most(1_000, int(text))


def _port(text: str) -> int:
    return _at_most(65_535, int(text))


def _at_most(most: int, number: int) -> int:
    if not 1 <= number <= most:
        raise argparse.ArgumentTypeError(f"must be from 1 to {most:,}")
    return number


def _positive(text: str) -> float:
    if not 0 < (number := float(text)) <= 1_000_000:
        raise argparse.ArgumentTypeError("must be a number above 0 and at most 1,000,000")
    return number


try:
    # Whoever imports this module has a command line of their own.
    options = parse_options(sys.argv[1:] if __name__ == "__main__" else [])
    supervisor = make_supervisor(options)
    uploads = own_uploads(supervisor.runs_dir) if options.public else None
    demo = build_app(supervisor, public=options.public)
finally:
    if __name__ != "__main__":
        gc.enable()

if __name__ == "__main__":
    try:
        _app, url, _share_url = demo.launch(
            server_name=options.host,
            server_port=options.port,
            inbrowser=options.open,
            quiet=True,
            prevent_thread_lock=True,
            **launch_options(options.public),
        )
    except OSError as error:  # the port is taken
        sys.exit(f"error: {error}")
    gc.freeze()
    gc.enable()
    if url:  # `gradio app.py` runs this file again at each change, where launch does nothing
        report(supervisor)
        if options.public:
            tasks: list[Callable[[], object]] = [partial(forget, supervisor)]
            if uploads is not None:
                tasks.append(partial(forget_uploads, uploads))
            threading.Thread(target=repeat_hourly, args=tasks, name="retention", daemon=True).start()
        if options.warm:
            warmth = threading.Timer(WARM_UP_DELAY_SECONDS, supervisor.warm)
            warmth.daemon = True
            warmth.start()
        import_learning_soon(2.0)
        print(f"Stepwise DPO is ready at {url}", flush=True)
        demo.block_thread()
