"""Which two models are compared, and measuring them now on examples that no run has measured them on."""

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stepwise_dpo.errors import DataError, RunError
from stepwise_dpo.learning.bounded_cache import BoundedCache
from stepwise_dpo.preferences.checker import is_known, solves
from stepwise_dpo.preferences.pairs import PreferencePair, load_pairs
from stepwise_dpo.ui.comparison import (
    Compared,
    Likelihood,
    Measured,
    Reply,
    Seen,
    side_by_side,
)
from stepwise_dpo.ui.inference_results import measured_by_run
from stepwise_dpo.ui.loaded_models import Version, version_of
from stepwise_dpo.ui.policies import Policies
from stepwise_dpo.ui.runs_view import RunView
from stepwise_dpo.ui.step_scores import fingerprint

BATCH = 8
"""Examples at a time: between two batches others get their turn, and progress is shown."""

KEPT = 1_000_000
"""Steps of examples and answers; an example has about fifteen."""

_Key = tuple[str, Version, bytes]


class Model(NamedTuple):
    """One side of a comparison: a run's policy before or after its training.

    Attributes:
        key: what the browser knows it by.
        label: for people.
        which: "before" or "after".
        path: what `load_policy` takes.
        base: the model that the run started from, as its configuration names it.
        view: the run.
    """

    key: str
    label: str
    which: str
    path: str
    base: str
    view: RunView


def models_of(views: Sequence[RunView]) -> list[Model]:
    """Everything that can be compared: of each run that left a model, this and what it started from."""
    found = []
    for view in views:
        if view.status.state not in ("finished", "stopped") or not (view.run.final / "config.json").is_file():
            continue
        try:
            base = view.run.config().model
        except RunError:
            continue  # the Train tab says what is wrong with it
        found.append(Model(f"after:{view.run.id}", view.name, "after", str(view.run.final), base, view))
        found.append(Model(f"before:{view.run.id}", f"Base of {view.name}", "before", base, base, view))
    return found


def names_of(before: Model, after: Model) -> tuple[str, str]:
    """What the two are called in headings: before and after where one run made the one of the other."""
    if before.view.run.id == after.view.run.id and (before.which, after.which) == ("before", "after"):
        return "before", "after"
    return before.label, after.label


def stored_comparison(before: Model, after: Model) -> tuple[Compared, ...]:
    """Compare by what the runs wrote; () where they measured different examples.

    Raises:
        RunError: a run's records can't be used.
    """
    sides = [measured_by_run(model.view.run.examples(), model.which) for model in (before, after)]
    return side_by_side(*sides)


class Measurements:
    """Measures models on examples, and keeps what was measured."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._seen: BoundedCache[_Key, Seen] = BoundedCache(KEPT, _steps)
        self._lock = threading.Lock()

    def missing(self, model: Model, pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
        """The pairs that this model hasn't been measured on."""
        with self._lock:
            version = version_of(model.path)
            return [pair for pair in pairs if _key(model, version, pair) not in self._seen]

    def measure(self, model: Model, pairs: Sequence[PreferencePair]) -> Iterator[int]:
        """Measure a model on the pairs that are missing: both sides' likelihoods, and an answer to each prompt.

        Yields:
            how many of the missing ones are done.

        Raises:
            StepwiseDPOError: the model can't be loaded, or an example is too long for it.
        """
        todo = self.missing(model, pairs)
        for start in range(0, len(todo), BATCH):
            batch = todo[start : start + BATCH]
            version = version_of(model.path)
            logps = self._policies.logps(model.path, batch)
            prompts = list(dict.fromkeys(pair.prompt for pair in batch))
            replies = dict(zip(prompts, replies_to(self._policies, model.path, prompts), strict=True))
            with self._lock:
                for pair, values in zip(batch, logps, strict=True):
                    sides = [Likelihood(tuple(side.steps), side.tokens) for side in (values.chosen, values.rejected)]
                    self._seen.put(_key(model, version, pair), Seen(sides[0], sides[1], replies[pair.prompt]))
            yield min(start + BATCH, len(todo))

    def comparison(self, before: Model, after: Model, pairs: Sequence[PreferencePair]) -> tuple[Compared, ...] | None:
        """Compare by what was measured here; None while something is missing."""
        with self._lock:
            seen = [
                [self._seen.get(_key(model, version, pair)) for pair in pairs]
                for model, version in ((model, version_of(model.path)) for model in (before, after))
            ]
        sides = []
        for model, values in zip((before, after), seen, strict=True):
            known = prompts_of(model)
            side = []
            for pair, value in zip(pairs, values, strict=True):
                if value is None:
                    return None
                side.append(Measured(pair, value, None if known is None else pair.prompt in known))
            sides.append(side)
        return side_by_side(*sides) or None


def _key(model: Model, version: Version, pair: PreferencePair) -> _Key:
    return (model.path, version, fingerprint(pair))


def _steps(key: _Key, seen: Seen) -> int:
    return len(seen.chosen.steps) + len(seen.rejected.steps) + (len(seen.reply.steps) if seen.reply else 0)


def prompts_of(model: Model) -> frozenset[str] | None:
    """The prompts that a model's run trained on; none for a base; None if its file is gone."""
    if model.which == "before":
        return frozenset()
    try:
        return frozenset(pair.prompt for pair in load_pairs(model.view.run.config().data))
    except (DataError, RunError):
        return None


def replies_to(policies: Policies, path: str, prompts: Sequence[str]) -> list[Reply]:
    """Let a model answer prompts greedily, and the checker judge what it can.

    Raises:
        StepwiseDPOError: the model can't be loaded, or a prompt is too long for it.
    """
    return [
        Reply(tuple(answer.steps), answer.complete, solves(prompt, answer.steps) if is_known(prompt) else None)
        for prompt, answer in zip(prompts, policies.answers(path, prompts), strict=True)
    ]
