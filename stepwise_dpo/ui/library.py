"""What one visitor works on: example sets that are edited by replacing them, never in place.

Everything here is immutable, so a session's state can be shared, compared and undone without copying.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.preferences.rows import MAX_PAIRS
from stepwise_dpo.preferences.statistics import repetitions
from stepwise_dpo.ui.example_facts import ExampleFacts, facts_of

HELD_OUT_SETS = ("onpolicy_heldout_prm.json", "heldout_prm.json")
"""To compare on: problems as the demo trains on them, with the policy's own mistakes, and others with made ones."""

BUNDLED_SETS = ("onpolicy_prm.json", "synthetic_prm.json", *HELD_OUT_SETS)
"""Those that come with the project; the page opens the first."""

MAX_UNDO = 30
MAX_SETS = 24
MAX_NAME = 120

SIDES = ("chosen", "rejected")


class Version(NamedTuple):
    """A set's pairs at another time, and the change between then and the neighbouring version ("deleted example 3")."""

    pairs: tuple[PreferencePair, ...]
    change: str


@dataclass(frozen=True)
class ExampleSet:
    """Pairs under a name, with the versions before each edit and those that were taken back.

    Attributes:
        name: how the page calls it.
        pairs: the examples in order.
        history: earlier versions of `pairs`, the latest last, each with the change that followed it.
        future: versions that were taken back, the nearest last, each with the change that led to it.
    """

    name: str
    pairs: tuple[PreferencePair, ...]
    history: tuple[Version, ...] = field(default=(), repr=False)
    future: tuple[Version, ...] = field(default=(), repr=False)

    @property
    def edited(self) -> bool:
        """Whether there is something to undo."""
        return bool(self.history)

    @cached_property
    def facts(self) -> tuple[ExampleFacts, ...]:
        """What searching and sorting need of each example; after an edit only what changed is looked at again."""
        return tuple(map(facts_of, self.pairs))

    @cached_property
    def repeated(self) -> frozenset[int]:
        """Indices of the examples whose prompt an earlier one has."""
        return frozenset(i for i, before in enumerate(repetitions(f.prompt_key for f in self.facts)) if before)

    def replaced(self, index: int, pair: PreferencePair) -> "ExampleSet":
        """Put another pair in the place of one."""
        self.check(index)
        return self._changed((*self.pairs[:index], pair, *self.pairs[index + 1 :]), f"saved example {index + 1}")

    def inserted(self, index: int, pair: PreferencePair) -> "ExampleSet":
        """Put a pair before the one at `index`; at the end if that is their number."""
        if not 0 <= index <= len(self.pairs):
            raise DataError(f"there is no place {index + 1} among {len(self.pairs)} examples")
        if len(self.pairs) >= MAX_PAIRS:
            raise DataError(f"a set holds at most {MAX_PAIRS:,} examples; delete one first")
        return self._changed((*self.pairs[:index], pair, *self.pairs[index:]), f"added example {index + 1}")

    def deleted(self, index: int) -> "ExampleSet":
        """Leave one pair out."""
        self.check(index)
        return self._changed(self.pairs[:index] + self.pairs[index + 1 :], f"deleted example {index + 1}")

    def restored(self, pairs: tuple[PreferencePair, ...]) -> "ExampleSet":
        """Put all pairs back as they were."""
        return self._changed(pairs, "restored the bundled examples")

    def sharing(self, pairs: Sequence[PreferencePair]) -> "ExampleSet":
        """Make a set without history of pairs that were read back, with this one's own objects where they are equal.

        A set of 450 examples with what is known of them takes 1.3 MB, and one example is what an edit changes.
        """
        known = {pair.id: pair for pair in self.pairs}
        shared = tuple(known[pair.id] if known.get(pair.id) == pair else pair for pair in pairs)
        return self._with(shared, (), ())

    def undone(self) -> "ExampleSet":
        """Go back by one edit; unchanged if there was none."""
        if not self.history:
            return self
        pairs, change = self.history[-1]
        return self._with(pairs, self.history[:-1], (*self.future, Version(self.pairs, change)))

    def redone(self) -> "ExampleSet":
        """Make the edit again that was taken back last; unchanged if there is none."""
        if not self.future:
            return self
        pairs, change = self.future[-1]
        return self._with(pairs, (*self.history, Version(self.pairs, change)), self.future[:-1])

    def found(self, query: str) -> list[int]:
        """Indices of the examples that contain every word of the query, in prompt, steps or id; all for a blank one."""
        words = query.casefold().split()
        if not words:
            return list(range(len(self.pairs)))
        return [i for i, facts in enumerate(self.facts) if all(word in facts.searchable for word in words)]

    def new_id(self) -> str:
        """Find an id that no example has."""
        taken = {pair.id for pair in self.pairs}
        number = len(self.pairs) + 1
        while str(number) in taken:
            number += 1
        return str(number)

    def check(self, index: int) -> None:
        """Refuse an index that no example has.

        Raises:
            DataError: it is out of range.
        """
        if not 0 <= index < len(self.pairs):
            raise DataError(f"there is no example {index + 1}; the set has {len(self.pairs)}")

    def _changed(self, pairs: tuple[PreferencePair, ...], change: str) -> "ExampleSet":
        return self._with(pairs, (*self.history, Version(self.pairs, change))[-MAX_UNDO:], ())

    def _with(
        self, pairs: tuple[PreferencePair, ...], history: tuple[Version, ...], future: tuple[Version, ...]
    ) -> "ExampleSet":
        changed = replace(self, pairs=pairs, history=history, future=future)
        if "facts" in self.__dict__:
            known = {id(pair): facts for pair, facts in zip(self.pairs, self.facts, strict=True)}
            # A cached property's value is its entry here, also in a frozen class.
            changed.__dict__["facts"] = tuple(known.get(id(pair)) or facts_of(pair) for pair in pairs)
        return changed


class Library(NamedTuple):
    """All sets of a session and which one is open; changing to another set loses no edit.

    No dataclass: of a state's first value that is one, Gradio makes dictionaries all the way down, each time that any
    session sets the state; with some hundred examples that takes longer than everything else in a save.

    Attributes:
        sets: in order of arrival.
        open_name: which one is open.
        removed: the set that was removed last, until anything else changes: what undo brings back.
    """

    sets: tuple[ExampleSet, ...]
    open_name: str
    removed: ExampleSet | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Library":
        """Gradio copies the first value of a state for each visitor; nothing in here can change."""
        return self

    @property
    def names(self) -> list[str]:
        """The sets' names, in order of arrival."""
        return [known.name for known in self.sets]

    @property
    def current(self) -> ExampleSet:
        """The set that is open."""
        return next(known for known in self.sets if known.name == self.open_name)

    def get(self, name: str) -> ExampleSet | None:
        """Find a set by name."""
        return next((known for known in self.sets if known.name == name), None)

    def opened(self, name: str) -> "Library":
        """Open another set.

        Raises:
            DataError: there is none of this name.
        """
        if name not in self.names:
            raise DataError(f"there is no example set {str(name)[:80]!r}")
        return self._replace(open_name=name, removed=None)

    def updated(self, changed: ExampleSet) -> "Library":
        """Replace the set of the same name."""
        sets = tuple(changed if known.name == changed.name else known for known in self.sets)
        return self._replace(sets=sets, removed=None)

    def added(self, name: str, pairs: Sequence[PreferencePair]) -> "Library":
        """Add a set and open it; a name that is taken gets a number.

        Raises:
            DataError: there are too many sets already.
        """
        if len(self.sets) >= MAX_SETS:
            raise DataError(f"there are {len(self.sets)} example sets already; remove one that you don't need")
        name = name.strip()[:MAX_NAME] or "examples.json"
        unique, number = name, 2
        while unique in self.names:
            unique, number = f"{name} ({number})", number + 1
        return Library((*self.sets, ExampleSet(unique, tuple(pairs))), unique)

    def without(self, name: str) -> "Library":
        """Remove a set and open the first of the others.

        Raises:
            DataError: there is none of this name, or no other.
        """
        gone = self.get(name)
        others = tuple(known for known in self.sets if known is not gone)
        if gone is None or not others:
            raise DataError("the last example set can't be removed" if gone else "this example set is gone already")
        return Library(others, others[0].name, gone)

    def brought_back(self) -> "Library":
        """Add the set that was removed last again; unchanged if there is none."""
        if self.removed is None or self.removed.name in self.names:
            return self
        return Library((*self.sets, self.removed), self.removed.name)


def draft_of(pair: PreferencePair) -> dict[str, Any]:
    """Write a pair as the editor in the browser holds it."""
    sides = {side: [{"text": s.text, "label": s.label} for s in getattr(pair, side)] for side in SIDES}
    return {"prompt": pair.prompt, **sides}


def pair_from_draft(draft: object, before: PreferencePair) -> PreferencePair:
    """Check what an editor sent and make a pair of it; id and meta stay as they were.

    Raises:
        DataError: naming side and step, counted from 1.
    """
    if not isinstance(draft, Mapping):
        raise DataError("the editor sent no example")
    prompt = draft.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise DataError("the prompt is empty; write the problem that the steps solve")
    sides = {side: _steps(draft.get(side), side) for side in SIDES}
    return PreferencePair(prompt, sides["chosen"], sides["rejected"], before.id, before.meta)


def new_pair(id: str) -> PreferencePair:
    """Make the example that "Add example" starts from."""
    return PreferencePair(
        "What is 2 + 3 × 4?",
        [Step("3 × 4 = 12", True), Step("2 + 12 = 14", True)],
        [Step("2 + 3 = 5", False), Step("5 × 4 = 20")],
        id,
    )


def _steps(value: object, side: str) -> list[Step]:
    if not isinstance(value, list) or not value:
        raise DataError(f"{side} has no steps; add at least one")
    steps = []
    for number, item in enumerate(value, 1):
        if not isinstance(item, Mapping):
            raise DataError(f"{side} step {number} is not a step")
        text = item.get("text")
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{side} step {number} is empty; write its text or delete the step")
        try:
            steps.append(Step(text, item.get("label")))
        except DataError as error:
            raise DataError(f"{side} step {number}: {error}") from error
    return steps
