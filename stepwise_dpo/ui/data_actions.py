"""What a visitor does to the example sets: each a pure function from a library to the next one and a message.

save, add, duplicate, delete     one example
undo, redo                       the last change of the open set
upload, generate                 a new set
restore, remove                  the open set
download                         the open set as text of a file
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.formats import (
    dump_trl_preference,
    dump_trl_stepwise,
    steps_with_line_breaks,
    unlabelled_steps,
)
from stepwise_dpo.preferences.pairs import PreferencePair, dump_pairs, parse_pairs
from stepwise_dpo.preferences.rows import MAX_BYTES
from stepwise_dpo.preferences.statistics import prompt_key
from stepwise_dpo.preferences.synthetic import CORRUPTIONS, FAMILIES, generate_pairs
from stepwise_dpo.ui.examples_table import example_key
from stepwise_dpo.ui.library import HELD_OUT_SETS, Library, new_pair, pair_from_draft
from stepwise_dpo.ui.recipe import Recipe
from stepwise_dpo.ui.text import counted


class Outcome(NamedTuple):
    """What an action leads to.

    Attributes:
        library: the sets afterwards.
        selected: index of the example to show.
        message: what happened, in a sentence.
        forget: keys of examples whose unsaved text is settled, so that the browser drops it.
        is_new_set: whether another set is open now, so that search and page begin anew.
    """

    library: Library
    selected: int
    message: str
    forget: tuple[str, ...] = ()
    is_new_set: bool = False


def save(library: Library, sent: object) -> Outcome:
    """Check what the editor sent and put it into the open set.

    Raises:
        DataError: the example is gone, or the draft is not usable.
    """
    if not isinstance(sent, dict) or type(index := sent.get("index")) is not int:
        raise DataError("the editor sent no example")
    current = library.current
    current.check(index)
    if sent.get("key") != example_key(library, index):
        raise DataError("this example has moved; choose it in the table again, what you typed is kept")
    pair = pair_from_draft(sent.get("draft"), current.pairs[index])
    library = library.updated(current.replaced(index, pair))
    return Outcome(library, index, f"Saved example {index + 1:,}.", (example_key(library, index),))


def add(library: Library) -> Outcome:
    """Add a small example at the end."""
    current = library.current
    index = len(current.pairs)
    library = library.updated(current.inserted(index, new_pair(current.new_id())))
    return Outcome(library, index, "Added a small example at the end; edit it.", (example_key(library, index),))


def duplicate(library: Library, selected: int) -> Outcome:
    """Put a copy of an example behind it."""
    current = library.current
    current.check(selected)
    pair = current.pairs[selected]
    copy = PreferencePair(pair.prompt, pair.chosen, pair.rejected, current.new_id(), pair.meta)
    library = library.updated(current.inserted(selected + 1, copy))
    words = f"Example {selected + 2:,} is a copy of example {selected + 1:,} as it was saved last."
    return Outcome(library, selected + 1, words, (example_key(library, selected + 1),))


def delete(library: Library, selected: int) -> Outcome:
    """Leave an example out."""
    current = library.current.deleted(selected)
    forget = (example_key(library, selected),)
    library = library.updated(current)
    words = f"Deleted example {selected + 1:,}. Undo brings it back."
    return Outcome(library, valid_index(library, selected), words, forget)


def undo(library: Library, selected: int) -> Outcome:
    """Take back the last change of the open set, or the removal of a set."""
    if library.removed is not None:
        name = library.removed.name
        return Outcome(library.brought_back(), 0, f"Brought back {name}.", (), True)
    current = library.current
    if not current.history:
        return Outcome(library, selected, "There is nothing to undo in this set.")
    return _moved(library, library.updated(current.undone()), f"Took back: {current.history[-1].change}.")


def redo(library: Library, selected: int) -> Outcome:
    """Make the change again that was taken back last."""
    current = library.current
    if not current.future:
        return Outcome(library, selected, "There is nothing to redo in this set.")
    return _moved(library, library.updated(current.redone()), f"Made again: {current.future[-1].change}.")


class NewSet(NamedTuple):
    """Pairs that shall become a set, and how that is reported: "Loaded 3 examples from {name}." without the count."""

    name: str
    pairs: Sequence[PreferencePair]
    words: str


def read_upload(path: Path) -> NewSet:
    """Read an uploaded file.

    Raises:
        DataError: it can't be used; the message names the file, row and field.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as problem:
        raise DataError(f"{path.name}: can't be read: {problem.strerror}") from problem
    return NewSet(path.name, parse_pairs(data, path.name), "Loaded {count} from {name}.")


def adopt(library: Library, new: NewSet) -> Outcome:
    """Add a new set and open it.

    Raises:
        DataError: there are too many sets.
    """
    library = library.added(new.name, new.pairs)
    count = counted(len(new.pairs), "example")
    return Outcome(library, 0, new.words.format(count=count, name=library.open_name), (), True)


def to_avoid(library: Library) -> list[str]:
    """The sets whose problems aren't generated unless somebody asks for them: so nothing held out is trained on."""
    return [name for name in HELD_OUT_SETS if name in library.names]


def generate(library: Library, recipe: Recipe) -> NewSet:
    """Generate labelled pairs; the library is asked only for the prompts to avoid.

    Raises:
        DataError: naming what in the form has to be changed.
    """
    pairs = generate_pairs(
        recipe.n,
        recipe.seed,
        families=recipe.families or FAMILIES,
        corruptions=recipe.corruptions or CORRUPTIONS,
        steps=(recipe.fewest, recipe.most),
        max_number=recipe.max_number,
        avoid={pair.prompt for name in recipe.avoid for pair in _of(library, name)},
    )
    return NewSet(f"generated-{recipe.n}-seed-{recipe.seed}.json", pairs, "Generated {count} as {name}.")


def open_set(library: Library, name: str) -> Outcome:
    """Open another set.

    Raises:
        DataError: there is none of this name.
    """
    return Outcome(library.opened(name), 0, "", (), True)


def restore(library: Library, bundled: Library) -> Outcome:
    """Put the bundled examples back into the open set.

    Raises:
        DataError: it isn't a bundled one.
    """
    original = bundled.get(library.open_name)
    if original is None:
        raise DataError(f"{library.open_name} did not come with the project, so there is nothing to restore")
    forget = tuple(example_key(library, i) for i in range(len(library.current.pairs)))
    library = library.updated(library.current.restored(original.pairs))
    return Outcome(library, 0, f"{library.open_name} is as it came. Undo brings your changes back.", forget, True)


def remove(library: Library) -> Outcome:
    """Remove the open set."""
    name = library.open_name
    return Outcome(library.without(name), 0, f"Removed {name}. Undo brings it back.", (), True)


class Download(NamedTuple):
    """A file for the browser to keep, and what to know about it."""

    name: str
    text: str
    message: str


class _Format(NamedTuple):
    ending: str
    dump: Callable[[Sequence[PreferencePair]], str]
    remark: Callable[[Sequence[PreferencePair]], str]


def _no_remark(_: Sequence[PreferencePair]) -> str:
    return ""


def _remark_preference(pairs: Sequence[PreferencePair]) -> str:
    breaks = steps_with_line_breaks(pairs)
    words = f", and {counted(breaks, 'step')} with line breaks can't be told apart from several steps" if breaks else ""
    return f"The steps are joined by line breaks; labels are left out{words}."


def _remark_stepwise(pairs: Sequence[PreferencePair]) -> str:
    missing = unlabelled_steps(pairs)
    return f"{counted(missing, 'step')} without a label: null, which TRL itself doesn't accept." if missing else ""


FORMATS = {
    "native": _Format(".json", dump_pairs, _no_remark),
    "trl-preference": _Format("-preference.jsonl", dump_trl_preference, _remark_preference),
    "trl-stepwise": _Format("-stepwise.jsonl", dump_trl_stepwise, _remark_stepwise),
}


def download(library: Library, kind: str) -> Download:
    """Write the open set as a file's text.

    Raises:
        DataError: there is no such format, the set is empty, or it can't be written in this format.
    """
    if not isinstance(kind, str) or kind not in FORMATS:
        raise DataError(f"there is no format {str(kind)[:40]!r}; choose from {', '.join(FORMATS)}")
    pairs = library.current.pairs
    if not pairs:
        raise DataError("this set is empty; there is nothing to download")
    ending, dump, remark = FORMATS[kind]
    # Browsers make a safe name of it too; a leading dot would hide the file.
    stem = Path(re.sub(r"[/\\]", "_", library.open_name).lstrip(".") or "examples").stem[:80]
    return Download(stem + ending, dump(pairs), remark(pairs))


def chosen_index(library: Library, sent: object) -> int:
    """Check which example a table or list asks for: {"key": index as text} or {"example": its key}.

    The browser can send anything.

    Returns:
        A valid index, or 0.
    """
    if not isinstance(sent, dict):
        return 0
    key, example = sent.get("key"), sent.get("example")
    if isinstance(key, str) and key.isascii() and key.isdigit() and int(key[:9]) < len(library.current.pairs):
        return int(key[:9])
    if isinstance(example, str):
        prefix = f"{library.open_name}\n"
        ids = [pair.id for pair in library.current.pairs]
        if example.startswith(prefix) and example.removeprefix(prefix) in ids:
            return ids.index(example.removeprefix(prefix))
    return 0


def valid_index(library: Library, selected: object) -> int:
    """Bring an index into the open set's range."""
    return max(0, min(selected, len(library.current.pairs) - 1)) if isinstance(selected, int) else 0


def leaked(library: Library) -> list[tuple[str, int]]:
    """Count, for every other set, the prompts of the open set that occur in it; sets that share none are left out."""
    own = [facts.prompt_key for facts in library.current.facts]
    shared = []
    for other in library.sets:
        if other.name != library.open_name:
            keys = {prompt_key(pair.prompt) for pair in other.pairs}
            shared.append((other.name, sum(key in keys for key in own)))
    return [(name, count) for name, count in shared if count]


def _moved(before: Library, after: Library, words: str) -> Outcome:
    """Show the example that a step through the history changed; unsaved text of others stays."""
    old, new = before.current.pairs, after.current.pairs
    changed = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a is not b), min(len(old), len(new)))
    kept = valid_index(after, changed)
    return Outcome(after, kept, words, (example_key(after, kept),) if new else ())


def _of(library: Library, name: str) -> Sequence[PreferencePair]:
    found = library.get(name)
    if found is None:
        raise DataError(f"there is no example set {name[:80]!r} to avoid; choose another")
    return found.pairs
