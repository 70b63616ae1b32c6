"""What the address says of a comparison: written from what a visitor sees, and followed where somebody opens it."""

from collections.abc import Sequence
from typing import NamedTuple

from stepwise_dpo.ui.address import MAX_CHARACTERS, NO_COMPARISON, ComparisonLink
from stepwise_dpo.ui.compare_choice import STORED, Choice, Session, against_base, chosen, defaults, sources_of
from stepwise_dpo.ui.comparison import FILTERS, SORTS, Place
from stepwise_dpo.ui.library import Library
from stepwise_dpo.ui.measuring import Model

FEWEST_MEASURED = 4
"""The fewest examples that the form offers to measure."""


class Followed(NamedTuple):
    """Where a link leads.

    Attributes:
        choice: what the form says then.
        session: the table's place and the open row, without a view.
        lacking: what to tell the visitor if something isn't there; "" if all is.
    """

    choice: Choice
    session: Session
    lacking: str


def link_of(session: Session, run_id: str) -> dict[str, str]:
    """Write a comparison for the address; "" for what the tab shows by itself.

    Args:
        session: what the visitor sees.
        run_id: the page's run; the tab compares it with its base unless something else is chosen.
    """
    if has_link(session, run_id):
        return session.link._asdict()
    choice = session.choice
    if choice is None or session.run != run_id:
        return NO_COMPARISON._asdict()
    by_itself = bool(against_base(choice))  # of another run it only stands in for the page's, see `stands_in`
    measured = choice.source != STORED
    place = session.place
    return ComparisonLink(
        before="" if by_itself else _text(choice.before),
        after="" if by_itself else _text(choice.after),
        on=_text(choice.source) if measured else "",
        number=_digits(choice.number) if measured else "",
        only=place.only if place.only != Place().only else "",
        sort=("-" if place.descending else "") + place.sort if place.sort != Place().sort or place.descending else "",
        row=str(session.row + 1) if session.row else "",
    )._asdict()


def has_link(session: Session, run_id: str) -> bool:
    """Whether a session has come by a link that the tab has still to follow; another run's link is none."""
    return session.link != NO_COMPARISON and session.run in ("", run_id)


def follow(
    session: Session, models: Sequence[Model], run_id: str, sent: Choice, library: Library, most: int
) -> Followed:
    """Find what a link means; nothing of it is trusted.

    Args:
        session: with the link.
        models: that can be compared.
        run_id: the page's run.
        sent: what the form holds, for what the link leaves open.
        library: the visitor's example sets.
        most: the most examples that are measured.
    """
    link = session.link
    own = defaults(models, run_id, sent)
    number = int(link.number[:9]) if link.number.isascii() and link.number.isdigit() else sent.number
    choice = Choice(
        link.before or own.before,
        link.after or own.after,
        link.on or STORED,
        min(max(number, FEWEST_MEASURED), most) if isinstance(number, (int, float)) else number,
    )
    there = Session(place=_place(link), row=_row(link), choice=choice, run=run_id)
    lacking = ""
    if (link.before or link.after) and not chosen(models, choice):
        choice, there = own, Session(choice=own, run=run_id)
        lacking = "This link compares models of which one isn't here; choose others."
    elif choice.source not in [key for _, key in sources_of(library)]:
        choice = choice._replace(source=STORED)
        there = Session(choice=choice, run=run_id)
        lacking = "This link compares on examples that aren't here; choose others in “on”."
    return Followed(choice, there, lacking)


def _place(link: ComparisonLink) -> Place:
    only = link.only if link.only in FILTERS else Place().only
    sort = link.sort.removeprefix("-")
    return Place(only, sort, link.sort.startswith("-")) if sort in SORTS else Place(only)


def _row(link: ComparisonLink) -> int:
    return max(0, int(link.row[:9]) - 1) if link.row.isascii() and link.row.isdigit() else 0


def _digits(number: object) -> str:
    return f"{number:.0f}" if isinstance(number, (int, float)) and 1 <= number < 1e6 else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= MAX_CHARACTERS else ""
