"""What the Compare tab's form says, checked, and what is known about it."""

from collections.abc import Sequence
from typing import NamedTuple

from stepwise_dpo.errors import ConfigError, RunError
from stepwise_dpo.learning.names import TINY
from stepwise_dpo.preferences.pairs import PreferencePair
from stepwise_dpo.ui.address import NO_COMPARISON, ComparisonLink
from stepwise_dpo.ui.comparison import PAGE_SIZE, Compared, Place, arranged
from stepwise_dpo.ui.components import empty_state
from stepwise_dpo.ui.judges import POLICY_NOTES
from stepwise_dpo.ui.library import HELD_OUT_SETS, Library
from stepwise_dpo.ui.measuring import Measurements, Model, names_of, stored_comparison
from stepwise_dpo.ui.text import counted

STORED, OPEN_SET = "stored", "open"
"""Where the examples come from beside the bundled sets: what the runs measured, or what is open in the Data tab."""

MAX_MEASURED, MAX_MEASURED_PUBLIC, FIRST_MEASURED = 120, 40, 40
"""The most examples that are measured here and now, and how many unless somebody asks for more."""

MAX_PROMPT = 2_000
"""Characters of a typed problem."""


class Choice(NamedTuple):
    """What the form says; nothing of it is trusted."""

    before: object
    after: object
    source: object
    number: object


class View(NamedTuple):
    """A comparison as a session sees it.

    Attributes:
        title: what is compared, in words.
        names: what the two models are called in headings.
        compared: the examples.
        where: which of their set the examples are, in words; "" for what the runs measured.
        remarks: what to know about the models.
    """

    title: str
    names: tuple[str, str]
    compared: tuple[Compared, ...]
    where: str
    remarks: tuple[str, ...] = ()


class Session(NamedTuple):
    """What a visitor sees.

    Attributes:
        view: the comparison; None while there is none, or it isn't measured yet.
        place: which part of its table is shown.
        row: index of the open example.
        choice: what the form says; None until the tab has been opened.
        run: the page's run when the choice was made: once it is another one, that is compared with its base.
        link: what the address asked for, until the tab has been opened.
    """

    view: View | None = None
    place: Place = Place()
    row: int = 0
    choice: Choice | None = None
    run: str = ""
    link: ComparisonLink = NO_COMPARISON

    def showing(self, view: View) -> "Session":
        """Open a comparison at this session's place and row, as far as it has them."""
        row = self.row if self.row < len(view.compared) else 0
        listed = arranged(view.compared, self.place)
        page = listed.index(row) // PAGE_SIZE if row in listed else 0
        return self._replace(view=view, row=row, place=self.place._replace(page=page))


def typed(session: Session, text: object) -> bool:
    """Whether the problem in the box is somebody's own, and not that of the open example."""
    if not isinstance(text, str) or not text.strip():
        return False
    return session.view is None or text.strip() != session.view.compared[session.row].pair.prompt.strip()


def chosen(models: Sequence[Model], choice: Choice) -> bool:
    """Whether both models of a choice are there."""
    keys = {model.key for model in models}
    return choice.before in keys and choice.after in keys


def defaults(models: Sequence[Model], run_id: str, choice: Choice) -> Choice:
    """Choose a run against its base: the session's run, or else the newest."""
    runs = list(dict.fromkeys(model.view.run.id for model in models))
    if not runs:
        return choice._replace(before=None, after=None)
    run = run_id if run_id in runs else runs[0]
    return choice._replace(before=f"before:{run}", after=f"after:{run}", source=STORED)


def sources_of(library: Library) -> list[tuple[str, str]]:
    """The examples that two models can be compared on: (words, key)."""
    sources = [("what the runs held out", STORED)]
    sources += [(f"a bundled held-out set, {name}", name) for name in HELD_OUT_SETS if name in library.names]
    if library.open_name not in HELD_OUT_SETS:
        sources.append((f"the open set, {library.open_name}", OPEN_SET))
    return sources


def opened_run(models: Sequence[Model], choice: Choice) -> str:
    """The run whose trained policy the others are compared with; "" where that side is no run's."""
    after = next((model for model in models if model.key == choice.after), None)
    return after.view.run.id if after is not None and after.which == "after" else ""


def against_base(choice: Choice) -> str:
    """The run that a choice compares with its own base; "" where it compares something else."""
    run = str(choice.after).removeprefix("after:")
    return run if choice[:2] == (f"before:{run}", f"after:{run}") else ""


def stands_in(models: Sequence[Model], run_id: str, choice: Choice) -> bool:
    """Whether a choice only stands in for the page's run, which had left no model yet and now has.

    Whoever chooses a run by hand makes it the page's, so another one against its base is nobody's choice.
    """
    return against_base(choice) not in ("", run_id) and run_id in {model.view.run.id for model in models}


def both(models: Sequence[Model], choice: Choice) -> tuple[Model, Model]:
    """Find the two models that a browser names.

    Raises:
        ConfigError: one isn't there, or they are the same.
    """
    known = {model.key: model for model in models}
    before = known.get(choice.before) if isinstance(choice.before, str) else None
    after = known.get(choice.after) if isinstance(choice.after, str) else None
    if before is None or after is None:
        raise ConfigError("a chosen model isn't there any more; choose both again")
    if before == after:
        raise ConfigError("both sides are the same model; choose another one in “Compare” or “with”")
    return before, after


def examples_of(choice: Choice, library: Library, most: int) -> tuple[tuple[PreferencePair, ...], str]:
    """The examples to measure now, the first of their set, and what they are in words.

    Raises:
        ConfigError: there are none.
    """
    sent = choice.number
    number = int(sent) if isinstance(sent, (int, float)) and not isinstance(sent, bool) and 1 <= sent <= most else most
    name = choice.source if choice.source in HELD_OUT_SETS else library.open_name
    pairs = next((known.pairs for known in library.sets if known.name == name), ())
    taken = pairs[:number]
    if not taken:
        raise ConfigError(f"{name} has no examples; choose others in “on”, or add some in the Data tab")
    return taken, f" (the first {len(taken)} of {len(pairs):,} of {name})"


def look_up(
    models: Sequence[Model], choice: Choice, library: Library, measurements: Measurements, most: int
) -> tuple[View | None, str]:
    """Compare by what is known already.

    Returns:
        the comparison, or None and what to do about that (HTML).

    Raises:
        ConfigError: a model isn't there, or both are the same; there are no examples.
        RunError: a run's records can't be used.
    """
    before, after = both(models, choice)
    names = names_of(before, after)
    both_sides = f"{before.label} and {after.label}"
    title = f"{after.label}, before and after training" if names == ("before", "after") else both_sides
    said = (POLICY_NOTES[TINY],) if TINY in (before.base, after.base) else ()
    if choice.source == STORED:
        try:
            compared = stored_comparison(before, after)
        except RunError as problem:
            raise RunError(f"{problem}. Choose other examples in “on” and measure the two now.") from problem
        if compared:
            return View(title, names, compared, "", said), ""
        do = "Choose other examples in “on”, and measure both now."
        return None, empty_state("The runs measured different examples, or none", do)
    pairs, where = examples_of(choice, library, most)
    measured = measurements.comparison(before, after, pairs)
    if measured is None:
        button = f"Measure {counted(len(pairs), 'example')}"
        return None, empty_state("Not measured yet", f"“{button}” beside the choice of examples does it now.")
    return View(title, names, measured, where, said), ""


def check_prompt(text: object) -> str:
    """Check a typed problem.

    Raises:
        ConfigError: it is blank or too long.
    """
    if not isinstance(text, str) or not text.strip():
        raise ConfigError("the problem is empty; type one, or choose an example in the table")
    if len(text) > MAX_PROMPT:
        raise ConfigError(f"the problem has {len(text):,} characters; at most {MAX_PROMPT:,} are answered here")
    return text.strip()
