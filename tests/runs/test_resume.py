"""A run that was cut off and resumed is the run that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from comparing import assert_same, metrics_of
from safetensors.torch import load_file

from stepwise_dpo.cli import main
from stepwise_dpo.errors import RunError
from stepwise_dpo.learning.loading import load_policy
from stepwise_dpo.preferences.pairs import load_pairs, save_pairs
from stepwise_dpo.runs import training
from stepwise_dpo.runs.checkpoints import refuse_to_resume
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory, RunStatus
from stepwise_dpo.runs.training import resume, run

STEPWISE = {"loss": "stepwise", "reward_model": "reward"}


def cut_off_at(global_step, monkeypatch):
    """Make Ctrl-C come right after the metrics of a global_step were written, before its checkpoint."""
    append = RunDirectory.append_metrics

    def interrupt(self, metrics):
        append(self, metrics)
        if metrics["global_step"] == global_step and "loss" in metrics:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunDirectory, "append_metrics", interrupt)


@pytest.fixture(scope="module")
def finished(small_settings, tmp_path_factory):
    """A run with all its checkpoints."""
    path = tmp_path_factory.mktemp("finished") / "run"
    run(make_config(small_settings, {"save_total_limit": 9}), path)
    return path


@pytest.mark.parametrize("frozen_scores", ["ahead", "as_needed"])
@pytest.mark.parametrize("loss", [{}, STEPWISE], ids=["dpo", "stepwise"])
def test_case_02_resume_in_mid_epoch_and_at_its_end(small_settings, tmp_path, monkeypatch, loss, frozen_scores):
    """Two epochs of 2 + 2 and 1 pairs; evaluated, like saved, after every epoch; cut off three times."""
    config = make_config(small_settings, loss, {"frozen_scores": frozen_scores})
    whole = run(config, tmp_path / "whole")
    assert [line["global_step"] for line in whole.metrics()[0]] == [1, 2, 2, 3, 4, 4]
    path = tmp_path / "cut"
    for global_step, go_on in ((2, run), (3, resume), (4, resume)):
        with monkeypatch.context() as patches:
            cut_off_at(global_step, patches)
            with pytest.raises(KeyboardInterrupt):
                go_on(*([config, path] if go_on is run else [path]))
        cut = RunDirectory(path)
        assert cut.status().state == "interrupted"
        assert cut.checkpoints(verify=True)[0].global_step == global_step - 1
        assert cut.metrics()[0][-1]["global_step"] == global_step  # there is something to forget
    resume(path)
    assert [entry["global_step"] for entry in cut.environment()["resumed"]] == [1, 2, 3]
    assert_same(path, whole.path)
    moved = load_file(whole.final / "model.safetensors")
    assert any(
        (value != load_file(path / "checkpoint-3" / "model.safetensors")[name]).any() for name, value in moved.items()
    )


@pytest.mark.parametrize(
    "settings",
    [{"eval_steps": 2}, {"max_steps": 3}, {"group_by_length": True}],
    ids=["evaluated-by-steps", "ends-in-mid-epoch", "grouped-by-length"],
)
def test_resume_with_other_settings(small_settings, tmp_path, monkeypatch, settings):
    config = make_config(small_settings, settings)
    whole = run(config, tmp_path / "whole")
    cut_off_at(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut")
    monkeypatch.undo()
    resume(tmp_path / "cut")
    assert_same(tmp_path / "cut", whole.path)


def test_a_trained_reward_model_is_resumed_as_well(small_settings, tmp_path, monkeypatch):
    settings = {**STEPWISE, "reward_model": "tiny", "train_reward_model": True}
    config = make_config(small_settings, settings)
    whole = run(config, tmp_path / "whole")
    cut_off_at(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut")
    monkeypatch.undo()
    resume(tmp_path / "cut")
    assert (whole.path / "reward_model" / "model.safetensors").exists()
    assert_same(tmp_path / "cut", whole.path)


def test_a_stopped_run_can_be_resumed_without_further_checkpoints(small_settings, tmp_path, monkeypatch):
    config = make_config(small_settings, {"save_steps": None})
    whole = run(config, tmp_path / "whole")
    assert whole.checkpoints() == []
    append = RunDirectory.append_metrics

    def stop(self, metrics):
        append(self, metrics)
        if metrics["global_step"] == 2 and "loss" in metrics:
            self.request_stop()

    monkeypatch.setattr(RunDirectory, "append_metrics", stop)
    stopped = run(config, tmp_path / "stopped")
    monkeypatch.undo()
    assert stopped.status().state == "stopped"
    # In mid-epoch: it was evaluated nevertheless, which an uninterrupted run is not.
    assert [line["global_step"] for line in stopped.metrics()[0]] == [1, 2, 2, 3, 3]
    assert [found.global_step for found in stopped.checkpoints(verify=True)] == [3]
    assert (stopped.final / "model.safetensors").exists()
    assert refuse_to_resume(stopped) is None
    resume(stopped.path)
    assert not stopped.stop_requested()
    assert_same(stopped.path, whole.path)


def test_a_stop_without_room_for_a_checkpoint_is_still_a_stop(small_settings, tmp_path, monkeypatch, capsys):
    config = make_config(small_settings, {"save_steps": None})
    append = RunDirectory.append_metrics

    def stop(self, metrics):
        append(self, metrics)
        self.request_stop()
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1_000_000))

    monkeypatch.setattr(RunDirectory, "append_metrics", stop)
    stopped = run(config, tmp_path / "stopped")
    assert stopped.status().state == "stopped"
    assert stopped.checkpoints() == []
    assert (stopped.final / "model.safetensors").exists()
    assert "no checkpoint to resume from: it and the policy need" in capsys.readouterr().err


def test_a_run_whose_training_was_done_only_evaluates(finished, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(finished, path)
    shutil.rmtree(path / "final")
    RunDirectory(path).write_status(RunStatus("interrupted", global_step=4, max_steps=4))
    resume(path)
    assert_same(path, finished)


def cut(finished, path):
    shutil.copytree(finished, path)
    for name in ("checkpoint-3", "checkpoint-4"):
        shutil.rmtree(path / name)
    RunDirectory(path).write_status(RunStatus("interrupted", global_step=3, max_steps=4))
    return RunDirectory(path)


def test_the_command_resumes_by_the_saved_configuration_alone(finished, tmp_path, capsys):
    run = cut(finished, tmp_path / "run")
    assert main(["train", "--resume", str(run.path), "--learning-rate", "1", "--preset", "demo"]) == 2
    assert "--resume takes the run's own configuration: leave out --learning-rate, --preset" in capsys.readouterr().err
    assert run.status().state == "interrupted"
    assert main(["train", "--resume", str(run.path)]) == 0
    assert "finished:" in capsys.readouterr().out
    assert_same(run.path, finished)
    assert main(["train", "--resume", str(run.path)]) == 1
    assert "has finished; there is nothing left to train" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path)]) == 1
    assert "is not a run directory" in capsys.readouterr().err


def test_runs_that_cannot_be_resumed_are_left_as_they_are(finished, small_settings, tmp_path):
    run = cut(finished, tmp_path / "run")
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        import psutil

        create_time = psutil.Process(alive.pid).create_time()
        status = RunStatus("running", pid=alive.pid, create_time=create_time, global_step=2)
        run.write_status(status)
        with pytest.raises(RunError, match=rf"is still active \(process {alive.pid}\); stop it first"):
            resume(run.path)
        assert run.status().state == "running"
        run.write_status(RunStatus("running", pid=alive.pid, create_time=create_time - 100))
        assert refuse_to_resume(run) is None  # another process got its number
    finally:
        os.kill(alive.pid, signal.SIGKILL)
        alive.wait()
    run.write_status(RunStatus("stopped"))
    for name in ("checkpoint-1", "checkpoint-2"):
        shutil.rmtree(run.path / name)
    with pytest.raises(RunError, match="no checkpoint to go on from, and beginning again would take away the model"):
        resume(run.path)
    assert (run.status().state, (run.final / "config.json").exists()) == ("stopped", True)


def test_case_10_a_run_without_a_checkpoint_begins_again(finished, tmp_path, monkeypatch, capsys):
    """Cut off while it loads, and again after three optimiser steps; what it left doesn't count."""
    config = make_config(RunDirectory(finished).config().model_dump(), {"save_steps": None})
    path = tmp_path / "run"

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patches:
        patches.setattr(training, "load_policy", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(config, path)
    assert not (path / "environment.json").exists()
    with monkeypatch.context() as patches:
        cut_off_at(3, patches)
        with pytest.raises(KeyboardInterrupt):
            resume(path)
    cut = RunDirectory(path)
    assert [line["global_step"] for line in cut.metrics()[0]] == [1, 2, 2, 3]
    shutil.copytree(finished / "final", path / "final")  # as of a run that was killed while it evaluated its policy
    load, seen = training.load_policy, []

    def look_and_load(name):
        seen.append((cut.metrics()[0], cut.final.exists()))
        return load(name)

    monkeypatch.setattr(training, "load_policy", look_and_load)
    capsys.readouterr()
    resume(path)
    assert "no checkpoint has been written, so the run begins again at optimiser step 0" in capsys.readouterr().err
    assert [entry["global_step"] for entry in cut.environment()["resumed"]] == [0, 0]
    assert seen[0] == ([], False)
    assert_same(path, finished)


def test_other_data_than_before_is_refused(small_settings, tmp_path, monkeypatch):
    shutil.copy(small_settings["data"], tmp_path / "data.json")
    config = make_config(small_settings, {"data": str(tmp_path / "data.json")})
    cut_off_at(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run")
    monkeypatch.undo()
    save_pairs(load_pairs(tmp_path / "data.json")[:4], tmp_path / "data.json")
    before = metrics_of(RunDirectory(tmp_path / "run"))
    with pytest.raises(RunError, match=r"can't be resumed: data \('.*data\.json'\) changed since it began"):
        resume(tmp_path / "run")
    assert metrics_of(RunDirectory(tmp_path / "run")) == before
    (tmp_path / "run" / "environment.json").rename(tmp_path / "environment.json")
    with pytest.raises(RunError, match=r"without environment\.json"):
        resume(tmp_path / "run")
    (tmp_path / "environment.json").rename(tmp_path / "run" / "environment.json")
    shutil.rmtree(tmp_path / "run" / "checkpoint-1")  # nor does it begin again with them
    with pytest.raises(RunError, match="changed since it began"):
        resume(tmp_path / "run")
    assert metrics_of(RunDirectory(tmp_path / "run")) == before
    for name, content in (("versions", {"data": {}}), ("weights", {"versions": {}, "data": {}, "weights": []})):
        (tmp_path / "run" / "environment.json").write_text(json.dumps(content))
        with pytest.raises(RunError, match=rf"environment\.json: {name} is damaged"):
            resume(tmp_path / "run")


@pytest.mark.parametrize("frozen_scores", ["ahead", "as_needed"])
def test_the_reference_is_the_one_that_the_run_began_with(
    small_settings, causal_folder, tmp_path, monkeypatch, frozen_scores
):
    """Not the checkpoint's weights; and a policy's folder that changed since is noticed."""
    model = tmp_path / "model"
    shutil.copytree(causal_folder, model)
    settings = {"model": str(model), "frozen_scores": frozen_scores, "learning_rate": 1e-2}
    config = make_config(small_settings, settings)
    whole = run(config, tmp_path / "whole")
    cut_off_at(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut")
    monkeypatch.undo()
    shutil.copytree(tmp_path / "cut", tmp_path / "other")
    resume(tmp_path / "cut")
    assert_same(tmp_path / "cut", whole.path)

    policy = load_policy(str(model))
    policy.model.model.norm.weight.data.mul_(1.1)
    policy.model.save_pretrained(model)
    other = RunDirectory(tmp_path / "other")
    for words in (
        r"model \('.*model'\) changed since it began",
        "-1 was trained against another reference: example '",
    ):
        with pytest.raises(RunError, match=words):
            resume(other.path)
        assert other.status().state == "failed"
        assert len(other.checkpoints(verify=True)) == 1
        environment = other.environment()
        environment.pop("weights", None)  # as of an older version
        other.write_environment(environment)


def test_another_reward_model_is_refused_and_other_threads_are_told(
    small_settings, causal_folder, tmp_path, monkeypatch, capsys
):
    judge, aside = tmp_path / "judge", tmp_path / "aside"
    shutil.copytree(causal_folder, judge)
    config = make_config(small_settings, STEPWISE, {"reward_model": str(judge), "reward_head": "likelihood"})
    cut_off_at(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run")
    monkeypatch.undo()
    cut = RunDirectory(tmp_path / "run")
    before = metrics_of(cut)
    shutil.copytree(judge, aside)
    changed = load_policy(str(judge))
    changed.model.model.norm.weight.data[0] += 1e-6  # no score needs to tell
    changed.model.save_pretrained(judge)
    with pytest.raises(RunError, match=r"can't be resumed: reward_model \('.*judge'\) changed since it began, in"):
        resume(cut.path)
    assert (cut.status().state, metrics_of(cut)) == ("failed", before)
    shutil.rmtree(judge)
    aside.rename(judge)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        resume(cut.path)
    finally:
        torch.set_num_threads(threads)
    assert f"the run began with threads {threads}, now {threads + 1}: from here on" in capsys.readouterr().err
    assert cut.environment()["threads"] == threads
    assert cut.environment()["resumed"][0]["threads"] == threads + 1


def test_lost_metrics_are_noticed(finished, tmp_path):
    run = cut(finished, tmp_path / "run")
    lines = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run.path / "metrics.jsonl").write_text("".join(lines[1:2]))
    with pytest.raises(RunError, match=r"metrics\.jsonl has \d+ bytes, but had \d+ when the checkpoint was written"):
        resume(run.path)


def test_a_stop_while_a_resumed_run_loads_keeps_its_checkpoint(finished, tmp_path, monkeypatch):
    run = cut(finished, tmp_path / "run")
    monkeypatch.setattr(RunDirectory, "stop_requested", lambda self: True)
    resume(run.path)
    monkeypatch.undo()
    assert (run.status().state, run.status().error) == (
        "stopped",
        "stopped before the first optimiser step; checkpoint-2 is kept",
    )
    assert json.loads((run.path / "checkpoint-2" / "trainer_state.json").read_text())["global_step"] == 2
    resume(run.path)
    assert_same(run.path, finished)
