"""What each reasoning step is worth: a language model as judge.

A step is judged in context, that is with the problem and all steps before it. The judge is asked whether the step is
right, and its probability of the word for "right" against the word for "wrong" is the score (verbalizer scoring, as
RLHFlow's process reward models and prompted judges do it).

An untrained or small prompted judge is no judge: prompted 8B models reach 5 of 100 on ProcessBench (arXiv 2412.06559).

S = steps of one solution, R = judgements in a batch, L = tokens of a judgement, V = vocabulary.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stepwise_dpo.errors import ConfigError, DataError, ModelError
from stepwise_dpo.learning.loading import load_policy, switch_off_dropout
from stepwise_dpo.learning.losses import Aggregation, aggregate_steps
from stepwise_dpo.preferences.pairs import PreferencePair

RewardValue = Literal["probability", "centered", "log_odds"]

DEFAULT_TEMPLATE = (
    "Problem: {prompt}\nSteps so far: {previous}\nNext step: {step}\nIs the next step right? Answer {right} or {wrong}."
)
"""Fields: {prompt}, {previous} (earlier steps, or "none"), {step}, {right}, {wrong}. The judge's word follows."""

MAX_QUESTION_TOKENS = 4096
"""The longest question to a model without a limit of its own: attention takes memory with the square of the length."""

Progress = Callable[[int, int], None]
"""Called with (done, total) during long work."""


class PairRewards(NamedTuple):
    """Process rewards of one pair, a value per step."""

    chosen: list[float]
    rejected: list[float]

    def preference(self, aggregation: Aggregation = "sum") -> float:
        """Aggregated reward of chosen minus that of rejected, see `losses.aggregate_steps`."""
        chosen, rejected = (
            aggregate_steps(torch.tensor([side]), torch.ones(1, len(side), dtype=torch.bool), aggregation).item()
            for side in self
        )
        return chosen - rejected


class LLMRewardModel(nn.Module):
    """A process reward model made of any encoder-decoder or causal language model.

    Args:
        model: the judge.
        tokenizer: its tokenizer.
        right_word: what the judge would say of a right step.
        wrong_word: what it would say of a wrong one.
        template: the question, see `DEFAULT_TEMPLATE`.
        value: the default scale of scores. With x = log p(right) - log p(wrong): "probability" is sigmoid(x), 0..1;
            "centered" is 2 * probability - 1, -1..1; "log_odds" is x in nats, unbounded.
        batch_size: judgements per forward.
        name: how messages call this model.

    Raises:
        ConfigError: the template lacks {step} or names an unknown field; `value` is none of the three.
        ModelError: the tokenizer can't tell the two words apart by a token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        right_word: str = "yes",
        wrong_word: str = "no",
        template: str = DEFAULT_TEMPLATE,
        value: RewardValue = "centered",
        batch_size: int = 16,
        name: str = "reward model",
    ) -> None:
        super().__init__()
        # Its scores shall be the same in training and before: a judge that drops out is another judge each time.
        self.model = switch_off_dropout(model)
        self.tokenizer = tokenizer
        self.right_word, self.wrong_word = right_word, wrong_word
        self.template = template
        self.value: RewardValue = check_value(value)
        self.batch_size = batch_size
        self.name = name
        self._cache: dict[str, float] = {}
        self._bridge, self._right_id, self._wrong_id = self._find_words()

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        right_word: str = "yes",
        wrong_word: str = "no",
        template: str = DEFAULT_TEMPLATE,
        value: RewardValue = "centered",
        batch_size: int = 16,
    ) -> "LLMRewardModel":
        """Load a judge by name: "tiny", a local folder or a Hub id.

        Raises:
            ModelError: as `load_policy` and the constructor.
            ConfigError: as the constructor.
        """
        policy = load_policy(name)
        return cls(
            policy.model,
            policy.tokenizer,
            right_word=right_word,
            wrong_word=wrong_word,
            template=template,
            value=value,
            batch_size=batch_size,
            name=name,
        )

    def score(self, prompt: str, steps: Sequence[str], value: RewardValue | None = None) -> Tensor:
        """Score every step of one solution, differentiably.

        With gradients enabled, the result's gradient reaches this model's parameters. Nothing is cached.

        Args:
            prompt: the problem.
            steps: the texts of the solution's steps, S >= 1.
            value: the scale; the constructor's by default.

        Returns:
            (S,), float32.

        Raises:
            DataError: no steps, or a judgement is longer than the judge can read.
        """
        questions = self._questions(prompt, steps)
        parts = [
            self._log_odds(questions[start : start + self.batch_size])
            for start in range(0, len(questions), self.batch_size)
        ]
        return _from_log_odds(torch.cat(parts), self.value if value is None else check_value(value))

    @torch.no_grad()
    def score_pairs(
        self, pairs: Iterable[PreferencePair], value: RewardValue | None = None, progress: Progress | None = None
    ) -> list[PairRewards]:
        """Score every step of every pair without gradients: each distinct judgement once, in batches, and cached.

        Chosen and rejected share the steps before they diverge, and so their scores.

        Args:
            pairs: the examples.
            value: the scale; the constructor's by default.
            progress: called with the number of judgements done and to do.

        Returns:
            the rewards in the order of `pairs`.

        Raises:
            DataError: a judgement is longer than the judge can read.
        """
        scale = self.value if value is None else check_value(value)
        questions = [
            tuple(self._questions(pair.prompt, [step.text for step in side]) for side in (pair.chosen, pair.rejected))
            for pair in pairs
        ]
        distinct = dict.fromkeys(question for pair in questions for side in pair for question in side)
        # Similar lengths in one batch leave little padding; the longest first shows at once whether memory suffices.
        todo = sorted((question for question in distinct if question not in self._cache), key=len, reverse=True)
        for start in range(0, len(todo), self.batch_size):
            batch = todo[start : start + self.batch_size]
            self._cache.update(zip(batch, self._log_odds(batch).tolist(), strict=True))
            if progress is not None:
                progress(start + len(batch), len(todo))

        def rewards(side: list[str]) -> list[float]:
            log_odds = torch.tensor([self._cache[question] for question in side])
            values: list[float] = _from_log_odds(log_odds, scale).tolist()
            return values

        return [PairRewards(rewards(chosen), rewards(rejected)) for chosen, rejected in questions]

    def clear_cache(self) -> None:
        """Forget cached scores; needed after the judge's weights changed."""
        self._cache.clear()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Save the judge and its tokenizer as an ordinary Transformers folder."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _questions(self, prompt: str, steps: Sequence[str]) -> list[str]:
        """The judge's input for each step, S texts."""
        if not steps:
            raise DataError("a solution without steps can't be scored; give at least one step")
        return [
            self.template.format(
                prompt=prompt,
                previous="\n".join(steps[:index]) or "none",
                step=step,
                right=self.right_word,
                wrong=self.wrong_word,
            )
            for index, step in enumerate(steps)
        ]

    def _log_odds(self, questions: Sequence[str]) -> Tensor:
        """Log-odds of right against wrong for each question, in nats, (R,)."""
        device = self.model.device
        rows = [self._encode_question(question) for question in questions]
        width = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        input_ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=device)  # (R, L)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        attention_mask = (torch.arange(width, device=device) < lengths[:, None]).long()
        if self.model.config.is_encoder_decoder:
            start = [self.model.config.decoder_start_token_id, *self._bridge]
            decoder_input_ids = torch.tensor([start] * len(rows), device=device)
            output = self.model(
                input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=decoder_input_ids, use_cache=False
            )
            logits = output.logits[:, -1]  # (R, V)
        else:
            output = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
            logits = output.logits[torch.arange(len(rows), device=device), lengths - 1]  # (R, V)
        log_odds: Tensor = logits[:, self._right_id] - logits[:, self._wrong_id]
        return log_odds.float()

    def _encode_question(self, question: str) -> list[int]:
        ids = self._encode(question) + ([] if self.model.config.is_encoder_decoder else self._bridge)
        # T5's positions are relative and its config has no such key: only memory limits it.
        limit = getattr(self.model.config, "max_position_embeddings", MAX_QUESTION_TOKENS)
        if len(ids) > limit:
            raise DataError(
                f"{self.name}: the question {question[:120]!r}… has {len(ids)} tokens, but the model reads only "
                f"{limit}; shorten the example or choose a reward model with a longer context"
            )
        return ids

    def _encode(self, question: str) -> list[int]:
        """The question as the model expects it; for a causal model without an end, because the word follows."""
        ids: list[int] = self.tokenizer(question, truncation=False, split_special_tokens=True)["input_ids"]
        while not self.model.config.is_encoder_decoder and ids and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]
        return ids

    def _find_words(self) -> tuple[list[int], int, int]:
        """The token that tells the two words apart: (tokens before it, its id for right, its id for wrong).

        A tokenizer may write both words with a common beginning (SentencePiece's lone space marker, for example); that
        beginning is fed to the model and the next token decides.
        """
        for name, value in (("right word", self.right_word), ("wrong word", self.wrong_word)):
            if not value.strip():
                raise ConfigError(f"the {name} of a reward model can't be blank")
        try:
            sample, other = self._questions("p", ["s"])[0], self._questions("p", ["t"])[0]
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                f"the reward model's template is not usable ({error!r}): its fields are {{prompt}}, {{previous}}, "
                "{step}, {right} and {wrong}, and a literal brace is written twice"
            ) from error
        if sample == other:
            raise ConfigError("the reward model's template must contain {step}")

        words = (self.right_word, self.wrong_word)
        if self.model.config.is_encoder_decoder:
            base: list[int] = []
            right, wrong = (self.tokenizer(word, add_special_tokens=False)["input_ids"] for word in words)
        else:
            base = self._encode(sample)
            right, wrong = (self._encode(f"{sample} {word}") for word in words)
        shared = 0
        while shared < min(len(right), len(wrong)) and right[shared] == wrong[shared]:
            shared += 1
        differ = shared < min(len(right), len(wrong))
        unknown = self.tokenizer.unk_token_id
        if (
            not differ
            or right[: len(base)] != base
            or (unknown is not None and unknown in (right[shared], wrong[shared]))
        ):
            raise ModelError(
                f"{self.name}: its tokenizer can't tell {self.right_word!r} from {self.wrong_word!r} by one token; "
                "choose other words for right and wrong"
            )
        return right[len(base) : shared], right[shared], wrong[shared]


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
