"""Policies for the page: loaded once each, asked one at a time; of the base models and of the runs."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stepwise_dpo.preferences.pairs import PreferencePair
from stepwise_dpo.ui.heavy import import_learning

if TYPE_CHECKING:
    from stepwise_dpo.learning.evaluation import Answer, PairLogps
    from stepwise_dpo.learning.loading import Policy

KEPT = 4
MAX_NEW_TOKENS = 128


class Policies:
    """Loads policies once and uses one at a time: two cores are shared by everything."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, Policy] = OrderedDict()
        self._lock = threading.Lock()

    def logps(self, name: str, pairs: Sequence[PreferencePair], progress: Any = None) -> "list[PairLogps]":
        """Score both sides of every pair: log-probability of each step, in nats.

        Args:
            name: of a base model, or the folder of a run's trained one.
            pairs: what to score.
            progress: told pairs done and to do.

        Raises:
            StepwiseDPOError: the model can't be loaded, or an example is too long for it.
        """
        with self._lock:
            import_learning()
            from stepwise_dpo.learning.evaluation import pair_logps

            return pair_logps(self._model(name), pairs, progress=progress)

    def answers(self, name: str, prompts: Sequence[str], max_new_tokens: int = MAX_NEW_TOKENS) -> "list[Answer]":
        """Answer prompts greedily, in one batch.

        Raises:
            StepwiseDPOError: the model can't be loaded, or a prompt is too long for it.
        """
        with self._lock:
            import_learning()
            from stepwise_dpo.learning.evaluation import answer_prompts

            return answer_prompts(self._model(name), prompts, max_new_tokens=max_new_tokens)

    def token_counts(self, name: str, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text as this model's tokenizer cuts it, without special tokens.

        Raises:
            StepwiseDPOError: the model can't be loaded.
        """
        with self._lock:
            tokenizer = self._model(name).tokenizer
            return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]] if texts else []

    def loaded(self, name: str) -> bool:
        """Whether this model is in memory already."""
        return name in self._models

    def _model(self, name: str) -> "Policy":
        import_learning()
        from stepwise_dpo.learning.loading import load_policy

        if name not in self._models:
            self._models[name] = load_policy(name)
        self._models.move_to_end(name)
        while len(self._models) > KEPT:
            self._models.popitem(last=False)
        return self._models[name]
