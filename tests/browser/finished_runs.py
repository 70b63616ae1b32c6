"""Runs that lie there before the app starts: what was measured is real, with the bundled policy and shaken copies."""

import time
from pathlib import Path

import torch
from driving import ROOT

from stepwise_dpo.learning.evaluation import compare_evaluations, evaluate_policy
from stepwise_dpo.learning.loading import load_policy
from stepwise_dpo.preferences.pairs import PreferencePair, Step, load_pairs, save_pairs
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory, RunStatus

HELD_OUT = load_pairs(ROOT / "data" / "heldout_prm.json")
HOSTILE = "<img src=x onerror=alert(1)> ${alert(1)} {{x}} `x` \\u0041"
EVIL = PreferencePair(f"=HYPERLINK({HOSTILE})", [Step(HOSTILE, True)], [Step("{{bad}}", False)], "evil")
MEASURED = [*HELD_OUT[:16], EVIL]
FIRST, SECOND, OTHER = "20260101-100000-dpo-aaaa", "20260101-110000-stepwise-bbbb", "20260101-090000-dpo-cccc"
STEPS = 40

ENDS = {OTHER: (-2.0, -6.0), FIRST: (2.0, -6.0), SECOND: (-6.0, -2.0)}
"""Where the implicit rewards of chosen and rejected came to, in nats: both fell and the margin rose in OTHER alone."""


def write_runs(folder: Path) -> Path:
    """Write three finished runs; returns their folder. SECOND is the newest, OTHER measured one example only."""
    data = folder / "trained.json"
    save_pairs(HELD_OUT[16:20], data)
    base = evaluate_policy(load_policy("policy"), MEASURED, answers=len(MEASURED), max_new_tokens=40)
    for number, (name, pairs) in enumerate(((OTHER, MEASURED[-1:]), (FIRST, MEASURED), (SECOND, MEASURED))):
        shaken = load_policy("policy")
        torch.manual_seed(number)
        for weights in shaken.model.parameters():
            weights.data += 0.15 * weights.data.std() * torch.randn_like(weights)
        after = evaluate_policy(shaken, pairs, answers=len(pairs), max_new_tokens=40)
        run = RunDirectory(folder / "runs" / name)
        judge = {"reward_model": "tiny"} if "stepwise" in name else {}
        run.create(make_config({"data": str(data), "model": "policy", "loss": name.split("-")[2]} | judge))
        for global_step in range(1, STEPS + 1):
            run.append_metrics(metrics(global_step, *ENDS[name]))
        run.write_status(RunStatus("finished", started=time.time(), global_step=STEPS, max_steps=STEPS))
        shaken.model.save_pretrained(run.final)
        shaken.tokenizer.save_pretrained(run.final)
        before = base if len(pairs) == len(MEASURED) else evaluate_policy(load_policy("policy"), pairs)
        records = compare_evaluations(pairs, before, after)
        run.write_examples(record | {"in_training": False} for record in records)
    return folder / "runs"


def metrics(global_step: int, chosen_end: float, rejected_end: float) -> dict[str, float]:
    """One optimiser step's line, as the trainer writes it, of rewards that go straight from 0 to their ends."""
    done = (global_step - 1) / (STEPS - 1)
    chosen, rejected = chosen_end * done, rejected_end * done
    return {
        "global_step": global_step,
        "epoch": global_step / STEPS,
        "time": 1_767_261_600.0 + global_step,
        "loss": 0.693147 - 0.1 * done,
        "grad_norm": 1.0,
        "learning_rate": 1e-5,
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": 1.0,
        "logps/chosen": chosen - 20.0,
        "logps/rejected": rejected - 25.0,
    }
