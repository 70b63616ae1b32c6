"""Many examples at once: their order, the list at the left, the heatmap, and how far judge and labels agree."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stepwise_dpo.preferences.pairs import PreferencePair, first_error
from stepwise_dpo.preferences.statistics import hardly_differ, preference_sign
from stepwise_dpo.ui.components import Item, list_html, note, plots_value, stats, what
from stepwise_dpo.ui.figures import Chart, HeatmapRow, reward_heatmap
from stepwise_dpo.ui.reward_rows import label_agreement
from stepwise_dpo.ui.reward_views import Look, Sides, reach
from stepwise_dpo.ui.text import counted, plain, signed
from stepwise_dpo.ui.waterfall import aggregated

SORTS = {
    "file": "Order of the set",
    "preference": "Lowest preference first",
    "disagreement": "Disagreement with the labels first",
    "error": "Position of the first error",
}
NEEDS_SCORES = ("preference", "disagreement")
MAX_ROWS = 500
"""The most examples that one heatmap draws."""

LISTED = 500
"""The most examples of the list that are sent to the browser, beside the open one; a search narrows them down."""

FLAT = (
    "Nearly all steps have the same score, so a preference says little more than how many steps there are: this judge "
    "does not know such problems. “models train-reward” on the command line makes one from labelled steps."
)

NO_HEATMAP = plots_value([])

MAX_PUBLIC = 200
"""The most examples of a set that are scored for a stranger."""

MAX_LOCAL = 2_000
"""The most that are scored at all: the page asks one model on a few cores."""


class Judged(NamedTuple):
    """An example's numbers in the current view.

    Attributes:
        sides: of each step.
        preference: aggregated chosen minus rejected.
        agrees: whether the judge finds the labelled first errors; None without labels, or where no judge is shown.
    """

    sides: Sides
    preference: float
    agrees: bool | None


class Agreement(NamedTuple):
    """How a judge's scores agree with preferences and labels; None where the data doesn't define a figure.

    Attributes:
        examples: scored ones.
        positive: those with a positive preference, see `preference_sign`.
        acc1: ProcessBench: wrong solutions whose first error was found exactly, in percent.
        acc2: right solutions that were left alone, in percent.
        f1: the harmonic mean of the two.
        auroc: of steps up to the first errors, 0..1.
        flat: whether the scores hardly differ.
    """

    examples: int
    positive: int
    acc1: float | None = None
    acc2: float | None = None
    f1: float | None = None
    auroc: float | None = None
    flat: bool = False


def judged(pair: PreferencePair, sides: Sides, look: Look) -> Judged:
    """Work out what the list and the order need of an example."""
    centre = look.scale.centre
    chosen, rejected = (aggregated(side, look.adds_up_by, centre) for side in sides)
    compared = None
    if not look.of_policy and look.when != "difference":
        compared = label_agreement(pair, sides, centre)
    return Judged(sides, chosen - rejected, None if compared is None else compared[0] == "agrees")


def ordered(
    pairs: Sequence[PreferencePair],
    indices: Sequence[int],
    known: Mapping[int, Judged],
    sort: str,
    negative_only: bool = False,
) -> list[int]:
    """Sort examples; those that aren't scored yet come last, in the order of the set.

    Args:
        pairs: the set.
        indices: the examples to sort, by rising index.
        known: what is known of them.
        sort: one of `SORTS`; anything else is the order of the set.
        negative_only: leave out all but those with a negative preference, see `preference_sign`.
    """
    kept = [i for i in indices if not negative_only or (i in known and preference_sign(known[i].preference) < 0)]
    if sort == "preference":
        return sorted(kept, key=lambda i: (i not in known, known[i].preference if i in known else 0.0))
    if sort == "disagreement":
        # Of those that disagree, first the ones whose preference contradicts the pair as well.
        return sorted(
            kept,
            key=lambda i: (
                i not in known,
                i in known and known[i].agrees is not False,
                known[i].preference if i in known else 0.0,
            ),
        )
    if sort == "error":
        places = {i: first_error(pairs[i].rejected) for i in kept}
        return sorted(kept, key=lambda i: (places[i] is None, places[i] or 0))
    return kept


def list_view(
    pairs: Sequence[PreferencePair],
    order: Sequence[int],
    known: Mapping[int, Judged],
    selected: int,
    look: Look,
    scored_only: bool = False,
) -> str:
    """Write the list of examples, with what is known of each: the first `LISTED`, and the selected one."""
    head = counted(len(pairs), "example") if len(order) == len(pairs) else f"{len(order):,} of {len(pairs):,} examples"
    if scored_only and len(known) < len(pairs):
        head += f" · {len(known):,} scored"
    listed = list(order[:LISTED])
    if len(order) > LISTED:
        beyond = [i for i in order[LISTED:] if i == selected]
        listed += beyond
        named = f"the first {LISTED} and the open one" if beyond else f"the first {LISTED}"
        head += f" · {named} are listed; the search, and the table in Data, find the others"
    items = [_item(pairs[i], i, known.get(i), look) for i in listed]
    return list_html(head, items, str(selected), "Examples")


def _item(pair: PreferencePair, index: int, known: Judged | None, look: Look) -> Item:
    facts = [f"{len(pair.chosen)} | {counted(max(1, len(pair.rejected)), 'step')}"]
    wrong = first_error(pair.rejected)
    if wrong is not None:
        facts.append(f"error at {wrong + 1}")
    if known is not None:
        number, sign = signed(known.preference), preference_sign(known.preference)
        if sign == 0 and look.result == "preference":
            number = "no preference"
        elif sign < 0:
            number = (
                f'<span class="warn">{"negative " if look.result == "preference" else ""}{look.result} {number}</span>'
            )
        facts.append(number)
    if known is not None and known.agrees is False:
        facts.append('<span class="warn">disagrees</span>')
    sub = " · ".join(f'<span class="fact">{fact}</span>' for fact in facts)
    return Item(str(index), f"{index + 1}. {pair.prompt}", sub)


def heatmap_value(
    pairs: Sequence[PreferencePair], order: Sequence[int], known: Mapping[int, Judged], look: Look, by: str
) -> str:
    """Draw the scored examples in their order; `NO_HEATMAP` where there are none.

    As JSON text and not as a dictionary: with every event of the page Gradio copies the values of its components in the
    browser, and a few thousand cells took that a second each time; a text costs nothing.

    Args:
        pairs: the set.
        order: which examples, the first on top.
        known: their numbers.
        look: what they are.
        by: whose they are, for the heading.
    """
    drawn = [i for i in order if i in known][:MAX_ROWS]
    if not drawn:
        return NO_HEATMAP
    rows = []
    for index in drawn:
        solutions = zip((pairs[index].chosen, pairs[index].rejected), known[index].sides, strict=True)
        chosen, rejected = ([(s.text, v) for s, v in zip(steps, values, strict=True)] for steps, values in solutions)
        rows.append(HeatmapRow(index, chosen, rejected))
    scale = look.scale
    far = reach(scale, [known[i].sides for i in drawn])
    figure = reward_heatmap(rows, far, scale.centre, signed if scale.signed else "{:.2f}".format)
    scored = sum(i in known for i in order)
    shown_words = (
        counted(scored, "example") if scored == len(drawn) else f"the first {len(drawn)} of {scored:,} examples"
    )
    return plots_value([Chart("reward_heatmap", "Every step of every example", f"{shown_words}, {by}", figure)])


def agreement(pairs: Sequence[PreferencePair], known: Mapping[int, Judged], look: Look) -> Agreement:
    """Measure the scored examples against preferences and labels, see `process_metrics`."""
    positive = sum(preference_sign(item.preference) > 0 for item in known.values())
    if look.of_policy or look.when == "difference":
        return Agreement(len(known), positive)
    # Brings scikit-learn, which the page doesn't need before.
    from stepwise_dpo.learning.process_metrics import (
        NO_ERROR,
        auroc,
        labelled_first_error,
        predicted_first_error,
        process_bench,
    )

    true: list[int] = []
    predicted: list[int] = []
    labels: list[bool] = []
    scores: list[float] = []
    for index, item in known.items():
        for steps, values in zip((pairs[index].chosen, pairs[index].rejected), item.sides, strict=True):
            error = labelled_first_error([step.label for step in steps])
            if error is None:
                continue
            true.append(error)
            predicted.append(predicted_first_error(values, look.scale.centre))
            until = len(steps) if error == NO_ERROR else error + 1
            labels += [step.label is True for step in steps[:until]]
            scores += values[:until]
    bench = process_bench(true, predicted) if true else None
    acc1, acc2, f1 = bench or (None, None, None)
    flat = hardly_differ([value for item in known.values() for side in item.sides for value in side])
    return Agreement(len(known), positive, acc1, acc2, f1, auroc(labels, scores) if labels else None, flat)


def agreement_html(found: Agreement, look: Look) -> str:
    """Write the figures; what the labels don't define is left out, and said."""
    name = look.result
    share = found.positive / found.examples
    cells = [(f"{share:.1%}", f"positive {name}, {found.positive:,} of {found.examples:,}{what('preference')}")]
    if look.of_policy or look.when == "difference":
        return stats(cells)
    negative = found.examples - found.positive
    cells.append((f"{negative:,}", f"preferences that are not positive{what('negative_preference')}"))
    if found.f1 is not None:
        parts = f"acc1 {found.acc1:.1f}, acc2 {found.acc2:.1f}"
        cells.append((f"{found.f1:.1f}", f"first errors found at p below ½, F1 ({parts}){what('process_bench')}"))
    if found.auroc is not None:
        cells.append((f"{found.auroc:.3f}", f"AUROC of the steps{what('auroc')}"))
    if found.f1 is None and found.auroc is None:
        cells.append(("–", "no figure over labels: they need right and wrong solutions with labelled steps"))
    return stats(cells) + (note(FLAT) if found.flat else "")


def progress_html(done: int, total: int, what_is_scored: str) -> str:
    """Say how far scoring is."""
    share = done / total if total else 1.0
    words = f"Scoring {plain(what_is_scored)}: {done:,} of {counted(total, 'example')}"
    return (
        f'<div class="scoring" role="progressbar" aria-label="Scoring" aria-valuemin="0" aria-valuemax="{total}" '
        f'aria-valuenow="{done}"><span>{words}</span><i><b style="width:{share:.0%}"></b></i></div>'
    )
