"""Reports of `evaluate` as text for a terminal. Steps count from 1 here, as people count."""

from collections.abc import Mapping, Sequence
from typing import Any

from stepwise_dpo.preferences.faults import visible

Report = Mapping[str, Any]

SHOWN_MISTAKES = 8
SHOWN_IDS = 5


def reward_table(report: Report) -> str:
    """Lay out a reward model's report, see `reward_benchmark.reward_report`."""
    counts, bench, intervals = report["counts"], report["process_bench"], report["intervals"]
    left_out = f"; {counts['unlabelled']} without labels are left out" if counts["unlabelled"] else ""
    calibration = report["calibration"]
    rows = [
        ("ProcessBench F1 (%)", bench["f1"], intervals["f1"], 1),
        ("  acc1, wrong solutions (%)", bench["acc1"], intervals["acc1"], 1),
        ("  acc2, right solutions (%)", bench["acc2"], intervals["acc2"], 1),
        ("PRMBench score (%)", report["prm_score"], intervals["prm_score"], 1),
        ("AUROC up to first errors", report["auroc"], intervals["auroc"], 3),
        ("AUROC of all labelled steps", report["auroc_all_steps"], intervals["auroc_all_steps"], 3),
        ("preference accuracy", report["preference_accuracy"], intervals["preference_accuracy"], 3),
        ("calibration error", calibration and calibration["error"], None, 3),
    ]
    lines = [
        f"{counts['pairs']} pairs: {counts['right']} right and {counts['wrong']} wrong solutions{left_out}",
        "",
        *_values(rows),
        *_reasons(report),
    ]
    columns = ("pairs", "F1", "acc1", "acc2", "AUROC", "preference")
    for key, title in (("per_family", "family"), ("per_corruption", "corruption")):
        groups = [
            (
                name,
                str(group["counts"]["pairs"]),
                *(_number(group["process_bench"][figure], 1) for figure in ("f1", "acc1", "acc2")),
                _number(group["auroc"], 3),
                _number(group["preference_accuracy"], 3),
            )
            for name, group in report[key].items()
        ]
        lines += _grid((title, *columns), groups)
    return "\n".join([*lines, *_mistakes(report["mistakes"])])


def policy_table(report: Report) -> str:
    """Lay out a policy's report, see `policy_benchmark.policy_report`."""
    counts, intervals = report["counts"], report["intervals"]
    lines = [f"{counts['prompts']} different prompts of {counts['pairs']} pairs"]
    if unknown := report["unknown"]:
        names = visible(", ".join(unknown[:SHOWN_IDS])) + (", …" if len(unknown) > SHOWN_IDS else "")
        lines.append(f"not answered, because the checker doesn't know their prompts: {len(unknown)} pairs ({names})")
    rows = [("solve rate, greedy", report["solve_rate"], intervals["solve_rate"], 3)]
    rows += [
        (f"pass@{k} of {counts['samples']} samples", value, intervals[f"pass_at_{k}"], 3)
        for k, value in report["pass_at_k"].items()
    ]
    rows += [
        ("step accuracy", report["step_accuracy"], intervals["step_accuracy"], 3),
        ("complete answers", report["complete"], intervals["complete"], 3),
        ("preference accuracy", report["preference_accuracy"], intervals["preference_accuracy"], 3),
        ("mean margin (nats/token)", report["mean_margin"], intervals["mean_margin"], 3),
    ]
    lines += ["", *_values(rows), *_reasons(report)]
    ks = [*report["pass_at_k"]]
    groups = []
    for name, group in report["per_family"].items():
        figures = [group["solve_rate"], *group["pass_at_k"].values(), group["step_accuracy"]]
        figures += [group["complete"], group["preference_accuracy"]]
        groups.append((name, str(group["counts"]["prompts"]), *(_number(figure, 3) for figure in figures)))
    columns = ("family", "prompts", "solved", *(f"pass@{k}" for k in ks), "steps", "complete", "preference")
    return "\n".join([*lines, *_grid(columns, groups)])


def _values(rows: Sequence[tuple[str, float | None, Sequence[float] | None, int]]) -> list[str]:
    lines = [f"{'':30}{'value':>9}   95% interval"]
    for name, value, interval, digits in rows:
        line = f"{name:30}{_number(value, digits):>9}"
        if interval is not None:
            line += f"   {interval[0]:.{digits}f} to {interval[1]:.{digits}f}"
        lines.append(line)
    return lines


def _reasons(report: Report) -> list[str]:
    """Say why a figure is missing."""
    return [f"no {name}: {reason}" for name, reason in report["undefined"].items()]


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a table under an empty line; [] without rows. Rows begin with a name, which comes from a user's file."""
    if not rows:
        return []
    rows = [(visible(name), *cells) for name, *cells in rows]
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = [""]
    for name, *cells in (columns, *rows):
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    return lines


def _mistakes(mistakes: Sequence[Report]) -> list[str]:
    if not mistakes:
        return ["", "no mistakes"]
    kinds = dict.fromkeys(mistake["kind"] for mistake in mistakes)
    summary = ", ".join(f"{sum(mistake['kind'] == kind for mistake in mistakes)} {kind}" for kind in kinds)
    lines = ["", f"{len(mistakes)} mistakes ({summary}):"]
    for mistake in mistakes[:SHOWN_MISTAKES]:
        lines.append(f"  {visible(mistake['id'])} {mistake['side']}, {mistake['kind']}: " + _places(mistake))
        lines.append(f"    {visible(mistake['reason'])}")
    if len(mistakes) > SHOWN_MISTAKES:
        lines.append(f"  … and {len(mistakes) - SHOWN_MISTAKES} more")
    return lines


def _places(mistake: Report) -> str:
    words = []
    for name, verb in (("true", "wrong is"), ("predicted", "called wrong")):
        if mistake[name] < 0:
            words.append(f"{verb} none")
        else:
            step, score = mistake[f"{name}_step"], mistake[f"{name}_step_score"]
            words.append(f"{verb} step {mistake[name] + 1}, {step!r} ({score:.3g})")
    return "; ".join(words)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
