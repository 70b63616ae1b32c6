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
from stepwise_dpo.runs.launch import is_first_process, read_launch

TRAIN_EXAMPLES = """examples:
  python -m stepwise_dpo train --preset demo --output-dir runs/first
  python -m stepwise_dpo train --loss stepwise --data data/synthetic_prm.json
  python -m stepwise_dpo train --config run.yaml --learning-rate 1e-5 --save-steps 100
  python -m stepwise_dpo train --resume runs/first

A preset is overridden by the file, and the file by options. The output directory then holds config.json, metrics.jsonl
(one line per optimiser step), report.json (before, after, change) and final/, an ordinary Transformers checkpoint."""


def add_commands(commands: Any) -> None:
    """Add `train`."""
    train = add_command(commands, "train", "train a policy on preference pairs", _train, TRAIN_EXAMPLES)
    train.add_argument("--preset", choices=[*PRESETS], help="settings to start from; the README says which")
    train.add_argument("--config", metavar="FILE", help="settings in YAML, named as below with _ for -")
    train.add_argument("--output-dir", metavar="DIR", help="a new directory for the run (default: runs/TIME-LOSS)")
    train.add_argument(
        "--resume",
        metavar="RUN_DIR",
        help="go on with a run that was stopped, interrupted or failed, from its newest sound checkpoint, or again "
        "from the start where it had none yet; its saved configuration says the rest",
    )
    for name, field in RunConfig.model_fields.items():
        add_setting(train, name, field.annotation, field.description or "", field.get_default())


def _train(options: argparse.Namespace) -> int:
    launch = read_launch()
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
    if output_dir is None and launch.processes > 1:
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

    if "data" in chosen and "eval_data" not in chosen and config.eval_data and launch.rank == 0:
        print(
            f"note: compared on {config.eval_data}, which the preset names: for problems of your own, give --eval-data",
            file=sys.stderr,
        )

    _prepare()
    from stepwise_dpo.runs.training import run

    directory = RunDirectory(output_dir or Path("runs") / new_run_id(config.loss))
    with _stopping_when_told(directory):
        run(config, directory.path)
    return _tell_end(directory)


def _resume(run_dir: str, beside: list[str]) -> int:
    if beside:
        options = ", ".join("--" + name.replace("_", "-") for name in beside)
        raise ConfigError(f"--resume takes the run's own configuration: leave out {options}, or start a new run")
    _prepare()
    from stepwise_dpo.runs.training import resume

    directory = RunDirectory(run_dir)
    with _stopping_when_told(directory):
        resume(run_dir)
    return _tell_end(directory)


def _prepare() -> None:
    quiet_libraries()
    # Where there is nothing to stop in order, a scheduler's SIGTERM ends the run as Ctrl-C does: its status says so.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def _stopping_when_told(run: RunDirectory) -> Iterator[None]:
    """Let a first Ctrl-C or SIGTERM keep what is there, as the page's button does; a second one ends the run at once.

    SIGTERM is what Docker, Slurm, systemd and `timeout` send some time before they kill a process.
    """

    def on_first(number: int, frame: FrameType | None) -> None:
        for other in before:
            signal.signal(other, on_second)
        if not run.exists():
            raise KeyboardInterrupt
        run.request_stop()
        again = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        print(f"\nstopping after this optimiser step; {again} again ends the run at once", file=sys.stderr)

    def on_second(number: int, frame: FrameType | None) -> None:
        run.forget_stop()  # nobody waits for the end of the step any more, so the run is interrupted, not stopped
        raise KeyboardInterrupt

    before = {}
    # Of several processes the launcher takes the signal, and ends them all.
    if read_launch().processes == 1:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        # What is ignored stays so: a job in the background of a shell has no Ctrl-C.
        before = {number: handler for number, handler in handlers.items() if handler is signal.default_int_handler}
    for number in before:
        signal.signal(number, on_first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell_end(directory: RunDirectory) -> int:
    if is_first_process():
        config, report = directory.config(), directory.report() or {}
        if "after" in report:
            print(f"compared on {config.eval_data or f'the training data, {config.data}'}")
        print(report_table(report))
        state = directory.status().state
        print(f"{state}: {directory.final}")
        if state == "stopped":
            print(f"it goes on with: python -m stepwise_dpo train --resume {shlex.quote(str(directory.path))}")
    return 0
