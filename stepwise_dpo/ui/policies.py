"""Policies for the page: loaded once each, asked one at a time; of the base models and of the runs."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stepwise_dpo.preferences.checks import text_faults
from stepwise_dpo.preferences.faults import refuse
from stepwise_dpo.preferences.pairs import PreferencePair
from stepwise_dpo.ui.library import SIDES
from stepwise_dpo.ui.loaded_models import LoadedModels, in_turns
from stepwise_dpo.ui.read_limits import check_characters, check_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from stepwise_dpo.learning.evaluation import Answer, PairLogps
    from stepwise_dpo.learning.loading import Policy

KEPT = 4
MAX_NEW_TOKENS = 128

PROMPTS = 8
"""That are answered before somebody else gets a turn."""


class Policies:
    """Loads policies once and uses one at a time: two cores are shared by everything."""

    def __init__(self) -> None:
        self._models = LoadedModels(_load_policy, KEPT)
        self._tokenizers = LoadedModels(_load_tokenizer, KEPT)
        self._scoring, self._counting = threading.Lock(), threading.Lock()

    def logps(self, name: str, pairs: Sequence[PreferencePair]) -> "list[PairLogps]":
        """Score both sides of every pair: log-probability of each step, in nats.

        Args:
            name: of a base model, or the folder of a run's trained one.
            pairs: what to score.

        Raises:
            StepwiseDPOError: the model can't be loaded, or an example is too long for it or for `read_limits`; that is
                found before any is scored.
        """
        policy = self._models.get(name)
        from stepwise_dpo.learning.evaluation import pair_logps

        for part in in_turns(pairs):
            with self._scoring:
                _check_pairs(policy, part)
        scored = []
        for part in in_turns(pairs):
            with self._scoring:
                scored += pair_logps(policy, part)
        return scored

    def answers(self, name: str, prompts: Sequence[str], max_new_tokens: int = MAX_NEW_TOKENS) -> "list[Answer]":
        """Answer prompts greedily.

        Raises:
            StepwiseDPOError: the model can't be loaded, or a prompt is blank, or too long for it or for `read_limits`.
        """
        policy = self._models.get(name)
        from stepwise_dpo.learning.evaluation import answer_prompts

        with self._scoring:
            _check_prompts(policy, prompts)
        answers = []
        for part in in_turns(prompts, PROMPTS):
            with self._scoring:
                answers += answer_prompts(policy, part, max_new_tokens=max_new_tokens)
        return answers

    def token_counts(self, name: str, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text as this model's tokenizer cuts it, without special tokens.

        Raises:
            StepwiseDPOError: the tokenizer can't be loaded.
        """
        tokenizer = self._tokenizers.get(name)
        if not texts:
            return []
        with self._counting:  # a tokenizer isn't made for two threads
            return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def _load_policy(name: str) -> "Policy":
    from stepwise_dpo.learning.loading import load_policy

    return load_policy(name)


def _load_tokenizer(name: str) -> "PreTrainedTokenizerBase":
    from stepwise_dpo.learning.loading import load_tokenizer

    return load_tokenizer(name)


def _check_pairs(policy: "Policy", pairs: Sequence[PreferencePair]) -> None:
    """Raise DataError for the first pair that is too long to be scored here."""
    tokenizer = policy.step_tokenizer()

    def what(pair: PreferencePair, side: str) -> str:
        return f"example {pair.name!r}, {side}: prompt and steps together have"

    for pair in pairs:
        for side in SIDES:
            check_characters(what(pair, side), pair.prompt, [step.text for step in getattr(pair, side)])
    for pair, encoded in zip(pairs, tokenizer.encode_pairs(pairs), strict=True):
        for side, ids in zip(SIDES, (encoded.chosen_ids, encoded.rejected_ids), strict=True):
            check_tokens(what(pair, side), len(encoded.prompt_ids) + len(ids))


def _check_prompts(policy: "Policy", prompts: Sequence[str]) -> None:
    """Raise DataError for the first prompt that can't be answered here."""
    tokenizer = policy.step_tokenizer()
    for number, prompt in enumerate(prompts, 1):
        refuse(text_faults(prompt, f"prompt {number}"))
        check_tokens(f"prompt {number} has", len(tokenizer.encode_prompt(prompt)))
