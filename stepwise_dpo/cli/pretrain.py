"""The command that makes the bundled models again."""

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepwise_dpo.cli.output import make_parent, quiet_libraries
from stepwise_dpo.cli.parsing import add_command, positive, real_number, seed
from stepwise_dpo.errors import ConfigError
from stepwise_dpo.learning.names import POLICY, REWARD
from stepwise_dpo.runs.progress import ProgressBar

PRETRAIN_EXAMPLES = """examples:
  python -m stepwise_dpo models pretrain policy --output-dir data/models/policy
  python -m stepwise_dpo models pretrain reward --output-dir data/models/reward

Both follow one line of training, kept in --line: the policy is its first checkpoint that solves --solve-rate of its
own held-out problems, the reward model its end, calibrated on --calibrate. A line that was interrupted goes on from its
last sound checkpoint when the same command is given again."""

_DEFAULTS: dict[str, Any] = {
    "solve_rate": 0.45,
    "held_out": "data/heldout_prm.json",
    "calibrate": "data/synthetic_prm.json",
}

_SETTINGS = ("steps", "batch_size", "seed", "d_model", "d_ff", "layers", "decoder_layers", "measure_every")


def add_pretrain(kinds: Any) -> None:
    """Add `models pretrain`."""
    pretrain = add_command(
        kinds, "pretrain", "make a bundled model from nothing, in about an hour", _pretrain, PRETRAIN_EXAMPLES
    )
    pretrain.add_argument("model", choices=[POLICY, REWARD], help="which one")
    pretrain.add_argument("--output-dir", required=True, metavar="DIR", help="a new folder for the model")
    pretrain.add_argument("--line", default="runs/pretraining", metavar="DIR", help="the line of training")
    pretrain.add_argument(
        "--solve-rate",
        type=real_number,
        default=_DEFAULTS["solve_rate"],
        metavar="X",
        help="where the policy is taken (default: 0.45)",
    )
    pretrain.add_argument(
        "--held-out",
        default=_DEFAULTS["held_out"],
        metavar="FILE",
        help="labelled pairs to train on none of and to measure the reward model on (default: data/heldout_prm.json)",
    )
    pretrain.add_argument(
        "--calibrate",
        default=_DEFAULTS["calibrate"],
        metavar="FILE",
        help="labelled pairs to calibrate the reward model on (default: data/synthetic_prm.json)",
    )
    for name in _SETTINGS:
        kind = seed if name == "seed" else positive
        pretrain.add_argument("--" + name.replace("_", "-"), type=kind, metavar="N", help="see PretrainingPlan")


def _pretrain(options: argparse.Namespace) -> int:
    from stepwise_dpo.preferences.pairs import load_pairs

    if not 0 < options.solve_rate <= 1:
        raise ConfigError(f"--solve-rate must be above 0 and at most 1, not {options.solve_rate}")
    folder = Path(options.output_dir)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{options.output_dir!r} is a file; choose another folder")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{options.output_dir!r} is not empty; choose another folder")
    make_parent(folder)
    if Path(options.line).exists() and not Path(options.line).is_dir():
        raise ConfigError(f"{options.line!r} is a file; choose another folder for the line of training")
    make_parent(Path(options.line) / "line.json")
    held_out, calibration_pairs = load_pairs(options.held_out), load_pairs(options.calibrate)
    quiet_libraries()
    from stepwise_dpo.learning import bundling
    from stepwise_dpo.learning.pretraining import PretrainingPlan, pretrain
    from stepwise_dpo.learning.reward_benchmark import check_labels

    check_labels(held_out, both_kinds=True, source=options.held_out)
    check_labels(calibration_pairs, both_kinds=True, source=options.calibrate)

    plan = replace(
        PretrainingPlan(), **{name: value for name in _SETTINGS if (value := getattr(options, name)) is not None}
    )
    is_policy = options.model == POLICY
    pretrain(
        plan,
        options.line,
        avoid=[pair.prompt for pair in held_out],
        stop_at_solve_rate=options.solve_rate if is_policy else None,
        on_measured=_print_measurement,
        on_skipped=lambda damaged: print(f"skipped {damaged}", file=sys.stderr, flush=True),
        progress=ProgressBar("Pretraining", "step"),
    )
    checkpoint = bundling.checkpoint_of(options.line, options.solve_rate if is_policy else None)
    policy = bundling.load_checkpoint(checkpoint)
    global_step = int(checkpoint.name.rpartition("-")[2])
    commands = [f"python -m stepwise_dpo models pretrain {options.model} {shlex.join(_given(options))}"]
    if is_policy:
        bundling.save_policy(policy, folder, plan, global_step, commands)
    else:
        bundling.save_reward(
            policy, folder, plan, global_step, commands, calibration_pairs=calibration_pairs, held_out_pairs=held_out
        )
    print(f"{options.model}: optimiser step {global_step} of {options.line}, written to {folder}; see its README.md")
    return 0


def _given(options: argparse.Namespace) -> list[str]:
    """The options that repeat this, for the model card; where the line is kept makes no difference."""
    words = ["--output-dir", options.output_dir]
    names = [*_SETTINGS, "held_out", "calibrate", *(["solve_rate"] if options.model == POLICY else [])]
    for name in names:
        value = getattr(options, name)
        if value is not None and value != _DEFAULTS.get(name):
            words += ["--" + name.replace("_", "-"), str(value)]
    return words


def _print_measurement(measured: dict[str, float]) -> None:
    families = "  ".join(
        f"{name.partition('/')[2]} {value:.0%}" for name, value in measured.items() if name.startswith("solve_rate/")
    )
    print(
        f"optimiser step {measured['global_step']:.0f}: solves {measured['solve_rate']:.1%}  ({families})",
        file=sys.stderr,
        flush=True,
    )
