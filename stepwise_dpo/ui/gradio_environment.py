"""What the environment tells Gradio, checked and completed before Gradio is imported: it reads it then."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, create_model

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.preferences.model_faults import first_field
from stepwise_dpo.runs.variables import WholeNumber

_OURS = {
    # Nothing here calls home.
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Gradio counts every event for a summary that everybody may read, and after each event groups the last 10,000 of
    # them with pandas: 10 ms of a core, sixty times a second with fifty visitors.
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(2**62),
}

WHOLE_NUMBERS = {
    "GRADIO_SERVER_PORT": (1, 65_535),
    "GRADIO_NUM_PORTS": (1, 65_535),
    "GRADIO_NODE_NUM_PORTS": (1, 65_535),
    "GRADIO_NUM_WORKERS": (1, 1_000),
    "GRADIO_ANALYTICS_MAX_EVENTS": (1, 2**62),
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": (1, 2**62),
    "GRADIO_DEBUG": (0, 1),
}
_KINDS: dict[str, Any] = {
    name: (Annotated[WholeNumber, BeforeValidator(str.strip), Field(ge=lowest, le=highest)], lowest)
    for name, (lowest, highest) in WHOLE_NUMBERS.items()
}
_Variables = create_model("_Variables", **_KINDS)


def for_gradio(environment: Mapping[str, str]) -> dict[str, str]:
    """Say what to add to the environment of a process that will import Gradio.

    Args:
        environment: as it is; what it says itself stays.

    Raises:
        ConfigError: a number that Gradio reads isn't one, or is out of range; the message names the variable. Gradio
            would end with a traceback.
    """
    try:
        _Variables.model_validate(environment)
    except ValidationError as error:
        name = first_field(error)
        lowest, highest = WHOLE_NUMBERS[name]
        at_most = f" to {highest:,}" if highest < 2**62 else " up"
        raise ConfigError(
            f"the environment variable {name} must be a whole number from {lowest}{at_most}, not "
            f"{environment[name][:80]!r}; correct it, or unset it"
        ) from error
    return {name: value for name, value in _OURS.items() if name not in environment}
