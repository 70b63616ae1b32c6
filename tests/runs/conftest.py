"""Of all tests of runs: real worker processes, small data on disk, a server of forked processes that may die."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from stepwise_dpo.preferences.pairs import save_pairs
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.supervisor import Supervisor

ROOT = Path(__file__).parents[2]


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

    def use(body, before=""):
        script = tmp_path / "worker.py"
        lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
        script.write_text(
            "import os, subprocess, sys, time\n"
            "from dataclasses import replace\n"
            "from stepwise_dpo.runs import worker\n"
            "from stepwise_dpo.runs.directory import RunDirectory\n"
            f"{before}\n"
            "def train(config, path):\n"
            "    run = RunDirectory(path)\n"
            "    def say(state): run.write_status(replace(run.status(), state=state))\n"
            f"{lines}\n"
            "sys.exit(worker.main(sys.argv[1:], train))\n"
        )
        monkeypatch.setattr("stepwise_dpo.runs.supervisor.WORKER", (sys.executable, str(script)))

    return use


class Forks:
    """Calls a function of `fork_server` in a process of its own, which costs no imports."""

    def __init__(self, log):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
        self.log = log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                bufsize=1,
                env=environment,
            )

    def __call__(self, function, **arguments):
        """Wait for the process's end and give its exit code, negative for a signal."""
        self.process.stdin.write(json.dumps([function, arguments], default=str) + "\n")
        answer = self.process.stdout.readline()
        assert answer, self.log.read_text()[-3000:]
        return int(answer)

    def said(self):
        """The end of what the processes have printed, for messages."""
        return self.log.read_text(errors="replace")[-3000:]


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    made = Forks(tmp_path_factory.mktemp("forks") / "log.txt")
    yield made
    made.process.stdin.close()
    made.process.wait(timeout=60)


@pytest.fixture(scope="session")
def small_data(pairs, tmp_path_factory):
    """Five pairs to train on and two held-out ones: in batches of two, the last is uneven."""
    folder = tmp_path_factory.mktemp("small-data")
    save_pairs(pairs[:5], folder / "train.json")
    save_pairs(pairs[5:7], folder / "held_out.json")
    return {"model": "tiny", "data": str(folder / "train.json"), "eval_data": str(folder / "held_out.json")}


@pytest.fixture(scope="session")
def small_settings(small_data):
    """Four optimiser steps, two an epoch: of two batches, and of the one that is left."""
    return {
        **small_data,
        "epochs": 2.0,
        "gradient_accumulation": 2,
        "learning_rate": 1e-3,
        "generate": 0,
        "save_steps": 1,
    }
