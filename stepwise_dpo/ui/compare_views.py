"""The comparison in HTML: numbers with intervals, the table of examples, one example three times, both answers."""

from collections.abc import Sequence

from stepwise_dpo.learning.estimates import Estimate
from stepwise_dpo.preferences.checker import check_solution, is_known
from stepwise_dpo.preferences.pairs import Step
from stepwise_dpo.ui.comparison import (
    FILTERS,
    PAGE_SIZE,
    SIDES,
    Compared,
    Contrast,
    Place,
    Reply,
    arranged,
    contrasts,
    log_ratios,
    passes,
)
from stepwise_dpo.ui.components import coloured, divergence_line, empty_state, solution, stats, table, what
from stepwise_dpo.ui.glossary import GLOSSARY
from stepwise_dpo.ui.runs_view import RunView
from stepwise_dpo.ui.text import MINUS, counted, plain, shown, signed, three_digits

NAME_LENGTH = 44

_UNITS = {
    "preference_accuracy": "of {} pairs",
    "mean_margin": "nats per token",
    "logps_chosen": "nats per solution",
    "logps_rejected": "nats per solution",
    "solve_rate": "of {} problems, greedy answers",
}

_MARKS = {True: "solved", False: "failed", None: "–"}


def nothing_yet(views: Sequence[RunView]) -> str:
    """Say why there is no run to compare, and what to do.

    Args:
        views: the visitor's runs, the newest first.
    """
    active = next((view for view in views if view.status.active and not view.discarded), None)
    if active is None:
        return empty_state("No finished run yet", "Train one in the Train tab; what it changed appears here.")
    return empty_state(f"{active.name} is still going", "What it changed appears here when it ends.")


# ---------------------------------------------------------------------------------------------------------- numbers


def numbers_html(compared: Sequence[Compared], names: tuple[str, str]) -> str:
    """Write both models' figures side by side with their 95% intervals, and the change."""
    rows = []
    for contrast in contrasts(compared):
        unit = _UNITS[contrast.key].format(f"{contrast.units:,}")
        title = f"{shown(GLOSSARY[contrast.key].title)} {what(contrast.key)}<small>{unit}</small>"
        rows.append([title, _cell(contrast, contrast.before), _cell(contrast, contrast.after), _change(contrast)])
    head = [
        '<span class="out-of-sight">figure</span>',
        *(plain(name, NAME_LENGTH) for name in names),
        f"change {what('interval')}",
    ]
    words = "Below each figure its 95% interval. A change whose interval holds 0 may be chance."
    return f'<div class="numbers">{table(head, rows)}</div><p class="hint">{words}</p>'


def remarks(compared: Sequence[Compared]) -> list[str]:
    """What to know before the numbers are believed."""
    found = []
    if not all(one.same_tokens for one in compared):
        found.append(
            "The two models cut the same text into different tokens, so figures per token (margins, preferences) do "
            "not compare between them; log-probabilities of whole steps and solutions do."
        )
    return found


def _cell(contrast: Contrast, estimate: Estimate) -> str:
    write = _percent if contrast.share else three_digits
    return f"<b>{write(estimate.value)}</b>{_interval([write(end) for end in estimate.interval or ()])}"


def _change(contrast: Contrast) -> str:
    value, interval = contrast.change
    scale, unit = (100, " points") if contrast.share else (1, "")
    digits = 1 if contrast.share else 3 if abs(value) < 1 else 2
    sure = interval is not None and (interval[0] > 0 or interval[1] < 0)
    number = coloured(value * scale, digits) if sure else f"<b>{signed(value * scale, digits)}</b>"
    return f"{number}{unit}{_interval([signed(end * scale, digits) for end in interval or ()])}"


def _interval(ends: Sequence[str]) -> str:
    return f'<span class="interval">{ends[0]} to {ends[1]}</span>' if ends else '<span class="interval">–</span>'


def _percent(share: float) -> str:
    return f"{share:.1%}" if 0 < share < 1 else f"{share:.0%}"


# ------------------------------------------------------------------------------------------------------------ table


def filter_choices(compared: Sequence[Compared]) -> list[tuple[str, str]]:
    """Write the filters with how many examples each has."""
    return [(f"{words} ({sum(passes(one, key) for one in compared)})", key) for key, words in FILTERS.items()]


def table_html(compared: Sequence[Compared], names: tuple[str, str], place: Place, selected: int) -> str:
    """Write one page of the table; rows, heads and pager are buttons whose keys the `choice_list` reports.

    Args:
        compared: all examples.
        names: what the two models are called.
        place: filter, order and page; a page that isn't there becomes the last.
        selected: index of the open example.
    """
    indices = arranged(compared, place)
    if not indices:
        return empty_state("No such example", f"Nothing is “{FILTERS.get(place.only, place.only).lower()}” here.")
    pages = -(-len(indices) // PAGE_SIZE)
    page = min(place.page, pages - 1)
    heads = [
        _head("Example", "order", place),
        f"<th>Preferred {what('preferred')}</th>",
        _head(f"Margin {_short(names[0])}", "before", place, "margin"),
        _head(f"Margin {_short(names[1])}", "after", place),
        _head("Change", "change", place, "margin_change"),
        f"<th>Answer {what('answer')}</th>",
    ]
    rows = [_row(compared[i], i, i == selected) for i in indices[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]]
    return (
        f'<div class="table-box wide"><table class="flips"><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{_pager(page, pages, len(indices))}"
    )


def _head(words: str, sort: str, place: Place, term: str = "") -> str:
    order = ("descending" if place.descending else "ascending") if place.sort == sort else "none"
    arrow = {"descending": " ↓", "ascending": " ↑", "none": ""}[order]
    return (
        f'<th aria-sort="{order}"><button type="button" class="sort" data-key="sort:{sort}">'
        f'{shown(words)}<span aria-hidden="true">{arrow}</span></button>{what(term) if term else ""}</th>'
    )


def _row(one: Compared, index: int, current: bool) -> str:
    better = "positive" if one.after.preferred == "chosen" else "negative"
    preferred = one.after.preferred
    if one.flipped:
        preferred = f'{one.before.preferred} → <b class="{better}">{preferred}</b>'
    was, now = one.before.solved, one.after.solved
    turn = "positive" if now and was is False else "negative" if was and now is False else ""
    answer = _MARKS[now] if was == now else f'{_MARKS[was]} → <b class="{turn}">{_MARKS[now]}</b>'
    return (
        '<tr><th><button type="button" class="row" data-opens="compare-example" '
        f'data-key="row:{index}" aria-current="{str(current).lower()}">'
        f"{index + 1}. {plain(one.pair.prompt, 140)}</button></th><td>{preferred}</td>"
        f"<td>{signed(one.before.margin, 3)}</td><td>{signed(one.after.margin, 3)}</td>"
        f"<td>{coloured(round(one.change, 3), 3)}</td><td>{answer}</td></tr>"
    )


def _pager(page: int, pages: int, total: int) -> str:
    first, last = page * PAGE_SIZE + 1, min((page + 1) * PAGE_SIZE, total)
    words = f"{first} to {last} of {total:,}" if pages > 1 else counted(total, "example")
    buttons = "".join(
        f'<button type="button" class="button" data-key="page:{max(0, to)}"{"" if 0 <= to < pages else " disabled"}>'
        f"{name}</button>"
        for name, to in (("Previous", page - 1), ("Next", page + 1))
    )
    return f'<div class="pager"><span role="status">{words}</span>{buttons if pages > 1 else ""}</div>'


# ---------------------------------------------------------------------------------------------------------- example


def example_html(one: Compared, names: tuple[str, str]) -> str:
    """Write one example three times: both models' log-probabilities of each step, and the log-ratio of the two."""
    line = divergence_line(one.pair)
    values = [value for seen in (one.before, one.after) for side in SIDES for value in getattr(seen, side).steps]
    far = max(abs(value) for value in values) or 1.0
    ratios = {side: log_ratios(getattr(one.before, side), getattr(one.after, side)) for side in SIDES}
    wide = max(abs(value) for side in ratios.values() for value in side) or 1.0
    columns = []
    for side in SIDES:
        steps = getattr(one.pair, side)
        for name, seen in zip(names, (one.before, one.after), strict=True):
            likelihood = getattr(seen, side)
            columns.append(
                solution(
                    f"{side.capitalize()} · {_short(name)}",
                    steps,
                    likelihood.steps,
                    sum_html=f"sum <b>{signed(likelihood.total)}</b>",
                    diverges_at=line,
                    position=far,
                )
            )
        columns.append(
            solution(
                f"{side.capitalize()} · difference",
                steps,
                ratios[side],
                sum_html=f"sum {coloured(sum(ratios[side]))}",
                diverges_at=line,
                position=wide,
            )
        )
    gain = {side: sum(ratios[side]) for side in SIDES}
    numbers = stats(
        [
            (
                f"{signed(one.before.margin, 3)} → {signed(one.after.margin, 3)}",
                f"margin, nats per token {what('margin')}",
            ),
            (shown(f"{one.before.preferred} → {one.after.preferred}"), "likelier per token"),
            (
                signed(gain["chosen"] - gain["rejected"]),
                f"log-ratio of chosen {MINUS} that of rejected, nats {what('implicit_reward')}",
            ),
        ]
    )
    scales = (
        '<div class="scales">'
        f'<div class="scale half"><span>{signed(-far)}</span><i></i><span>0 (certain)</span></div>'
        f"<span>log-probability of a step, nats; one scale for both models {what('step_logp')}</span>"
        f'<div class="scale"><span>{signed(-wide)}</span><i></i><span>{signed(wide)}</span></div>'
        f"<span>difference (log-ratio), nats; a scale of its own</span></div>"
    )
    return (
        f'<div class="example"><p class="question"><bdi>{shown(one.pair.prompt)}</bdi></p>'
        f'<div class="solutions three">{"".join(columns)}</div>{scales}{numbers}</div>'
    )


# ---------------------------------------------------------------------------------------------------------- answers


def answers_html(prompt: str, replies: Sequence[Reply | None], names: tuple[str, str], judge: str = "") -> str:
    """Write both models' answers as step rows: process rewards where `judge` gave them, and the checker's verdicts."""
    if not any(replies):
        return empty_state("No answers yet", "Press “Let both answer”.")
    columns = [_answer(prompt, reply, name) for reply, name in zip(replies, names, strict=True)]
    rewarded = any(reply is not None and reply.rewards for reply in replies)
    scale = (
        f'<div class="scales"><div class="scale"><span>{signed(-1)}</span><i></i><span>{signed(1)}</span></div>'
        f"<span>process reward of a step, by {shown(judge)} {what('process_reward')}</span></div>"
        if rewarded
        else '<p class="hint">“Let both answer” has the chosen judge score the steps as well.</p>'
    )
    words = "The checker doesn’t know this kind of problem, so nobody says whether an answer is right."
    unknown = "" if is_known(prompt) else f'<p class="hint">{words}</p>'
    return f'<div class="example"><div class="solutions">{"".join(columns)}</div>{scale}{unknown}</div>'


def _answer(prompt: str, reply: Reply | None, name: str) -> str:
    title = f"Answer · {_short(name)}"
    if reply is None:
        return _bare(title, "", "this model wasn’t asked")
    verdict = {True: '<b class="positive">right</b>', False: '<b class="negative">wrong</b>', None: ""}[reply.solved]
    cut = "" if reply.complete else " · cut off at the token limit"
    if not reply.steps:
        return _bare(title, verdict + cut, "an empty answer")
    known = is_known(prompt)
    labels = check_solution(prompt, reply.steps) if known else [None] * len(reply.steps)
    # An answer may hold blank steps, which no `Step` is.
    steps = [Step(text if text.strip() else "(blank)", label) for text, label in zip(reply.steps, labels, strict=True)]
    return solution(title, steps, reply.rewards, sum_html=verdict + cut, source="checker")


def _bare(title: str, sum_html: str, words: str) -> str:
    return (
        f'<section class="solution"><header><h3>{shown(title)}</h3><span class="sum">{sum_html}</span></header>'
        f'<p class="hint">{words}</p></section>'
    )


def _short(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
