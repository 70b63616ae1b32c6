"""The commands that make models."""

import argparse
from typing import Any

from stepwise_dpo.cli.output import quiet_libraries, report_table
from stepwise_dpo.cli.parsing import add_command, add_setting
from stepwise_dpo.cli.pretrain import add_pretrain
from stepwise_dpo.runs.launch import read_launch
from stepwise_dpo.runs.reward_config import RewardTrainingConfig, make_reward_config

TRAIN_REWARD_EXAMPLES = """examples:
  python -m stepwise_dpo models train-reward --model tiny --head step_tag --data data/synthetic_prm.json \\
    --eval-data data/heldout_prm.json --output-dir judge
  python -m stepwise_dpo score --reward-model judge --data data/heldout_prm.json --output scores.jsonl

The data are native pairs, both sides of which count, or TRL's stepwise supervision: {"prompt", "completions": [str],
"labels": [bool or null]}; steps without a label teach nothing. The output directory is then an ordinary model folder,
with metrics.jsonl (one line per optimiser step) and report.json (before and after) beside the model."""


def add_commands(commands: Any) -> None:
    """Add `models` with its subcommands."""
    models = commands.add_parser("models", help="make models", description="Models.")
    kinds = models.add_subparsers(metavar="COMMAND", required=True)
    train_reward = add_command(
        kinds, "train-reward", "train a process reward model on labelled steps", _train_reward, TRAIN_REWARD_EXAMPLES
    )
    train_reward.add_argument("--output-dir", required=True, metavar="DIR", help="a new folder for the trained model")
    for name, field in RewardTrainingConfig.model_fields.items():
        default, required = field.get_default(), field.is_required()
        add_setting(train_reward, name, field.annotation, field.description or "", default, required)
    add_pretrain(kinds)


def _train_reward(options: argparse.Namespace) -> int:
    read_launch()  # what is wrong there, Accelerate would say by a traceback
    settings = {name: getattr(options, name) for name in RewardTrainingConfig.model_fields}
    config = make_reward_config(**{name: value for name, value in settings.items() if value is not None})
    quiet_libraries()
    from stepwise_dpo.runs.reward_training import train_reward_model

    report = train_reward_model(config, options.output_dir)
    if report["measured_on"] == "held-out":
        print(f"On the held-out data {config.eval_data}:")
    else:
        print(
            f"On the training data {config.data}, for want of --eval-data: how well the data were learnt, "
            "which says little about other data."
        )
    print(report_table(report))
    thresholds = report["threshold"]
    print(
        f"A step counts as wrong below {thresholds['before']:.3g} before and {thresholds['after']:.3g} after, "
        "tuned on training data only (for process_bench, in percent)."
    )
    print(f"saved: {options.output_dir}")
    return 0
