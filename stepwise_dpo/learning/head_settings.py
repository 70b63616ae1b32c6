"""How a reward model reads a step: which scoring head, with which words, and how its log-odds are calibrated.

The settings travel with the model: its config.json holds them under "process_reward". No torch is needed to read them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from stepwise_dpo.errors import ConfigError, ModelError
from stepwise_dpo.preferences.faults import seen

Head = Literal["likelihood", "verbalizer", "step_tag", "token_classification"]
TokenRule = Literal["lowest", "mean"]

HEADS: tuple[Head, ...] = get_args(Head)
TOKEN_RULES: tuple[TokenRule, ...] = get_args(TokenRule)

CONFIG_KEY = "process_reward"
"""Where a model's config.json holds its settings; Transformers keeps keys that it doesn't know."""

DEFAULT_TEMPLATE = (
    "Problem: {prompt}\nSteps so far: {previous}\nNext step: {step}\nIs the next step right? Answer {right} or {wrong}."
)
"""Fields: {prompt}, {previous} (earlier steps, or "none"), {step}, {right}, {wrong}. The judge's word follows."""

DEFAULTS: dict[Head, dict[str, str]] = {
    "likelihood": {"token": "lowest"},
    "verbalizer": {"right_word": "yes", "wrong_word": "no", "template": DEFAULT_TEMPLATE},
    "step_tag": {"right_word": "+", "wrong_word": "-", "tag": " ки"},
    "token_classification": {},
}
"""What each head reads of the settings, and what it does if nobody says."""

_LARGEST = 1e4
"""Of a scale (and its inverse) and a bias: far beyond any calibration, and far from what float32 can't hold."""


@dataclass(frozen=True)
class HeadSettings:
    """A scoring head with all that it reads; what it doesn't read is None, what it reads and nobody gave its default.

    Attributes:
        head: see `heads`.
        right_word: verbalizer, step_tag: what the model says of a right step.
        wrong_word: what it says of a wrong one.
        template: verbalizer: the question, see `DEFAULT_TEMPLATE`.
        tag: step_tag: the text after each step, after which the model says its word.
        token: likelihood: "lowest", or the (geometric) "mean" of a step's token probabilities.
        scale: calibration, 1e-4..1e4: a step's log-odds are scale * (the head's own) + bias, so that 0, that is
            probability 0.5, is the decision boundary.
        bias: see scale, in nats, -1e4..1e4.

    Raises:
        ConfigError: a value is out of range, or is given to a head that doesn't read it.
    """

    head: Head = "verbalizer"
    right_word: str | None = None
    wrong_word: str | None = None
    template: str | None = None
    tag: str | None = None
    token: TokenRule | None = None
    scale: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        """Check all values and fill in the head's defaults."""
        if self.head not in HEADS:
            raise ConfigError(f"a reward model's head must be one of {', '.join(HEADS)}, not {self.head!r}")
        defaults = DEFAULTS[self.head]
        for name in ("right_word", "wrong_word", "template", "tag", "token"):
            value = getattr(self, name)
            if value is None:
                object.__setattr__(self, name, defaults.get(name))
            elif name not in defaults:
                readers = " or ".join(head for head in HEADS if name in DEFAULTS[head])
                raise ConfigError(
                    f"the head {self.head!r} doesn't read {name} ({value!r}); leave it out, or choose head {readers}"
                )
            elif not isinstance(value, str) or not value.strip():
                raise ConfigError(f"a reward model's {name.replace('_', ' ')} must be text that isn't blank")
        if self.token not in (None, *TOKEN_RULES):
            raise ConfigError(f"token must be one of {', '.join(TOKEN_RULES)}, not {self.token!r}")
        for name in ("scale", "bias"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _LARGEST:
                raise ConfigError(
                    f"a reward model's {name} must be a number of at most ±{_LARGEST:g}, not {seen(value)}"
                )
        if self.scale <= 0:
            raise ConfigError(
                f"a reward model's scale must be above 0, not {self.scale:.3g}: it would call right steps wrong"
            )
        if self.scale < 1 / _LARGEST:
            raise ConfigError(
                f"a reward model's scale must be at least {1 / _LARGEST:g}, not {self.scale:.3g}: all steps would "
                "score the same"
            )

    def to_config(self) -> dict[str, Any]:
        """What config.json holds: everything that isn't None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def choose_settings(config: Any, kinds: Sequence[str], name: str, **given: Any) -> HeadSettings:
    """Decide how a model scores: what is given, else what its folder says, else the head's defaults.

    A calibration is only kept where everything else is as it was calibrated.

    Args:
        config: the model's PreTrainedConfig.
        kinds: the names of the model's class, as in its config's `architectures`.
        name: how messages call the model.
        given: fields of HeadSettings; None for "not given".

    Raises:
        ConfigError: what is given is out of range, or no model of this kind can score by that head.
        ModelError: what the model's config.json says is not usable.
    """
    given = {key: value for key, value in given.items() if value is not None}
    saved = read_settings(config, name)
    usual: Head = "token_classification" if classifies_tokens(kinds) else "verbalizer"
    head = given.pop("head", None) or (saved.head if saved else usual)
    base = saved if saved is not None and saved.head == head else HeadSettings(head)
    settings = replace(base, **given)
    if settings != base:
        settings = replace(settings, scale=1.0, bias=0.0)
    check_fits(settings.head, kinds, name)
    return settings


def check_fits(head: Head, kinds: Sequence[str], name: str) -> None:
    """Refuse a head that a model doesn't have; Transformers would load it with random numbers in place of it.

    Raises:
        ConfigError: with the head to use instead.
    """
    if head == "token_classification" and not classifies_tokens(kinds):
        others = ", ".join(repr(other) for other in HEADS if other != head)
        raise ConfigError(
            f"model {name!r} is no token classification model, which head 'token_classification' needs; use one of the "
            f"heads {others}, or a model that was saved as …ForTokenClassification"
        )
    if head != "token_classification" and classifies_tokens(kinds):
        raise ConfigError(
            f"model {name!r} classifies tokens and has no language-model head, which head {head!r} needs; use head "
            "'token_classification', or another model"
        )


def classifies_tokens(kinds: Sequence[str]) -> bool:
    """Whether one of these model classes gives each token a label."""
    return any("ForTokenClassification" in kind for kind in kinds)


def read_settings(config: Any, name: str) -> HeadSettings | None:
    """What a model's config.json says under "process_reward"; None where it says nothing.

    Raises:
        ModelError: it isn't usable.
    """
    saved = getattr(config, CONFIG_KEY, None)
    if saved is None:
        return None
    known = [field.name for field in fields(HeadSettings)]
    where = f"model {name!r}: {CONFIG_KEY!r} in its config.json"
    if not isinstance(saved, Mapping):
        raise ModelError(f"{where} must be an object, not {seen(saved)}")
    if unknown := [key for key in saved if key not in known]:
        raise ModelError(f"{where} has the unknown key {unknown[0]!r}; known are {', '.join(known)}")
    try:
        return HeadSettings(**saved)
    except ConfigError as error:
        raise ModelError(f"{where} is not usable: {error}") from error
