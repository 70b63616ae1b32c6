import pytest

from stepwise_dpo.errors import DataError, ModelError
from stepwise_dpo.learning import tokenization
from stepwise_dpo.learning.tiny import build_tiny_tokenizer
from stepwise_dpo.learning.tokenization import StepTokenizer
from stepwise_dpo.preferences.pairs import PreferencePair, Step


def solution(*texts):
    return tuple(Step(text) for text in texts)


@pytest.fixture
def tiny():
    return StepTokenizer(build_tiny_tokenizer(), is_encoder_decoder=True)


@pytest.fixture
def sentencepiece(sentencepiece_tokenizer):
    return StepTokenizer(sentencepiece_tokenizer, is_encoder_decoder=True)


def test_every_token_knows_its_step(tiny):
    ids, step_ids = tiny.encode_steps(solution("ab", "c"))
    assert tiny.tokenizer.convert_ids_to_tokens(ids) == ["a", "b", "Ċ", "c", "</s>"]
    # A separator belongs to the step before it, the end of sequence to the last step.
    assert step_ids == [0, 0, 0, 1, 1]


def test_the_separator_is_one_that_the_tokenizer_keeps(tiny, sentencepiece):
    assert tiny.separator == "\n"
    # SentencePiece makes a space of a line break, so splitting decoded text at "\n" would always find one step.
    tokenizer = sentencepiece.tokenizer
    assert "\n" not in tokenizer.decode(tokenizer("a\nb")["input_ids"])
    assert sentencepiece.separator == " || "


@pytest.mark.parametrize("name", ["tiny", "sentencepiece"])
def test_steps_survive_encoding_and_decoding(name, request, pairs):
    steps = request.getfixturevalue(name)
    for pair in pairs:
        ids, step_ids = steps.encode_steps(pair.rejected)
        texts = [" ".join(step.text.split()) for step in pair.rejected]
        assert [" ".join(text.split()) for text in steps.decode_steps(ids)] == texts
        assert sorted(set(step_ids)) == list(range(len(texts)))


def test_line_breaks_inside_a_step_dont_make_two_of_it(tiny):
    _, step_ids = tiny.encode_steps(solution("a\nb", "c"))
    assert max(step_ids) == 1


@pytest.mark.parametrize("is_encoder_decoder", [True, False])
def test_special_tokens_in_a_users_text_are_text(tiny, is_encoder_decoder):
    tokenizer = tiny.tokenizer
    steps = StepTokenizer(tokenizer, is_encoder_decoder)
    special = {tokenizer.pad_token_id, tokenizer.eos_token_id}
    ids, _ = steps.encode_steps(solution("a</s>b", "<pad>"))
    assert ids[-1] == tokenizer.eos_token_id
    assert not special & set(ids[:-1])
    prompt = steps.encode_prompt("</s>")
    assert len(prompt) > 3
    assert not special & set(prompt[:-1])


@pytest.mark.parametrize("place", ["prompt", "chosen", "rejected"])
def test_special_tokens_that_cannot_be_text_are_refused(sentencepiece, place):
    texts = {"prompt": "p", "chosen": "c", "rejected": "r"} | {place: "a</s>b"}
    pair = PreferencePair(
        prompt=texts["prompt"], chosen=solution(texts["chosen"]), rejected=solution(texts["rejected"]), id="seven"
    )
    with pytest.raises(DataError, match=f"'seven': its {place} contains '</s>'"):
        sentencepiece.encode_pair(pair)


def test_a_causal_prompt_ends_with_a_separator_and_without_an_end(tiny):
    causal = StepTokenizer(tiny.tokenizer, is_encoder_decoder=False)
    eos = tiny.tokenizer.eos_token_id
    assert tiny.encode_prompt("ab")[-1] == eos
    assert tiny.tokenizer.convert_ids_to_tokens(causal.encode_prompt("ab")) == ["a", "b", "Ċ"]


def test_too_long_is_an_error_that_names_the_example_and_the_numbers(tiny):
    pair = PreferencePair(prompt="p" * 10, chosen=solution("c"), rejected=solution("r" * 20), id="seven")
    with pytest.raises(
        DataError, match=r"'seven'.*prompt \(11\) and rejected \(21\) have 32 tokens.*maximum length of 31"
    ):
        tiny.encode_pair(pair, max_length=31)
    assert len(tiny.encode_pair(pair, max_length=32).rejected_ids) == 21


def test_a_models_positions_are_a_limit_too(tiny):
    pair = PreferencePair(prompt="p" * 10, chosen=solution("c"), rejected=solution("r" * 20), id="seven")
    causal = StepTokenizer(tiny.tokenizer, is_encoder_decoder=False, position_limit=31)
    with pytest.raises(
        DataError,
        match=r"'seven': prompt \(11\) and rejected \(21\) have 32 tokens together.*31 positions of the model",
    ):
        causal.encode_pair(pair)
    # An encoder-decoder has them for prompt and answer apart.
    assert StepTokenizer(tiny.tokenizer, True, position_limit=31).encode_pair(pair)
    with pytest.raises(DataError, match="'seven': its rejected has 21 tokens, more than the 20 positions of the model"):
        StepTokenizer(tiny.tokenizer, True, position_limit=20).encode_pair(pair)
    with pytest.raises(DataError, match="'seven': its prompt has 11 tokens, more than the 10 positions of the model"):
        StepTokenizer(tiny.tokenizer, True, position_limit=10).encode_pair(pair)


def test_a_pair_without_an_id_is_called_by_its_prompt(tiny):
    pair = PreferencePair(prompt="p" * 100, chosen=solution("c"), rejected=solution("r"))
    with pytest.raises(DataError, match=f"^example '{'p' * 80}': prompt"):
        tiny.encode_pair(pair, max_length=31)


def test_all_examples_are_checked_at_once(tiny):
    pairs = [
        PreferencePair(prompt="p" * n, chosen=solution("c"), rejected=solution("r"), id=str(n)) for n in (5, 50, 60)
    ]
    with pytest.raises(DataError, match=r"^example '50'.*--max-length.*2 of 3 examples can't be used"):
        tiny.check_lengths(pairs, 20)


@pytest.mark.parametrize("is_encoder_decoder", [True, False])
@pytest.mark.parametrize("name", ["tiny", "sentencepiece"])
def test_many_pairs_at_once_are_what_they_are_one_by_one(name, is_encoder_decoder, request, pairs, monkeypatch):
    monkeypatch.setattr(tokenization, "TOGETHER", 3)
    steps = StepTokenizer(request.getfixturevalue(name).tokenizer, is_encoder_decoder)
    pairs = [
        *pairs,
        PreferencePair("?", [Step(".")], [Step("  x")]),
        pairs[0],
        PreferencePair("</s>é", [Step("a\nb")], [Step("é")]),
    ]
    usable = [pair for pair in pairs if name == "tiny" or "</s>" not in pair.prompt]
    one_by_one = [steps.encode_pair(pair) for pair in usable]
    tokenize, calls = type(steps.tokenizer).__call__, []
    monkeypatch.setattr(
        type(steps.tokenizer),
        "__call__",
        lambda self, *args, **kwargs: calls.append(1) or tokenize(self, *args, **kwargs),
    )
    assert list(steps.encode_pairs(usable)) == one_by_one
    assert len(calls) == 2 * -(-len(usable) // 3)
    assert list(steps.encode_pairs([])) == []


def test_unknown_characters_are_found(sentencepiece, tiny):
    pair = PreferencePair(prompt="2 ☃ = 4", chosen=solution("☃ = 2"), rejected=solution("☃ = 3"), id="1")
    plain = PreferencePair(prompt="2", chosen=solution("= 2"), rejected=solution("= 3"), id="2")
    assert sentencepiece.unknown_characters([plain, pair]) == ["", "☃"]
    assert tiny.unknown_characters([plain, pair]) == ["", ""]  # it reads bytes


def test_a_tokenizer_that_loses_every_separator_is_refused():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, "</s>": 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ModelError, match="separator"):
        StepTokenizer(
            PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>"),
            is_encoder_decoder=False,
        )
