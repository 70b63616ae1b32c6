"""What several test modules share: tiny real models in folders, and a few real pairs."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from stepwise_dpo.runs.threads import waiting

# Before any Hugging Face library is imported: no test may need a network, and a slip shall fail at once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Before torch is: threads that wait in a loop take the cores from whatever else runs on this machine.
os.environ.update(waiting(os.environ))

# How long an example takes says how busy the machine is.
settings.register_profile("no_timing", deadline=None)
settings.load_profile("no_timing")

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data"


@pytest.fixture(scope="session")
def pairs():
    """Twelve pairs of the training data, of different lengths."""
    from stepwise_dpo.preferences.pairs import load_pairs

    return load_pairs(DATA / "synthetic_prm.json")[:12]


@pytest.fixture(scope="session")
def sentencepiece_tokenizer():
    """Like T5's: SentencePiece's unigram model, which turns every run of white space into one space."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from stepwise_dpo.preferences.pairs import load_pairs

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    texts = [
        text
        for pair in load_pairs(DATA / "synthetic_prm.json")
        for text in (pair.prompt, *(step.text for step in (*pair.chosen, *pair.rejected)))
    ]
    trainer = trainers.UnigramTrainer(
        vocab_size=600,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
        initial_alphabet=["|", ";"],
    )
    tokenizer.train_from_iterator([*texts, "yes no a || b || c"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def flan_t5_small_folder(tmp_path_factory, sentencepiece_tokenizer):
    """google/flan-t5-small's real shape with random weights, as a local folder."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("flan-t5-small")
    config = T5Config(
        vocab_size=32128,
        d_model=512,
        d_ff=1024,
        d_kv=64,
        num_heads=6,
        num_layers=8,
        num_decoder_layers=8,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    assert config.dropout_rate == 0.1  # the trap that the first loss of ln 2 would reveal
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config)
    # Transformers 5 builds every T5 tied; the head comes loose when a checkpoint holds other weights for it.
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.config.tie_word_embeddings = False
    model.save_pretrained(folder)
    sentencepiece_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def causal_folder(tmp_path_factory):
    """A small Llama with random weights and dropout, as a local folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from stepwise_dpo.learning.tiny import build_tiny_tokenizer

    folder = tmp_path_factory.mktemp("causal")
    tokenizer = build_tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=4096,
        attention_dropout=0.1,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
