"""What the environment tells Gradio, checked and completed before Gradio is imported: it reads it then."""

from collections.abc import Mapping

from stepwise_dpo.errors import ConfigError

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


def for_gradio(environment: Mapping[str, str]) -> dict[str, str]:
    """Say what to add to the environment of a process that will import Gradio.

    Args:
        environment: as it is; what it says itself stays.

    Raises:
        ConfigError: a number that Gradio reads isn't one, or is out of range; the message names the variable. Gradio
            would end with a traceback.
    """
    for name, (lowest, highest) in WHOLE_NUMBERS.items():
        text = environment.get(name)
        if text is None:
            continue
        digits = text.strip()
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 20 and lowest <= int(digits) <= highest):
            at_most = f" to {highest:,}" if highest < 2**62 else " up"
            raise ConfigError(
                f"the environment variable {name} must be a whole number from {lowest}{at_most}, not "
                f"{text[:80]!r}; correct it, or unset it"
            )
    return {name: value for name, value in _OURS.items() if name not in environment}
