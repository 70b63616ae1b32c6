"""The command line: `python -m stepwise_dpo train | score | compare | data …`.

Exit codes: 0 done, 1 the data, a model or a run is at fault, 2 the command itself is, 130 interrupted.
Everything heavy is imported by the command that needs it, so that `--help` answers at once.
"""

import argparse
import csv
import difflib
import io
import json
import os
import re
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args, get_origin

from pydantic_core import PydanticUndefined

from stepwise_dpo import __version__
from stepwise_dpo.errors import ConfigError, DataError, StepwiseDPOError
from stepwise_dpo.runs.config import PRESETS, RunConfig, check_aggregation, make_config, read_config_file
from stepwise_dpo.runs.directory import RunDirectory, new_run_id, write_atomically
from stepwise_dpo.runs.progress import ProgressBar

if TYPE_CHECKING:
    from stepwise_dpo.learning.rewards import LLMRewardModel

_EXAMPLES = {
    "train": """examples:
  python -m stepwise_dpo train --preset phase1 --model tiny --output-dir runs/first
  python -m stepwise_dpo train --loss stepwise --model tiny --reward-model tiny --data data/synthetic_prm.json
  python -m stepwise_dpo train --config run.yaml --learning-rate 1e-5

A preset is overridden by the file, and the file by options. The output directory then holds config.json, metrics.jsonl
(one line per optimiser step), report.json (before and after) and final/, an ordinary Transformers checkpoint.""",
    "score": """example:
  python -m stepwise_dpo score --data data/heldout_prm.json --reward-model tiny --value log_odds --output scores.jsonl

One line per pair, in order: {"id", "prompt", "chosen": [per step], "rejected": [per step], "preference"}.""",
    "compare": """examples:
  python -m stepwise_dpo compare --run runs/first
  python -m stepwise_dpo compare --before tiny --after runs/first/final --data data/heldout_prm.json --output-dir out

Writes inference_results.csv and inference_results.jsonl, one record per pair. Scores are mean log-likelihoods in nats
per token; step log-ratios are log-probabilities after minus before, in nats, summed over a step's tokens.""",
    "generate": """example:
  python -m stepwise_dpo data generate --n 240 --seed 7 --output pairs.json""",
    "convert": """example:
  python -m stepwise_dpo data convert data/synthetic_prm.json --eval-data data/heldout_prm.json --output dataset

Afterwards: datasets.load_from_disk("dataset"), with splits train and, given --eval-data, test.""",
    "validate": """example:
  python -m stepwise_dpo data validate data/synthetic_prm.json

Exit code 0: every record can be used; warnings name examples worth a look. Exit code 1: some can't.""",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    parser = _build_parser()
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    # Set before Hugging Face's libraries read them: nothing here reports to anybody.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # TRL 1.16 uses names that Transformers 5.23 already calls old; nobody at a prompt can do anything about it.
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        code: int = options.command(options)
    except ConfigError as error:
        return _fail(error, 2)
    except StepwiseDPOError as error:
        return _fail(error, 1, whole=options.command is _validate)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain once more while closing it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def _fail(error: StepwiseDPOError, code: int, whole: bool = False) -> int:
    """Print an error, by default its first line only: data files can have many problems."""
    first, *others = str(error).splitlines() or [""]
    if whole:
        first = "\n".join([first, *others])
    elif others:
        first += "  (data validate lists them)"
    print(f"error: {first}", file=sys.stderr)
    return code


# --- commands -------------------------------------------------------------------------------------------------------


def _train(options: argparse.Namespace) -> int:
    settings = {name: value for name in RunConfig.model_fields if (value := getattr(options, name)) is not None}
    file = read_config_file(options.config) if options.config else {}
    # These two say how to run, not what the run is.
    preset, output_dir = (file.pop(name, None) for name in ("preset", "output_dir"))
    preset, output_dir = options.preset or preset, options.output_dir or output_dir
    if preset is not None and (not isinstance(preset, str) or preset not in PRESETS):
        raise ConfigError(f"unknown preset {preset!r}; there are {', '.join(PRESETS)}")
    if output_dir is not None and not isinstance(output_dir, str):
        raise ConfigError(f"output_dir must be the name of a directory, not {output_dir!r}")
    if output_dir is None and os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("several processes need the same place to write to: give --output-dir")
    config = make_config(PRESETS[preset] if preset else {}, file, settings)
    # A run is read from other folders as well.
    places = {name: str(Path(value).absolute()) for name in ("data", "eval_data") if (value := getattr(config, name))}
    config = config.model_copy(update=places)

    _quiet_libraries()
    from stepwise_dpo.runs.training import run

    # A cluster's scheduler ends a job like this: the run's status shall say so, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = run(config, output_dir or Path("runs") / new_run_id(config.loss))
    if os.environ.get("RANK", "0") == "0":
        print(_report_table(directory.report() or {}))
        print(f"{directory.status().state}: {directory.final}")
    return 0


def _score(options: argparse.Namespace) -> int:
    from stepwise_dpo.preferences.pairs import load_pairs

    check_aggregation(options.aggregation, options.value)
    pairs = load_pairs(options.data)[: options.limit]
    _make_parent(options.output)
    _quiet_libraries()
    rewards = _reward_model(options).score_pairs(pairs, value=options.value, progress=ProgressBar("Scoring", "step"))
    lines, negative = [], 0
    for pair, values in zip(pairs, rewards, strict=True):
        preference = values.preference(options.aggregation)
        negative += preference < 0
        record = {
            "id": pair.id,
            "prompt": pair.prompt,
            "chosen": values.chosen,
            "rejected": values.rejected,
            "preference": preference,
        }
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    _write(options.output, "".join(lines))
    print(f"{len(lines)} pairs scored into {options.output}; the preference of {negative} is negative")
    return 0


def _compare(options: argparse.Namespace) -> int:
    before, after, data, reward, output = (
        options.before,
        options.after,
        options.data,
        options.reward_model,
        options.output_dir,
    )
    if options.run:
        run = RunDirectory(options.run)
        config = run.config()
        before, after = before or config.model, after or str(run.final)
        data = data or config.eval_data or config.data
        trained_judge = run.path / "reward_model"  # exists where --train-reward-model made one
        reward = reward or (str(trained_judge) if trained_judge.is_dir() else config.reward_model)
        output = output or str(run.path)
        options.right_word = options.right_word or config.reward_right_word
        options.wrong_word = options.wrong_word or config.reward_wrong_word
        options.template = options.template or config.reward_template
        options.value = config.reward_value
        options.max_new_tokens = options.max_new_tokens or config.max_new_tokens
    for name, value in (("--before", before), ("--after", after), ("--data", data), ("--output-dir", output)):
        if not value:
            raise ConfigError(f"{name} is missing; give it, or --run RUN_DIR to take everything from a run")
    options.reward_model = reward

    from stepwise_dpo.preferences.pairs import load_pairs

    pairs = load_pairs(data)
    folder = Path(output)
    _make_parent(folder / "inference_results.csv")
    if options.limit:
        pairs = pairs[: options.limit]
    _quiet_libraries()
    from stepwise_dpo.learning.evaluation import compare_evaluations, evaluate_policy
    from stepwise_dpo.learning.loading import load_policy

    reward_model = _reward_model(options) if reward else None
    evaluations = []
    for name, model in (("Before", before), ("After", after)):
        policy = load_policy(model)
        policy.model.to(_device())
        evaluations.append(
            evaluate_policy(
                policy,
                pairs,
                reward_model=reward_model,
                answers=len(pairs) if options.generate is None else options.generate,
                max_new_tokens=options.max_new_tokens or 128,
                batch_size=options.batch_size,
                progress=ProgressBar(name, "example"),
            )
        )
    records = compare_evaluations(pairs, *evaluations)
    if reward_model is not None:
        for record, (chosen, rejected) in zip(records, reward_model.score_pairs(pairs), strict=True):
            record["chosen_process_rewards"], record["rejected_process_rewards"] = chosen, rejected
    _write(folder / "inference_results.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    _write(folder / "inference_results.csv", _as_csv(records))
    print(_report_table({"before": evaluations[0].summary(), "after": evaluations[1].summary()}))
    print(f"{len(records)} pairs compared in {folder / 'inference_results.csv'} and .jsonl")
    return 0


def _generate(options: argparse.Namespace) -> int:
    from stepwise_dpo.preferences.pairs import load_pairs, save_pairs
    from stepwise_dpo.preferences.synthetic import generate_pairs

    knobs: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name in ("families", "corruptions", "steps", "max_number")
        if (value := getattr(options, name)) is not None
    }
    avoid = {pair.prompt for path in options.avoid or [] for pair in load_pairs(path)}
    pairs = generate_pairs(options.n, options.seed, avoid=avoid, **knobs)
    save_pairs(pairs, options.output)
    print(f"{len(pairs)} pairs written to {options.output}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    from stepwise_dpo.preferences.formats import to_dataset_dict
    from stepwise_dpo.preferences.pairs import load_pairs

    train = load_pairs(_data_argument(options))
    test = load_pairs(options.eval_data) if options.eval_data else None
    dataset = to_dataset_dict(train, test)
    try:
        dataset.save_to_disk(options.output)
    except OSError as error:
        raise DataError(f"{options.output!r} can't be written: {error}") from error
    print(f"{len(train)} training and {len(test or [])} test pairs written to {options.output}")
    return 0


def _validate(options: argparse.Namespace) -> int:
    from stepwise_dpo.preferences.pairs import load_pairs

    pairs = load_pairs(_data_argument(options))
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


# --- what commands share --------------------------------------------------------------------------------------------


def _data_argument(options: argparse.Namespace) -> str:
    if bool(options.file) == bool(options.data):
        raise ConfigError("name one data file, as an argument or with --data")
    return str(options.file or options.data)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _reward_model(options: argparse.Namespace) -> "LLMRewardModel":
    from stepwise_dpo.learning.rewards import DEFAULT_TEMPLATE, LLMRewardModel

    return LLMRewardModel.from_pretrained(
        options.reward_model,
        right_word=options.right_word or "yes",
        wrong_word=options.wrong_word or "no",
        template=options.template or DEFAULT_TEMPLATE,
        value=options.value,
        batch_size=options.batch_size,
    ).to(_device())


def _quiet_libraries() -> None:
    """Keep Transformers' own bars and notes away from ours."""
    from datasets.utils.logging import disable_progress_bar
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    disable_progress_bar()


def _make_parent(path: str | os.PathLike[str]) -> None:
    """Find out before minutes of work whether there is a place for their result."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)!r} can't be written: {error}") from error


def _write(path: str | os.PathLike[str], content: str) -> None:
    try:
        write_atomically(Path(path), content)
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)!r} can't be written: {error}") from error


def _as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """The plain columns of records; lists and objects are only in the JSON lines."""
    columns = [name for name, value in records[0].items() if not isinstance(value, (list, dict))]
    columns = [name for name in columns if name not in ("answer", "before_answer")]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({name: _csv_cell(record[name]) for name in columns})
    return buffer.getvalue()


def _csv_cell(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets an apostrophe in front."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value


def _report_table(report: Mapping[str, Mapping[str, float]]) -> str:
    before, after = report.get("before", {}), report.get("after", {})
    lines = [f"{'':24}{'before':>12}{'after':>12}"]
    for name in before:
        lines.append(
            f"{name:24}{before[name]:12.4g}{after[name]:12.4g}" if name in after else f"{name:24}{before[name]:12.4g}"
        )
    return "\n".join(lines)


# --- the parser -----------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """argparse, with a suggestion where it only says that something is unknown."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        known, unknown = super().parse_known_args(args, namespace)
        for word in unknown:
            if word.startswith("-"):
                option = word.split("=")[0]
                near = difflib.get_close_matches(option, self._option_string_actions, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; see {self.prog} --help"
                self.error(f"unknown option {option}{hint}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        match = re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message)
        if match:
            near = difflib.get_close_matches(match[1], re.findall(r"[\w-]+", match[2]), n=1)
            message += f"; did you mean {near[0]}?" if near else ""
        self.exit(2, f"error: {message}\n")


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m stepwise_dpo",
        description="Step-level preference optimisation: score steps, train with DPO or a step-wise loss, compare.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    train = _command(commands, "train", "train a policy on preference pairs", _train)
    train.add_argument("--preset", choices=[*PRESETS], help="settings of one of the training log's two phases")
    train.add_argument("--config", metavar="FILE", help="settings in YAML, named as below with _ for -")
    train.add_argument("--output-dir", metavar="DIR", help="a new directory for the run (default: runs/TIME-LOSS)")
    for name, field in RunConfig.model_fields.items():
        _add_setting(train, name, field.annotation, field.description or "", field.get_default())

    score = _command(commands, "score", "let a process reward model score every step", _score)
    score.add_argument("--data", required=True, metavar="FILE", help="preference pairs, JSON or JSONL")
    score.add_argument("--limit", type=_positive, metavar="N", help="score the first N pairs")
    score.add_argument("--output", required=True, metavar="FILE", help="where the JSON lines go")
    score.add_argument(
        "--value", choices=["probability", "centered", "log_odds"], default="centered", help="scale (default: centered)"
    )
    score.add_argument(
        "--aggregation",
        choices=["sum", "mean", "min", "last", "product"],
        default="sum",
        help="how a solution's steps become the number that the preference compares (default: sum)",
    )
    _add_reward_options(score, required=True)

    compare = _command(commands, "compare", "compare a policy before and after training", _compare)
    compare.add_argument("--run", metavar="RUN_DIR", help="take policies, data and reward model from this run")
    compare.add_argument("--before", metavar="MODEL", help="policy before: 'tiny', a local folder or a Hub id")
    compare.add_argument("--after", metavar="MODEL", help="policy after")
    compare.add_argument("--data", metavar="FILE", help="preference pairs, JSON or JSONL")
    compare.add_argument("--output-dir", metavar="DIR", help="where the results go (default: the run's directory)")
    compare.add_argument("--limit", type=_positive, metavar="N", help="use the first N pairs")
    compare.add_argument("--generate", type=_natural, metavar="N", help="answer the first N prompts (default: all)")
    compare.add_argument(
        "--max-new-tokens",
        type=_positive,
        metavar="N",
        help="the most tokens of an answer (default: the run's, or 128)",
    )
    compare.set_defaults(value="centered")
    _add_reward_options(compare, required=False)

    data = commands.add_parser("data", help="make, check and convert preference data", description="Preference data.")
    kinds = data.add_subparsers(metavar="COMMAND", required=True)
    generate = _command(kinds, "generate", "make labelled multi-step problems with a wrong solution each", _generate)
    generate.add_argument("--n", type=_positive, required=True, metavar="N", help="how many pairs")
    generate.add_argument("--seed", type=_natural, default=0, metavar="S", help="the same seed gives the same pairs")
    generate.add_argument("--output", required=True, metavar="FILE", help="a JSON file in the native format")
    generate.add_argument("--families", nargs="+", metavar="NAME", help="kinds of problems (default: all)")
    generate.add_argument("--corruptions", nargs="+", metavar="NAME", help="kinds of mistakes (default: all)")
    generate.add_argument("--steps", nargs=2, type=_positive, metavar=("MIN", "MAX"), help="steps of a right solution")
    generate.add_argument("--max-number", type=_positive, metavar="N", help="the largest number in a problem")
    generate.add_argument("--avoid", nargs="+", metavar="FILE", help="make no problem that is in these files")

    convert = _command(kinds, "convert", "write pairs as a Hugging Face DatasetDict", _convert)
    validate = _command(kinds, "validate", "check that every record can be used", _validate)
    for command in (convert, validate):
        command.add_argument("file", nargs="?", metavar="FILE", help="preference pairs, JSON or JSONL")
        command.add_argument("--data", metavar="FILE", help="the same, as an option")
    convert.add_argument("--eval-data", metavar="FILE", help="pairs for the test split")
    convert.add_argument("--output", required=True, metavar="DIR", help="a folder for datasets.load_from_disk")
    return parser


def _command(commands: Any, name: str, help_text: str, function: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".", epilog=_EXAMPLES[name]
    )
    parser.set_defaults(command=function)
    return parser


def _add_setting(parser: argparse.ArgumentParser, name: str, annotation: Any, help_text: str, default: Any) -> None:
    """Make an option of a field of RunConfig; None stands for "not given", so that files and presets can speak."""
    option = "--" + name.replace("_", "-")
    if get_origin(annotation) in (UnionType,):
        annotation = next(kind for kind in get_args(annotation) if kind is not NoneType)
    if default is not None and default is not PydanticUndefined:
        shown = " ".join(default) if isinstance(default, list) else default
        help_text += f" (default: {shown})"
    help_text = help_text.replace("%", "%%")
    if annotation is bool:
        parser.add_argument(option, action=argparse.BooleanOptionalAction, default=None, help=help_text)
    elif get_origin(annotation) is Literal:
        parser.add_argument(option, choices=get_args(annotation), help=help_text)
    elif get_origin(annotation) is list:
        (item,) = get_args(annotation)
        parser.add_argument(option, nargs="+", choices=get_args(item), metavar="NAME", help=help_text)
    else:
        metavar = {int: "N", float: "X"}.get(annotation, "TEXT")
        parser.add_argument(option, type=annotation, metavar=metavar, help=help_text)


def _add_reward_options(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument(
        "--reward-model", required=required, metavar="MODEL", help="the judge: 'tiny', a local folder or a Hub id"
    )
    parser.add_argument("--right-word", metavar="WORD", help="what it says of a right step (default: yes)")
    parser.add_argument("--wrong-word", metavar="WORD", help="what it says of a wrong step (default: no)")
    parser.add_argument("--template", metavar="TEXT", help="its question: {prompt} {previous} {step} {right} {wrong}")
    parser.add_argument("--batch-size", type=_positive, default=8, metavar="N", help="rows per forward (default: 8)")


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from error


def _positive(text: str) -> int:
    number = _whole_number(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _natural(text: str) -> int:
    number = _whole_number(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, but is {number}")
    return number
