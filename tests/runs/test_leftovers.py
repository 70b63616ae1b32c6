"""What killed processes left goes at the next start; what may be somebody's, or in use, stays."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from stepwise_dpo.errors import RunError
from stepwise_dpo.preferences import pairs as pairs_module
from stepwise_dpo.runs.directory import REMOVED, RunDirectory, list_runs
from stepwise_dpo.runs.example_files import example_folder, write_examples
from stepwise_dpo.runs.leftovers import AT_WORK_SECONDS, sweep_folder

HALF = "20261122-153000-dpo-1a2b"


def make_old(*paths):
    for path in paths:
        os.utime(path, (time.time() - AT_WORK_SECONDS - 5,) * 2)


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_removal_that_is_cut_short_is_no_half_a_run_and_ends_at_the_next_start(make_supervisor, config, monkeypatch):
    """Killed as soon as the first file is gone: the examples that nobody else reads are gone by then."""
    before, after = make_supervisor(), make_supervisor()
    examples = example_folder(before.runs_dir) / "x.json"
    write_examples(examples, pairs_module.load_pairs(config.data))
    run = RunDirectory(before.runs_dir / "one")
    run.create(config.model_copy(update={"data": str(examples)}))
    run.write_status(replace(run.status(), state="finished"))

    def cut_short(path):
        (path / "status.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patches:
        patches.setattr(shutil, "rmtree", cut_short)
        with pytest.raises(KeyboardInterrupt):
            before.delete(run)
    (left,) = names(before.runs_dir) - {"data"}
    assert left.startswith(REMOVED)
    assert (before.runs_dir / left / "config.json").exists()
    assert before.runs() == []
    assert not examples.exists()
    after.recover()
    assert names(before.runs_dir) == {"data"}


def test_examples_that_were_being_written(supervisor, config, pairs, monkeypatch):
    folder = example_folder(supervisor.runs_dir)
    target = folder / "set-12-0123456789ab.json"

    def killed(descriptor):
        raise KeyboardInterrupt

    with monkeypatch.context() as patches:  # neither is what is beside it removed by a killed process
        patches.setattr(os, "fsync", killed)
        patches.setattr(type(folder), "unlink", lambda path, missing_ok=False: None)
        with pytest.raises(KeyboardInterrupt):
            write_examples(target, pairs)
    (left,) = folder.iterdir()
    assert sweep_folder(supervisor.runs_dir) == []  # somebody may be writing it
    make_old(left)
    for name in ("notes.tmp", ".hidden.tmp", ".set.json.0123456789abcdeg.tmp"):  # nobody knows whose
        (folder / name).write_text("mine")
        make_old(folder / name)
    write_examples(target, pairs)
    supervisor.recover()
    assert names(folder) == {"notes.tmp", ".hidden.tmp", ".set.json.0123456789abcdeg.tmp", target.name}


def half_a_run(folder, config):
    run = RunDirectory(folder / HALF)
    run.create(config)
    (run.path / "config.json").unlink()
    return run


def test_half_a_run(supervisor, config):
    run = half_a_run(supervisor.runs_dir, config)
    make_old(*run.path.iterdir(), run.path)
    assert sweep_folder(supervisor.runs_dir) == [HALF]
    assert names(supervisor.runs_dir) == set()


@pytest.mark.parametrize(
    "why", ["young", "somebody's file", "a model", "a checkpoint", "another name", "a link", "a process", "whole"]
)
def test_what_may_be_somebodys_stays(supervisor, config, tmp_path, why):
    run = half_a_run(supervisor.runs_dir, config)
    if why == "somebody's file":
        (run.path / "inference_results.csv").write_text("mine")
    elif why in ("a model", "a checkpoint"):
        (run.path / {"a model": "final", "a checkpoint": "checkpoint-2"}[why]).mkdir()
    elif why == "another name":
        run = RunDirectory(run.path.rename(run.path.with_name("thesis")))
    elif why == "a link":
        run.path.rename(tmp_path / "elsewhere")
        run.path.symlink_to(tmp_path / "elsewhere")
    elif why == "a process":
        me = psutil.Process()
        run.write_status(replace(run.status(), state="running", pid=me.pid, create_time=me.create_time()))
    elif why == "whole":
        (run.path / "config.json").write_text("damaged")
    make_old(*run.path.iterdir(), run.path)
    if why == "young":
        run.write_status(run.status())
    before = set(tmp_path.rglob("*"))
    assert sweep_folder(supervisor.runs_dir) == []
    assert set(tmp_path.rglob("*")) == before


@pytest.fixture
def bystander():
    """A process that lives."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


def test_what_a_killed_worker_was_writing(supervisor, config, bystander):
    """Of a run that has ended; another one's process may be at it."""
    ended, active = (RunDirectory(supervisor.runs_dir / name) for name in ("ended", "active"))
    for run in (ended, active):
        run.create(config)
        (run.path / ".saving" / "checkpoint-3").mkdir(parents=True)
        for name in (".status.json.1a2b3c4d", ".status.json.mine"):
            (run.path / name).write_text("{")
            make_old(run.path / name)
    ended.write_status(replace(ended.status(), state="running", pid=2**22 + 1, create_time=1.0))
    create_time = bystander.create_time()
    active.write_status(replace(active.status(), state="running", pid=bystander.pid, create_time=create_time))
    assert [run.id for run in supervisor.recover().interrupted] == ["ended"]
    assert names(ended.path) == {"config.json", "status.json", ".status.json.mine"}
    assert names(active.path) == {"config.json", "status.json", ".status.json.mine", ".status.json.1a2b3c4d", ".saving"}


def test_a_folder_that_only_looks_like_a_run_being_removed_is_none(supervisor, config):
    run = RunDirectory(supervisor.runs_dir / f"{REMOVED}x")
    run.create(config)
    assert list_runs(supervisor.runs_dir) == []
    with pytest.raises(RunError, match="there is no run"):
        supervisor.run(run.id)
