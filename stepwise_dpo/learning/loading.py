"""Models and tokenizers from the built-in tiny one, a local folder or the Hugging Face Hub, safe by default.

Never runs code that comes with a model (`trust_remote_code=False`) and never reads pickled weights (safetensors only).
"""

import os
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlparse
from urllib.request import getproxies

import torch
from huggingface_hub import constants
from huggingface_hub.errors import StrictDataclassError
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
from stepwise_dpo.learning.checkpoints import MANIFEST, faults, is_sealed
from stepwise_dpo.learning.names import BUNDLED, MODELS_DIR, POLICY, TINY
from stepwise_dpo.learning.tiny import build_tiny_model, build_tiny_tokenizer
from stepwise_dpo.learning.tokenization import StepTokenizer

# Read at every load: else Transformers has a service of the Hub convert a model that has pickles only, and loads what
# that service proposes.
os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"

Model = TypeVar("Model", bound=nn.Module)

_FILE_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    RuntimeError,
    ImportError,
    TypeError,
    AttributeError,
    OverflowError,
    SafetensorError,
    StrictDataclassError,
)
"""What Transformers raises over a model's files. It checks little of them: a null in JSON ends in a TypeError."""

_one_at_a_time = threading.Lock()
"""While Transformers loads a model it changes how torch builds modules, for all threads: of two models that are loaded
at the same time, one comes out without its tied weights."""


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
        with _one_at_a_time:
            return Policy(TINY, switch_off_dropout(build_tiny_model()), build_tiny_tokenizer())
    model, tokenizer = _load(name, _language_model_class)
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"model {name!r}: its tokenizer has no end-of-sequence token, so answers could never end; choose another "
            "model, or name one in its tokenizer_config.json"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    _check_token_ids(model, name)
    if not model.config.is_encoder_decoder and reads_ahead(model):
        raise ModelError(
            f"model {name!r} reads in both directions ({type(model).__name__}), so it can't write one token after "
            "another, and a likelihood by it would mean nothing; choose a causal or an encoder-decoder model"
        )
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
    model, tokenizer = _load(name, lambda config: AutoModelForTokenClassification, new_head=new_head, **settings)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError(
                f"model {name!r}: its tokenizer has neither a padding nor an end-of-sequence token; name one in its "
                "tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer alone, without its weights.

    Raises:
        ModelError: not found, not reachable, needs remote code, or isn't a tokenizer.
    """
    if name == TINY:
        return build_tiny_tokenizer()
    source, options = _source(name)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **options)
    except _FILE_ERRORS as error:
        raise ModelError(_explain(name, error)) from error
    return tokenizer


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
    except _FILE_ERRORS as error:
        raise ModelError(_explain(name, error)) from error


def model_classes(config: Any) -> list[str]:
    """The names of the classes that a model was saved as, which its config lists under `architectures`."""
    names = getattr(config, "architectures", None)
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


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


def _source(name: str, *, verify: bool = False) -> tuple[str, dict[str, Any]]:
    """Where a model's files are, and the options with which all of them are read.

    Args:
        name: of the model.
        verify: compare the contents of a trained model's files with its manifest, and not their sizes only.
    """
    source = bundled_folder(name) if name in BUNDLED else name
    if is_local(source):
        source = os.path.expanduser(source)
        _check_folder(source, verify)
    return source, {"trust_remote_code": False, "local_files_only": is_local(source) or not _hub_reachable()}


def _load(
    name: str, auto_class_of: Callable[[Any], Any], new_head: bool = False, **settings: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model of some class and its tokenizer, in eval mode with dropout off.

    Args:
        name: as `load_policy`, but "tiny".
        auto_class_of: chooses the class by the model's config.
        new_head: the files may lack the weights of what stands on the backbone.
        settings: for the model's config.
    """
    source, options = _source(name, verify=True)
    try:
        auto_class = auto_class_of(AutoConfig.from_pretrained(source, **options))
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        # Training in half precision needs float32 master weights, and T5 overflows in float16.
        with _one_at_a_time:
            model, info = auto_class.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options, **settings
            )
    except _FILE_ERRORS as error:
        raise ModelError(_explain(name, error)) from error
    _check_weights(model, name, info["missing_keys"], info["unexpected_keys"], new_head)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise ModelError(
            f"model {name!r}: the tokenizer knows {len(tokenizer)} tokens but the model embeds only "
            f"{model.get_input_embeddings().num_embeddings}; use the tokenizer that the model was trained with"
        )
    return switch_off_dropout(model.eval()), tokenizer


def _check_weights(
    model: PreTrainedModel, name: str, missing: Iterable[str], unexpected: Iterable[str], new_head: bool
) -> None:
    """Refuse a model that isn't what its files hold: Transformers fills gaps with random numbers and drops the rest."""
    backbone = model.base_model_prefix + "."
    lacking = sorted(key for key in missing if not (new_head and not key.startswith(backbone)))
    if lacking:
        raise ModelError(
            f"model {name!r}: its files lack {len(lacking)} weights of a {type(model).__name__}, {lacking[0]!r} first; "
            "they would be random numbers. Is config.json that of these weights, and the kind of model the right one?"
        )
    # A head that this class doesn't have, such as a value head, may be left out; a layer may not.
    parts = {part for module in (model, model.base_model) for part, _ in module.named_children()}
    surplus = sorted(key for key in unexpected if key.partition(".")[0] in parts)
    if surplus:
        raise ModelError(
            f"model {name!r}: its files hold {len(surplus)} weights that its config.json has no place for, "
            f"{surplus[0]!r} first; use the config.json that was saved with these weights"
        )


def _check_token_ids(model: PreTrainedModel, name: str) -> None:
    """Refuse ids that are no tokens, and let the generation begin as training does where its config doesn't say."""
    tokens = range(model.get_input_embeddings().num_embeddings)
    generation = model.generation_config
    if model.config.is_encoder_decoder:
        if model.config.decoder_start_token_id not in tokens:
            raise ModelError(
                f"model {name!r}: decoder_start_token_id in its config.json must be the id of a token, not "
                f"{model.config.decoder_start_token_id!r}"
            )
        if generation.decoder_start_token_id is None:
            generation.decoder_start_token_id = model.config.decoder_start_token_id
    for key in ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(generation, key)
        for token in value if isinstance(value, list) else [value]:
            if token is not None and token not in tokens:
                raise ModelError(
                    f"model {name!r}: {key} in its generation_config.json must be the id of a token, not {value!r}"
                )


def reads_ahead(model: PreTrainedModel) -> bool:
    """Whether a position's output depends on later tokens.

    No field of a config says so for all models, so the model is asked: behind a causal mask the derivative by a later
    embedding is exactly 0.
    """
    embed = model.get_input_embeddings()
    with torch.enable_grad():
        inputs = embed(torch.tensor([[0, 1]], device=model.device)).detach().requires_grad_()
        first = model.base_model(inputs_embeds=inputs).last_hidden_state[0, 0, 0]
        (gradient,) = torch.autograd.grad(first, inputs)
    return bool(gradient[0, 1].any())


def _check_folder(name: str, verify: bool) -> None:
    """Say what is wrong with a model folder before Transformers says it in ten lines."""
    folder = Path(name)
    if not folder.is_dir():
        raise ModelError(f"model {name!r}: no such folder")
    if (folder / "final" / "config.json").is_file():
        raise ModelError(f"model {name!r} is a run folder; its trained model is {str(folder / 'final')!r}")
    if not (folder / "config.json").is_file():
        raise ModelError(f"model {name!r}: no config.json in this folder, so it isn't a saved Transformers model")
    if is_sealed(folder) and (wrong := faults(folder, contents=verify)):
        raise ModelError(
            f"model {name!r} is not what was saved: {', '.join(wrong)}; put the files back, or, if you changed them on "
            f"purpose, remove {MANIFEST}"
        )


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
    if "ignore_mismatched_sizes" in text:
        return (
            f"model {name!r}: its weights have other shapes than its config.json says; use the config.json that was "
            "saved with these weights"
        )
    if "Unrecognized configuration class" in text:
        return (
            f"model {name!r} is not of a kind that is wanted here: {text.partition(' for this kind')[0]}; choose an "
            "encoder-decoder or causal language model of text, and check is_encoder_decoder in its config.json"
        )
    reason = text[:300] or type(error).__name__
    return f"model {name!r} can't be loaded; its files seem to be damaged, or of another kind: {reason}"
