"""What each reasoning step is worth: a language model, or a token classifier, as judge.

A step is judged in context, that is with the problem and all steps before it. How a model's output becomes a score is
its head's business, see `heads`; which head a model has, its folder says, see `head_settings`.

S = steps of one solution.
"""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stepwise_dpo.errors import ConfigError, DataError, ModelError
from stepwise_dpo.learning.batching import Shape, batches
from stepwise_dpo.learning.bounded_cache import BoundedCache
from stepwise_dpo.learning.head_settings import CONFIG_KEY, Head, HeadSettings, check_fits, choose_settings
from stepwise_dpo.learning.heads import Row, make_head
from stepwise_dpo.learning.loading import (
    load_config,
    load_policy,
    load_token_classifier,
    model_classes,
    switch_off_dropout,
)
from stepwise_dpo.learning.losses import Aggregation, aggregate_steps
from stepwise_dpo.preferences.checks import text_faults
from stepwise_dpo.preferences.faults import refuse
from stepwise_dpo.preferences.pairs import PreferencePair

RewardValue = Literal["probability", "centered", "log_odds"]

NEUTRAL: dict[RewardValue, float] = {"probability": 0.5, "centered": 0.0, "log_odds": 0.0}
"""On each scale, the value of a step that is as likely right as wrong."""

Solution = tuple[str, Sequence[str]]
"""A prompt, and the texts of the steps that answer it."""

Progress = Callable[[int, int], None]
"""Called with (done, total) during long work."""


class PairRewards(NamedTuple):
    """Process rewards of one pair, a value per step."""

    chosen: list[float]
    rejected: list[float]

    def preference(self, aggregation: Aggregation = "sum", neutral: float = 0.0) -> float:
        """Aggregated reward of chosen minus that of rejected, see `losses.aggregate_steps`; `NEUTRAL` has neutral."""
        chosen, rejected = (
            aggregate_steps(torch.tensor([side]), torch.ones(1, len(side), dtype=torch.bool), aggregation, neutral)
            for side in self
        )
        return (chosen - rejected).item()


class LLMRewardModel(nn.Module):
    """A process reward model made of any encoder-decoder or causal language model, or of a token classifier.

    Args:
        model: the judge.
        tokenizer: its tokenizer.
        settings: its scoring head; what the model's config says by default.
        value: the default scale of scores. With x = the log-odds of right against wrong: "probability" is sigmoid(x),
            0..1; "centered" is 2 * probability - 1, -1..1; "log_odds" is x in nats, unbounded.
        batch_size: the most sequences per forward; without gradients fewer where they are long, see `batching`.
        name: how messages call this model.
        cached_tokens: of all sequences whose scores are remembered from one call to the next, about 40 bytes each; by
            default everything is, because training meets its examples again.

    Raises:
        ConfigError: the model can't score by that head, the template is not usable, `value` is none of the three.
        ModelError: the tokenizer can't tell the two words apart by a token, or can't write the tag or a separator.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: HeadSettings | None = None,
        *,
        value: RewardValue = "centered",
        batch_size: int = 16,
        name: str = "reward model",
        cached_tokens: float = math.inf,
    ) -> None:
        super().__init__()
        # Its scores shall be the same in training and before: a judge that drops out is another judge each time.
        self.model = switch_off_dropout(model)
        self.tokenizer = tokenizer
        kinds = [type(model).__name__]
        self.settings = settings or choose_settings(model.config, kinds, name)
        check_fits(self.settings.head, kinds, name)
        self.value: RewardValue = check_value(value)
        self.batch_size = batch_size
        self.name = name
        self._cache: BoundedCache[Row, list[float]] = BoundedCache(
            cached_tokens, lambda row, scores: len(row.prompt_ids) + len(row.ids) + len(scores)
        )
        self._head = make_head(model, tokenizer, self.settings, name)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        head: str | None = None,
        right_word: str | None = None,
        wrong_word: str | None = None,
        template: str | None = None,
        tag: str | None = None,
        token: str | None = None,
        value: RewardValue = "centered",
        batch_size: int = 16,
        cached_tokens: float = math.inf,
    ) -> "LLMRewardModel":
        """Load a judge by name: a bundled one, "tiny", a local folder or a Hub id.

        Args:
            name: which.
            head: how it scores; as all that follows, by default what the model's folder says, else the head's default.
                Without a word in the folder it is "token_classification" for such a model, "verbalizer" for others.
            right_word: see `HeadSettings`.
            wrong_word: see there.
            template: see there.
            tag: see there.
            token: see there.
            value: as the constructor.
            batch_size: as the constructor.
            cached_tokens: as the constructor.

        Raises:
            ModelError: as `load_policy` and the constructor.
            ConfigError: as the constructor, or an option that the head doesn't read.
        """
        config = load_config(name)
        settings = choose_settings(
            config,
            model_classes(config),
            name,
            head=head,
            right_word=right_word,
            wrong_word=wrong_word,
            template=template,
            tag=tag,
            token=token,
        )
        if settings.head == "token_classification":
            model, tokenizer = load_token_classifier(name)
        else:
            policy = load_policy(name)
            model, tokenizer = policy.model, policy.tokenizer
        return cls(
            model, tokenizer, settings, value=value, batch_size=batch_size, name=name, cached_tokens=cached_tokens
        )

    @property
    def head(self) -> Head:
        """Which scoring head this judge has."""
        return self.settings.head

    def set_calibration(self, scale: float, bias: float) -> None:
        """Set the calibration, see `HeadSettings`, in place of the one before.

        Raises:
            ConfigError: scale isn't above 0, or one isn't finite.
        """
        self.settings = replace(self.settings, scale=scale, bias=bias)

    def log_odds(self, solutions: Sequence[Solution]) -> list[Tensor]:
        """Judge every step of solutions, differentiably.

        With gradients enabled, the results' gradients reach this model's parameters. Nothing is cached, and what
        solutions have in common is read once. A forward takes `batch_size` sequences: solutions, or steps where the
        head needs a sequence for each.

        Returns:
            for each solution the log-odds of right against wrong, in nats, (S,), float32.

        Raises:
            DataError: a solution without steps, or one that the judge can't read.
        """
        rows = [self.rows(prompt, steps) for prompt, steps in solutions]
        distinct = list(dict.fromkeys(row for solution in rows for row in solution))
        scored: dict[Row, Tensor] = {}
        for start in range(0, len(distinct), self.batch_size):
            batch = distinct[start : start + self.batch_size]
            scored.update(zip(batch, self._head.log_odds(batch), strict=True))
        return [
            self.settings.scale * torch.cat([scored[row] for row in solution]) + self.settings.bias for solution in rows
        ]

    def score(self, prompt: str, steps: Sequence[str], value: RewardValue | None = None) -> Tensor:
        """Score every step of one solution, differentiably; see `log_odds`.

        Args:
            prompt: the problem.
            steps: the texts of the solution's steps, S >= 1.
            value: the scale; the constructor's by default.

        Returns:
            (S,), float32.

        Raises:
            DataError: no steps, or the judge can't read them.
        """
        scale = self.value if value is None else check_value(value)
        return _from_log_odds(self.log_odds([(prompt, steps)])[0], scale)

    def score_solutions(
        self, solutions: Iterable[Solution], value: RewardValue | None = None, progress: Progress | None = None
    ) -> list[list[float]]:
        """Score every step of every solution without gradients: each distinct sequence once, in batches.

        The scores used last are remembered for other calls, see `cached_tokens`.

        Args:
            solutions: prompts and steps.
            value: the scale; the constructor's by default.
            progress: called with the number of sequences done and to do; see `log_odds` for what a sequence is.

        Returns:
            the rewards of each solution's steps, in the order of `solutions`.

        Raises:
            DataError: a solution without steps, or one that the judge can't read.
            ModelError: a score isn't finite.
        """
        return self._score_rows([self.rows(prompt, steps) for prompt, steps in solutions], value, progress)

    def score_pairs(
        self, pairs: Iterable[PreferencePair], value: RewardValue | None = None, progress: Progress | None = None
    ) -> list[PairRewards]:
        """Score every step of every pair; see `score_solutions`.

        Returns:
            the rewards in the order of `pairs`.

        Raises:
            DataError: as `pair_rows`.
            ModelError: a score isn't finite.
        """
        values = self._score_rows([rows for pair in pairs for rows in self.pair_rows(pair)], value, progress)
        return [PairRewards(*sides) for sides in zip(values[::2], values[1::2], strict=True)]

    @torch.no_grad()
    def _score_rows(
        self, rows: Sequence[Sequence[Row]], value: RewardValue | None, progress: Progress | None
    ) -> list[list[float]]:
        """Score solutions that `rows` has tokenised."""
        scale = self.value if value is None else check_value(value)
        # What this call needs stays until its end, however much that is; the cache is for the calls after it.
        known = {row: self._cache.get(row) for solution in rows for row in solution}
        distinct = [row for row, scores in known.items() if scores is None]
        # Similar lengths in one batch leave little padding; the longest first shows at once whether memory suffices.
        todo = sorted(distinct, key=lambda row: len(row.prompt_ids) + len(row.ids), reverse=True)
        done = 0
        for batch in batches(self.model, todo, self._shape, self.batch_size):
            judged = [x.tolist() for x in self._head.log_odds(batch)]
            if not all(map(math.isfinite, (x for values in judged for x in values))):
                raise ModelError(
                    f"{self.name} scores a step with a number that isn't finite; its weights may be damaged"
                )
            for row, scores in zip(batch, judged, strict=True):
                known[row] = scores
                self._cache.put(row, scores)
            done += len(batch)
            if progress is not None:
                progress(done, len(todo))

        def rewards(solution: Sequence[Row]) -> list[float]:
            raw = torch.tensor([x for row in solution for x in known[row] or ()])
            values: list[float] = _from_log_odds(self.settings.scale * raw + self.settings.bias, scale).tolist()
            return values

        return [rewards(solution) for solution in rows]

    def _shape(self, row: Row) -> Shape:
        prompt, completion = len(row.prompt_ids), len(row.ids) + 1
        if self.head == "token_classification":
            return Shape(1, prompt + completion, 0)
        if self.model.config.is_encoder_decoder:
            return Shape(1, max(prompt, completion), completion)
        return Shape(1, prompt + completion, prompt + completion)

    def clear_cache(self) -> None:
        """Forget cached scores; needed after the judge's weights changed."""
        self._cache.clear()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Save the judge and its tokenizer as an ordinary Transformers folder whose config.json says how it scores."""
        setattr(self.model.config, CONFIG_KEY, self.settings.to_config())
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def rows(self, prompt: str, steps: Sequence[str]) -> list[Row]:
        """Tokenise one solution as the model's head reads it.

        Returns:
            one row for the whole solution, or one per step where the head's layout needs that.

        Raises:
            DataError: there are no steps, a text is blank or none, or they are longer than the model can read.
        """
        if isinstance(steps, str):
            raise DataError(f"a solution's steps must be a sequence of texts, not the one text {steps[:80]!r}")
        if not steps:
            raise DataError("a solution without steps can't be scored; give at least one step")
        faults = text_faults(prompt, "prompt")
        for index, text in enumerate(steps):
            faults += text_faults(text, f"steps[{index}]")
        refuse(faults)
        return self._head.rows(prompt, steps)

    def pair_rows(self, pair: PreferencePair) -> tuple[list[Row], list[Row]]:
        """Tokenise both sides of a pair, chosen and rejected; see `rows`.

        Raises:
            DataError: the judge can't read it; the message names the pair and the side.
        """

        def side_rows(side: str) -> list[Row]:
            try:
                return self.rows(pair.prompt, [step.text for step in getattr(pair, side)])
            except DataError as error:
                raise DataError(f"example {pair.name!r}, {side}: {error}") from error

        return side_rows("chosen"), side_rows("rejected")


def check_value(value: str) -> RewardValue:
    """Return `value` if it names a scale of rewards.

    Raises:
        ConfigError: it doesn't.
    """
    for known in get_args(RewardValue):
        if value == known:
            return known  # type: ignore[no-any-return]
    raise ConfigError(f"a reward's value must be one of {', '.join(get_args(RewardValue))}, not {value!r}")


def _from_log_odds(log_odds: Tensor, value: RewardValue) -> Tensor:
    if value == "log_odds":
        return log_odds
    if value == "probability":
        return log_odds.sigmoid()
    return (log_odds / 2).tanh()  # = 2 * sigmoid(x) - 1, without cancellation near 0
