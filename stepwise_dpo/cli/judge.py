"""The commands that judge: steps by a reward model, a policy before and after training."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwise_dpo.cli.output import as_csv, check_place, make_parent, quiet_libraries, report_table, write
from stepwise_dpo.cli.parsing import add_command, add_reward_options, natural, positive
from stepwise_dpo.errors import ConfigError, RunError
from stepwise_dpo.learning.names import REWARD
from stepwise_dpo.runs.config import check_aggregation
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.progress import ProgressBar

if TYPE_CHECKING:
    from stepwise_dpo.learning.rewards import LLMRewardModel

SCORE_EXAMPLES = """example:
  python -m stepwise_dpo score --data data/heldout_prm.json --value log_odds --output scores.jsonl

One line per pair, in order: {"id", "prompt", "chosen": [per step], "rejected": [per step], "preference"}."""

COMPARE_EXAMPLES = """examples:
  python -m stepwise_dpo compare --run runs/first
  python -m stepwise_dpo compare --before tiny --after runs/first/final --data data/heldout_prm.json --output-dir out

Writes inference_results.csv and inference_results.jsonl, one record per pair. Scores are mean log-likelihoods in nats
per token; step log-ratios are log-probabilities after minus before, in nats, summed over a step's tokens."""


def add_commands(commands: Any) -> None:
    """Add `score` and `compare`."""
    score = add_command(commands, "score", "let a process reward model score every step", _score, SCORE_EXAMPLES)
    score.add_argument("--data", required=True, metavar="FILE", help="preference pairs, JSON or JSONL")
    score.add_argument("--limit", type=positive, metavar="N", help="score the first N pairs")
    score.add_argument("--output", required=True, metavar="FILE", help="where the JSON lines go")
    score.add_argument(
        "--value", choices=["probability", "centered", "log_odds"], default="centered", help="scale (default: centered)"
    )
    score.add_argument(
        "--aggregation",
        choices=["sum", "mean", "min", "last", "product", "until_error"],
        default="sum",
        help="how a solution's steps become the number that the preference compares (default: sum)",
    )
    add_reward_options(score, REWARD)

    compare = add_command(commands, "compare", "compare a policy before and after training", _compare, COMPARE_EXAMPLES)
    compare.add_argument("--run", metavar="RUN_DIR", help="take policies, data and reward model from this run")
    compare.add_argument(
        "--before", metavar="MODEL", help="policy before: 'policy' (bundled), 'tiny', a local folder or a Hub id"
    )
    compare.add_argument("--after", metavar="MODEL", help="policy after")
    compare.add_argument("--data", metavar="FILE", help="preference pairs, JSON or JSONL")
    compare.add_argument("--output-dir", metavar="DIR", help="where the results go (default: the run's directory)")
    compare.add_argument("--limit", type=positive, metavar="N", help="use the first N pairs")
    compare.add_argument("--generate", type=natural, metavar="N", help="answer the first N prompts (default: all)")
    compare.add_argument(
        "--max-new-tokens",
        type=positive,
        metavar="N",
        help="the most tokens of an answer (default: the run's, or 128)",
    )
    compare.set_defaults(value="centered")
    add_reward_options(compare, None)


def _score(options: argparse.Namespace) -> int:
    from stepwise_dpo.preferences.pairs import load_pairs
    from stepwise_dpo.preferences.statistics import hardly_differ, preference_sign

    check_aggregation(options.aggregation, options.value)
    pairs = load_pairs(options.data)[: options.limit]
    check_place(options.output, [options.data])
    quiet_libraries()
    from stepwise_dpo.learning.rewards import NEUTRAL

    neutral = NEUTRAL[options.value]
    rewards = reward_model_of(options).score_pairs(
        pairs, value=options.value, progress=ProgressBar("Scoring", "sequence")
    )
    lines, negative = [], 0
    scores = [score for pair in rewards for side in pair for score in side]
    for pair, values in zip(pairs, rewards, strict=True):
        preference = values.preference(options.aggregation, neutral)
        negative += preference_sign(preference) < 0
        record = {
            "id": pair.id,
            "prompt": pair.prompt,
            "chosen": values.chosen,
            "rejected": values.rejected,
            "preference": preference,
        }
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    write(options.output, "".join(lines))
    print(f"{len(lines)} pairs scored into {options.output}; the preference of {negative} is negative")
    if hardly_differ(scores):
        print(
            "warning: nearly all steps have the same score, so a preference says little more than how many steps there "
            "are; this judge doesn't know such problems. models train-reward makes one from labelled steps",
            file=sys.stderr,
        )
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
        if not after and not (run.final / "config.json").is_file():
            raise RunError(f"run {run.id!r} has no trained model to compare; it is kept when a run ends or is stopped")
        before, after = before or config.model, after or str(run.final)
        data = data or config.eval_data or config.data
        trained_judge = run.path / "reward_model"  # exists where --train-reward-model made one
        reward = reward or (str(trained_judge) if trained_judge.is_dir() else config.reward_model)
        output = output or str(run.path)
        if not options.reward_model:
            # How the run's judge is asked; another judge has its own way.
            for name in ("head", "right_word", "wrong_word", "template", "tag", "token"):
                setattr(options, name, getattr(options, name) or getattr(config, f"reward_{name}"))
        options.value = config.reward_value
        options.max_new_tokens = options.max_new_tokens or config.max_new_tokens
    for name, value in (("--before", before), ("--after", after), ("--data", data), ("--output-dir", output)):
        if not value:
            raise ConfigError(f"{name} is missing; give it, or --run RUN_DIR to take everything from a run")
    options.reward_model = reward

    from stepwise_dpo.preferences.pairs import load_pairs

    pairs = load_pairs(data)
    folder = Path(output)
    make_parent(folder / "inference_results.csv")
    if options.limit:
        pairs = pairs[: options.limit]
    quiet_libraries()
    from stepwise_dpo.learning.evaluation import compare_evaluations, evaluate_policy, measure_change
    from stepwise_dpo.learning.loading import load_policy

    reward_model = reward_model_of(options) if reward else None
    evaluations = []
    for name, model in (("Before", before), ("After", after)):
        policy = load_policy(model)
        policy.model.to(device())
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
    write(folder / "inference_results.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    write(folder / "inference_results.csv", as_csv(records))
    change = measure_change(pairs, *evaluations)
    print(report_table({"before": evaluations[0].summary(), "after": evaluations[1].summary(), "change": change}))
    print(f"{len(records)} pairs compared in {folder / 'inference_results.csv'} and .jsonl")
    return 0


def reward_model_of(options: argparse.Namespace) -> "LLMRewardModel":
    """Load the reward model that the options of `add_reward_options` name."""
    from stepwise_dpo.learning.rewards import LLMRewardModel

    return LLMRewardModel.from_pretrained(
        options.reward_model,
        head=options.head,
        right_word=options.right_word,
        wrong_word=options.wrong_word,
        template=options.template,
        tag=options.tag,
        token=options.token,
        value=options.value,
        batch_size=options.batch_size,
    ).to(device())


def device() -> str:
    """Where models go."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
