import os
import subprocess
import sys
from pathlib import Path

import pytest

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.runs.launched import launched


def test_a_process_of_which_nothing_is_said_is_alone():
    assert launched({}) == (1, 0, 0)
    assert launched({}).alone
    assert launched({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}) == (4, 3, 1)
    assert not launched({"WORLD_SIZE": "4"}).alone


@pytest.mark.parametrize(
    "environment",
    [
        *({"WORLD_SIZE": said} for said in ("", "0", "-1", "two", "1.0", "9" * 5_000, "٢", " 1")),
        {"WORLD_SIZE": "2", "RANK": "2"},
        {"RANK": "1"},
        {"LOCAL_RANK": "cuda:0"},
    ],
)
def test_what_no_launcher_says_is_refused_by_name(environment):
    name = list(environment)[-1]
    with pytest.raises(ConfigError, match=f"^the environment variable {name} must be a whole number from"):
        launched(environment)


def test_the_command_line_says_it_in_one_line(tmp_path):
    words = ["-m", "stepwise_dpo", "train", "--preset", "demo", "--output-dir", str(tmp_path / "run")]
    environment = {**os.environ, "WORLD_SIZE": "many", "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: the environment variable WORLD_SIZE must be")
    assert not (tmp_path / "run").exists()
