"""Models and tokenizers from the built-in tiny one, a local folder or the Hugging Face Hub, safe by default.

Never runs code that comes with a model (`trust_remote_code=False`) and never reads pickled weights (safetensors only).
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlparse
from urllib.request import getproxies

import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from stepwise_dpo.errors import ModelError
from stepwise_dpo.learning.names import HUB_DEFAULT, TINY
from stepwise_dpo.learning.tiny import build_tiny_model, build_tiny_tokenizer
from stepwise_dpo.learning.tokenization import StepTokenizer

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Policy:
    """A language model with its tokenizer.

    Attributes:
        name: what it was asked for: "tiny", a folder, or a Hub id.
        model: on the CPU, float32, in eval mode, dropout off even in train mode.
        tokenizer: has a padding token.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether the prompt goes to an encoder and the completion to a decoder."""
        return bool(self.model.config.is_encoder_decoder)

    def step_tokenizer(self) -> StepTokenizer:
        """The tokenizer, made to know steps and this model's limits."""
        limit = getattr(self.model.config, "max_position_embeddings", None)
        return StepTokenizer(self.tokenizer, self.is_encoder_decoder, limit)


def load_policy(name: str = HUB_DEFAULT) -> Policy:
    """Load an encoder-decoder or causal language model.

    Args:
        name: "tiny" (built in, untrained), a local folder, or a Hub id such as "google/flan-t5-small".

    Raises:
        ModelError: not found, not reachable, needs remote code, has no safetensors, isn't a language model, or its
            tokenizer doesn't fit.
    """
    if name == TINY:
        return Policy(TINY, switch_off_dropout(build_tiny_model()), build_tiny_tokenizer())

    if is_local(name):
        name = os.path.expanduser(name)
        _check_folder(name)
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": is_local(name) or not _hub_reachable()}
    try:
        config = AutoConfig.from_pretrained(name, **options)
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        # Training in half precision needs float32 master weights, and T5 overflows in float16.
        model = auto_class.from_pretrained(name, dtype=torch.float32, use_safetensors=True, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(_explain(name, error)) from error

    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise ModelError(
            f"model {name!r}: the tokenizer knows {len(tokenizer)} tokens but the model embeds only "
            f"{model.get_input_embeddings().num_embeddings}; use the tokenizer that the model was trained with"
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(f"model {name!r}: its tokenizer has no end-of-sequence token, so answers could never end")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.eval()
    return Policy(name, switch_off_dropout(model), tokenizer)


def is_local(name: str) -> bool:
    """Whether a model's name means a folder on this machine rather than a Hub id."""
    return name.startswith((".", "/", "~", "\\")) or name.count("/") > 1 or Path(name).exists()


def switch_off_dropout(model: Model) -> Model:
    """Make train mode deterministic, without touching the saved config.

    T5 and others hold the dropout of their attention as a plain float on the module, which looking for `nn.Dropout`
    misses: with it on, the first DPO margin of a T5 is far from 0 although policy and reference are equal.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for attribute, value in vars(module).items():
            if isinstance(value, float) and "drop" in attribute:
                setattr(module, attribute, 0.0)
    return model


def _check_folder(name: str) -> None:
    """Say what is wrong with a model folder before Transformers says it in ten lines."""
    folder = Path(name)
    if not folder.is_dir():
        raise ModelError(f"model {name!r}: no such folder")
    if (folder / "final" / "config.json").is_file():
        raise ModelError(f"model {name!r} is a run folder; its trained model is {str(folder / 'final')!r}")
    if not (folder / "config.json").is_file():
        raise ModelError(f"model {name!r}: no config.json in this folder, so it isn't a saved Transformers model")


def _hub_reachable() -> bool:
    """Ask the name service first: without a network, Hugging Face's client retries for long before it gives up."""
    if getproxies():
        return True  # the proxy resolves names; whether it reaches the Hub only a request can tell
    try:
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, 443)
    except socket.gaierror:
        return False
    return True


def _explain(name: str, error: Exception) -> str:
    """One line for the many ways in which loading fails."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text or "custom code" in text:
        return f"model {name!r} needs its own Python code, which is never run here; choose a model without remote code"
    if "no file named model.safetensors" in text or "does not appear to have a file named model.safetensors" in text:
        return f"model {name!r} has no .safetensors weights; pickled weights are never loaded, so convert it first"
    if not is_local(name) and ("connect" in text.lower() or "offline" in text.lower() or "cached" in text.lower()):
        return (
            f"model {name!r} is not on this machine and the Hugging Face Hub can't be reached; "
            f"give a local folder, connect and try again, or use the built-in model {TINY!r}"
        )
    return f"model {name!r} can't be loaded: {text[:300]}"
