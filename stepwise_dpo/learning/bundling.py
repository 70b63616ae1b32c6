"""From a line of pretraining to the two bundled models: which points of it, how stored, what their cards say."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoTokenizer, T5ForConditionalGeneration

from stepwise_dpo.errors import RunError
from stepwise_dpo.learning.head_settings import CONFIG_KEY, HeadSettings
from stepwise_dpo.learning.loading import Policy, switch_off_dropout
from stepwise_dpo.learning.pretraining import PretrainingPlan, held_out_problems, solve_rates
from stepwise_dpo.learning.pretraining_line import checkpoints, measurements
from stepwise_dpo.learning.process_metrics import labelled_first_error
from stepwise_dpo.learning.reward_benchmark import judge_pairs, reward_report, tuned_threshold
from stepwise_dpo.learning.rewards import LLMRewardModel
from stepwise_dpo.preferences.pairs import PreferencePair


def checkpoint_of(folder: str | os.PathLike[str], solve_rate: float | None = None) -> Path:
    """Find a line's first sound checkpoint that solves so much, or, with None, its last.

    Args:
        folder: the line's, see `pretraining.pretrain`.
        solve_rate: 0..1, measured on the line's held-out problems.

    Raises:
        RunError: the line has no such checkpoint.
    """
    found = checkpoints(Path(folder))
    if not found:
        raise RunError(f"{os.fspath(folder)!r} holds no checkpoint of a pretraining line")
    if solve_rate is None:
        return found[-1]
    for checkpoint in found:
        if measurements(checkpoint)[-1]["solve_rate"] >= solve_rate:
            return checkpoint
    raise RunError(f"no checkpoint in {os.fspath(folder)!r} solves {solve_rate:.0%} of the held-out problems")


def load_checkpoint(checkpoint: Path) -> Policy:
    """Load a point of a line: its safetensors only, and no code that lies beside them."""
    model = T5ForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    return Policy(checkpoint.name, switch_off_dropout(model), tokenizer)


def save_policy(
    policy: Policy,
    folder: str | os.PathLike[str],
    plan: PretrainingPlan,
    global_step: int,
    commands: Sequence[str],
) -> dict[str, float]:
    """Write the bundled policy.

    Args:
        policy: the line's model at `global_step`; its weights are rounded to bfloat16, as they are stored.
        folder: where to write weights, tokenizer and model card.
        plan: what the line was trained by.
        global_step: optimiser steps of the line up to this point.
        commands: what made and measured it, for the card.

    Returns:
        what it solves as it is stored, see `solve_rates`.
    """
    _round(policy)
    measured = solve_rates(policy, held_out_problems(plan))
    families = {f"of {name.partition('/')[2]}": f"{v:.0%}" for name, v in measured.items() if "/" in name}
    card = _card(
        "A small policy that is half right",
        "Solves some of the generated problems of Stepwise DPO and fails others, so that preference training has "
        "something to change.",
        plan,
        global_step,
        commands,
        {f"solve rate, greedy, on the line's {plan.held_out} held-out problems": f"{measured['solve_rate']:.1%}"}
        | families,
        f"Knows {len(plan.families)} families of problems, with {plan.problem_steps[0]} to {plan.problem_steps[1]} "
        f"computations and numbers up to {plan.max_number}, and nothing else: it answers any other text with a made-up "
        "calculation. It is stopped early on purpose.",
    )
    _write(policy, folder, card)
    return measured


def save_reward(
    policy: Policy,
    folder: str | os.PathLike[str],
    plan: PretrainingPlan,
    global_step: int,
    commands: Sequence[str],
    *,
    calibration_pairs: Sequence[PreferencePair],
    held_out_pairs: Sequence[PreferencePair],
) -> dict[str, Any]:
    """Write the bundled reward model: calibrated on some pairs, measured on others.

    Args:
        policy: the line's model at `global_step`, to be judged with; rounded to bfloat16.
        folder: where to write.
        plan: what the line was trained by.
        global_step: optimiser steps of the line up to this point.
        commands: what made and measured it, for the card.
        calibration_pairs: labelled; they fit scale and bias of the scores and tune the threshold.
        held_out_pairs: labelled; the card's figures are of these.

    Returns:
        what it reached on the held-out pairs, see `reward_report`.

    Raises:
        RunError: the line is too weak for a judge.
    """
    _round(policy)
    reward_model = LLMRewardModel(policy.model, policy.tokenizer, HeadSettings("likelihood"), name=policy.name)
    reward_model.set_calibration(*calibration_of(reward_model, calibration_pairs))
    setattr(policy.model.config, CONFIG_KEY, reward_model.settings.to_config())
    solve_rate = solve_rates(policy, held_out_problems(plan))["solve_rate"]
    threshold = tuned_threshold(judge_pairs(reward_model, calibration_pairs))
    report = reward_report(judge_pairs(reward_model, held_out_pairs), threshold)
    bench, settings = report["process_bench"], reward_model.settings
    figures = {
        f"solve rate, greedy, on the line's {plan.held_out} held-out problems": f"{solve_rate:.1%}",
        f"ProcessBench-style F1 (acc1, acc2) on {len(held_out_pairs)} held-out pairs": (
            f"{bench['f1']:.1f} ({bench['acc1']:.1f}, {bench['acc2']:.1f})"
        ),
        "threshold, tuned on the calibration pairs": f"{threshold:.3g}",
        "AUROC over the steps up to each first error": f"{report['auroc']:.4f}",
        "AUROC over all steps, those that carry an error on counted as wrong": f"{report['auroc_all_steps']:.4f}",
        "calibration": f"log-odds = {settings.scale:.3g} x logit of the lowest token probability + {settings.bias:.3g}",
    }
    card = _card(
        "A small process reward model without a step label",
        "Solves nearly all generated problems of Stepwise DPO. As a step's score it gives the lowest probability of a "
        "token in the step, given the problem and the steps before it, calibrated to the probability that the step is "
        "right. One forward judges a whole solution.",
        plan,
        global_step,
        commands,
        figures,
        f"Knows {len(plan.families)} families of problems only; other texts get scores that mean nothing. It expects "
        "the order of computations in which the generator solves a problem, and calls another right order wrong. A "
        "step that carries an earlier error on faithfully looks right in its context: count only up to the first "
        "error (aggregation until_error) where that matters.",
    )
    _write(policy, folder, card)
    return report


def calibration_of(reward_model: LLMRewardModel, pairs: Sequence[PreferencePair]) -> tuple[float, float]:
    """Fit scale and bias of a reward model's log-odds to labels, so that its probabilities mean what they say.

    Logistic regression on the log-odds (Platt 1999), over the steps up to the first error of each side: what comes
    after carries that error on, and a head that looks at one step in its context can't see it.

    Returns:
        (scale, bias) for `LLMRewardModel.set_calibration`.

    Raises:
        RunError: right steps don't score higher than wrong ones, so no calibration makes sense.
    """
    solutions = [
        (pair.prompt, side, labelled_first_error([step.label for step in side]))
        for pair in pairs
        for side in (pair.chosen, pair.rejected)
    ]
    odds, labels = [], []
    scores = reward_model.score_solutions(
        [(prompt, [step.text for step in side]) for prompt, side, _ in solutions], value="log_odds"
    )
    now = reward_model.settings
    for (_, side, first_error), values in zip(solutions, scores, strict=True):
        if first_error is not None:
            upto = len(side) if first_error < 0 else first_error + 1
            odds += [(value - now.bias) / now.scale for value in values[:upto]]
            labels += [step.label for step in side[:upto]]
    fitted = LogisticRegression().fit([[value] for value in odds], labels)
    scale, bias = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if scale <= 0:
        raise RunError(
            f"{reward_model.name} doesn't score right steps higher than wrong ones yet, so it is no judge; train it "
            "for more steps"
        )
    return scale, bias


def _round(policy: Policy) -> None:
    """Round the weights to bfloat16, as which they are stored: it halves the file."""
    policy.model.to(torch.bfloat16).to(torch.float32)


def _write(policy: Policy, folder: str | os.PathLike[str], card: str) -> None:
    """Write an ordinary Transformers folder with its card, all of it or nothing; the folder may exist, but empty."""
    whole = Path(folder).resolve()
    # A name of its own: whatever lies beside it belongs to somebody.
    unfinished = Path(tempfile.mkdtemp(prefix=f".{whole.name}.", dir=whole.parent))
    try:
        policy.model.to(torch.bfloat16).save_pretrained(unfinished)
        policy.model.to(torch.float32)
        policy.tokenizer.save_pretrained(unfinished)
        (unfinished / "README.md").write_text(card, encoding="utf-8")
        unfinished.chmod(0o755)
        unfinished.replace(whole)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _card(
    title: str,
    summary: str,
    plan: PretrainingPlan,
    global_step: int,
    commands: Sequence[str],
    figures: Mapping[str, Any],
    limits: str,
) -> str:
    """Write a model card in the Hub's format."""
    lines = "\n".join(f"| {name} | {value} |" for name, value in figures.items())
    shown = "\n".join(f"    {command}" for command in commands)
    return f"""---
license: apache-2.0
library_name: transformers
tags: [t5, arithmetic, process-reward-model, stepwise-dpo]
---

# {title}

{summary}

**Data.** Problems and right solutions from `stepwise_dpo.preferences.synthetic`, each drawn from the seed and seen
once. Left out are the prompts of the held-out pairs and the line's own held-out problems; a problem of the calibration
pairs may occur by chance. No other data, no pretrained weights.

**Training.** Optimiser step {global_step:,} of this line, from nothing, with Muon and AdamW, and with bfloat16
autocast where the machine is fast at that; the weights are stored in bfloat16:

```json
{json.dumps(asdict(plan), indent=1)}
```

**Commands** that made and measured it:

{shown}

**Figures** by these commands:

| | |
| --- | --- |
{lines}

**Limits.** {limits}
"""
