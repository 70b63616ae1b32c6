import copy

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from stepwise_dpo.learning.seq2seq import IGNORED, enable_causal_layout, score_completions

PROMPTS, COMPLETIONS = (3, 9, 1), ((4, 1), (2, 11), (7, 7))  # ragged on purpose: tokens of (chosen, rejected)


def t5(tied=False, gated=True):
    torch.manual_seed(0)
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=50,
            d_model=16,
            d_kv=4,
            d_ff=24,
            num_heads=4,
            num_layers=2,
            num_decoder_layers=2,
            feed_forward_proj="gated-gelu" if gated else "relu",
            tie_word_embeddings=tied,
            decoder_start_token_id=0,
        )
    ).eval()


def bart():
    torch.manual_seed(0)
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=50,
            d_model=16,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            max_position_embeddings=64,
            decoder_start_token_id=2,
            forced_eos_token_id=None,
        )
    ).eval()


MODELS = {
    "t5 untied gated": t5,
    "t5 tied relu": lambda: t5(tied=True, gated=False),
    "bart": bart,
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def make_batch():
    """Chosen rows, then rejected rows: (prompt, completion) lists and the padded tensors of the causal layout."""
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(4, 50, (n,), generator=generator) for n in PROMPTS]
    rows = [
        (prompt, torch.randint(4, 50, (lengths[which],), generator=generator))
        for which in (0, 1)
        for prompt, lengths in zip(prompts, COMPLETIONS, strict=True)
    ]
    width = max(len(p) + len(c) for p, c in rows)
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full_like(input_ids, IGNORED)
    mask = torch.zeros_like(input_ids)
    for i, (prompt, completion) in enumerate(rows):
        end = len(prompt) + len(completion)
        input_ids[i, :end] = torch.cat([prompt, completion])
        labels[i, len(prompt) : end] = completion
        mask[i, :end] = 1
    return rows, {"input_ids": input_ids, "attention_mask": mask, "labels": labels}


def test_equals_a_plain_forward_of_every_row(model):
    rows, batch = make_batch()
    with torch.no_grad():
        scores = score_completions(model, **batch)
        for i, (prompt, completion) in enumerate(rows):
            # One row alone, without padding, through the class's own forward.
            logits = type(model).forward(model, input_ids=prompt[None], labels=completion[None]).logits[0]
            log_softmax = logits.log_softmax(-1)
            probs = log_softmax.exp()
            where = slice(len(prompt) - 1, len(prompt) - 1 + len(completion))
            expected = {
                "log_probs": log_softmax[torch.arange(len(completion)), completion],
                "entropy": -(probs * log_softmax).sum(-1),
                "mean_logits": logits.mean(-1),
                "is_top1": logits.argmax(-1) == completion,
                "log_sum_sq_probs": (probs**2).sum(-1).log(),
            }
            for name, value in expected.items():
                row = scores[name][i]
                torch.testing.assert_close(row[where], value, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
                outside = torch.ones_like(row, dtype=torch.bool)
                outside[where] = False
                assert not row[outside].any()


def test_gradients_equal_those_of_plain_forwards(model):
    rows, batch = make_batch()
    score_completions(model, **batch).log_probs.sum().backward()
    batched = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for prompt, completion in rows:
        logits = type(model).forward(model, input_ids=prompt[None], labels=completion[None]).logits[0]
        logits.log_softmax(-1)[torch.arange(len(completion)), completion].sum().backward()
    assert batched.keys() == {name for name, p in model.named_parameters() if p.grad is not None}
    for name, parameter in model.named_parameters():
        if name in batched:
            torch.testing.assert_close(batched[name], parameter.grad, atol=1e-4, rtol=1e-4)


def rows_encoded(model, batch):
    sizes = []
    encoder = model.get_encoder()
    hook = encoder.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["input_ids"].size(0)), with_kwargs=True
    )
    with torch.no_grad():
        score_completions(model, **batch)
    hook.remove()
    return sizes


def test_the_encoder_runs_once_per_pair():
    _, batch = make_batch()
    assert rows_encoded(t5(), batch) == [len(PROMPTS)]


def test_rows_that_share_no_prompts_are_all_encoded():
    _, batch = make_batch()
    batch["input_ids"][0, 0] += 1
    assert rows_encoded(t5(), batch) == [2 * len(PROMPTS)]


def test_generation_and_ordinary_calls_stay_as_they_were(model):
    patched = copy.deepcopy(model)
    enable_causal_layout(patched)
    prompt = torch.arange(5, 12)[None]
    options = {"max_new_tokens": 8, "do_sample": False, "num_beams": 1}
    assert torch.equal(patched.generate(prompt, **options), model.generate(prompt, **options))
    labels = torch.arange(6, 10)[None]
    with torch.no_grad():
        assert torch.equal(
            patched(input_ids=prompt, labels=labels).logits, model(input_ids=prompt, labels=labels).logits
        )


def test_a_deep_copy_of_a_patched_model_uses_its_own_weights():
    patched = t5()
    enable_causal_layout(patched)
    copied = copy.deepcopy(patched)
    _, batch = make_batch()
    with torch.no_grad():
        before = copied(**batch, fused_lm_head=True).log_probs
        for parameter in patched.parameters():
            parameter.zero_()
        assert torch.equal(copied(**batch, fused_lm_head=True).log_probs, before)


def test_rows_without_prompt_or_completion_are_refused():
    _, batch = make_batch()
    for labels in (batch["input_ids"], torch.full_like(batch["labels"], IGNORED)):
        with pytest.raises(ValueError, match="at least one prompt token and one completion token"):
            score_completions(t5(), batch["input_ids"], batch["attention_mask"], labels)


def test_a_causal_model_is_refused(causal_folder):
    from stepwise_dpo.learning.loading import load_policy

    with pytest.raises(TypeError, match="not an encoder-decoder"):
        enable_causal_layout(load_policy(str(causal_folder)).model)
