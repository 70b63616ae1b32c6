"""What reads variables of the environment, as readers of their values; the libraries read others of their own."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

from stepwise_dpo.bench.browser import APP, find_chromium
from stepwise_dpo.errors import ConfigError
from stepwise_dpo.runs.launch import read_launch
from stepwise_dpo.runs.threads import waiting
from stepwise_dpo.runs.worker_process import worker_environment
from stepwise_dpo.ui.gradio_environment import WHOLE_NUMBERS, for_gradio

VARIABLES = {
    "how it was launched": ("WORLD_SIZE", "RANK", "LOCAL_RANK"),
    "threads": ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"),
    "a worker's environment": ("PYTHONPATH", "OMP_WAIT_POLICY", "MALLOC_TOP_PAD_"),
    "the app's options": ("STEPWISE_DPO_RUNS_DIR", "GRADIO_SERVER_NAME", "SPACE_ID"),
    "a browser's program": ("CHROME_PATH",),
    "what Gradio reads": tuple(WHOLE_NUMBERS),
}


def environment_readers(folder: Path) -> dict[str, Callable[[Any], object]]:
    """Readers of a text whose lines are the values of VARIABLES.

    Args:
        folder: where an app is started.
    """
    read: dict[str, Callable[[], object]] = {
        "how it was launched": read_launch,
        "threads": lambda: waiting(os.environ),
        "a worker's environment": lambda: worker_environment(os.environ),
        "the app's options": lambda: _app_options(folder),
        "a browser's program": find_chromium,
        "what Gradio reads": _for_gradio,
    }
    return {name: lambda said, name=name: _with(name, said, read[name]) for name in VARIABLES}


def _with(name: str, said: str, read: Callable[[], object]) -> None:
    # No environment holds a null byte, and other bytes that are no text become half surrogates.
    lines = said.replace("\0", "").encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape").split("\n")
    values = dict(zip(VARIABLES[name], lines, strict=False))
    with _environment({**dict.fromkeys(VARIABLES[name]), **values}):
        read()


def _for_gradio() -> None:
    """Check as app.py does, and then read as Gradio does."""
    for_gradio(os.environ)
    for name in VARIABLES["what Gradio reads"]:
        int(os.getenv(name, "1"))


def _app_options(folder: Path) -> None:
    """Read the options, then do with the folder of runs what a starting server does."""
    app, words, before = _app(folder), StringIO(), os.getcwd()
    os.chdir(folder)  # a relative name is meant from there
    try:
        with redirect_stderr(words):
            options = app.parse_options([])
        supervisor = app.make_supervisor(options)
        supervisor.recover()
        supervisor.runs()
    except SystemExit as ended:
        raise ConfigError(words.getvalue().encode("utf-8", "backslashreplace").decode()) from ended
    finally:
        os.chdir(before)


@cache
def _app(folder: Path) -> ModuleType:
    """Import app.py, which reads the command line and the environment; its page is built, and not served."""
    spec = spec_from_file_location("app_of_the_fuzzer", APP)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    with _environment(dict.fromkeys(VARIABLES["the app's options"])):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _environment(values: dict[str, str | None]) -> Iterator[None]:
    """Set variables for a while; None is one that isn't set."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
