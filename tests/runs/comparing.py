"""What two runs must share to be the same run."""

import json

from stepwise_dpo.runs.directory import RunDirectory

CLOCK = ("time", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


def metrics_of(run):
    """Every line of metrics without what a clock says."""
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in run.metrics()[0]]


def weights_of(run):
    """The trained models' files; which checkpoints are left depends on where a run was cut off."""
    return [
        file for file in ("final/model.safetensors", "reward_model/model.safetensors") if (run.path / file).exists()
    ]


def assert_same(path, other):
    """Two finished runs: bitwise equal weights, equal metrics at every global_step, equal records."""
    run, expected = RunDirectory(path), RunDirectory(other)
    assert (run.status().state, run.status().global_step) == ("finished", expected.status().global_step)
    assert metrics_of(run) == metrics_of(expected)
    names = weights_of(expected)
    assert names == weights_of(run)
    for name in names:
        assert (run.path / name).read_bytes() == (expected.path / name).read_bytes(), name
    assert run.report() == expected.report()
    assert run.rewards() == expected.rewards()
    assert json.dumps(run.examples()) == json.dumps(expected.examples())
