"""Real worker processes, real signals."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import pytest

from stepwise_dpo.errors import RunError
from stepwise_dpo.preferences.pairs import save_pairs
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.supervisor import Supervisor


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
    return value


@pytest.fixture
def config(pairs, tmp_path):
    save_pairs(pairs, tmp_path / "pairs.json")
    return make_config(
        {"model": "tiny", "data": str(tmp_path / "pairs.json"), "epochs": 1000, "generate": 0, "max_steps": 5000}
    )


@pytest.fixture
def supervisor(tmp_path):
    made = Supervisor(tmp_path / "runs")
    yield made
    for run in made.runs():
        status = run.status()
        if status.active and status.pid and psutil.pid_exists(status.pid):
            os.killpg(status.pid, signal.SIGKILL)


def test_a_run_to_its_end(supervisor, config):
    run = supervisor.start(config.model_copy(update={"max_steps": 3}))
    wait_for(lambda: not supervisor.status(run).active)
    status = supervisor.status(run)
    assert (status.state, status.global_step, status.max_steps, status.error) == ("finished", 3, 3, None)
    assert [record["global_step"] for record in run.metrics()[0]] == [1, 2, 3]
    assert (run.final / "model.safetensors").is_file()
    supervisor.delete(run)
    assert supervisor.runs() == []


def test_stop_keeps_what_is_there(supervisor, config):
    run = supervisor.start(config)
    wait_for(lambda: supervisor.status(run).global_step >= 2)
    with pytest.raises(RunError, match="still active; stop it first"):
        supervisor.delete(run)
    supervisor.stop(run)
    supervisor.stop(run)  # twice does no harm
    wait_for(lambda: not supervisor.status(run).active)
    status = supervisor.status(run)
    assert status.state == "stopped"
    assert 2 <= status.global_step < 5000
    assert (run.final / "model.safetensors").is_file()
    assert run.report().keys() == {"before", "after"}


def test_a_killed_worker_is_seen_as_what_it_is(supervisor, config):
    run = supervisor.start(config)
    status = wait_for(lambda: (s := supervisor.status(run)).state == "running" and s)
    os.kill(status.pid, signal.SIGKILL)
    wait_for(lambda: not supervisor.status(run).active, seconds=5)
    assert supervisor.status(run).state == "failed"
    assert supervisor.status(run).error == "killed, probably out of memory"


def test_a_mistake_in_the_configuration_is_the_runs_error(supervisor, config):
    run = supervisor.start(config.model_copy(update={"model": "./nowhere"}))
    wait_for(lambda: not supervisor.status(run).active)
    assert supervisor.status(run).state == "failed"
    assert supervisor.status(run).error == "model './nowhere': no such folder"


def test_the_worker_ends_with_its_server_and_a_new_server_notices(supervisor, config, tmp_path):
    script = textwrap.dedent(
        """
        import sys, time
        from stepwise_dpo.runs.config import make_config
        from stepwise_dpo.runs.supervisor import Supervisor
        import json
        print(Supervisor(sys.argv[1]).start(make_config(json.loads(sys.argv[2]))).path, flush=True)
        time.sleep(300)
        """
    )
    server = subprocess.Popen(
        [sys.executable, "-c", script, str(supervisor.runs_dir), config.model_dump_json()],
        stdout=subprocess.PIPE,
        text=True,
    )
    run = RunDirectory(server.stdout.readline().strip())
    status = wait_for(lambda: (s := run.status()).state == "running" and s)
    server.kill()
    server.wait()
    wait_for(lambda: not psutil.pid_exists(status.pid), seconds=5)
    assert supervisor.status(run).state == "interrupted"


def test_the_limit_holds_when_many_start_at_once(supervisor, config):
    config = config.model_copy(update={"model": "./nowhere"})  # they may all fail; what counts is who may try

    def start(_):
        try:
            return supervisor.start(config, max_active=1)
        except RunError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(start, range(8)))
    started = [answer for answer in answers if not isinstance(answer, str)]
    assert len(started) == 1
    assert sum(isinstance(answer, str) and "is still active" in answer for answer in answers) == 7
    wait_for(lambda: not supervisor.status(started[0]).active)


def test_stop_while_loading(supervisor, config):
    run = supervisor.start(config)
    supervisor.stop(run)
    wait_for(lambda: not supervisor.status(run).active)
    assert supervisor.status(run).state == "stopped"
    assert "nothing to keep" in supervisor.status(run).error


def test_a_run_that_never_got_a_process_blocks_nothing(supervisor, config):
    run = RunDirectory(supervisor.runs_dir / "old")
    run.create(config)
    assert supervisor.status(run).state == "queued"
    status = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps({**status, "updated": time.time() - 3600}))
    assert supervisor.status(run).state == "interrupted"


def test_another_process_with_the_same_pid_is_not_ours(supervisor, config):
    run = RunDirectory(supervisor.runs_dir / "old")
    run.create(config)
    # This test's own pid, but created at another time: no signal may reach it.
    run.write_status(replace(run.status(), state="running", pid=os.getpid(), create_time=1.0))
    supervisor.stop(run)
    assert run.status().state == "interrupted"


@pytest.mark.parametrize("run_id", ["../one", "/etc", "x" * 300, "a\0b", ""])
def test_ids_that_are_no_runs(supervisor, config, run_id):
    RunDirectory(supervisor.runs_dir.parent / "one").create(config)
    with pytest.raises(RunError, match="there is no run"):
        supervisor.run(run_id)
