import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.learning.names import TINY
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.ui import rewards_tab
from stepwise_dpo.ui.components import divergence_line, error, list_html, notes
from stepwise_dpo.ui.judges import Judges, check_model_name
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


# ------------------------------------------------------------------------------------------------------------ rewards


def test_rewards_of_an_example():
    html = rewards_tab.example_html(PAIR, ([0.98, 0.5], [0.98, -0.99, -0.31]), "centered")
    assert harmless(html)
    assert [re.sub("<.*?>", "", v) for v in re.findall(r'class="value">(.*?)<', html)] == [
        "+0.98",
        "+0.50",
        "+0.98",
        "−0.99",
        "−0.31",
    ]
    assert html.count("diverges here") == 2
    assert html.count("first error (label)") == 1
    assert "+1.80" in html  # 1.48 - (-0.32)
    assert "1.48 − (−0.32)" in html
    assert "agrees" in html


def test_without_rewards_the_steps_stand_alone():
    html = rewards_tab.example_html(PAIR, None, "centered")
    assert "value" not in html
    assert harmless(html)


def test_one_scale_for_all_that_is_compared():
    assert rewards_tab.reach([([0.1], [0.2])], "centered") == 1
    assert rewards_tab.reach([([0.1], [-7.0]), ([3.0], [2.0])], "log_odds") == 7
    assert rewards_tab.reach([([0.0], [0.0])], "log_odds") == 1
    html = rewards_tab.example_html(PAIR, ([0.5, 1.0], [0.0, 0.5, 0.5]), "probability")
    assert ">0.50<" in html  # a probability has no sign


def test_a_late_answer_does_not_cover_a_newer_one():
    newest = rewards_tab.Newest(sessions=2)
    slow, other, quick = newest.begin("a"), newest.begin("b"), newest.begin("a")
    assert not newest.is_last("a", slow)
    assert newest.is_last("a", quick)
    assert newest.is_last("b", other)
    newest.begin("c")  # "b" is forgotten
    assert newest.is_last("b", other)
    assert newest.begin("b") == 1


def test_identical_sides_have_no_dashed_line():
    same = PreferencePair("p", [Step("a")], [Step("a")])
    assert divergence_line(same) is None
    assert divergence_line(PAIR) == 1


@pytest.mark.parametrize(
    ("value", "expected"), [(24, 24), (0, 1), (10**12, 200), (float("nan"), 1), ("7", 1), (None, 1), (True, 1)]
)
def test_numbers_from_the_browser_are_brought_into_range(value, expected):
    assert rewards_tab.bounded(value, 1, 200) == expected


def test_the_tiny_judge_scores_every_step():
    (chosen, rejected) = Judges().score(TINY, [PAIR], "centered")[0]
    assert (len(chosen), len(rejected)) == (2, 3)
    assert all(-1 <= value <= 1 for value in chosen + rejected)
    with pytest.raises(ConfigError, match="scale"):
        Judges().score(TINY, [PAIR], "percent")


def test_strangers_choose_only_offered_models():
    assert check_model_name("some/model", ["tiny"], public=False) == "some/model"
    for name in ("some/model", "/etc", "", None, "x" * 1000):
        with pytest.raises(ConfigError):
            check_model_name(name, ["tiny"], public=True)


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
