"""Options that our trainers inherit and don't read, refused instead of ignored.

A configuration that inherits from TRL's and Transformers' takes all their options. One that would change what is
learnt, measured or kept there, and nothing here, is an error that says why. Harmless ones pass.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from transformers import PreTrainedModel

from stepwise_dpo.errors import ConfigError

_NO_METRICS_FUNCTION = "there is no compute_metrics here, an evaluation's figures are the trainer's own"

UNREAD: dict[str, str] = {
    "label_smoothing_factor": "it smooths the labels of Transformers' own loss, which isn't used",
    "batch_eval_metrics": _NO_METRICS_FUNCTION,
    "include_for_metrics": _NO_METRICS_FUNCTION,
    "push_to_hub": "a folder may still change while it is uploaded; upload the finished one",
}
"""Why an option is unread, or what to do instead, by its name: those that no trainer of ours reads."""


def refuse_unread(args: Any, unread: Mapping[str, str]) -> None:
    """Refuse options that have another value than their default.

    Args:
        args: a configuration, a dataclass.
        unread: by an option's name, why it is unread or what to do instead.

    Raises:
        ConfigError: one of them is set; the message names it, its value and the reason.
    """
    for option in fields(args):
        value = getattr(args, option.name)
        if option.name in unread and value != _default(option):
            raise ConfigError(f"{option.name}={value!r} would do nothing here: {unread[option.name]}; leave it out")


def refuse_unfelt_noise(args: Any, model: PreTrainedModel) -> None:
    """Refuse NEFTune's noise where Transformers puts it on an embedding that an encoder-decoder's halves don't call.

    Raises:
        ConfigError: so it is.
    """
    if args.neftune_noise_alpha is not None and model.config.is_encoder_decoder:
        raise ConfigError(
            f"neftune_noise_alpha={args.neftune_noise_alpha!r} would do nothing here: its noise doesn't reach the "
            "embeddings of an encoder-decoder model; leave it out, or choose a causal model"
        )


def _default(option: Field[Any]) -> Any:
    return option.default if option.default_factory is MISSING else option.default_factory()
