import pytest
import torch

from stepwise_dpo.errors import ConfigError, DataError, ModelError
from stepwise_dpo.learning.head_settings import DEFAULT_TEMPLATE
from stepwise_dpo.learning.rewards import NEUTRAL, LLMRewardModel, PairRewards
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.runs.config import make_config

PROMPT, STEPS = "Start with 3. Add 4.", ["3 + 4 = 7", "Answer: 7"]


@pytest.fixture(params=["tiny", "sentencepiece t5", "causal"])
def judge(request, flan_t5_small_folder, causal_folder):
    folder = {"tiny": "tiny", "sentencepiece t5": flan_t5_small_folder, "causal": causal_folder}[request.param]
    return LLMRewardModel.from_pretrained(str(folder))


def word_ids(judge):
    """The ids that the words start with, found independently of the class."""
    tokenizer = judge.tokenizer
    if judge.model.config.is_encoder_decoder:
        return [tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("yes", "no")]
    return [tokenizer(" " + word, add_special_tokens=False)["input_ids"] for word in ("yes", "no")]


def test_log_odds_equal_a_computation_by_hand(judge):
    for index, step in enumerate(STEPS):
        text = DEFAULT_TEMPLATE.format(
            prompt=PROMPT, previous="\n".join(STEPS[:index]) or "none", step=step, right="yes", wrong="no"
        )
        ids = judge.tokenizer(text)["input_ids"]
        yes, no = word_ids(judge)
        shared = next(i for i in range(9) if yes[i] != no[i])
        with torch.no_grad():
            if judge.model.config.is_encoder_decoder:
                decoder_ids = [0, *yes[:shared]]
                logits = judge.model(
                    input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([decoder_ids])
                ).logits
            else:
                logits = judge.model(input_ids=torch.tensor([ids[:-1] + yes[:shared]])).logits  # without the end
        log_probs = logits[0, -1].log_softmax(-1)
        expected = log_probs[yes[shared]] - log_probs[no[shared]]
        torch.testing.assert_close(judge.score(PROMPT, STEPS, "log_odds")[index], expected, atol=1e-4, rtol=1e-4)


def test_scales_are_functions_of_the_log_odds(judge):
    x = judge.score(PROMPT, STEPS, "log_odds")
    assert x.shape == (2,)
    torch.testing.assert_close(judge.score(PROMPT, STEPS, "probability"), torch.sigmoid(x))
    torch.testing.assert_close(judge.score(PROMPT, STEPS, "centered"), 2 * torch.sigmoid(x) - 1, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(judge.score(PROMPT, STEPS), judge.score(PROMPT, STEPS, "centered"))


def test_a_step_is_judged_in_context(judge):
    alone = judge.score(PROMPT, ["Answer: 7"], "log_odds")[0]
    in_context = judge.score(PROMPT, STEPS, "log_odds")[1]
    other_problem = judge.score("Start with 9. Add 1.", STEPS, "log_odds")[1]
    assert len({round(value.item(), 4) for value in (alone, in_context, other_problem)}) == 3


def test_a_later_step_doesnt_change_an_earlier_score(judge):
    torch.testing.assert_close(
        judge.score(PROMPT, STEPS, "log_odds")[:1], judge.score(PROMPT, STEPS[:1], "log_odds"), atol=1e-4, rtol=1e-4
    )


def test_the_gradient_reaches_the_judge(judge):
    judge.score(PROMPT, STEPS).sum().backward()
    gradients = [p.grad for p in judge.parameters() if p.grad is not None]
    assert sum(gradient.abs().sum() for gradient in gradients) > 0


def test_score_pairs_equals_score(pairs):
    judge = LLMRewardModel.from_pretrained("tiny", batch_size=5)
    for pair, rewards in zip(pairs, judge.score_pairs(pairs, "log_odds"), strict=True):
        for side, values in ((pair.chosen, rewards.chosen), (pair.rejected, rewards.rejected)):
            expected = judge.score(pair.prompt, [step.text for step in side], "log_odds")
            torch.testing.assert_close(torch.tensor(values), expected.detach(), atol=1e-5, rtol=1e-5)


def test_what_the_judge_cant_read_is_named_by_pair_and_side(causal_folder):
    judge = LLMRewardModel.from_pretrained(str(causal_folder), head="likelihood")
    long, short = Step("1" * 5000), Step("2")
    pair = PreferencePair(prompt="p", chosen=(short,), rejected=(short, long), id="seven")
    with pytest.raises(DataError, match=r"^example 'seven', rejected: .* 2 tokens with 500\d tokens .* only 4096"):
        judge.score_pairs([pair])
    with pytest.raises(DataError, match=r"^example 'a problem', chosen: ."):
        judge.score_pairs([PreferencePair(prompt="a problem", chosen=(long,), rejected=(short,))])


def test_every_distinct_judgement_is_made_once():
    judge = LLMRewardModel.from_pretrained("tiny")
    rows = []
    judge.model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(kwargs["decoder_input_ids"].size(0)), with_kwargs=True
    )
    shared, chosen, rejected = Step("3 + 4 = 7"), Step("7 - 2 = 5"), Step("7 - 2 = 6")
    pair = PreferencePair(prompt="p", chosen=(shared, chosen), rejected=(shared, rejected), id="1")
    first = judge.score_pairs([pair, pair])
    assert sum(rows) == 3  # the shared step once, and the other two
    assert judge.score_pairs([pair]) == first[:1]
    assert sum(rows) == 3
    judge.clear_cache()
    judge.score_pairs([pair])
    assert sum(rows) == 6


def test_braces_in_a_users_text_are_text():
    judge = LLMRewardModel.from_pretrained("tiny")
    assert judge.score("{step} {0}", ["{prompt}", "}{"]).shape == (2,)


def test_special_tokens_in_a_users_text_are_text(causal_folder):
    judge = LLMRewardModel.from_pretrained(str(causal_folder), template="{step}")
    ids = judge.tokenizer("</s>", split_special_tokens=True)["input_ids"][:-1]
    yes, no = (judge.tokenizer(" " + word, add_special_tokens=False)["input_ids"] for word in ("yes", "no"))
    assert len(ids) == 4
    with torch.no_grad():
        logits = judge.model(input_ids=torch.tensor([[*ids, yes[0]]])).logits[0, -1]
    torch.testing.assert_close(judge.score("p", ["</s>"], "log_odds")[0], logits[yes[1]] - logits[no[1]])


def test_a_question_that_would_eat_the_memory_is_refused():
    with pytest.raises(DataError, match="reads only 4096"):
        LLMRewardModel.from_pretrained("tiny").score("p", ["s" * 100_000])


def test_words_and_template_can_be_chosen():
    judge = LLMRewardModel.from_pretrained("tiny", right_word="+", wrong_word="-", template="{prompt} | {step}")
    tokenizer = judge.tokenizer
    with torch.no_grad():
        ids = torch.tensor([tokenizer("p | s")["input_ids"]])
        logits = judge.model(input_ids=ids, decoder_input_ids=torch.tensor([[0]])).logits[0, -1]
    plus, minus = tokenizer.convert_tokens_to_ids(["+", "-"])
    torch.testing.assert_close(judge.score("p", ["s"], "log_odds")[0], logits[plus] - logits[minus])


def test_words_that_no_token_tells_apart_are_refused(sentencepiece_tokenizer, flan_t5_small_folder):
    for words in ({"right_word": "yes", "wrong_word": "yes"}, {"right_word": "a", "wrong_word": "ab"}):
        with pytest.raises(ModelError, match="choose other words"):
            LLMRewardModel.from_pretrained("tiny", **words)
    with pytest.raises(ModelError, match="choose other words"):  # both unknown to this tokenizer
        LLMRewardModel.from_pretrained(str(flan_t5_small_folder), right_word="☃", wrong_word="☀")


@pytest.mark.parametrize("template", ["{prompt}", "{nonsense} {step}", "{step", "{} {step}"])
def test_unusable_templates_are_refused(template):
    with pytest.raises(ConfigError, match="template"):
        LLMRewardModel.from_pretrained("tiny", template=template)


def test_bad_requests():
    judge = LLMRewardModel.from_pretrained("tiny")
    with pytest.raises(DataError, match="without steps"):
        judge.score("p", [])
    with pytest.raises(ConfigError, match="'logit'"):
        judge.score("p", ["s"], "logit")
    with pytest.raises(ConfigError, match="blank"):
        LLMRewardModel.from_pretrained("tiny", right_word=" ")


def test_a_judgement_longer_than_the_judge_reads_is_an_error(causal_folder):
    judge = LLMRewardModel.from_pretrained(str(causal_folder))
    with pytest.raises(DataError, match="reads only 4096"):
        judge.score("p", ["s" * 5000])


def test_the_preference_knows_the_neutral_value():
    rewards = PairRewards([0.9, 0.8], [0.8, 0.2, 0.95])
    assert rewards.preference("until_error", NEUTRAL["probability"]) == pytest.approx(0.9 + 0.8 - (0.8 + 0.2))
    centred = PairRewards([0.8, 0.6], [0.6, -0.6, 0.9])
    assert centred.preference("until_error", NEUTRAL["centered"]) == pytest.approx(0.8 + 0.6 - (0.6 - 0.6))


def test_the_settings_of_a_run_from_before_there_were_heads():
    config = make_config(
        {"data": "d.json", "reward_model": "tiny", "reward_right_word": "yes", "reward_wrong_word": "no"}
    )
    words = {"right_word": config.reward_right_word, "wrong_word": config.reward_wrong_word}
    assert LLMRewardModel.from_pretrained("tiny", **words).settings == LLMRewardModel.from_pretrained("tiny").settings


@pytest.mark.parametrize(
    ("prompt", "steps", "words"),
    [
        ("p", ["a", " "], r"steps\[1\] must be a non-blank string"),
        ("p", ["a", None], r"steps\[1\] must be a non-blank string, not null"),
        ("p", ["\ud800"], r"steps\[0\] must be valid Unicode"),
        (3, ["a"], "prompt must be a non-blank string, not 3"),
        ("p", "a", "must be a sequence of texts"),
        ("p", [], "without steps"),
    ],
)
def test_texts_that_are_none(judge, prompt, steps, words):
    with pytest.raises(DataError, match=words):
        judge.score(prompt, steps)
