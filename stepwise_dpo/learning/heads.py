"""Scoring heads: how a model's output becomes log-odds of "this step is right" against "it is wrong".

likelihood            how likely a language model finds the step's own tokens; needs no labels.
verbalizer            what a language model answers when asked about the step (RLHFlow, prompted judges).
step_tag              what a language model says after a tag that follows each step (Math-Shepherd, arXiv 2312.08935).
token_classification  two labels on the last token of each step (the layout of TRL's former PRMTrainer).

A head turns a solution into rows and rows into log-odds. Every row is one sequence of a forward; it is hashable, so
that equal ones are scored once. likelihood, step_tag and token_classification on a causal backbone score a whole
solution with one row, the others need one row per step. All of it is differentiable.

N = rows in a batch, C = completion tokens of a row, E = steps of a row, V = vocabulary.
"""

from collections.abc import Sequence
from itertools import accumulate
from string import Formatter
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from stepwise_dpo.errors import ConfigError, DataError, ModelError
from stepwise_dpo.learning.head_settings import HeadSettings
from stepwise_dpo.learning.loading import reads_ahead
from stepwise_dpo.learning.tokenization import SEPARATORS, StepTokenizer, check_no_special_token
from stepwise_dpo.preferences.pairs import Step

MAX_TOKENS = 4096
"""The longest input to a model without a limit of its own: attention takes memory with the square of the length."""


class Row(NamedTuple):
    """One sequence of a forward.

    Attributes:
        prompt_ids: for the encoder, or the beginning of a causal sequence.
        ids: the completion, for the decoder, or what follows in a causal sequence.
        ends: for each step that the row scores, where in the completion its verdict is read; the head says what for.
    """

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    ends: tuple[int, ...]


class ScoringHead(Protocol):
    """What `rewards.LLMRewardModel` asks of a head."""

    def rows(self, prompt: str, steps: Sequence[str]) -> list[Row]:
        """Encode a solution; the steps of all rows together are its steps, in order.

        Raises:
            DataError: it is longer than the model can read, or holds what the tokenizer reads as a special token.
        """

    def log_odds(self, rows: Sequence[Row]) -> list[Tensor]:
        """Score rows in one forward: for each the log-odds of its steps, in nats, (E,) float32."""


def make_head(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: HeadSettings, name: str
) -> ScoringHead:
    """Build the head that the settings ask for.

    Args:
        model: on whatever device; a language model, or a token classification model with two labels.
        tokenizer: its tokenizer.
        settings: which head, and its words.
        name: how messages call the model.

    Raises:
        ConfigError: the template lacks {step} or names an unknown field.
        ModelError: model or tokenizer don't fit the head.
    """
    if settings.head == "likelihood":
        return LikelihoodHead(model, tokenizer, settings, name)
    if settings.head == "verbalizer":
        return VerbalizerHead(model, tokenizer, settings, name)
    if settings.head == "step_tag":
        return StepTagHead(model, tokenizer, settings, name)
    return TokenClassificationHead(model, tokenizer, name)


class LikelihoodHead:
    """A step is as right as its least likely token (or their geometric mean), given the prompt and the steps before it.

    The log-odds are the logit of that probability. A step's tokens are those of its text and its end. The end counts
    because a number that stops too early ("1" for "12") is only wrong there; it is *either* end, the separator or the
    end of the sequence, because whether the solution goes on says nothing about the step. So later steps never change
    an earlier score, and an unfinished solution can be scored. A separator of several tokens counts as one.

    What it cannot see: a step that carries an earlier error on faithfully looks right in its context, and a right step
    in unusual words looks wrong. See "until_error" in `losses.aggregate_steps` for the first.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: HeadSettings, name: str
    ) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.lowest = settings.token == "lowest"
        self.steps = _step_tokenizer(model, tokenizer)
        self.separator = self.steps.separator_ids

    def rows(self, prompt: str, steps: Sequence[str]) -> list[Row]:
        """One row; an end is the index of the separator after the step. See `ScoringHead`."""
        _check_texts(self.tokenizer, self.name, prompt, steps)
        ids, ends = list[int](), list[int]()
        for text in steps:
            ids += self.steps.encode_steps([Step(text)])[0][:-1]  # without the end of sequence
            ends.append(len(ids))
            ids += self.separator
        return [_row(self.model, self.name, self.steps.encode_prompt(prompt), ids, ends)]

    def log_odds(self, rows: Sequence[Row]) -> list[Tensor]:
        """See `ScoringHead`."""
        predictions = completion_logits(self.model, rows, self.tokenizer.pad_token_id)  # (N, C+1, V)
        # All rows' tokens one after another, K of them, with a step's tokens side by side.
        logits = torch.cat([predictions[index, : len(row.ids)] for index, row in enumerate(rows)]).float()  # (K, V)
        targets = torch.tensor([token for row in rows for token in row.ids], device=logits.device)
        starts = accumulate((len(row.ids) for row in rows), initial=0)
        ends = torch.tensor(
            [start + end for start, row in zip(starts, rows, strict=False) for end in row.ends], device=logits.device
        )
        # Not from log-probabilities: those can't tell probabilities above 1 - 6e-8 from 1, the logits can.
        chosen = logits.gather(1, targets[:, None])
        odds = chosen.squeeze(1) - logits.scatter(1, targets[:, None], -torch.inf).logsumexp(dim=1)  # (K,)
        odds = odds.index_copy(0, ends, self._end_log_odds(logits[ends], odds, ends))

        rest = len(self.separator) - 1  # its first token has the odds of the whole end now
        sizes = []
        for row in rows:
            start = 0
            for end in row.ends:
                sizes += [end + 1 - start, rest]
                start = end + 1 + rest
        steps = list(torch.split(odds, sizes)[::2])
        padded = nn.utils.rnn.pad_sequence(steps, batch_first=True, padding_value=torch.inf)
        if self.lowest:
            values = padded.amin(dim=1)
        else:
            values = _logit(F.logsigmoid(padded).sum(dim=1) / torch.tensor(sizes[::2], device=odds.device))
        return list(torch.split(values, [len(row.ends) for row in rows]))

    def _end_log_odds(self, logits: Tensor, odds: Tensor, ends: Tensor) -> Tensor:
        """Log-odds that a step ends where it does, by separator or end of sequence, (E,).

        With s the separator's first token, t its others and e the end of sequence:
        p = p(s) p(t | s) + p(e), and 1 - p = (1 - p(s) - p(e)) + p(s) (1 - p(t | s)), each summed without cancellation.
        """
        kinds = torch.tensor([self.separator[0], self.tokenizer.eos_token_id], device=logits.device)
        log_others = logits.index_fill(1, kinds, -torch.inf).logsumexp(dim=1)
        log_separator, log_eos = logits[:, kinds].unbind(dim=1)  # all up to the same constant, the normaliser
        if len(self.separator) > 1:
            rest = ends[:, None] + torch.arange(1, len(self.separator), device=ends.device)
            log_rest = F.logsigmoid(odds[rest]).sum(dim=1)
            log_others = torch.logaddexp(log_others, log_separator + _log_complement(log_rest))
            log_separator = log_separator + log_rest
        return torch.logaddexp(log_separator, log_eos) - log_others


def check_template(template: str) -> None:
    """Refuse a question whose fields are more than names: `{step[0]}` would judge only a step's first character.

    Raises:
        ConfigError: a field is indexed, converted or formatted.
    """
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None
        ]
    except ValueError:
        return  # what is wrong with it is said where it is used
    odd = [name for name, spec, conversion in fields if spec or conversion or not (name or "x").isidentifier()]
    if odd:
        raise ConfigError(
            f"the reward model's template may name its fields only plainly, as in {{step}}, not as {{{odd[0]}…}}"
        )


class VerbalizerHead:
    """The model is asked whether a step is right, once per step; its words for right and wrong are compared.

    An untrained or small prompted judge is no judge: prompted 8B models reach 5 of 100 on ProcessBench
    (arXiv 2412.06559).
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: HeadSettings, name: str
    ) -> None:
        self.model, self.tokenizer, self.name, self.settings = model, tokenizer, name, settings
        check_template(settings.template or "")
        try:
            sample, other = self._questions("p", ["s"])[0], self._questions("p", ["t"])[0]
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"the reward model's template is not usable ({error!r}): its fields are {{prompt}}, {{previous}}, "
                "{step}, {right} and {wrong}, and a literal brace is written twice"
            ) from error
        if sample == other:
            raise ConfigError("the reward model's template must contain {step}")
        words = (settings.right_word or "", settings.wrong_word or "")
        if model.config.is_encoder_decoder:
            right, wrong = (_plain_ids(tokenizer, word) for word in words)
        else:
            question = self._encode(sample)
            right, wrong = (self._encode(f"{sample} {word}") for word in words)
            if right[: len(question)] != question:
                raise _no_single_token(name, settings)
            right, wrong = right[len(question) :], wrong[len(question) :]
        self.bridge, self.right_id, self.wrong_id = _tell_apart(tokenizer, right, wrong, name, settings)

    def rows(self, prompt: str, steps: Sequence[str]) -> list[Row]:
        """One row per step: the question, and what its two answers have in common. See `ScoringHead`."""
        _check_texts(self.tokenizer, self.name, prompt, steps)
        questions = self._questions(prompt, steps)
        return [
            _row(self.model, self.name, self._encode(question), self.bridge, [len(self.bridge)])
            for question in questions
        ]

    def log_odds(self, rows: Sequence[Row]) -> list[Tensor]:
        """See `ScoringHead`."""
        return _word_log_odds(self.model, rows, self.tokenizer.pad_token_id, self.right_id, self.wrong_id)

    def _questions(self, prompt: str, steps: Sequence[str]) -> list[str]:
        assert self.settings.template is not None
        return [
            self.settings.template.format(
                prompt=prompt,
                previous="\n".join(steps[:index]) or "none",
                step=step,
                right=self.settings.right_word,
                wrong=self.settings.wrong_word,
            )
            for index, step in enumerate(steps)
        ]

    def _encode(self, text: str) -> list[int]:
        """A question as the model expects it; for a causal model without an end, because the word follows."""
        ids: list[int] = self.tokenizer(text, truncation=False, split_special_tokens=True)["input_ids"]
        while not self.model.config.is_encoder_decoder and ids and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]
        return ids


class StepTagHead:
    """A tag follows each step, and after the tag the model's next word says whether the step is right.

    Causal: prompt, step, tag, separator, step, tag, … in one sequence (Math-Shepherd's layout). Encoder-decoder: the
    prompt for the encoder, the rest for the decoder. Source: arXiv 2312.08935.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: HeadSettings, name: str
    ) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.steps = _step_tokenizer(model, tokenizer)
        assert settings.tag is not None
        self.tag = settings.tag
        tag_ids = _plain_ids(tokenizer, self.tag)
        if not tag_ids or tokenizer.unk_token_id in tag_ids:
            raise ModelError(f"{name}: its tokenizer can't write the tag {self.tag!r}; choose another tag")
        right, wrong = (_plain_ids(tokenizer, word or "") for word in (settings.right_word, settings.wrong_word))
        self.bridge, self.right_id, self.wrong_id = _tell_apart(tokenizer, right, wrong, name, settings)

    def rows(self, prompt: str, steps: Sequence[str]) -> list[Row]:
        """One row; an end is where the model's word would stand. See `ScoringHead`."""
        _check_texts(self.tokenizer, self.name, prompt, steps)
        ids, ends = list[int](), list[int]()
        for text in steps:
            # In one go: SentencePiece would put a space marker of its own before a lone tag.
            ids += _plain_ids(self.tokenizer, text + self.tag) + self.bridge
            ends.append(len(ids))
            ids += self.steps.separator_ids
        ids = ids[: ends[-1]]  # nothing is read after the last tag
        return [_row(self.model, self.name, self.steps.encode_prompt(prompt), ids, ends)]

    def log_odds(self, rows: Sequence[Row]) -> list[Tensor]:
        """See `ScoringHead`."""
        return _word_log_odds(self.model, rows, self.tokenizer.pad_token_id, self.right_id, self.wrong_id)


class TokenClassificationHead:
    """The model labels tokens, 1 for right and 0 for wrong; a step's label stands on its last token, the separator.

    The layout is that of TRL's former PRMTrainer: prompt, then each step and a separator. A model that reads in both
    directions would judge a step by the steps after it: it gets one row per step, with the text up to there.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        if model.config.num_labels != 2:
            raise ModelError(
                f"{name}: head 'token_classification' needs a model with 2 labels (0 wrong, 1 right), and this one has "
                f"{model.config.num_labels}"
            )
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.reads_ahead = reads_ahead(model)
        self.separator = _visible_separator(tokenizer, name)

    def rows(self, prompt: str, steps: Sequence[str]) -> list[Row]:
        """One row; one per step for a model that reads ahead. An end is a step's last token. See `ScoringHead`."""
        _check_texts(self.tokenizer, self.name, prompt, steps)
        prompt_ids = _plain_ids(self.tokenizer, prompt)
        if self.tokenizer.bos_token_id is not None:
            prompt_ids = [self.tokenizer.bos_token_id, *prompt_ids]
        ids, ends = list[int](), list[int]()
        for text in steps:
            ids += _plain_ids(self.tokenizer, text) + self.separator
            ends.append(len(ids) - 1)
        parts = [(ids[: end + 1], [end]) for end in ends] if self.reads_ahead else [(ids, ends)]
        return [_row(self.model, self.name, prompt_ids, *part, one_sequence=True) for part in parts]

    def log_odds(self, rows: Sequence[Row]) -> list[Tensor]:
        """See `ScoringHead`."""
        device = self.model.device
        input_ids, attention_mask = _padded(
            [row.prompt_ids + row.ids for row in rows], self.tokenizer.pad_token_id, device
        )
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits.float()  # (N, T, 2)
        log_odds = logits[:, :, 1] - logits[:, :, 0]
        return [
            log_odds[index, torch.tensor(row.ends, device=device) + len(row.prompt_ids)]
            for index, row in enumerate(rows)
        ]


def completion_logits(model: PreTrainedModel, rows: Sequence[Row], pad_id: int) -> Tensor:
    """Predict every token of each row's completion and the one after it, in one forward.

    Args:
        model: an encoder-decoder or causal language model.
        rows: prompts, not empty, with their completions, which may be.
        pad_id: what fills the shorter rows.

    Returns:
        (N, C+1, V): column c is the prediction of the completion's token c, from prompt and tokens before it; anything
        beyond a row's own length.
    """
    width = max(len(row.ids) for row in rows) + 1
    if not model.config.is_encoder_decoder:
        input_ids, attention_mask = _padded([row.prompt_ids + row.ids for row in rows], pad_id, model.device)
        first = torch.tensor([len(row.prompt_ids) - 1 for row in rows], device=model.device)
        columns = (first[:, None] + torch.arange(width, device=model.device)).clamp(max=input_ids.size(1) - 1)
        logits: Tensor = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
        return logits[torch.arange(len(rows), device=model.device)[:, None], columns]
    # Samples and the two sides of a pair have their prompt in common, and the encoder needs to read it once.
    prompts = {prompt: index for index, prompt in enumerate(dict.fromkeys(row.prompt_ids for row in rows))}
    input_ids, attention_mask = _padded(list(prompts), pad_id, model.device)
    states = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    which = torch.tensor([prompts[row.prompt_ids] for row in rows], device=model.device)
    decoder_ids, _ = _padded([(model.config.decoder_start_token_id, *row.ids) for row in rows], pad_id, model.device)
    # Padding stands at the right, where a decoder's earlier positions don't see it.
    logits = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=states[which]),
        attention_mask=attention_mask[which],
        decoder_input_ids=decoder_ids,
        use_cache=False,
    ).logits
    return logits


def _row(
    model: PreTrainedModel,
    name: str,
    prompt_ids: Sequence[int],
    ids: Sequence[int],
    ends: Sequence[int],
    one_sequence: bool = False,
) -> Row:
    """Make a row that the model can read.

    Raises:
        DataError: it is too long; nothing is ever cut off.
    """
    # T5's positions are relative and its config has no such key: only memory limits it.
    limit = getattr(model.config, "max_position_embeddings", None) or MAX_TOKENS
    if (positions := getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)) is not None:
        # RoBERTa's family counts positions from behind the padding's.
        limit -= 0 if positions.padding_idx is None else positions.padding_idx + 1
    apart = model.config.is_encoder_decoder and not one_sequence
    # The decoder's first token is none of the row's.
    longest = max(len(prompt_ids), len(ids) + 1) if apart else len(prompt_ids) + len(ids)
    if longest > limit:
        raise DataError(
            f"{name}: a prompt of {len(prompt_ids)} tokens with {len(ids)} tokens of steps is too long, because the "
            f"model reads only {limit}{' of each' if apart else ''}; shorten the example or choose a reward model with "
            "a longer context"
        )
    return Row(tuple(prompt_ids), tuple(ids), tuple(ends))


def _check_texts(tokenizer: PreTrainedTokenizerBase, name: str, prompt: str, steps: Sequence[str]) -> None:
    """Raise DataError where a user's text holds a special token."""
    text = " ".join((prompt, *steps))
    check_no_special_token(tokenizer, _plain_ids(tokenizer, text), f"{name}: the text {text[:80]!r}…")


def _word_log_odds(
    model: PreTrainedModel, rows: Sequence[Row], pad_id: int, right_id: int, wrong_id: int
) -> list[Tensor]:
    """Log-odds of the word for right against that for wrong at each row's ends, (E,) each."""
    logits = completion_logits(model, rows, pad_id)
    log_odds = logits[:, :, right_id].float() - logits[:, :, wrong_id].float()  # (N, C+1)
    return [log_odds[index, torch.tensor(row.ends, device=log_odds.device)] for index, row in enumerate(rows)]


def _padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask of rows padded at the right, (N, T) each."""
    lengths = torch.tensor([len(row) for row in rows], device=device)
    width = int(lengths.max())
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=device)
    return ids, (torch.arange(width, device=device) < lengths[:, None]).long()


def _logit(log_probability: Tensor) -> Tensor:
    """Log-odds of a probability below 1 that is given by its logarithm."""
    return log_probability - _log_complement(log_probability)


def _log_complement(log_probability: Tensor) -> Tensor:
    """log(1 - p) from log p, (any shape).

    A log p that underflowed to 0 is clamped to the nearest number below 0 (log-odds of 87): its complement would be
    minus infinity and every gradient through it not a number.
    """
    return (-torch.expm1(log_probability.clamp(max=-torch.finfo(log_probability.dtype).tiny))).log()


def _step_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> StepTokenizer:
    return StepTokenizer(tokenizer, bool(model.config.is_encoder_decoder))


def _plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text without any around it; a user's "</s>" is four characters."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, truncation=False, split_special_tokens=True)["input_ids"]
    return ids


def _visible_separator(tokenizer: PreTrainedTokenizerBase, name: str) -> list[int]:
    """The tokens of the first separator that doesn't vanish into white space; TRL's is the first of them."""
    for candidate in SEPARATORS:
        ids = _plain_ids(tokenizer, candidate)
        if ids and tokenizer.unk_token_id not in ids and candidate.strip(" ") in tokenizer.decode(ids):
            return ids
    raise ModelError(
        f"{name}: its tokenizer loses every separator that could stand after a step "
        f"({', '.join(map(repr, SEPARATORS))}); choose another model"
    )


def _tell_apart(
    tokenizer: PreTrainedTokenizerBase, right: Sequence[int], wrong: Sequence[int], name: str, settings: HeadSettings
) -> tuple[list[int], int, int]:
    """The token that tells two words apart: (tokens before it, its id for right, its id for wrong).

    A tokenizer may write both words with a common beginning (SentencePiece's lone space marker, for example); that
    beginning is fed to the model and the next token decides.
    """
    shared = 0
    while shared < min(len(right), len(wrong)) and right[shared] == wrong[shared]:
        shared += 1
    if shared == min(len(right), len(wrong)) or tokenizer.unk_token_id in (right[shared], wrong[shared]):
        raise _no_single_token(name, settings)
    return list(right[:shared]), right[shared], wrong[shared]


def _no_single_token(name: str, settings: HeadSettings) -> ModelError:
    return ModelError(
        f"{name}: its tokenizer can't tell {settings.right_word!r} from {settings.wrong_word!r} by one token; "
        "choose other words for right and wrong"
    )
