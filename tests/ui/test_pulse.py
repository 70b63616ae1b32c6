import os
import time

import psutil
import pytest

from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory, RunStatus
from stepwise_dpo.runs.supervisor import Supervisor
from stepwise_dpo.runs.ticket import new_ticket, owner_hash, write_ticket
from stepwise_dpo.ui import pulse, run_reader
from stepwise_dpo.ui.run_reader import RunReader

MINE = {"started": time.time(), "max_steps": 4, "pid": os.getpid(), "create_time": psutil.Process().create_time()}
ANNA, BEN = "a" * 43, "b" * 43


@pytest.fixture
def run(tmp_path):
    directory = RunDirectory(tmp_path / "20261122-153000-dpo-1a2b")
    directory.create(make_config({"data": "pairs.json"}))
    directory.write_status(RunStatus("running", **MINE))
    write_ticket(directory, new_ticket(owner_hash(ANNA)))
    return directory


@pytest.fixture(autouse=True)
def fresh_looks(monkeypatch):
    monkeypatch.setattr(run_reader, "LOOK_SECONDS", 0.0)


def test_what_a_run_at_work_writes_is_heard_of(run, tmp_path):
    reader = RunReader(Supervisor(tmp_path))
    run.write_status(RunStatus("running", **{**MINE, "started": time.time()}))
    before = pulse.newest_of(reader, ANNA)
    assert pulse.newest_of(reader, ANNA) == before
    run.append_metrics({"global_step": 1, "loss": 0.5, "time": 1.0})
    assert before["pace"] == "beginning"
    assert (written := pulse.newest_of(reader, ANNA)) != before
    assert written["pace"] == "seconds"
    run.write_status(RunStatus("finished", started=time.time(), max_steps=4, global_step=4))
    ended = pulse.newest_of(reader, ANNA)
    assert ended["standing"] != written["standing"]
    assert ended["pace"] == "idle"
    assert before["over"] == written["over"] != ended["over"]
    # A page knows from its first look what was over then, and hears of what ends before its first question.
    assert pulse.beat(reader, ANNA, 1.0)["over"] == ended["over"]


def test_the_phases_of_a_run_that_has_just_begun_wait_for_its_first_step(run, tmp_path):
    reader = RunReader(Supervisor(tmp_path))

    def standing(phase, seconds):
        run.write_status(RunStatus("running", **{**MINE, "started": time.time() - seconds}, phase=phase))
        return pulse.newest_of(reader, ANNA)["standing"]

    assert standing("loading models", 0) == standing("training", 0)
    assert standing("loading models", 10) != standing("training", 10)
    before = standing("training", 0)
    run.request_stop()
    assert standing("training", 0) != before


def test_strangers_hear_nothing_of_each_others_runs(run, tmp_path):
    reader = RunReader(Supervisor(tmp_path), public=True)
    nothing = pulse.newest_of(reader, BEN)
    assert pulse.newest_of(reader, "") == nothing
    assert (annas := pulse.newest_of(reader, ANNA)) != nothing
    run.append_metrics({"global_step": 1, "loss": 0.5, "time": 1.0})
    assert pulse.newest_of(reader, BEN) == nothing
    assert pulse.newest_of(reader, ANNA) != annas


def test_a_look_says_what_it_has_seen_and_another_server_says_something_else(run, tmp_path, monkeypatch):
    reader = RunReader(Supervisor(tmp_path))
    beat = pulse.beat(reader, ANNA, 0.5)
    assert beat["standing"] == pulse.newest_of(reader, ANNA)["standing"]
    assert (beat["visitor"], beat["seconds"], beat["idle"], beat["beginning"]) == (ANNA, 0.5, 1.0, 0.2)
    monkeypatch.setattr(pulse, "_SERVER", "another")
    assert pulse.newest_of(reader, ANNA)["standing"] != beat["standing"]
