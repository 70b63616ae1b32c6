"""What one visitor works on: example sets that are edited by replacing them, never in place.

Everything here is immutable, so a session's state can be shared, compared and undone without copying.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.pairs import PreferencePair, Step

MAX_UNDO = 30

SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class ExampleSet:
    """Pairs under a name, with the versions before each edit.

    Attributes:
        name: how the page calls it.
        pairs: the examples in order.
        history: earlier versions of `pairs`, the latest last.
    """

    name: str
    pairs: tuple[PreferencePair, ...]
    history: tuple[tuple[PreferencePair, ...], ...] = field(default=(), repr=False)

    @property
    def edited(self) -> bool:
        """Whether there is something to undo."""
        return bool(self.history)

    def replaced(self, index: int, pair: PreferencePair) -> "ExampleSet":
        """Put another pair in the place of one."""
        self.check(index)
        return self._changed((*self.pairs[:index], pair, *self.pairs[index + 1 :]))

    def inserted(self, index: int, pair: PreferencePair) -> "ExampleSet":
        """Put a pair before the one at `index`; at the end if that is their number."""
        if not 0 <= index <= len(self.pairs):
            raise DataError(f"there is no place {index + 1} among {len(self.pairs)} examples")
        return self._changed((*self.pairs[:index], pair, *self.pairs[index:]))

    def deleted(self, index: int) -> "ExampleSet":
        """Leave one pair out."""
        self.check(index)
        return self._changed(self.pairs[:index] + self.pairs[index + 1 :])

    def undone(self) -> "ExampleSet":
        """Go back by one edit; unchanged if there was none."""
        if not self.history:
            return self
        return replace(self, pairs=self.history[-1], history=self.history[:-1])

    def found(self, query: str) -> list[int]:
        """Indices of the examples that contain every word of the query, in prompt, steps or id; all for a blank one."""
        words = query.casefold().split()
        if not words:
            return list(range(len(self.pairs)))
        return [i for i, pair in enumerate(self.pairs) if all(word in _searchable(pair) for word in words)]

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

    def _changed(self, pairs: tuple[PreferencePair, ...]) -> "ExampleSet":
        return replace(self, pairs=pairs, history=(*self.history, self.pairs)[-MAX_UNDO:])


@dataclass(frozen=True)
class Library:
    """All sets of a session and which one is open; changing to another set loses no edit."""

    sets: tuple[ExampleSet, ...]
    open_name: str

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

    def opened(self, name: str) -> "Library":
        """Open another set.

        Raises:
            DataError: there is none of this name.
        """
        if name not in self.names:
            raise DataError(f"there is no example set {str(name)[:80]!r}")
        return replace(self, open_name=name)

    def updated(self, changed: ExampleSet) -> "Library":
        """Replace the set of the same name."""
        return replace(self, sets=tuple(changed if known.name == changed.name else known for known in self.sets))

    def added(self, name: str, pairs: list[PreferencePair]) -> "Library":
        """Add a set and open it; a name that is taken gets a number."""
        unique, number = name, 2
        while unique in self.names:
            unique, number = f"{name} ({number})", number + 1
        return Library((*self.sets, ExampleSet(unique, tuple(pairs))), unique)


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


def _searchable(pair: PreferencePair) -> str:
    return "\n".join(
        [pair.id, pair.prompt, *(s.text for s in pair.chosen), *(s.text for s in pair.rejected)]
    ).casefold()
