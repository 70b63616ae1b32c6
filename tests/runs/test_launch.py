"""What a launcher sets, and nonsense in its place: an error that names the variable, before anything is written."""

import pytest

from stepwise_dpo.cli import main
from stepwise_dpo.errors import ConfigError
from stepwise_dpo.runs.launch import Launch, read_launch
from stepwise_dpo.runs.training import run


def test_what_a_launcher_sets():
    assert read_launch({}) == Launch(1, 0, 0)
    assert read_launch({"processes": "2", "WORLD_SIZE": "02"}) == Launch(2, 0, 0)
    assert read_launch({"WORLD_SIZE": "16", "RANK": "9", "LOCAL_RANK": "1"}) == Launch(16, 9, 1)


WRONG = [
    *(
        ("WORLD_SIZE", value, r"a whole number from 1 on, not '.*'; unset it")
        for value in ("abc", "-1", "0", "", "1e3", "1.0", "1_0", " 1", "+1", "²", "9" * 10, "9" * 5_000)
    ),
    *((name, value, r"a whole number from 0 on") for name in ("RANK", "LOCAL_RANK") for value in ("abc", "-1", "٣")),
    ("RANK", "1", "is 1, but WORLD_SIZE says that there is one process"),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_nonsense_is_named(name, value, words):
    with pytest.raises(ConfigError, match=rf"^the environment variable {name} .*{words}"):
        read_launch({name: value})


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK", "LOCAL_RANK"])
def test_nobody_trains_by_nonsense(config, tmp_path, monkeypatch, capsys, name):
    monkeypatch.setenv(name, "abc")
    before = set(tmp_path.iterdir())
    for words in (
        ["train", "--model", "tiny", "--data", config.data, "--output-dir", str(tmp_path / "run")],
        ["train", "--resume", str(tmp_path)],
        ["models", "train-reward", "--model", "tiny", "--data", config.data, "--output-dir", str(tmp_path / "judge")],
    ):
        assert main(words) == 2
        assert f"error: the environment variable {name} must be a whole number" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=name):
        run(config, tmp_path / "run")
    assert set(tmp_path.iterdir()) == before


def test_a_run_of_the_page_says_it_too(supervisor, config, monkeypatch):
    from processes_of_tests import wait_for

    monkeypatch.setenv("LOCAL_RANK", "abc")
    started = supervisor.start(config)
    wait_for(lambda: not supervisor.status(started).active)
    assert "the environment variable LOCAL_RANK must be a whole number from 0 on, not 'abc'" in started.status().error
