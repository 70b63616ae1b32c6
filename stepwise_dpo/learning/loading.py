"""Models and tokenizers from the built-in tiny one, a local folder or the Hugging Face Hub, safe by default.

Never runs code that comes with a model (`trust_remote_code=False`) and never reads pickled weights (safetensors only).
"""

import os
import socket
from collections.abc import Callable
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
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from stepwise_dpo.errors import ModelError
from stepwise_dpo.learning.names import BUNDLED, MODELS_DIR, POLICY, TINY
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


def load_policy(name: str = POLICY) -> Policy:
    """Load an encoder-decoder or causal language model.

    Args:
        name: "policy" or "reward" (bundled), "tiny" (built in, untrained), a local folder, or a Hub id such as
            "google/flan-t5-small".

    Raises:
        ModelError: not found, not reachable, needs remote code, has no safetensors, isn't a language model, or its
            tokenizer doesn't fit.
    """
    if name == TINY:
        return Policy(TINY, switch_off_dropout(build_tiny_model()), build_tiny_tokenizer())
    model, tokenizer = _load(name, _language_model_class)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"model {name!r}: its tokenizer has no end-of-sequence token, so answers could never end")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Policy(name, model, tokenizer)


def load_token_classifier(name: str, new_head: bool = False) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model that gives each token a label, such as a process reward model of TRL's PRMTrainer.

    Args:
        name: a bundled model, a local folder, or a Hub id.
        new_head: accept a model without a classifier and give it one for two labels, of random weights, for training.

    Returns:
        model and tokenizer, in the state that `Policy` describes.

    Raises:
        ModelError: as `load_policy`; or it has no classifier, without `new_head`.
    """
    settings = {"num_labels": 2} if new_head else {}
    model, tokenizer = _load(name, lambda config: AutoModelForTokenClassification, complete=not new_head, **settings)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError(f"model {name!r}: its tokenizer has neither a padding nor an end-of-sequence token")
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def load_config(name: str) -> Any:
    """Load a model's PreTrainedConfig alone.

    Raises:
        ModelError: not found, not reachable, needs remote code, or isn't a configuration.
    """
    if name == TINY:
        return build_tiny_model().config
    source, options = _source(name)
    try:
        return AutoConfig.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelError(_explain(name, error)) from error


def bundled_folder(name: str) -> str:
    """Where a bundled model lies.

    Raises:
        ModelError: it isn't there, as when the package was installed without the rest of the project.
    """
    folder = MODELS_DIR / name
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"the bundled model {name!r} is not in {str(MODELS_DIR)!r}: only the whole project brings it, "
            f"`pip install .` doesn't; run from the project's folder, name a folder of your own, or use {TINY!r}"
        )
    return str(folder)


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


def _language_model_class(config: Any) -> Any:
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _source(name: str) -> tuple[str, dict[str, Any]]:
    """Where a model's files are, and the options with which all of them are read."""
    source = bundled_folder(name) if name in BUNDLED else name
    if is_local(source):
        source = os.path.expanduser(source)
        _check_folder(source)
    return source, {"trust_remote_code": False, "local_files_only": is_local(source) or not _hub_reachable()}


def _load(
    name: str, auto_class_of: Callable[[Any], Any], complete: bool = False, **settings: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model of some class and its tokenizer, in eval mode with dropout off.

    Args:
        name: as `load_policy`, but "tiny".
        auto_class_of: chooses the class by the model's config.
        complete: refuse a model whose files lack some of its weights.
        settings: for the model's config.
    """
    source, options = _source(name)
    try:
        auto_class = auto_class_of(AutoConfig.from_pretrained(source, **options))
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        # Training in half precision needs float32 master weights, and T5 overflows in float16.
        model, info = auto_class.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options, **settings
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(_explain(name, error)) from error
    if complete and info["missing_keys"]:
        raise ModelError(f"model {name!r}: its files lack weights, {', '.join(sorted(info['missing_keys'])[:3])} first")
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise ModelError(
            f"model {name!r}: the tokenizer knows {len(tokenizer)} tokens but the model embeds only "
            f"{model.get_input_embeddings().num_embeddings}; use the tokenizer that the model was trained with"
        )
    return switch_off_dropout(model.eval()), tokenizer


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
            f"give a local folder, connect and try again, or use the bundled model {POLICY!r}"
        )
    return f"model {name!r} can't be loaded: {text[:300]}"
