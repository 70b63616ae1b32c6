"""Solutions become token ids that remember their steps, and generated ids become steps again.

Steps are tokenised one by one; each token carries the index of its step. Nothing ever looks for steps in decoded
training text, because decoding is lossy: T5's SentencePiece turns a line break into a space.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from stepwise_dpo.errors import DataError, ModelError
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.preferences.step_splitting import split_steps

SEPARATORS = ("\n", " || ", " ;; ", " | ", " ; ")
"""Candidates between two steps, the most natural first; the first that survives the tokenizer is used."""

TOGETHER = 256
"""So many pairs' texts are given to the tokenizer at once: one by one, it takes most of its time to be called."""

_PROBE = ["12 + 3 = 15", "Then 15 - 4 = 11", "Answer: 11"]


@dataclass(frozen=True)
class EncodedPair:
    """A preference pair as token ids; the step ids run parallel to the completion's tokens."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    chosen_step_ids: list[int]
    rejected_ids: list[int]
    rejected_step_ids: list[int]


class _Known(NamedTuple):
    """Token ids of texts that were tokenised together: alone, and as prompts."""

    texts: Mapping[str, list[int]]
    prompts: Mapping[str, list[int]]


_NOTHING = _Known({}, {})


class StepTokenizer:
    """A tokenizer that knows what a step is.

    A completion is step, separator, step, separator, …, last step, end of sequence. A separator belongs to the step
    before it, and the end of sequence to the last step. For an encoder-decoder the prompt is what the tokenizer makes
    of it; for a causal model a separator follows, so that prompt and answer can't run into each other.

    Args:
        tokenizer: with an end-of-sequence token.
        is_encoder_decoder: which of the two layouts to use.
        position_limit: the most tokens that the model has positions for: of prompt and answer together for a causal
            model, of each for an encoder-decoder; None where positions are relative.

    Raises:
        ModelError: no candidate separator survives encoding and decoding.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, is_encoder_decoder: bool, position_limit: int | None = None
    ) -> None:
        self.position_limit = position_limit
        self.tokenizer = tokenizer
        self.is_encoder_decoder = is_encoder_decoder
        self.separator = self._find_separator()
        self._separator_ids = self._encode(self.separator)

    @property
    def separator_ids(self) -> list[int]:
        """The separator's tokens."""
        return self._separator_ids

    def encode_pair(self, pair: PreferencePair, max_length: int | None = None) -> EncodedPair:
        """Tokenise a pair.

        Args:
            pair: the example.
            max_length: the most tokens that prompt and completion together may have.

        Raises:
            DataError: a text holds a special token, or a side is longer than `max_length` or the model's positions.
                Nothing is ever cut off silently.
        """
        return self._encode_pair(pair, max_length, _NOTHING)

    def _encode_pair(self, pair: PreferencePair, max_length: int | None, known: _Known) -> EncodedPair:
        prompt_ids = self._encode_prompt(pair.prompt, known)
        chosen_ids, chosen_step_ids = self._encode_steps(pair.chosen, known)
        rejected_ids, rejected_step_ids = self._encode_steps(pair.rejected, known)
        texts = {"prompt": self._encode(pair.prompt, known), "chosen": chosen_ids[:-1], "rejected": rejected_ids[:-1]}
        for side, ids in texts.items():
            check_no_special_token(self.tokenizer, ids, f"example {pair.name!r}: its {side}")
        for side, ids in (("chosen", chosen_ids), ("rejected", rejected_ids)):
            together = len(prompt_ids) + len(ids)
            both = f"example {pair.name!r}: prompt ({len(prompt_ids)}) and {side} ({len(ids)}) have {together} tokens"
            if max_length is not None and together > max_length:
                raise DataError(
                    f"{both} together, more than the maximum length of {max_length}; raise max_length (--max-length) "
                    "or shorten the example"
                )
            if self.position_limit is None:
                continue
            parts = {f"{both} together": together}
            if self.is_encoder_decoder:
                sides = {"prompt": len(prompt_ids), side: len(ids)}
                parts = {f"example {pair.name!r}: its {part} has {n} tokens": n for part, n in sides.items()}
            for what, tokens in parts.items():
                if tokens > self.position_limit:
                    raise DataError(
                        f"{what}, more than the {self.position_limit} positions of the model; shorten the example or "
                        "choose another model"
                    )
        return EncodedPair(prompt_ids, chosen_ids, chosen_step_ids, rejected_ids, rejected_step_ids)

    def encode_pairs(self, pairs: Sequence[PreferencePair], max_length: int | None = None) -> Iterator[EncodedPair]:
        """Tokenise many pairs, several times as fast as `encode_pair` one after the other.

        Raises:
            DataError: as `encode_pair`, for the first pair that can't be used, and how many there are.
        """
        problems = []
        for pair, known in self._together(pairs):
            try:
                encoded = self._encode_pair(pair, max_length, known)
            except DataError as error:
                problems.append(str(error))
                continue
            if not problems:
                yield encoded
        if problems:
            more = f" ({len(problems)} of {len(pairs)} examples can't be used)" if len(problems) > 1 else ""
            raise DataError(problems[0] + more)

    def _together(self, pairs: Sequence[PreferencePair]) -> Iterator[tuple[PreferencePair, _Known]]:
        """Give each pair with the token ids of its texts."""
        for start in range(0, len(pairs), TOGETHER):
            some = pairs[start : start + TOGETHER]
            prompts = list(dict.fromkeys(pair.prompt for pair in some))
            steps = (step.text for pair in some for step in (*pair.chosen, *pair.rejected))
            texts = list(dict.fromkeys([*prompts, *steps]))
            known = _Known(self._encode_all(texts, add_special_tokens=False), self._encode_all(prompts))
            yield from ((pair, known) for pair in some)

    def _encode_all(self, texts: list[str], **options: bool) -> dict[str, list[int]]:
        # A user's "</s>" is four characters, not the end of the answer: hence the splitting.
        options = {"truncation": False, "split_special_tokens": True, **options}
        return dict(zip(texts, self.tokenizer(texts, **options)["input_ids"], strict=True))

    def check_lengths(self, pairs: Sequence[PreferencePair], max_length: int) -> None:
        """Find all pairs that `encode_pair` refuses, before anything that takes time.

        Raises:
            DataError: as `encode_pairs`.
        """
        for _ in self.encode_pairs(pairs, max_length):
            pass

    def encode_prompt(self, prompt: str) -> list[int]:
        """Tokenise a prompt, with the special tokens that the model expects around it."""
        return self._encode_prompt(prompt, _NOTHING)

    def _encode_prompt(self, prompt: str, known: _Known) -> list[int]:
        ids = list((known.prompts if prompt in known.prompts else self._encode_all([prompt]))[prompt])
        if self.is_encoder_decoder:
            return ids
        # Some causal tokenizers close every text; an answer has to be able to follow.
        while ids and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]
        return ids + self._separator_ids

    def encode_steps(self, steps: Sequence[Step]) -> tuple[list[int], list[int]]:
        """Tokenise a solution: token ids, and for each token the index of its step."""
        return self._encode_steps(steps, _NOTHING)

    def _encode_steps(self, steps: Sequence[Step], known: _Known) -> tuple[list[int], list[int]]:
        ids: list[int] = []
        step_ids: list[int] = []
        for index, step in enumerate(steps):
            last = index == len(steps) - 1
            tokens = self._encode(step.text, known) + ([self.tokenizer.eos_token_id] if last else self._separator_ids)
            ids += tokens
            step_ids += [index] * len(tokens)
        return ids, step_ids

    def decode_steps(self, ids: Sequence[int]) -> list[str]:
        """Split generated token ids into the texts of steps; [] when nothing but special tokens was generated."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return split_steps(text, self.separator.strip(" "))

    def unknown_characters(self, pairs: Sequence[PreferencePair]) -> list[str]:
        """Characters of each pair that the tokenizer can only write as its unknown token, sorted; "" for none."""
        unknown = self.tokenizer.unk_token_id
        written = {c for pair in pairs for text in _texts(pair) for c in text if not c.isspace()}
        alone = self._encode_all(sorted(written), add_special_tokens=False) if written else {}
        strange = {c for c, ids in alone.items() if unknown is not None and unknown in ids}
        if not strange:
            return [""] * len(pairs)
        found = []
        for pair, known in self._together(pairs):
            characters = {c for text in _texts(pair) if unknown in self._encode(text, known) for c in text}
            found.append("".join(sorted(characters & strange)))
        return found

    def _encode(self, text: str, known: _Known = _NOTHING) -> list[int]:
        return (known.texts if text in known.texts else self._encode_all([text], add_special_tokens=False))[text]

    def _find_separator(self) -> str:
        for candidate in SEPARATORS:
            self.separator, self._separator_ids = candidate, self._encode(candidate)
            ids, _ = self.encode_steps([Step(text) for text in _PROBE])
            if [" ".join(text.split()) for text in self.decode_steps(ids)] == _PROBE:
                return candidate
        raise ModelError(
            f"the tokenizer {type(self.tokenizer).__name__} loses every separator that could stand between two steps "
            f"({', '.join(map(repr, SEPARATORS))}); choose another model"
        )


def _texts(pair: PreferencePair) -> Iterator[str]:
    """The prompt and all steps."""
    yield pair.prompt
    for step in (*pair.chosen, *pair.rejected):
        yield step.text


def check_no_special_token(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int], what: str) -> None:
    """Refuse a text that the tokenizer reads as more than text.

    A unigram vocabulary (T5's) has "</s>" as a piece, and `split_special_tokens` doesn't help there.

    Args:
        tokenizer: which made the ids.
        ids: of the text alone, without special tokens around it.
        what: how the message calls the text.

    Raises:
        DataError: the end of the sequence or padding is among the ids.
    """
    if found := {tokenizer.eos_token_id, tokenizer.pad_token_id} & set(ids):
        raise DataError(
            f"{what} contains {tokenizer.decode(sorted(found))!r}, which this tokenizer reads as the end of the text "
            "or as padding; write it otherwise"
        )
