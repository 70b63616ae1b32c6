"""What models think of each step of each example, remembered per example: sorting, switching and editing cost nothing.

A judge's scores are kept as log-odds, from which every scale follows without asking it again.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from stepwise_dpo.learning.bounded_cache import BoundedCache
from stepwise_dpo.preferences.pairs import PreferencePair
from stepwise_dpo.ui.judges import Judges
from stepwise_dpo.ui.loaded_models import Version, in_turns, version_of
from stepwise_dpo.ui.policies import Policies

KEPT = 1_000_000
"""Scores of steps; an example has about ten."""

_Key = tuple[str, str, Version, bytes]


class Source(NamedTuple):
    """A model that gives a number for every step.

    Attributes:
        kind: a "judge" gives log-odds of right against wrong, a "policy" log-probabilities; both in nats.
        name: of the model, or its folder; not for the page, which may be seen by strangers.
        title: how the page calls it.
    """

    kind: Literal["judge", "policy"]
    name: str
    title: str


class PairScores(NamedTuple):
    """A source's numbers for one example.

    Attributes:
        chosen: of each chosen step, in nats.
        rejected: of each rejected step, in nats.
        gap: a policy's mean log-likelihood of chosen minus that of rejected, nats per token; None for a judge.
    """

    chosen: list[float]
    rejected: list[float]
    gap: float | None = None


class StepScores:
    """Scores of judges and policies, each asked once per example; an edited example is another one.

    Args:
        judges: reward models.
        policies: policies.
        kept: how many scores of steps are remembered, those that were used last.
    """

    def __init__(self, judges: Judges, policies: Policies, kept: int = KEPT) -> None:
        self.judges, self.policies = judges, policies
        self._known: BoundedCache[_Key, PairScores] = BoundedCache(kept, _steps)
        self._lock = threading.Lock()

    def known(self, source: Source, pairs: Sequence[PreferencePair]) -> list[PairScores | None]:
        """What is remembered of each pair; None where its source hasn't been asked."""
        with self._lock:
            return [self._known.get(key) for key in _keys(source, pairs)]

    def of(self, source: Source, pair: PreferencePair) -> PairScores:
        """Score one pair.

        Raises:
            StepwiseDPOError: the model can't be loaded, or can't read the example.
        """
        return self.known(source, [pair])[0] or self._ask(source, [pair])[0]

    def unknown(self, source: Source, pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
        """Those of some pairs that still have to be scored."""
        with self._lock:
            keys = _keys(source, pairs)
            return [pair for pair, key in zip(pairs, keys, strict=True) if key not in self._known]

    def fill(self, source: Source, pairs: Sequence[PreferencePair]) -> Iterator[int]:
        """Score what isn't known yet, a few at a time; gives the number done. To stop, stop asking for more.

        Raises:
            StepwiseDPOError: as `of`; what was scored before is kept.
        """
        todo = self.unknown(source, pairs)
        done = 0
        for part in in_turns(todo):
            self._ask(source, part)
            done += len(part)
            yield done

    def _ask(self, source: Source, pairs: Sequence[PreferencePair]) -> list[PairScores]:
        # Before the model is asked: if its files change meanwhile, what it says is kept where nobody looks for it.
        keys = _keys(source, pairs)
        if source.kind == "judge":
            scores = [PairScores(*sides) for sides in self.judges.score(source.name, pairs, "log_odds")]
        else:
            logps = self.policies.logps(source.name, pairs)
            scores = [PairScores(pair.chosen.steps, pair.rejected.steps, pair.margin) for pair in logps]
        with self._lock:
            for key, score in zip(keys, scores, strict=True):
                self._known.put(key, score)
        return scores


def _steps(key: _Key, scores: PairScores) -> int:
    return len(scores.chosen) + len(scores.rejected)


def _keys(source: Source, pairs: Sequence[PreferencePair]) -> list[_Key]:
    version = version_of(source.name)  # once: it looks at the model's files
    return [(source.kind, source.name, version, fingerprint(pair)) for pair in pairs]


def fingerprint(pair: PreferencePair) -> bytes:
    """Name what models read of an example, prompt and steps, by a few bytes: its texts may have megabytes."""
    texts = [pair.prompt, *([step.text for step in side] for side in (pair.chosen, pair.rejected))]
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=16).digest()
