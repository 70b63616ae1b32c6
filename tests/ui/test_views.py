import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.ui.components import error, list_html, notes
from stepwise_dpo.ui.library import ExampleSet, Library
from stepwise_dpo.ui.page import bundled_library

ROOT = Path(__file__).parents[2]
HOSTILE = "<img src=x onerror=alert(1)> ${alert(1)} {{x}} `x` \u202eabc"
PAIR = PreferencePair(
    HOSTILE,
    [Step("same", True), Step(HOSTILE, True)],
    [Step("same", True), Step("wrong", False), Step("later", False)],
    "1",
)
LIBRARY = Library((ExampleSet("set", (PAIR,)),), "set")


def harmless(html):
    return "<img" not in html and "\u202e" not in html


def event(**data):
    return SimpleNamespace(_data=data)


# ----------------------------------------------------------------------------------------------------- what tabs share


def test_lists_and_messages_escape():
    assert harmless(list_html(HOSTILE, [], "", HOSTILE))
    assert harmless(error(HOSTILE) + notes([HOSTILE], HOSTILE))
    assert error("") == ""


def test_missing_bundled_data_is_no_obstacle(tmp_path):
    assert bundled_library(tmp_path).current.pairs == ()


# ---------------------------------------------------------------------------------------------------------------- app


def test_building_the_page_imports_no_torch():
    code = (
        "import sys, app; print(sorted({'torch', 'transformers', 'trl'} & set(sys.modules)), type(app.demo).__name__)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "--not-our-option"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert result.stdout.strip() == "[] Blocks"


def test_an_unknown_option_is_an_error():
    result = subprocess.run(
        [sys.executable, "app.py", "--prot", "1"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 2
    assert "--prot" in result.stderr
