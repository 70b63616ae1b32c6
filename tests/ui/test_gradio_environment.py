import re

import pytest

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.ui.gradio_environment import for_gradio


def test_what_is_set_stays():
    own = {"GRADIO_ANALYTICS_ENABLED": "True", "GRADIO_SERVER_PORT": " 7861 ", "GRADIO_DEBUG": "0"}
    added = for_gradio(own)
    assert "HF_HUB_DISABLE_TELEMETRY" in added
    assert not added.keys() & own.keys()
    assert for_gradio({**added, **own}) == {}  # our own numbers are accepted


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        *(
            ("GRADIO_SERVER_PORT", value, "from 1 to 65,535")
            for value in ("", "0", "65536", "-1", "x", "1.0", "1_0", "+1", "٣", "\udcff", "9" * 5_000)
        ),
        ("GRADIO_DEBUG", "2", "from 0 to 1"),
        ("GRADIO_ANALYTICS_MAX_EVENTS", "0", "from 1 up"),
    ],
)
def test_what_gradio_would_end_at_is_named(name, value, words):
    said = re.escape(f"the environment variable {name} must be a whole number {words}, not {value[:80]!r}; correct it")
    with pytest.raises(ConfigError, match=f"^{said}"):
        for_gradio({name: value})
