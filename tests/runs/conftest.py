"""Real worker processes: a supervisor that leaves none behind, and runs that are quick or endless."""

import os
import signal
import sys

import psutil
import pytest

from stepwise_dpo.preferences.pairs import save_pairs
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.supervisor import Supervisor


@pytest.fixture
def config(pairs, tmp_path):
    """A run that would take minutes."""
    save_pairs(pairs, tmp_path / "pairs.json")
    return make_config(
        {"model": "tiny", "data": str(tmp_path / "pairs.json"), "epochs": 1000, "generate": 0, "max_steps": 5000}
    )


@pytest.fixture
def make_supervisor(tmp_path):
    """Supervisors of the same folder, as a server and the one after it have them."""
    made = []

    def make(*arguments, **options):
        made.append(Supervisor(tmp_path / "runs", *arguments, **options))
        return made[-1]

    yield make
    for supervisor in made:
        supervisor.close()
        for run in supervisor.runs():
            supervisor.stop(run)  # nothing that waits shall start now
    for run in made[0].runs() if made else []:
        status = run.status()
        if status.active and status.pid and psutil.pid_exists(status.pid) and os.getpgid(status.pid) == status.pid:
            os.killpg(status.pid, signal.SIGKILL)


@pytest.fixture
def supervisor(make_supervisor):
    return make_supervisor()


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Let workers do something else than train: `worker("body of def train(config, path)")`, in the real frame."""

    def use(body):
        script = tmp_path / "worker.py"
        lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
        script.write_text(
            "import os, subprocess, sys, time\n"
            "from dataclasses import replace\n"
            "from stepwise_dpo.runs import worker\n"
            "from stepwise_dpo.runs.directory import RunDirectory\n"
            "def train(config, path):\n"
            "    run = RunDirectory(path)\n"
            "    def say(state): run.write_status(replace(run.status(), state=state))\n"
            f"{lines}\n"
            "sys.exit(worker.main(sys.argv[1:], train))\n"
        )
        monkeypatch.setattr("stepwise_dpo.runs.supervisor.WORKER", (sys.executable, str(script)))

    return use
