"""Each head against a computation by hand: one plain forward for every single number."""

import json
import math

import pytest
import torch
from transformers import (
    BertConfig,
    BertForTokenClassification,
    GPT2Config,
    GPT2ForTokenClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForTokenClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    T5ForTokenClassification,
)

from stepwise_dpo.errors import ConfigError, DataError, ModelError
from stepwise_dpo.learning import heads
from stepwise_dpo.learning.head_settings import HeadSettings
from stepwise_dpo.learning.heads import check_template
from stepwise_dpo.learning.loading import load_token_classifier
from stepwise_dpo.learning.rewards import LLMRewardModel
from stepwise_dpo.learning.tiny import build_tiny_tokenizer

PROMPT, STEPS = "Start with 3. Add 4.", ["3 + 4 = 7", "7 - 2 = 6", "Answer: 6"]
SOLUTIONS = [(PROMPT, STEPS), ("Double 21.", ["21 + 21 = 42"]), (PROMPT, [*STEPS[:2], "So the answer must be 6"])]

LANGUAGE_MODELS = ["t5", "sentencepiece t5", "llama", "sentencepiece llama", "gpt2", "qwen2"]
CLASSIFIERS = ["llama classifier", "gpt2 classifier", "bert classifier", "t5 classifier"]


@pytest.fixture(scope="module")
def build(sentencepiece_tokenizer):
    """A function that makes (random model, tokenizer) of a kind."""

    def make(kind):
        tokenizer = sentencepiece_tokenizer if "sentencepiece" in kind else build_tiny_tokenizer()
        ids = {"vocab_size": len(tokenizer) + 8, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
        llama = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        t5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4, "num_layers": 2, "decoder_start_token_id": 0}
        bert = {**llama, "max_position_embeddings": 256}
        gpt2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
        torch.manual_seed(0)
        model = {
            "t5": lambda: T5ForConditionalGeneration(T5Config(**ids, **t5)),
            "llama": lambda: LlamaForCausalLM(LlamaConfig(**ids, **llama)),
            "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**ids, **gpt2)),
            "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**ids, **llama, num_key_value_heads=2)),
            "llama classifier": lambda: LlamaForTokenClassification(LlamaConfig(**ids, **llama, num_labels=2)),
            "gpt2 classifier": lambda: GPT2ForTokenClassification(GPT2Config(**ids, **gpt2, num_labels=2)),
            "bert classifier": lambda: BertForTokenClassification(BertConfig(**ids, **bert, num_labels=2)),
            "t5 classifier": lambda: T5ForTokenClassification(T5Config(**ids, **t5, num_labels=2)),
        }[kind.removeprefix("sentencepiece ")]()
        if not kind.endswith(("t5", "t5 classifier")):
            with torch.no_grad():  # these are nearly indifferent at random: let them have opinions
                for weights in model.parameters():
                    weights.mul_(3)
        return model.eval(), tokenizer

    return make


@pytest.fixture(
    params=[
        *((kind, HeadSettings("likelihood", token=token)) for kind in LANGUAGE_MODELS for token in ("lowest", "mean")),
        *((kind, HeadSettings("step_tag", tag=" ||")) for kind in LANGUAGE_MODELS),
        *((kind, HeadSettings("verbalizer", template="{prompt} {previous} {step}")) for kind in ("t5", "gpt2")),
        *((kind, HeadSettings("token_classification")) for kind in CLASSIFIERS),
    ],
    ids=lambda param: f"{param[1].head} {param[1].token or ''} {param[0]}",
)
def judge(request, build):
    kind, settings = request.param
    return LLMRewardModel(*build(kind), settings)


def plain(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def next_probabilities(model, prompt_ids, ids):
    """What a language model expects after prompt and completion, (V,), from a forward of this alone."""
    if model.config.is_encoder_decoder:
        output = model(input_ids=torch.tensor([prompt_ids]), decoder_input_ids=torch.tensor([[0, *ids]]))
    else:
        output = model(input_ids=torch.tensor([prompt_ids + ids]))
    return output.logits[0, -1].double().softmax(0)


def prompt_ids_of(model, tokenizer, separator):
    ids = plain(tokenizer, PROMPT)
    return [*ids, 1] if model.config.is_encoder_decoder else ids + plain(tokenizer, separator)


@pytest.mark.parametrize("token", ["lowest", "mean"])
@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_likelihood(build, kind, token):
    model, tokenizer = build(kind)
    separator = " || " if "sentencepiece" in kind else "\n"
    end_ids = plain(tokenizer, separator)
    assert (len(end_ids) > 1) == ("sentencepiece" in kind)
    prompt_ids, before, expected = prompt_ids_of(model, tokenizer, separator), [], []
    for step in STEPS:
        probabilities = []
        for wanted in plain(tokenizer, step):
            probabilities.append(next_probabilities(model, prompt_ids, before)[wanted].item())
            before = [*before, wanted]
        # The step ends with the whole separator, or with the solution.
        end, separator_probability = next_probabilities(model, prompt_ids, before)[1].item(), 1.0
        for wanted in end_ids:
            separator_probability *= next_probabilities(model, prompt_ids, before)[wanted].item()
            before = [*before, wanted]
        probabilities.append(end + separator_probability)
        p = min(probabilities) if token == "lowest" else math.prod(probabilities) ** (1 / len(probabilities))
        expected.append(math.log(p / (1 - p)))
    reward_model = LLMRewardModel(model, tokenizer, HeadSettings("likelihood", token=token))
    torch.testing.assert_close(reward_model.score(PROMPT, STEPS, "log_odds"), torch.tensor(expected), atol=1e-4, rtol=0)
    probability = reward_model.score(PROMPT, STEPS, "probability")
    torch.testing.assert_close(probability, torch.tensor(expected).sigmoid(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_step_tag(build, kind):
    model, tokenizer = build(kind)
    sentencepiece = "sentencepiece" in kind
    settings = HeadSettings("step_tag", right_word="yes", wrong_word="no", tag=" ||" if sentencepiece else " ки")
    separator = " || " if sentencepiece else "\n"
    yes, no = plain(tokenizer, "yes"), plain(tokenizer, "no")
    shared = next(index for index in range(9) if yes[index] != no[index])
    prompt_ids, before, expected = prompt_ids_of(model, tokenizer, separator), [], []
    for step in STEPS:
        before = before + plain(tokenizer, step + settings.tag) + yes[:shared]
        p = next_probabilities(model, prompt_ids, before)
        expected.append((p[yes[shared]] / p[no[shared]]).log().item())
        before = before + plain(tokenizer, separator)
    scores = LLMRewardModel(model, tokenizer, settings).score(PROMPT, STEPS, "log_odds")
    torch.testing.assert_close(scores, torch.tensor(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_token_classification(build, kind):
    model, tokenizer = build(kind)
    ids, expected = plain(tokenizer, PROMPT), []
    for step in STEPS:
        ids = ids + plain(tokenizer, step) + plain(tokenizer, "\n")
        with torch.no_grad():
            wrong, right = model(input_ids=torch.tensor([ids])).logits[0, -1]
        expected.append((right - wrong).item())
    scores = LLMRewardModel(model, tokenizer).score(PROMPT, STEPS, "log_odds")  # such a model's default head
    torch.testing.assert_close(scores, torch.tensor(expected), atol=1e-4, rtol=0)


def test_the_beginning_of_a_sequence_comes_before_the_prompt(build):
    model, tokenizer = build("llama classifier")
    without = LLMRewardModel(model, tokenizer).score(PROMPT, STEPS)
    tokenizer.add_special_tokens({"bos_token": "a"})
    judge = LLMRewardModel(model, tokenizer)
    ids = [tokenizer.bos_token_id, *plain(tokenizer, PROMPT + STEPS[0] + "\n")]
    with torch.no_grad():
        wrong, right = model(input_ids=torch.tensor([ids])).logits[0, -1]
    torch.testing.assert_close(judge.score(PROMPT, STEPS, "log_odds")[0], right - wrong, atol=1e-4, rtol=0)
    assert not torch.allclose(judge.score(PROMPT, STEPS), without)


def test_a_batch_equals_one_by_one(judge):
    one_by_one = [judge.log_odds([solution])[0] for solution in SOLUTIONS]
    together = judge.log_odds(SOLUTIONS)
    assert [len(scores) for scores in together] == [3, 1, 3]
    for alone, batched in zip(one_by_one, together, strict=True):
        assert batched.dtype == torch.float32
        torch.testing.assert_close(batched, alone, atol=1e-5, rtol=1e-5)
    cached = judge.score_solutions(SOLUTIONS, "log_odds")
    for alone, scores in zip(one_by_one, cached, strict=True):
        torch.testing.assert_close(torch.tensor(scores), alone.detach(), atol=1e-5, rtol=1e-5)
    assert judge.score_solutions(SOLUTIONS, "log_odds") == cached


def test_later_steps_never_change_a_score(judge):
    whole, beginning = judge.log_odds([(PROMPT, STEPS), (PROMPT, STEPS[:2])])
    torch.testing.assert_close(whole[:2], beginning, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(judge.log_odds([("Other problem.", STEPS)])[0], whole, atol=1e-3)


def test_the_gradient_reaches_the_parameters(judge):
    torch.cat([scores.sigmoid() for scores in judge.log_odds(SOLUTIONS)]).sum().backward()
    gradients = [weights.grad for weights in judge.parameters() if weights.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    # Down to the embeddings.
    assert judge.model.get_input_embeddings().weight.grad.abs().sum() > 0


def test_what_is_saved_scores_the_same(judge, tmp_path):
    judge.set_calibration(0.5, -1.25)
    judge.save_pretrained(tmp_path)
    again = LLMRewardModel.from_pretrained(str(tmp_path))
    assert again.settings == judge.settings
    assert (again.settings.scale, again.settings.bias) == (0.5, -1.25)
    assert again.score_solutions(SOLUTIONS) == judge.score_solutions(SOLUTIONS)


def test_calibration_moves_the_decision_boundary(judge):
    raw = judge.log_odds(SOLUTIONS)
    before = judge.score_solutions(SOLUTIONS, "log_odds")
    judge.set_calibration(2.0, 0.75)
    for first, second in zip(raw, judge.log_odds(SOLUTIONS), strict=True):
        torch.testing.assert_close(second, 2 * first + 0.75)
    after = judge.score_solutions(SOLUTIONS, "log_odds")
    assert after[1][0] == pytest.approx(2 * before[1][0] + 0.75, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "head"), [("t5", "likelihood"), ("gpt2", "step_tag"), ("llama classifier", "token_classification")]
)
def test_a_solution_is_one_sequence_and_the_same_one_is_read_once(build, kind, head):
    judge = LLMRewardModel(*build(kind), HeadSettings(head))
    sizes = []
    judge.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(
            next(kwargs[name] for name in ("decoder_input_ids", "input_ids") if name in kwargs).size(0)
        ),
        with_kwargs=True,
    )
    judge.log_odds([*SOLUTIONS, SOLUTIONS[0]])
    assert sizes == [3]
    calls = []
    judge.score_solutions([*SOLUTIONS, SOLUTIONS[0]], progress=lambda done, total: calls.append((done, total)))
    assert (sizes, calls) == ([3, 3], [(3, 3)])
    judge.score_solutions(SOLUTIONS)
    assert sizes == [3, 3]


@pytest.mark.parametrize("token", ["lowest", "mean"])
@pytest.mark.parametrize("kind", ["t5", "sentencepiece llama"])
def test_certainty_stays_finite(build, kind, token):
    model, tokenizer = build(kind)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1000)
    judge = LLMRewardModel(model, tokenizer, HeadSettings("likelihood", token=token))
    scores = judge.score(PROMPT, STEPS, "log_odds")
    assert scores.abs().max() > 100
    scores.sum().backward()
    assert scores.isfinite().all()
    assert all(weights.grad.isfinite().all() for weights in judge.parameters() if weights.grad is not None)


def test_log_odds_are_exact_where_float32_calls_a_probability_1(build, monkeypatch):
    model, tokenizer = build("gpt2")
    judge = LLMRewardModel(model, tokenizer, HeadSettings("likelihood", token="mean"))
    # Every position expects its own token by 30 nats more than each of the 257 others.
    ids = torch.tensor(plain(tokenizer, "ab\n"))
    logits = torch.zeros(len(ids), 258).scatter(1, ids[:, None], 30.0)
    monkeypatch.setattr(heads, "completion_logits", lambda model, rows, pad_id: logits[None])
    text = 30 - math.log(257)
    end = math.log(math.exp(30) + 1) - math.log(256)  # the separator's 30 and the 0 of the end of sequence
    # For p so near 1, log p = -exp(-log-odds) and the mean of log p is that of the exponentials.
    expected = -math.log((2 * math.exp(-text) + math.exp(-end)) / 3)
    torch.testing.assert_close(judge.score("p", ["ab"], "log_odds"), torch.tensor([expected]), atol=1e-4, rtol=0)


def test_what_is_given_overrides_the_folder(build, tmp_path):
    model, tokenizer = build("t5")
    LLMRewardModel(model, tokenizer, HeadSettings("likelihood", token="mean", scale=2.0)).save_pretrained(tmp_path)
    name = str(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["process_reward"] == {
        "head": "likelihood", "token": "mean", "scale": 2.0, "bias": 0.0,
    }  # fmt: skip

    def settings(**given):
        return LLMRewardModel.from_pretrained(name, **given).settings

    assert settings() == HeadSettings("likelihood", token="mean", scale=2.0)
    assert settings(head="likelihood", token="mean").scale == 2.0
    # A calibration only holds for what was calibrated.
    assert settings(token="lowest") == HeadSettings("likelihood", token="lowest")
    assert settings(head="verbalizer") == HeadSettings("verbalizer", right_word="yes", wrong_word="no")
    tagged = settings(head="step_tag", right_word="good", wrong_word="bad", tag=" #")
    assert (tagged.right_word, tagged.wrong_word, tagged.tag) == ("good", "bad", " #")
    assert settings(head="step_tag") == HeadSettings("step_tag", right_word="+", wrong_word="-", tag=" ки")


def test_a_folder_that_says_nothing(build, tmp_path, causal_folder):
    assert LLMRewardModel.from_pretrained(str(causal_folder)).head == "verbalizer"
    model, tokenizer = build("t5 classifier")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert LLMRewardModel.from_pretrained(str(tmp_path)).head == "token_classification"
    assert LLMRewardModel(model, tokenizer).score(PROMPT, STEPS).tolist() == pytest.approx(
        LLMRewardModel.from_pretrained(str(tmp_path)).score(PROMPT, STEPS).tolist()
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head": "guess"}, "likelihood, verbalizer, step_tag, token_classification, not 'guess'"),
        ({"head": "likelihood", "tag": "#"}, "doesn't read tag .*choose head step_tag"),
        ({"head": "verbalizer", "token": "mean"}, "doesn't read token .*choose head likelihood"),
        ({"head": "likelihood", "right_word": "yes"}, "choose head verbalizer or step_tag"),
        ({"head": "likelihood", "token": "highest"}, "lowest, mean, not 'highest'"),
        ({"head": "step_tag", "tag": " "}, "blank"),
        ({"head": "token_classification"}, "use one of the heads 'likelihood', 'verbalizer', 'step_tag'"),
    ],
)
def test_options_that_dont_go_together(options, words):
    with pytest.raises(ConfigError, match=words):
        LLMRewardModel.from_pretrained("tiny", **options)


def test_a_token_classifier_is_no_language_model(build, tmp_path):
    LLMRewardModel(*build("llama classifier")).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="use head 'token_classification'"):
        LLMRewardModel.from_pretrained(str(tmp_path), head="likelihood")
    with pytest.raises(ConfigError, match="use head 'token_classification'"):
        LLMRewardModel(*build("llama classifier"), HeadSettings("verbalizer"))


def test_a_language_model_can_be_given_a_new_classifier(build, tmp_path, causal_folder):
    with pytest.raises(ModelError, match="lack 2 weights"):
        load_token_classifier(str(causal_folder))
    judge = LLMRewardModel(*load_token_classifier(str(causal_folder), new_head=True))
    judge.save_pretrained(tmp_path)
    assert LLMRewardModel.from_pretrained(str(tmp_path)).score_solutions(SOLUTIONS) == judge.score_solutions(SOLUTIONS)


def test_a_classifier_needs_two_labels(build, tmp_path):
    model, tokenizer = build("llama classifier")
    model.config.num_labels = 3
    with pytest.raises(ModelError, match="2 labels"):
        LLMRewardModel(model, tokenizer)
    three = LlamaForTokenClassification(
        LlamaConfig(
            vocab_size=258, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_labels=3
        )
    )
    three.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="2 labels"):
        LLMRewardModel.from_pretrained(str(tmp_path))


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        ("likelihood", "must be an object"),
        ({"head": "likelihood", "tokens": "mean"}, "unknown key 'tokens'"),
        ({"head": "likelihood", "token": 3}, "token must be"),
        ({"head": "likelihood", "scale": "2"}, "scale must be a number of at most"),
        ({"head": "likelihood", "scale": 1e39}, "scale must be a number of at most"),
        ({"head": "likelihood", "scale": 1e-320}, "scale must be at least 0.0001"),
        ({"head": "likelihood", "bias": 10**400}, "bias must be a number of at most"),
        ({"head": "likelihood", "scale": -1}, "scale must be above 0"),
        ({"head": ["likelihood"]}, "head must be one of"),
    ],
)
def test_a_folder_that_says_nonsense(build, tmp_path, saved, words):
    LLMRewardModel(*build("t5"), HeadSettings("likelihood")).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "process_reward": saved}))
    with pytest.raises(ModelError, match=words):
        LLMRewardModel.from_pretrained(str(tmp_path))


def test_a_calibration_must_keep_the_order(build):
    judge = LLMRewardModel(*build("t5"), HeadSettings("likelihood"))
    for scale, bias in ((0.0, 0.0), (-1.0, 0.0), (math.inf, 0.0), (1.0, math.nan)):
        with pytest.raises(ConfigError, match=r"scale|bias"):
            judge.set_calibration(scale, bias)


def test_words_and_tags_that_the_tokenizer_cannot_write(build):
    model, tokenizer = build("sentencepiece t5")
    with pytest.raises(ModelError, match="choose another tag"):
        LLMRewardModel(model, tokenizer, HeadSettings("step_tag", tag=" ☃"))
    with pytest.raises(ModelError, match="choose other words"):
        LLMRewardModel(model, tokenizer, HeadSettings("step_tag", right_word="no", wrong_word="no", tag=" ||"))


@pytest.mark.parametrize(
    ("kind", "head"), [("gpt2", "likelihood"), ("gpt2", "step_tag"), ("gpt2", "verbalizer"), ("gpt2 classifier", None)]
)
def test_what_is_too_long_is_never_cut(build, kind, head):
    judge = LLMRewardModel(*build(kind), HeadSettings(head) if head else None)
    with pytest.raises(DataError, match="reads only 256"):
        judge.log_odds([("p", ["s" * 250, "t" * 10])])
    with pytest.raises(DataError, match="reads only 256"):
        judge.score_solutions([("p" * 300, ["s"])])


def test_the_longest_that_fits_is_scored(build):
    judge = LLMRewardModel(*build("gpt2"), HeadSettings("likelihood"))
    assert judge.score("p", ["s" * 253]).isfinite().all()  # with a separator after both, 256 tokens
    with pytest.raises(DataError, match="reads only 256"):
        judge.score("p", ["s" * 254])


@pytest.mark.parametrize("head", ["likelihood", "step_tag", "verbalizer"])
def test_special_tokens_in_a_users_text(build, head):
    settings = HeadSettings(head, tag=" ||") if head == "step_tag" else HeadSettings(head)
    judge = LLMRewardModel(*build("sentencepiece t5"), settings)
    for solution in (("p </s>", ["s"]), ("p", ["s", "a </s> b"])):
        with pytest.raises(DataError, match="'</s>', which this tokenizer reads as the end"):
            judge.log_odds([solution])
    assert LLMRewardModel(*build("llama"), HeadSettings(head)).score("</s>", ["<pad>"]).isfinite().all()


def test_no_steps(judge):
    with pytest.raises(DataError, match="without steps"):
        judge.log_odds([(PROMPT, [])])
    assert judge.log_odds([]) == judge.score_solutions([]) == []


@pytest.mark.parametrize("field", ["{step[0]}", "{step!r}", "{step:>99}", "{step.real}"])
def test_a_template_names_its_fields_plainly(field):
    with pytest.raises(ConfigError, match="only plainly"):
        check_template("{prompt} " + field)
