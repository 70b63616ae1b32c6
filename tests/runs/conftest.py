"""What the tests of runs share: small data on disk, and a server of forked processes that may die."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stepwise_dpo.preferences.pairs import save_pairs

ROOT = Path(__file__).parents[2]


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
