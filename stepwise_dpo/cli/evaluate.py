"""The commands that measure how good a model is: a process reward model, a policy."""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwise_dpo.cli.evaluation_tables import policy_table, reward_table
from stepwise_dpo.cli.judge import device, reward_model_of
from stepwise_dpo.cli.output import check_place, quiet_libraries, write
from stepwise_dpo.cli.parsing import add_command, add_reward_options, natural, positive, real_number, seed, temperature
from stepwise_dpo.errors import ConfigError
from stepwise_dpo.learning.names import DATA_DIR, POLICY, REWARD
from stepwise_dpo.runs.progress import ProgressBar

if TYPE_CHECKING:
    from stepwise_dpo.ui.figures import Chart

HELD_OUT_DATA = DATA_DIR / "heldout_prm.json"

TUNE_DATA = DATA_DIR / "synthetic_prm.json"
"""The training side of the bundled data; on the held-out side a threshold mustn't be tuned."""

DEFAULT_KS = (1, 4, 8)

FIGURE_OPTIONS = {"displaylogo": False, "showSendToCloud": False}
"""Of plotly: no button that uploads a chart to another host."""

REWARD_EXAMPLES = """example:
  python -m stepwise_dpo evaluate reward --data data/heldout_prm.json --json reward.json

Finds in every solution the first step scored below a threshold, and holds it against the labels: acc1, acc2 and F1 of
ProcessBench, in percent. The threshold is the one with the best F1 on the tuning data, never on the data measured.
AUROC takes each solution up to its first error, since what later steps are worth is a matter of definition; that of
all labelled steps counts a step that carries an error on as wrong."""

POLICY_EXAMPLES = """examples:
  python -m stepwise_dpo evaluate policy --json policy.json
  python -m stepwise_dpo evaluate policy --model runs/first/final --data data/heldout_prm.json --samples 16 --k 1 8

Answers every different prompt that the checker knows: greedily for the solve rate, by sampling for pass@k."""


def add_commands(commands: Any) -> None:
    """Add `evaluate` with its subcommands."""
    evaluate = commands.add_parser("evaluate", help="measure how good a model is", description="How good a model is.")
    kinds = evaluate.add_subparsers(metavar="COMMAND", required=True)

    reward = add_command(kinds, "reward", "measure how well a reward model finds wrong steps", _reward, REWARD_EXAMPLES)
    _add_data_options(reward, "labelled preference pairs, JSON or JSONL")
    threshold = reward.add_mutually_exclusive_group()
    threshold.add_argument(
        "--tune-data",
        metavar="FILE",
        help="labelled pairs that the threshold is tuned on (default: the project's data/synthetic_prm.json)",
    )
    threshold.add_argument(
        "--threshold", type=_probability, metavar="X", help="steps scored below it count as wrong; nothing is tuned"
    )
    add_reward_options(reward, REWARD)
    reward.set_defaults(value="probability")

    policy = add_command(kinds, "policy", "measure how well a policy solves problems", _policy, POLICY_EXAMPLES)
    _add_data_options(policy, "preference pairs, JSON or JSONL")
    policy.add_argument(
        "--model",
        default=POLICY,
        metavar="MODEL",
        help=f"{POLICY!r} (bundled), 'tiny', a local folder or a Hub id (default: {POLICY})",
    )
    policy.add_argument(
        "--samples", type=natural, default=0, metavar="N", help="answers to draw for each prompt (default: 0)"
    )
    policy.add_argument(
        "--k", type=positive, nargs="+", metavar="K", help="estimate pass@K (default: 1 4 8, as far as samples allow)"
    )
    policy.add_argument(
        "--temperature", type=temperature, default=1.0, metavar="X", help="of the sampling (default: 1.0)"
    )
    policy.add_argument("--seed", type=seed, default=0, metavar="S", help="of the sampling (default: 0)")
    policy.add_argument(
        "--max-new-tokens", type=positive, default=128, metavar="N", help="the most tokens of an answer (default: 128)"
    )
    policy.add_argument(
        "--batch-size", type=positive, default=64, metavar="N", help="answers written at the same time (default: 64)"
    )


def _add_data_options(parser: argparse.ArgumentParser, data_help: str) -> None:
    parser.add_argument(
        "--data",
        default=str(HELD_OUT_DATA),
        metavar="FILE",
        help=f"{data_help} (default: the project's data/heldout_prm.json)",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="use the first N pairs")
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")
    parser.add_argument("--figures", metavar="DIR", help="write charts to this folder, as pages that need no network")


def _reward(options: argparse.Namespace) -> int:
    from stepwise_dpo.preferences.pairs import load_pairs

    pairs = load_pairs(options.data)[: options.limit]
    tune_data = options.tune_data or str(TUNE_DATA)
    if options.threshold is None and not options.tune_data and not TUNE_DATA.is_file():
        raise ConfigError(f"{tune_data!r} isn't there to tune the threshold on; give --tune-data or --threshold")
    tuning = load_pairs(tune_data) if options.threshold is None else []
    _check_places(options)
    quiet_libraries()
    from stepwise_dpo.learning.reward_benchmark import check_labels, judge_pairs, reward_report, tuned_threshold
    from stepwise_dpo.preferences.statistics import shared_prompts

    check_labels(pairs)
    started = time.perf_counter()
    reward_model = reward_model_of(options)
    threshold = options.threshold
    if threshold is None:
        threshold = tuned_threshold(judge_pairs(reward_model, tuning, ProgressBar("Tuning", "sequence")))
    judged = judge_pairs(reward_model, pairs, ProgressBar("Scoring", "sequence"))
    seconds = time.perf_counter() - started
    shared = len(shared_prompts(pairs, tuning))
    report = {
        **reward_report(judged, threshold),
        "threshold_from": tune_data if tuning else "--threshold",
        "prompts_shared_with_tuning": shared,
        "model": options.reward_model,
        "head": reward_model.settings.head,
        "data": options.data,
        "seconds": seconds,
    }
    from stepwise_dpo.ui.evaluation_figures import reward_figures

    written = _write_results(options, report, reward_figures(report))
    origin = f"tuned on {tune_data}" if tuning else "as given"
    print(f"{options.reward_model} ({report['head']}) on {options.data}, {seconds:.1f} s")
    print(f"threshold {threshold:.4g}, {origin}")
    if shared:
        print(f"beware: {shared} of {len(pairs)} prompts are in the tuning data too, which flatters the figures")
    print("\n".join([reward_table(report), *written]))
    return 0


def _policy(options: argparse.Namespace) -> int:
    from stepwise_dpo.preferences.pairs import load_pairs

    ks = sorted(set(options.k or [k for k in DEFAULT_KS if k <= options.samples]))
    if ks and ks[-1] > options.samples:
        raise ConfigError(f"--k {ks[-1]} needs --samples of at least {ks[-1]}, but it is {options.samples}")
    pairs = load_pairs(options.data)[: options.limit]
    _check_places(options)
    quiet_libraries()
    from stepwise_dpo.learning.loading import load_policy
    from stepwise_dpo.learning.policy_benchmark import policy_report, run_policy

    started = time.perf_counter()
    policy = load_policy(options.model)
    policy.model.to(device())
    results = run_policy(
        policy,
        pairs,
        samples=options.samples,
        temperature=options.temperature,
        seed=options.seed,
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
        bar=ProgressBar,
    )
    seconds = time.perf_counter() - started
    report = {
        **policy_report(results, ks),
        "temperature": options.temperature,
        "seed": options.seed,
        "max_new_tokens": options.max_new_tokens,
        "model": options.model,
        "data": options.data,
        "seconds": seconds,
    }
    from stepwise_dpo.ui.evaluation_figures import policy_figures

    written = _write_results(options, report, policy_figures(report))
    print(f"{options.model} on {options.data}, {seconds:.1f} s")
    print("\n".join([policy_table(report), *written]))
    return 0


def _check_places(options: argparse.Namespace) -> None:
    if options.json:
        check_place(options.json, [file for file in (options.data, getattr(options, "tune_data", None)) if file])
    if options.figures:
        check_place(Path(options.figures) / "plotly.min.js")


def _write_results(options: argparse.Namespace, report: dict[str, Any], charts: Sequence["Chart"]) -> list[str]:
    """Write what was asked for, before anything is printed; returns the lines that say where it is."""
    said = []
    if options.json:
        # No NaN in there: readers other than Python's would choke on it.
        write(options.json, json.dumps(report, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
        said.append(f"\nall figures are in {options.json}")
    if options.figures:
        folder = Path(options.figures)
        _write_charts(charts, folder)
        said.append(f"{len(charts)} charts are in {folder}: {', '.join(f'{chart.id}.html' for chart in charts)}")
    return said


def _write_charts(charts: Sequence["Chart"], folder: Path) -> None:
    """Write a page for each chart; they share one copy of plotly.js, which lies beside them."""
    from plotly import graph_objects, offline

    write(folder / "plotly.min.js", offline.get_plotlyjs())
    for chart in charts:
        title = {"text": chart.title, "subtitle": {"text": chart.unit}}
        layout = {**chart.figure["layout"], "title": title, "template": "plotly_white"}
        figure = graph_objects.Figure(data=chart.figure["data"], layout=layout)
        write(folder / f"{chart.id}.html", figure.to_html(include_plotlyjs="directory", config=FIGURE_OPTIONS))


def _probability(text: str) -> float:
    number = real_number(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, not {text}")
    return number
