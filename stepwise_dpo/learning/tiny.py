"""A tiny untrained T5 for machines without a network: it shows that the machinery runs, and knows nothing.

Same family and same code path as google/flan-t5-small, about 0.2 million random weights, one token per UTF-8 byte, so
there is no text that it can't read. Its scores are noise until someone trains it; whoever shows them has to say so.
"""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration


def build_tiny_model(seed: int = 0) -> T5ForConditionalGeneration:
    """Build the model in eval mode; the same seed gives the same weights, and the caller's random state is kept."""
    config = T5Config(
        vocab_size=len(_vocabulary()),
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_heads=4,
        num_layers=2,
        num_decoder_layers=2,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=True,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(config)
    return model.eval()


def build_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Build the byte-level tokenizer: every text and every line break comes back as it went in."""
    tokenizer = Tokenizer(models.BPE(vocab=_vocabulary(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", clean_up_tokenization_spaces=False
    )


def _vocabulary() -> dict[str, int]:
    symbols = ["<pad>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    return {symbol: index for index, symbol in enumerate(symbols)}
