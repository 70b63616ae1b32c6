import os
import time
from dataclasses import replace

import pytest

from stepwise_dpo.errors import RunError
from stepwise_dpo.preferences.pairs import PreferencePair, Step, load_pairs
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.example_files import example_file, example_folder, write_examples
from stepwise_dpo.runs.limits import QueueLimits
from stepwise_dpo.runs.own_runs import OwnRuns
from stepwise_dpo.ui.library import ExampleSet
from stepwise_dpo.ui.train_form import start_on

PAIR = PreferencePair("p", [Step("a", True)], [Step("b", False)], "1")


def test_the_same_examples_are_written_once(tmp_path):
    first = example_file(tmp_path / "data", "../my set.json", [PAIR])
    assert first == example_file(tmp_path / "data", "../my set.json", [PAIR])
    assert (first.parent, first.name[:9]) == (tmp_path / "data", "my-set-1-")
    write_examples(first, [PAIR])
    assert load_pairs(first) == [PAIR]
    os.utime(first, (1, 1))
    written = first.stat().st_ino
    write_examples(first, [PAIR])
    assert first.stat().st_ino == written
    assert first.stat().st_mtime > time.time() - 60  # `forget` shall not take it for what nobody needs
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="can't be written"):
        write_examples(tmp_path / "file" / "data" / "x.json", [PAIR])


def test_a_refused_start_writes_no_examples(make_supervisor, worker):
    worker("say('running')\nwhile True: time.sleep(1)")
    supervisor = make_supervisor(queue_limits=QueueLimits(per_owner=1))
    own, settings = OwnRuns(supervisor, "a" * 43), {"model": "tiny"}

    def start(prompt):
        rows = ExampleSet("rows", (replace(PAIR, prompt=prompt),))
        return start_on(own, settings, rows, ExampleSet("none", ()), True)

    run = start("first")
    with pytest.raises(RunError, match="at most 1 are allowed"):
        start("second")
    assert [str(path) for path in example_folder(supervisor.runs_dir).iterdir()] == [run.config().data]


def test_examples_go_with_the_last_run_on_them(supervisor, tmp_path):
    folder = example_folder(supervisor.runs_dir)
    shared, own, kept = folder / "shared.json", folder / "own.json", tmp_path / "pairs.json"
    for path in (shared, own, kept):
        write_examples(path, [PAIR])
    runs = []
    for number, files in enumerate(({"data": shared, "eval_data": own}, {"data": shared, "eval_data": kept})):
        runs.append(RunDirectory(supervisor.runs_dir / str(number)))
        runs[-1].create(make_config({key: str(path) for key, path in files.items()}))
        runs[-1].write_status(replace(runs[-1].status(), state="finished"))
    supervisor.delete(runs[0])
    assert [path.exists() for path in (shared, own, kept)] == [True, False, True]
    supervisor.delete(runs[1])
    assert [path.exists() for path in (shared, own, kept)] == [False, False, True]  # what is somebody's own stays


def test_a_start_that_cannot_be_written_takes_its_examples_with_it(supervisor, monkeypatch):
    path = example_folder(supervisor.runs_dir) / "x.json"

    def refuse(run, config):
        raise RunError("no space left")

    monkeypatch.setattr(RunDirectory, "create", refuse)
    with pytest.raises(RunError, match="no space left"):
        supervisor.start(make_config({"data": str(path)}), write=lambda: write_examples(path, [PAIR]))
    assert not path.exists()
