"""One example as HTML: both solutions in step rows on one colour scale, and the arithmetic of the loss below."""

from collections.abc import Sequence
from typing import NamedTuple

from stepwise_dpo.preferences.pairs import PreferencePair, Step, first_error
from stepwise_dpo.preferences.statistics import hardly_differ, preference_sign
from stepwise_dpo.ui.components import coloured, divergence_line, solution, stats, what
from stepwise_dpo.ui.reward_views import Cast, Look, Sides, reach, softplus, stepwise_loss
from stepwise_dpo.ui.text import MINUS, counted, shown, signed, three_digits
from stepwise_dpo.ui.waterfall import AGGREGATIONS, aggregated, first_below, waterfall_html


class Facts(NamedTuple):
    """Everything about an example that the page shows in numbers.

    Attributes:
        sides: the numbers in the rows.
        compared: all numbers that share their colours, those of the rows included.
        preferences: the judge's aggregated preference; in a difference before and after, where training changed it.
            Empty where the judge is not loaded.
        gaps: the policy's log-likelihood gap in nats per token; in a difference before and after. Empty where there is
            none.
        judged: the judge's numbers behind the last preference, for the labels' sake; None where not loaded.
        neutral: the neutral value of these.
    """

    sides: Sides
    compared: list[Sides]
    preferences: list[float]
    gaps: list[float]
    judged: Sides | None
    neutral: float = 0.0


def question_html(pair: PreferencePair) -> str:
    """Write the prompt."""
    return f'<p class="question"><bdi>{shown(pair.prompt)}</bdi></p>'


def plain_rows(pair: PreferencePair) -> str:
    """Write both solutions without numbers."""
    return _columns(pair, None, Look(), 1.0)


def waiting_html(pair: PreferencePair) -> tuple[str, str, str]:
    """Write rows, bars and remarks before there are numbers, as high as they will be with them: nothing jumps then."""
    said = '<div class="stat"><span role="status">The models are read, and judge the steps…</span></div>'
    rows = f'<div class="example">{plain_rows(pair)}<div class="stats waiting">{said}</div></div>'
    return rows, '<div class="waterfall waiting"></div>', '<div class="made-by waiting"></div>'


def rows_html(pair: PreferencePair, facts: Facts, look: Look, cast: Cast) -> str:
    """Write both solutions, and the arithmetic below."""
    far = reach(look.scale, facts.compared)
    return f'<div class="example">{_columns(pair, facts.sides, look, far)}{arithmetic(pair, facts, look, cast)}</div>'


def example_waterfall(facts: Facts, look: Look) -> str:
    """Write how the steps' numbers become the result; where they don't add up to it, say so."""
    if look.when == "difference" and look.adds_up_by not in ("sum", "mean"):
        name = AGGREGATIONS[look.adds_up_by].lower()
        return (
            f'<p class="hint">The change of a preference by “{name}” is no sum of the steps’ changes, so there are '
            "no bars for it. Choose Sum or Mean, or look at before and after.</p>"
        )
    return waterfall_html(
        facts.sides,
        look.adds_up_by,
        result=look.result,
        reach=reach(look.scale, facts.compared),
        centre=look.scale.centre,
        with_sign=look.scale.signed,
    )


def arithmetic(pair: PreferencePair, facts: Facts, look: Look, cast: Cast) -> str:
    """Write the preference, the gap, the loss of this example and the agreement with its labels, and the scale."""
    far = reach(look.scale, facts.compared)
    figures = [_result(facts, look)]
    verdict = ""
    if facts.preferences:
        if look.of_policy or look.when == "difference":
            figures.append((_moved(facts.preferences, 2), f"preference p of the judge{what('preference')}"))
        verdict = _verdict(facts.preferences[-1], facts.judged)
    if facts.gaps:
        figures.append((_moved(facts.gaps, 2), f"log-likelihood gap d, per token{what('log_likelihood_gap')}"))
    if facts.gaps and facts.preferences:
        losses = [
            stepwise_loss(facts.preferences[min(i, len(facts.preferences) - 1)], gap)
            for i, gap in enumerate(facts.gaps)
        ]
        words = f"stepwise loss here, {MINUS}log σ(p·d){what('stepwise')}"
        figures.append((" → ".join(three_digits(loss) for loss in losses), words))
    if look.of_policy and look.when == "difference" and cast.beta is not None:
        reward = cast.beta * (sum(facts.sides[0]) - sum(facts.sides[1]))
        words = f"DPO loss here: β × gap = {signed(reward)}{what('implicit_reward')}"
        figures.append((three_digits(softplus(-reward)), words))
    if (
        facts.judged is not None
        and not look.of_policy
        and (agreed := label_agreement(pair, facts.judged, facts.neutral))
    ):
        figures.append((agreed[0], f"{agreed[1]}{what('first_error')}"))
    scale = look.scale
    ends = (signed(-far), signed(far)) if scale.signed else (f"{scale.centre - far:.2f}", f"{scale.centre + far:.2f}")
    return stats(figures, ends) + verdict


def label_agreement(pair: PreferencePair, judged: Sides, neutral: float) -> tuple[str, str] | None:
    """Compare the first error that the judge finds with the labelled one, on each side that is labelled up to it.

    Returns:
        "agrees" or "disagrees", and the details in words; None where no side is labelled.
    """
    found = []
    for name, steps, values in zip(("chosen", "rejected"), (pair.chosen, pair.rejected), judged, strict=True):
        wrong = first_error(steps)
        checked = steps if wrong is None else steps[: wrong + 1]
        if any(step.label is None for step in checked):
            continue
        found.append((name, -1 if wrong is None else wrong, first_below(values, neutral)))
    if not found:
        return None
    differing = [item for item in found if item[1] != item[2]]
    if differing:
        parts = [f"{name}: labels say {_error(label)}, the judge {_error(judge)}" for name, label, judge in differing]
        return "disagrees", "; ".join(parts)
    errors = [f"first error at {label + 1} of {name}" for name, label, _ in found if label >= 0]
    return "agrees", f"with the labels: {', '.join(errors) or 'no step is wrong'}"


def _error(index: int) -> str:
    return "no error" if index < 0 else f"first error at {index + 1}"


def _columns(pair: PreferencePair, sides: Sides | None, look: Look, far: float) -> str:
    line = divergence_line(pair)
    columns = []
    for index, (title, steps) in enumerate((("Chosen", pair.chosen), ("Rejected", pair.rejected))):
        values = sides[index] if sides else None
        columns.append(
            solution(
                title,
                steps,
                values,
                sum_html=_head(steps, values, look),
                diverges_at=line,
                position=far,
                centre=look.scale.centre,
                with_sign=look.scale.signed,
            )
        )
    return f'<div class="solutions">{"".join(columns)}</div>'


def _head(steps: Sequence[Step], values: Sequence[float] | None, look: Look) -> str:
    """What stands beside a solution's title: what the labels say, and the aggregate."""
    right, labelled = sum(step.label is True for step in steps), sum(step.label is not None for step in steps)
    parts = [f"labels: {right} of {counted(labelled, 'step')} right"] if labelled else []
    linear = look.when != "difference" or look.adds_up_by in ("sum", "mean")
    if values is not None and linear:
        total = aggregated(values, look.adds_up_by, look.scale.centre)
        number = coloured(total) if look.scale.signed else f"<b>{total:.2f}</b>"
        parts.append(f"{AGGREGATIONS[look.adds_up_by].lower()} {number}")
    return " · ".join(parts)


def _result(facts: Facts, look: Look) -> tuple[str, str]:
    """The large number that rows and waterfall lead to, and how it comes about."""
    if look.when == "difference" and not look.of_policy and len(facts.preferences) == 2:
        before, after = facts.preferences
        digits = _digits(after, before)
        return signed(
            after - before, digits
        ), f"change of preference = {_term(after, digits)} {MINUS} {_term(before, digits)}"
    totals = [aggregated(side, look.adds_up_by, look.scale.centre) for side in facts.sides]
    digits = _digits(*totals)
    name = f"{look.result}, nats" if look.of_policy else look.result
    words = f"{name} = {_term(totals[0], digits)} {MINUS} {_term(totals[1], digits)}"
    number = signed(totals[0] - totals[1], digits)
    key = ("implicit_reward" if look.when == "difference" else "logps") if look.of_policy else "preference"
    return number, words + what(key)


def _moved(values: Sequence[float], digits: int) -> str:
    return " → ".join(signed(value, digits) for value in values)


def _term(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if value >= 0 else f"({signed(value, digits)})"


def _digits(chosen: float, rejected: float) -> int:
    """As many decimals as it takes for what stands there to add up."""
    return next((d for d in (2, 3, 4, 5) if _adds_up(chosen, rejected, d)), 6)


def _adds_up(chosen: float, rejected: float, digits: int) -> bool:
    """Whether the rounded difference is the difference of the rounded numbers, and keeps its sign."""
    difference = round(chosen - rejected, digits)
    return round(round(chosen, digits) - round(rejected, digits), digits) == difference and (
        difference != 0 or preference_sign(chosen - rejected) == 0
    )


def _verdict(preference: float, judged: Sides | None) -> str:
    if judged is not None and hardly_differ([*judged[0], *judged[1]]):
        words = "All steps have nearly the same score: the preference says little more than how many there are."
        return f'<p class="verdict warn">{words}</p>'
    if preference_sign(preference) > 0:
        return '<p class="verdict">Positive preference: the step-wise loss trains towards chosen.</p>'
    if preference_sign(preference) < 0:
        words = "Negative preference: by default the step-wise loss trains towards rejected."
        return f'<p class="verdict warn">{words}{what("negative_preference")}</p>'
    return '<p class="verdict">No preference: the step-wise loss trains next to nothing here.</p>'
