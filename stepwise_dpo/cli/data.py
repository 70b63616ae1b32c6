"""The commands that make, check and convert preference data."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwise_dpo.cli.output import check_folder, check_place, quiet_libraries
from stepwise_dpo.cli.parsing import add_command, positive, real_number, seed, temperature
from stepwise_dpo.errors import ConfigError, DataError
from stepwise_dpo.learning.names import POLICY
from stepwise_dpo.runs.progress import ProgressBar

if TYPE_CHECKING:
    from stepwise_dpo.preferences.pairs import PreferencePair

GENERATE_EXAMPLES = """example:
  python -m stepwise_dpo data generate --n 240 --seed 7 --output pairs.json"""

CONVERT_EXAMPLES = """examples:
  python -m stepwise_dpo data convert data/synthetic_prm.json --eval-data data/heldout_prm.json --output dataset
  python -m stepwise_dpo data convert data/synthetic_prm.json --format trl-preference --output pairs.jsonl

After the first: datasets.load_from_disk("dataset"), with splits train and, given --eval-data, test."""

CONVERT_FORMATS = ("dataset", "trl-preference", "trl-stepwise")

VALIDATE_EXAMPLES = """example:
  python -m stepwise_dpo data validate data/synthetic_prm.json

Exit code 0: every record can be used; warnings name examples worth a look. Exit code 1: some can't."""

SPLIT_EXAMPLES = """example:
  python -m stepwise_dpo data split pairs.json --held-out 0.2 --output train.json --held-out-output heldout.json
  python -m stepwise_dpo train --preset demo --data train.json --eval-data heldout.json

All pairs of one prompt stay together, so that no held-out problem is trained on."""

ON_POLICY_EXAMPLES = """examples:
  python -m stepwise_dpo data on-policy --model policy --n 450 --seed 21 --output onpolicy.json
  python -m stepwise_dpo data on-policy --every-problem --n 300 --seed 22 --avoid onpolicy.json --output heldout.json

The chosen side of a pair is the right solution, the rejected side what the model wrote. A checker labels every step."""


def add_commands(commands: Any) -> None:
    """Add `data` with its subcommands."""
    data = commands.add_parser("data", help="make, check and convert preference data", description="Preference data.")
    kinds = data.add_subparsers(metavar="COMMAND", required=True)
    generate = add_command(
        kinds, "generate", "make labelled multi-step problems with a wrong solution each", _generate, GENERATE_EXAMPLES
    )
    generate.add_argument("--n", type=positive, required=True, metavar="N", help="how many pairs")
    generate.add_argument("--seed", type=seed, default=0, metavar="S", help="the same seed gives the same pairs")
    generate.add_argument("--output", required=True, metavar="FILE", help="a JSON file in the native format")
    generate.add_argument("--families", nargs="+", metavar="NAME", help="kinds of problems (default: all)")
    generate.add_argument("--corruptions", nargs="+", metavar="NAME", help="kinds of mistakes (default: all)")
    generate.add_argument("--steps", nargs=2, type=positive, metavar=("MIN", "MAX"), help="steps of a right solution")
    generate.add_argument("--max-number", type=positive, metavar="N", help="the largest number in a problem")
    generate.add_argument("--avoid", nargs="+", metavar="FILE", help="make no problem that is in these files")

    on_policy = add_command(
        kinds, "on-policy", "make pairs of a model's own mistakes in generated problems", _on_policy, ON_POLICY_EXAMPLES
    )
    on_policy.add_argument("--model", default=POLICY, metavar="MODEL", help=f"whose mistakes (default: {POLICY})")
    on_policy.add_argument("--n", type=positive, required=True, metavar="N", help="how many pairs")
    on_policy.add_argument("--seed", type=seed, default=0, metavar="S", help="of problems and sampling (default: 0)")
    on_policy.add_argument(
        "--temperature",
        type=temperature,
        default=1.0,
        metavar="X",
        help="lower ones sample closer to greedy; with --every-problem, of the first try (default: 1.0)",
    )
    on_policy.add_argument(
        "--every-problem",
        action="store_true",
        help="ask until there is a mistake in each problem, also the easy ones: what to compare before and after on",
    )
    on_policy.add_argument("--avoid", nargs="+", metavar="FILE", help="make no problem that is in these files")
    on_policy.add_argument("--output", required=True, metavar="FILE", help="a JSON file in the native format")

    convert = add_command(kinds, "convert", "write pairs in a format of others", _convert, CONVERT_EXAMPLES)
    check = add_command(kinds, "validate", "check that every record can be used", validate, VALIDATE_EXAMPLES)
    split = add_command(kinds, "split", "hold some pairs out from training", _split, SPLIT_EXAMPLES)
    for command in (convert, check, split):
        command.add_argument("file", nargs="?", metavar="FILE", help="preference pairs, JSON or JSONL")
        command.add_argument("--data", metavar="FILE", help="the same, as an option")
    convert.add_argument("--eval-data", metavar="FILE", help="pairs for the test split")
    convert.add_argument(
        "--format",
        choices=CONVERT_FORMATS,
        default=CONVERT_FORMATS[0],
        help="a Hugging Face DatasetDict (default), or JSON Lines as TRL trains on",
    )
    convert.add_argument("--output", required=True, metavar="PATH", help="a folder for a DatasetDict, else a file")
    split.add_argument(
        "--held-out", type=real_number, default=0.2, metavar="X", help="share of the pairs (default: 0.2)"
    )
    split.add_argument("--seed", type=seed, default=0, metavar="S", help="the same seed chooses the same prompts")
    split.add_argument("--output", required=True, metavar="FILE", help="a JSON file for the training pairs")
    split.add_argument("--held-out-output", required=True, metavar="FILE", help="a JSON file for the held-out pairs")


def _generate(options: argparse.Namespace) -> int:
    from stepwise_dpo.preferences.pairs import load_pairs, save_pairs
    from stepwise_dpo.preferences.synthetic import generate_pairs

    knobs: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name in ("families", "corruptions", "steps", "max_number")
        if (value := getattr(options, name)) is not None
    }
    check_place(options.output, options.avoid or [])
    avoid = {pair.prompt for path in options.avoid or [] for pair in load_pairs(path)}
    pairs = generate_pairs(options.n, options.seed, avoid=avoid, **knobs)
    save_pairs(pairs, options.output)
    print(f"{len(pairs)} pairs written to {options.output}")
    return 0


def _on_policy(options: argparse.Namespace) -> int:
    from stepwise_dpo.preferences.pairs import load_pairs, save_pairs

    avoid = {pair.prompt for path in options.avoid or [] for pair in load_pairs(path)}
    check_place(options.output, options.avoid or [])
    quiet_libraries()
    from stepwise_dpo.learning.loading import load_policy
    from stepwise_dpo.learning.onpolicy import sample_mistake_in_each, sample_mistakes

    sample = sample_mistake_in_each if options.every_problem else sample_mistakes
    pairs = sample(
        load_policy(options.model),
        options.n,
        options.seed,
        temperature=options.temperature,
        avoid=avoid,
        progress=ProgressBar("Sampling", "pair"),
    )
    save_pairs(pairs, options.output)
    print(f"{len(pairs)} pairs written to {options.output}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    from stepwise_dpo.preferences.formats import to_dataset_dict
    from stepwise_dpo.preferences.pairs import load_pairs

    if options.format != CONVERT_FORMATS[0]:
        return _convert_to_lines(options, load_pairs(_data_argument(options)))
    check_folder(options.output, "dataset_dict.json", "a DatasetDict")
    train = load_pairs(_data_argument(options))
    test = load_pairs(options.eval_data) if options.eval_data else None
    dataset = to_dataset_dict(train, test)
    try:
        dataset.save_to_disk(options.output)
    except OSError as error:
        raise DataError(f"{options.output!r} can't be written: {error}") from error
    print(f"{len(train)} training and {len(test or [])} test pairs written to {options.output}")
    return 0


def _convert_to_lines(options: argparse.Namespace, pairs: "list[PreferencePair]") -> int:
    from stepwise_dpo.preferences.formats import (
        dump_trl_preference,
        dump_trl_stepwise,
        steps_with_line_breaks,
        unlabelled_steps,
    )

    if options.eval_data:
        raise ConfigError(f"--format {options.format} writes one file; convert --eval-data by a command of its own")
    check_place(options.output, [_data_argument(options)])
    preference = options.format == "trl-preference"
    text = dump_trl_preference(pairs) if preference else dump_trl_stepwise(pairs)
    try:
        with open(options.output, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except OSError as error:
        raise DataError(f"{options.output!r} can't be written: {error.strerror}") from error
    if preference and (count := steps_with_line_breaks(pairs)):
        print(f"warning: {count} steps have line breaks, which can't be told from the ends of steps")
    if not preference and (count := unlabelled_steps(pairs)):
        print(f"warning: {count} steps have no label; they are null, which TRL itself doesn't accept")
    print(f"{text.count(chr(10))} rows written to {options.output}")
    return 0


def _split(options: argparse.Namespace) -> int:
    from stepwise_dpo.preferences.pairs import load_pairs, save_pairs
    from stepwise_dpo.preferences.splitting import split_pairs

    file = _data_argument(options)
    check_place(options.output, [file])
    check_place(options.held_out_output, [file])
    if Path(options.output).resolve() == Path(options.held_out_output).resolve():
        raise ConfigError("name two files: one for the training pairs, and another one for the held-out pairs")
    train, held_out = split_pairs(load_pairs(file), options.held_out, options.seed)
    save_pairs(train, options.output)
    save_pairs(held_out, options.held_out_output)
    print(f"{len(train)} pairs written to {options.output}, {len(held_out)} to {options.held_out_output}")
    return 0


def validate(options: argparse.Namespace) -> int:
    """Check a data file; its error has a line for every record that can't be used."""
    from stepwise_dpo.preferences.pairs import is_stepwise, load_pairs
    from stepwise_dpo.preferences.rows import read_rows

    file = _data_argument(options)
    if is_stepwise(read_rows(file)[1][0][1]):
        return _validate_stepwise(file)
    pairs = load_pairs(file)
    counts = [len(side) for pair in pairs for side in (pair.chosen, pair.rejected)]
    labels = [step.label for pair in pairs for side in (pair.chosen, pair.rejected) for step in side]
    warned = [(pair.id, problem) for pair in pairs for problem in pair.problems()]
    for pair_id, problem in warned[:20]:
        print(f"warning: example {pair_id!r}: {problem}")
    if len(warned) > 20:
        print(f"… and {len(warned) - 20} more warnings")
    print(
        f"{len(pairs)} pairs are valid: {min(counts)} to {max(counts)} steps a side, "
        f"{sum(label is not None for label in labels)} of {len(labels)} steps labelled, {len(warned)} warnings"
    )
    return 0


def _validate_stepwise(file: str) -> int:
    from stepwise_dpo.preferences.formats import load_labelled_solutions

    solutions, repeated = load_labelled_solutions(file)
    counts = [len(solution.steps) for solution in solutions]
    labels = [label for solution in solutions for label in solution.labels]
    print(
        f"{len(solutions)} solutions of TRL's stepwise supervision are valid: {min(counts)} to {max(counts)} steps, "
        f"{sum(label is not None for label in labels)} of {len(labels)} steps labelled, {repeated} repetitions. "
        "models train-reward reads them; to train a policy or to score, a file of pairs is needed"
    )
    return 0


def _data_argument(options: argparse.Namespace) -> str:
    if bool(options.file) == bool(options.data):
        raise ConfigError("name one data file, as an argument or with --data")
    return str(options.file or options.data)
