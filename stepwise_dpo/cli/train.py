"""The command that trains."""

import argparse
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from stepwise_dpo.cli.output import quiet_libraries, report_table
from stepwise_dpo.cli.parsing import add_command, add_setting
from stepwise_dpo.errors import ConfigError
from stepwise_dpo.runs.config import (
    PRESETS,
    READ_BY_ONE_LOSS,
    RunConfig,
    make_config,
    preset_settings,
    read_config_file,
)
from stepwise_dpo.runs.directory import RunDirectory, new_run_id
from stepwise_dpo.runs.launched import launched

TRAIN_EXAMPLES = """examples:
  python -m stepwise_dpo train --preset demo --output-dir runs/first
  python -m stepwise_dpo train --loss stepwise --data data/synthetic_prm.json
  python -m stepwise_dpo train --config run.yaml --learning-rate 1e-5 --save-steps 100
  python -m stepwise_dpo train --resume runs/first

A preset is overridden by the file, and the file by options. The output directory then holds config.json, metrics.jsonl
(one line per optimiser step), report.json (before and after) and final/, an ordinary Transformers checkpoint."""


def add_commands(commands: Any) -> None:
    """Add `train`."""
    train = add_command(commands, "train", "train a policy on preference pairs", _train, TRAIN_EXAMPLES)
    train.add_argument("--preset", choices=[*PRESETS], help="settings to start from; the README says which")
    train.add_argument("--config", metavar="FILE", help="settings in YAML, named as below with _ for -")
    train.add_argument("--output-dir", metavar="DIR", help="a new directory for the run (default: runs/TIME-LOSS)")
    train.add_argument(
        "--resume",
        metavar="RUN_DIR",
        help="go on with a run that was stopped, interrupted or failed, from its newest sound checkpoint; its saved "
        "configuration says the rest",
    )
    for name, field in RunConfig.model_fields.items():
        add_setting(train, name, field.annotation, field.description or "", field.get_default())


def _train(options: argparse.Namespace) -> int:
    settings = {name: value for name in RunConfig.model_fields if (value := getattr(options, name)) is not None}
    if options.resume is not None:
        beside = [*settings, *(name for name in ("preset", "config", "output_dir") if getattr(options, name))]
        return _resume(options.resume, beside)
    file = read_config_file(options.config) if options.config else {}
    # These two say how to run, not what the run is.
    preset, output_dir = (file.pop(name, None) for name in ("preset", "output_dir"))
    preset, output_dir = options.preset or preset, options.output_dir or output_dir
    if output_dir is not None and not isinstance(output_dir, str):
        raise ConfigError(f"output_dir must be the name of a directory, not {output_dir!r}")
    if not launched().alone and output_dir is None:
        raise ConfigError("several processes need the same place to write to: give --output-dir")
    chosen = {**file, **settings}
    if preset is None and "data" not in chosen:
        raise ConfigError("'data' is missing: give --data FILE, or begin with --preset demo")
    config = make_config(preset_settings(str(preset), chosen.get("loss")) if preset is not None else {}, chosen)
    for name in settings:
        if (loss := READ_BY_ONE_LOSS.get(name, config.loss)) != config.loss:
            option = "--" + name.replace("_", "-")
            raise ConfigError(f"only loss {loss!r} reads {option}, and this is {config.loss!r}: leave it out")
    # A run is read from other folders as well.
    places = {name: str(Path(value).absolute()) for name in ("data", "eval_data") if (value := getattr(config, name))}
    config = config.model_copy(update=places)

    _prepare()
    from stepwise_dpo.runs.training import run

    directory = RunDirectory(output_dir or Path("runs") / new_run_id(config.loss))
    with _stopping_at_ctrl_c(directory):
        run(config, directory.path)
    return _tell_end(directory)


def _resume(run_dir: str, beside: list[str]) -> int:
    if beside:
        options = ", ".join("--" + name.replace("_", "-") for name in beside)
        raise ConfigError(f"--resume takes the run's own configuration: leave out {options}, or start a new run")
    _prepare()
    from stepwise_dpo.runs.training import resume

    directory = RunDirectory(run_dir)
    with _stopping_at_ctrl_c(directory):
        resume(run_dir)
    return _tell_end(directory)


def _prepare() -> None:
    quiet_libraries()
    # A cluster's scheduler ends a job like this: the run's status shall say so, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def _stopping_at_ctrl_c(run: RunDirectory) -> Iterator[None]:
    """Let a first Ctrl-C keep what is there, as the page's button does; a second one ends the run at once."""

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        if not run.exists():
            raise KeyboardInterrupt
        run.request_stop()
        print("\nstopping after this optimiser step; Ctrl-C again ends the run at once", file=sys.stderr)

    before = signal.getsignal(signal.SIGINT)
    # Of several processes the launcher takes Ctrl-C, and ends them all.
    if launched().alone and before is signal.default_int_handler:
        signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is on_interrupt:
            signal.signal(signal.SIGINT, before)


def _tell_end(directory: RunDirectory) -> int:
    if launched().rank == 0:
        print(report_table(directory.report() or {}))
        state = directory.status().state
        print(f"{state}: {directory.final}")
        if state == "stopped":
            print(f"it goes on with: python -m stepwise_dpo train --resume {shlex.quote(str(directory.path))}")
    return 0
