"""One validated, immutable description of a run; saved verbatim with the run."""

import difflib
import math
import os
from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.learning.head_settings import Head, TokenRule
from stepwise_dpo.learning.names import BUNDLED, DATA_DIR, HUB_DEFAULT, LOSS_TYPES, POLICY, REWARD
from stepwise_dpo.preferences.faults import seen, short

LossType = Literal[LOSS_TYPES]  # type: ignore[valid-type]  # one list serves the command line and this

_PHASE = {
    "model": HUB_DEFAULT,
    "data": str(DATA_DIR / "synthetic_prm.json"),
    "epochs": 3.0,
    "learning_rate": 5e-5,
    "batch_size": 2,
}

_DEMO = {
    "model": POLICY,
    "data": str(DATA_DIR / "onpolicy_prm.json"),
    "eval_data": str(DATA_DIR / "onpolicy_heldout_prm.json"),
    "batch_size": 8,
    "generate": 300,
    "frozen_scores": "as_needed",
    "group_by_length": True,
}

PRESETS: dict[str, dict[str, Any]] = {
    "phase1": {"loss": "dpo", **_PHASE},
    "phase2": {"loss": "stepwise", "reward_model": HUB_DEFAULT, **_PHASE},
    "demo": {
        "loss": "dpo",
        "loss_type": ["sigmoid", "sft"],
        "epochs": 2.0,
        "learning_rate": 1e-4,
        "beta": 2.0,
        **_DEMO,
    },
    "demo-dpo": {"loss": "dpo", "epochs": 2.0, "learning_rate": 2e-5, "beta": 3.0, **_DEMO},
    "demo-stepwise": {"loss": "stepwise", "reward_model": REWARD, "epochs": 2.0, "learning_rate": 3e-6, **_DEMO},
}
"""The two phases of the training log that this project grew from; what the page begins with, DPO that also imitates
the chosen answers (arXiv 2404.19733); and, on the same data, each loss alone at a learning rate that suits it. The
step-wise loss has no reference that holds it back, and falls apart at DPO's rate."""

READ_BY_ONE_LOSS = {
    **dict.fromkeys(("loss_type", "label_smoothing"), "dpo"),
    **dict.fromkeys(("likelihood", "nonpositive", "anchor_to_reference", "train_reward_model"), "stepwise"),
}
"""Settings that the other loss ignores. A configuration may hold both losses' settings, as the page's form does."""

MAX_CONFIG_CHARACTERS = 100_000
MAX_PROBLEMS = 10
"""So many of a configuration's problems are told at once."""

_OF_LOSS = {("demo", "stepwise"): "demo-stepwise"}


def preset_settings(name: str, loss: object = None) -> dict[str, Any]:
    """Give a preset's settings; `demo` with the step-wise loss is `demo-stepwise`, since its own rate is DPO's.

    Args:
        name: one of `PRESETS`.
        loss: what the run will be trained with, if that is decided elsewhere; unchecked, it may come from a file.

    Raises:
        ConfigError: no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    return dict(PRESETS[_OF_LOSS.get((name, str(loss)), name)])


MAX_PATH = 4096
MAX_WORD = 1_000
MAX_TEMPLATE = 20_000
"""Characters of a file's name, of a word or a tag, of a question to a reward model."""

MAX_GLOBAL_STEPS = 10_000_000
"""Of an optimiser. Like all upper bounds here it is far above what anybody trains with, and refuses a slip of the
keyboard before memory or days are spent on it; what strangers may ask for is in `runs.limits`."""


class RunConfig(BaseModel):
    """Everything that decides how a run goes.

    Fields that only the step-wise loss reads are marked so. Units: lengths in tokens, learning rates per optimiser
    step, epochs in passes over the data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    loss: Literal["dpo", "stepwise"] = Field("dpo", description="dpo, or the step-wise loss that process rewards weigh")
    model: str = Field(
        POLICY,
        min_length=1,
        max_length=500,
        description=f"policy: a bundled model ({', '.join(BUNDLED)}), 'tiny', a local folder or a Hub id",
    )
    reward_model: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        description=f"process reward model, as model; {REWARD!r} for loss stepwise, loss dpo only logs its scores",
    )
    data: str = Field(..., min_length=1, max_length=MAX_PATH, description="preference pairs to train on, JSON or JSONL")
    eval_data: str | None = Field(
        None, min_length=1, max_length=MAX_PATH, description="held-out pairs; the training pairs if not given"
    )

    epochs: float = Field(3.0, gt=0, le=10_000, description="passes over the data")
    max_steps: int | None = Field(None, ge=1, le=MAX_GLOBAL_STEPS, description="stop after this many optimiser steps")
    batch_size: int = Field(2, ge=1, le=4096, description="pairs per forward and device")
    gradient_accumulation: int = Field(1, ge=1, le=4096, description="batches per optimiser step")
    group_by_length: bool = Field(
        False, description="batches of examples of similar length: less padding, so less time, and a little less chance"
    )
    learning_rate: float = Field(5e-5, ge=0, le=1e20, description="peak learning rate of AdamW")
    lr_schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="how the learning rate decays")
    warmup_steps: int = Field(0, ge=0, le=MAX_GLOBAL_STEPS, description="optimiser steps until the peak learning rate")
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW's weight decay")
    max_grad_norm: float = Field(1.0, gt=0, le=1e9, description="clip the gradient's norm here")
    seed: int = Field(42, ge=0, lt=2**32, description="of shuffling and everything else that is random")
    max_length: int = Field(
        1024, ge=2, le=1_000_000, description="the most tokens of prompt and answer; longer examples are refused"
    )
    frozen_scores: Literal["ahead", "as_needed"] = Field(
        "ahead",
        description="when reference and reward model score an example: ahead of training, or as_needed, when training "
        "first meets it; then the first step comes at once, and the reference stays in memory",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 autocast on a GPU that has it, float32 elsewhere"
    )

    beta: float = Field(0.1, gt=0, le=1000, description="DPO's beta; also scales the logged rewards/*")
    loss_type: list[LossType] = Field(
        ["sigmoid"], min_length=1, max_length=len(LOSS_TYPES), description="TRL's loss types for loss dpo"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="for the loss types that use it; exo_pair needs it")

    likelihood: Literal["mean", "sum"] = Field("mean", description="stepwise: log-likelihood per token, or summed")
    aggregation: Literal["sum", "mean", "min", "last", "product", "until_error"] = Field(
        "sum",
        description="stepwise: how the rewards of a solution's steps become one number (until_error: their sum up to "
        "the first wrong one)",
    )
    nonpositive: Literal["train", "skip", "clamp"] = Field(
        "train", description="stepwise: what a preference <= 0 does (train: towards the rejected answer)"
    )
    anchor_to_reference: bool = Field(False, description="stepwise: log-ratios to the reference in the margin")
    train_reward_model: bool = Field(False, description="stepwise: update the reward model as well")

    reward_value: Literal["probability", "centered", "log_odds"] = Field(
        "centered", description="scale of step rewards"
    )
    reward_head: Head | None = Field(
        None, description="how the reward model scores; like all that follows, what its folder says if not given"
    )
    reward_right_word: str | None = Field(
        None, min_length=1, max_length=MAX_WORD, description="verbalizer, step_tag: what it says of a right step"
    )
    reward_wrong_word: str | None = Field(
        None, min_length=1, max_length=MAX_WORD, description="verbalizer, step_tag: what it says of a wrong step"
    )
    reward_template: str | None = Field(
        None,
        max_length=MAX_TEMPLATE,
        description="verbalizer: its question, with {prompt} {previous} {step} {right} {wrong}",
    )
    reward_tag: str | None = Field(
        None, min_length=1, max_length=MAX_WORD, description="step_tag: the text after each step"
    )
    reward_token: TokenRule | None = Field(
        None, description="likelihood: a step's lowest token probability, or their geometric mean"
    )

    eval_steps: int | None = Field(
        None, ge=1, le=MAX_GLOBAL_STEPS, description="evaluate every so many optimiser steps; each epoch if not given"
    )
    save_steps: int | None = Field(
        None,
        ge=1,
        le=MAX_GLOBAL_STEPS,
        description="write a checkpoint to resume from every so many optimiser steps; if not given, only when the run "
        "is stopped",
    )
    save_total_limit: int = Field(2, ge=1, le=1000, description="how many checkpoints to keep, the newest")
    generate: int = Field(8, ge=0, le=10_000, description="held-out prompts to answer before and after training")
    max_new_tokens: int = Field(128, ge=1, le=4096, description="the most tokens of a generated answer")

    @model_validator(mode="after")
    def _go_together(self) -> "RunConfig":
        if self.loss == "stepwise" and self.reward_model is None:
            raise ValueError("loss 'stepwise' needs a reward_model")
        if self.train_reward_model and self.loss != "stepwise":
            raise ValueError("train_reward_model needs loss 'stepwise': no other loss depends on the reward model")
        if len(set(self.loss_type)) < len(self.loss_type):
            raise ValueError(f"loss_type names one twice: {', '.join(self.loss_type)}")
        if "exo_pair" in self.loss_type and self.label_smoothing == 0:
            raise ValueError("loss_type 'exo_pair' needs a label_smoothing above 0; its paper recommends 0.001")
        check_aggregation(self.aggregation, self.reward_value)
        return self


def check_aggregation(aggregation: str, reward_value: str) -> None:
    """Refuse a product of rewards that can be negative.

    Raises:
        ConfigError: aggregation "product" with another scale than "probability".
    """
    if aggregation == "product" and reward_value != "probability":
        raise ConfigError(
            "aggregation 'product' needs reward value 'probability': a product of values that can be negative is "
            "positive for two wrong steps"
        )


def make_config(*layers: Mapping[str, Any]) -> RunConfig:
    """Build a configuration from dictionaries; later ones override earlier ones.

    Raises:
        ConfigError: an unknown key (the nearest known one is suggested), a missing one, or a value out of range.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    if merged.get("loss") == "stepwise":
        merged.setdefault("reward_model", REWARD)
    # YAML and command lines write 3 for 3.0; strict mode would refuse it.
    for name, value in merged.items():
        field = RunConfig.model_fields.get(name)
        if field is not None and field.annotation is float and type(value) is int:
            # One that no float can hold is as far out of range as infinity, which is refused below.
            merged[name] = float(value) if abs(value) < 2**1023 else math.inf
    try:
        return RunConfig(**merged)
    except ValidationError as error:
        raise ConfigError(problems_of(error, RunConfig)) from error


def planned_steps(config: RunConfig, examples: int, processes: int = 1) -> int:
    """Count a run's optimiser steps as the Trainer does: the last, smaller batch of an epoch is a step too.

    Args:
        config: the run's.
        examples: pairs to train on.
        processes: that share each epoch's pairs.
    """
    if config.max_steps:
        return config.max_steps
    batches = math.ceil(examples / config.batch_size / processes)
    return math.ceil(config.epochs * max(1, math.ceil(batches / config.gradient_accumulation)))


def read_config_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the settings of a YAML (or JSON) file, unchecked but for its shape.

    Raises:
        ConfigError: not readable, not YAML, or not a mapping.
    """
    where = f"configuration {os.fspath(path)!r}"
    if os.path.exists(path) and not os.path.isdir(path) and not os.path.isfile(path):
        raise ConfigError(f"{where} is not a regular file")  # a pipe would be waited for, for ever
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_CONFIG_CHARACTERS + 1)
    except (OSError, ValueError) as error:  # not UTF-8, or a path that can't be one
        raise ConfigError(f"{where} can't be read: {error}") from error
    if len(text) > MAX_CONFIG_CHARACTERS:
        raise ConfigError(f"{where} is longer than {MAX_CONFIG_CHARACTERS:,} characters, which no list of settings is")
    return parse_settings(text, where)


def parse_settings(text: str, where: str) -> dict[str, Any]:
    """Read settings from YAML (or JSON), unchecked but for its shape.

    Args:
        text: a name and a value on each line.
        where: it stands, at the start of each message.

    Raises:
        ConfigError: not YAML, or not a mapping.
    """
    try:
        settings = yaml.safe_load(text)
        root = yaml.compose(text, yaml.SafeLoader)
    except RecursionError as error:
        raise ConfigError(f"{where} is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} isn't valid YAML: {' '.join(str(error).split())}") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # PyYAML lets them out where a value isn't what its look or its tag says: 2024-13-45, !!bool maybe, !!int "".
        raise ConfigError(f"{where} isn't valid YAML: a value is not what it looks like") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise ConfigError(f"{where} must be a list of 'name: value' lines")
    names = [key.value for key, _ in root.value] if root is not None else []
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{where} gives {repeated!r} twice")
    for name, value in settings.items():
        # YAML 1.1 reads 5e-5 as text, since it lacks a dot; everyone writes learning rates like this.
        if (
            isinstance(value, str)
            and name in RunConfig.model_fields
            and RunConfig.model_fields[name].annotation is float
        ):
            try:
                settings[name] = float(value)
            except ValueError as error:
                raise ConfigError(f"{where}: {name} must be a number, not {short(value, 80)!r}") from error
    return settings


def problems_of(error: ValidationError, kind: type[BaseModel]) -> str:
    """Write pydantic's errors about settings of this kind as readable clauses on one line."""
    found = error.errors()
    more = f"; and {len(found) - MAX_PROBLEMS:,} more" if len(found) > MAX_PROBLEMS else ""
    return "; ".join(_problem(problem, kind) for problem in found[:MAX_PROBLEMS]) + more


def _problem(problem: Any, kind: type[BaseModel]) -> str:
    """One readable sentence for one of pydantic's errors."""
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, kind.model_fields, n=1)
        return f"unknown setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    if problem["type"] == "missing":
        return f"{name!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if not name:
        return str(message)
    return f"{name}: {message[0].lower()}{message[1:]}, not {_seen(problem['input'])}"


def _seen(value: object) -> str:
    """A value as it was given, short: it may be a file's worth of text, or an integer that Python can't write."""
    if isinstance(value, int) and abs(value) >= 10**24:
        return seen(value)
    if isinstance(value, str):
        return repr(short(value, 200))
    return repr(value) if value is None or isinstance(value, (bool, int, float)) else seen(value)
