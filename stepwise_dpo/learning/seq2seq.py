"""An encoder-decoder model speaks the causal batch layout that TRL's trainer expects.

TRL 1.16's DPOTrainer gives its model rows of `prompt + completion` and asks, with `fused_lm_head=True`, for
log-probabilities per token instead of logits. Here each row is cut at the completion boundary: the encoder reads the
prompt, the decoder is taught the completion, and what comes out is scattered back to the positions at which a causal
model would have predicted the same tokens.

Covered: right-padded rows, one contiguous completion per row, any Transformers encoder-decoder whose forward takes
`encoder_outputs` and `decoder_input_ids` (T5, mT5, UMT5, BART and relatives).
Not covered: packed rows, prompts inside completions, prefix tuning.

N = rows (chosen rows first, then rejected rows, for a preference batch), T = tokens, C = completion tokens,
V = vocabulary, D = hidden size.
"""

import functools
import types
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

IGNORED = -100
"""The label that Transformers and TRL give to positions which are no target."""


@dataclass
class TokenScores(ModelOutput):
    """What TRL reads from a model's forward with `fused_lm_head=True`.

    Column t belongs to the token at position t + 1 of the row. All fields are zero where that token is no target.

    Attributes:
        loss: mean negative log-likelihood over all targets, in nats per token, scalar.
        log_probs: log-probability of each target, in nats, (N, T-1).
        entropy: entropy of the prediction, in nats, no gradient, (N, T-1).
        mean_logits: mean of the logits over the vocabulary, no gradient, (N, T-1).
        is_top1: whether the target is the most likely token, bool, (N, T-1).
        log_sum_sq_probs: log of the sum of squared probabilities, no gradient, (N, T-1). TRL needs it for
            `use_weighting` (WPO, arXiv 2406.11827).
        aux_loss: always None; TRL reads it for mixture-of-experts models.
    """

    loss: Tensor | None = None
    log_probs: Tensor | None = None
    entropy: Tensor | None = None
    mean_logits: Tensor | None = None
    is_top1: Tensor | None = None
    log_sum_sq_probs: Tensor | None = None
    aux_loss: Tensor | None = None


def enable_causal_layout(model: PreTrainedModel) -> None:
    """Let `model(..., labels=..., fused_lm_head=True)` accept the causal layout; all other calls stay as they are.

    The patch sits on this one object and goes away with it: `save_pretrained` and `generate` see the class's own
    forward.

    Raises:
        TypeError: the model has no encoder and decoder.
    """
    if not model.config.is_encoder_decoder:
        raise TypeError(f"{type(model).__name__} is not an encoder-decoder model")

    # `generate` checks its keyword arguments against the signature, which `wraps` keeps.
    @functools.wraps(type(model).forward)
    def forward(self: PreTrainedModel, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> ModelOutput:
        if not fused_lm_head:
            # Not a remembered bound method: a deep copy of this model must call itself, not the original.
            return type(self).forward(self, *args, **kwargs)
        return score_completions(self, **kwargs)

    model.forward = types.MethodType(forward, model)


def score_completions(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, use_cache: bool = False
) -> TokenScores:
    """Score each row's completion given its prompt.

    Args:
        model: an encoder-decoder language model.
        input_ids: prompt, then completion, then padding, (N, T).
        attention_mask: 1 for prompt and completion, 0 for padding, (N, T).
        labels: `input_ids` at the completion, -100 elsewhere, (N, T).
        use_cache: accepted because TRL passes it; scoring never needs a cache.

    Returns:
        scores in the causal layout, (N, T-1). Where the second half of the rows repeats the prompts of the first half
        (a preference batch), the encoder runs on the first half only.

    Raises:
        ValueError: a row has no prompt or no completion.
    """
    del use_cache
    is_target = labels != IGNORED
    prompt_lengths = is_target.int().argmax(dim=1)  # (N,)
    completion_lengths = is_target.sum(dim=1)  # (N,)
    if bool((prompt_lengths == 0).any()):
        # argmax gives 0 both for a completion at position 0 and for no completion at all
        raise ValueError("each row needs at least one prompt token and one completion token")

    encoder_states, prompt_mask = _encode_prompts(model, input_ids, prompt_lengths)

    offsets = torch.arange(int(completion_lengths.max()), device=labels.device)  # (C,)
    in_completion = offsets < completion_lengths[:, None]  # (N, C)
    positions = (prompt_lengths[:, None] + offsets).clamp(max=labels.size(1) - 1)
    targets = labels.gather(1, positions).masked_fill(~in_completion, IGNORED)  # (N, C)

    logits = (
        type(model)
        .forward(
            model,
            encoder_outputs=BaseModelOutput(last_hidden_state=encoder_states),
            attention_mask=prompt_mask,
            decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels=targets),
            use_cache=False,
        )
        .logits
    )  # (N, C, V)
    # Padding positions would only cost time from here on, and a softmax over V is not cheap.
    logits = logits[in_completion].float()  # (targets, V)
    target_ids = targets[in_completion]

    log_softmax = logits.log_softmax(dim=-1)
    log_probs = log_softmax.gather(1, target_ids[:, None]).squeeze(1)
    with torch.no_grad():
        entropy = -(log_softmax.exp() * log_softmax).sum(dim=-1)
        mean_logits = logits.mean(dim=-1)
        is_top1 = logits.argmax(dim=-1) == target_ids
        log_sum_sq_probs = (2 * log_softmax).logsumexp(dim=-1)

    layout = is_target[:, 1:]  # row by row and in order, as `in_completion` is

    def scatter(values: Tensor) -> Tensor:
        return values.new_zeros(layout.shape).masked_scatter(layout, values)

    return TokenScores(
        loss=-log_probs.mean(),
        log_probs=scatter(log_probs),
        entropy=scatter(entropy),
        mean_logits=scatter(mean_logits),
        is_top1=scatter(is_top1),
        log_sum_sq_probs=scatter(log_sum_sq_probs),
    )


def _encode_prompts(model: PreTrainedModel, input_ids: Tensor, prompt_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Run the encoder once per distinct half: states (N, P, D) and mask (N, P), P = the longest prompt."""
    width = int(prompt_lengths.max())
    mask = (torch.arange(width, device=input_ids.device) < prompt_lengths[:, None]).long()  # (N, P)
    # Completion tokens of shorter prompts stand here too: the mask hides them, zeroing keeps the halves comparable.
    prompts = input_ids[:, :width] * mask

    first, second = prompts.tensor_split(2)
    mask_first, mask_second = mask.tensor_split(2)
    repeated = torch.equal(first, second) and torch.equal(mask_first, mask_second)
    if repeated:
        prompts, encoder_mask = first, mask_first
    else:
        encoder_mask = mask
    states = model.get_encoder()(input_ids=prompts, attention_mask=encoder_mask).last_hidden_state
    return (torch.cat([states, states]) if repeated else states), mask
