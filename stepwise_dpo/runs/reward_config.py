"""One validated, immutable description of how a process reward model is trained; nothing heavy is imported here."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.learning.head_settings import Head, TokenRule
from stepwise_dpo.runs.config import MAX_GLOBAL_STEPS, MAX_PATH, MAX_TEMPLATE, MAX_WORD, problems_of


class RewardTrainingConfig(BaseModel):
    """Everything that decides how a reward model's training goes.

    What stays None is the model's own where its folder says how it judges. Units as in `runs.config.RunConfig`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    model: str = Field(
        ...,
        min_length=1,
        max_length=500,
        description="a bundled model, 'tiny', a local folder or a Hub id to start from",
    )
    data: str = Field(
        ...,
        min_length=1,
        max_length=MAX_PATH,
        description="labelled steps: native pairs or TRL stepwise supervision",
    )
    eval_data: str | None = Field(
        None, min_length=1, max_length=MAX_PATH, description="held-out labelled steps, as data"
    )

    head: Head | None = Field(
        None,
        description="how a verdict is read; token_classification gives a model without it a new, untrained head "
        "(default: what the model's folder says, else verbalizer)",
    )
    right_word: str | None = Field(
        None, max_length=MAX_WORD, description="verbalizer, step_tag: what the model says of a right step"
    )
    wrong_word: str | None = Field(
        None, max_length=MAX_WORD, description="verbalizer, step_tag: what it says of a wrong one"
    )
    template: str | None = Field(
        None,
        max_length=MAX_TEMPLATE,
        description="verbalizer: its question, {prompt} {previous} {step} {right} {wrong}",
    )
    tag: str | None = Field(
        None, max_length=MAX_WORD, description="step_tag: the text after each step at which the verdict is read"
    )
    token: TokenRule | None = Field(
        None, description="likelihood: a step's lowest token probability, or their geometric mean"
    )

    epochs: float = Field(3.0, gt=0, le=10_000, description="passes over the data")
    max_steps: int | None = Field(None, ge=1, le=MAX_GLOBAL_STEPS, description="stop after this many optimiser steps")
    learning_rate: float = Field(1e-4, gt=0, le=1e20, description="peak learning rate of AdamW; it falls linearly to 0")
    batch_size: int = Field(8, ge=1, le=4096, description="solutions per optimiser step")
    lm_weight: float = Field(
        0.0, ge=0, le=1000, description="weight of the language-modelling loss on right solutions; 0 leaves it out"
    )
    seed: int = Field(42, ge=0, lt=2**32, description="of shuffling and of a new head's weights")


def make_reward_config(**settings: object) -> RewardTrainingConfig:
    """Build a configuration.

    Raises:
        ConfigError: a setting is missing, unknown, of another type or out of range.
    """
    try:
        return RewardTrainingConfig(**settings)  # type: ignore[arg-type]  # checking them is what this is for
    except ValidationError as error:
        raise ConfigError(problems_of(error, RewardTrainingConfig)) from error
