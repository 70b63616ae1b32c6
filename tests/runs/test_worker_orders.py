"""What a worker is told to do, and how it answers a request to stop that takes long to grant."""

import json
import os
import signal
import sys
from dataclasses import replace

import psutil
import pytest
import torch
from processes_of_tests import wait_for

from stepwise_dpo.errors import RunError
from stepwise_dpo.learning.checkpoints import faults
from stepwise_dpo.learning.loading import Policy, load_policy
from stepwise_dpo.learning.sound_trainer import SoundTrainer
from stepwise_dpo.runs import journal as journal_module
from stepwise_dpo.runs import supervisor as module
from stepwise_dpo.runs import training, worker
from stepwise_dpo.runs.checkpoints import ResumePoint
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory, RunStatus
from stepwise_dpo.runs.journal import Journal
from stepwise_dpo.runs.ticket import Ticket, new_ticket, read_ticket, write_ticket


@pytest.fixture
def run(config, tmp_path):
    made = RunDirectory(tmp_path / "runs" / "one")
    made.create(config)
    return made


# ------------------------------------------------------------------------------------------------------- run or resume


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Workers that only note what they are asked: the notes."""
    script, notes = tmp_path / "note.py", tmp_path / "notes.jsonl"
    script.write_text(f"import sys\nopen({str(notes)!r}, 'a').write(sys.stdin.readline())\n")
    monkeypatch.setattr(module, "WORKER", (sys.executable, str(script)))
    return lambda: [json.loads(line)["resume"] for line in notes.read_text().splitlines()] if notes.exists() else []


def test_a_worker_is_told_whether_to_go_on(supervisor, config, asked, monkeypatch):
    monkeypatch.setattr(module, "refuse_to_resume", lambda run: None)
    run = supervisor.start(config)
    wait_for(lambda: not supervisor.status(run).active, 20)
    supervisor.resume(run)
    wait_for(lambda: not supervisor.status(run).active, 20)
    assert asked() == [False, True]


def test_it_is_told_so_by_the_next_server_as_well(supervisor, run, asked):
    write_ticket(run, Ticket(None, 2**22 + 1, 1.0, resume=True))
    supervisor.recover()
    assert read_ticket(run).resume
    wait_for(lambda: not supervisor.status(run).active, 20)
    assert asked() == [True]


def test_a_run_whose_checkpoints_vanished_is_not_trained_onto_its_old_metrics(run, config, monkeypatch):
    me = psutil.Process()
    run.append_metrics({"global_step": 1, "loss": 0.5})
    run.write_status(RunStatus("starting", pid=me.pid, create_time=me.create_time()))
    begun = []
    monkeypatch.setattr(training, "_attend", lambda config, run, point, _: begun.append((point, run.metrics()[0])))
    with pytest.raises(RunError, match="already holds a run"):
        worker._training(resume=False)(config, run.path)
    assert begun == []
    worker._training(resume=True)(config, run.path)
    assert begun == [(ResumePoint(None, []), [])]  # it begins again


# ---------------------------------------------------------------------------------------------------------- whose run


def test_a_prepared_run_is_done_only_by_whom_it_was_prepared_for(run, config, monkeypatch):
    begun = []
    monkeypatch.setattr(training, "_attend", lambda config, *others: begun.append(config.seed))
    training.run(config, run.path)
    run.write_status(RunStatus("starting", pid=os.getpid()))
    training.run(config, run.path)
    assert begun == [42, 42]
    for status, ticket, asked in (
        (RunStatus("queued"), None, make_config(config.model_dump(), {"seed": 2})),
        (RunStatus("starting", pid=os.getpid()), None, make_config(config.model_dump(), {"seed": 2})),
        (RunStatus("starting", pid=os.getppid()), None, config),
        (RunStatus("queued"), new_ticket(None), config),  # a page's, whose worker may start at any moment
    ):
        run.write_status(status)
        if ticket is not None:
            write_ticket(run, ticket)
        with pytest.raises(RunError, match="already holds a run; choose another output directory"):
            training.run(asked, run.path)
    assert begun == [42, 42]
    assert run.config() == config


# ------------------------------------------------------------------------------------------------------------ progress


def test_an_evaluations_count_stands_beside_its_phase_and_goes_with_it(run, monkeypatch):
    monkeypatch.setattr(journal_module, "_PHASE_SECONDS", 0.0)
    journal = Journal(run)
    journal.phase("evaluating the trained model")
    show = journal.bar("Evaluation", "example")
    show(1_500, 3_000)
    assert run.status().phase == "evaluating the trained model, 50%"
    show(2_000, 3_000)
    assert run.status().phase == "evaluating the trained model, 67%"
    monkeypatch.setattr(journal_module, "_PHASE_SECONDS", 60.0)
    show(3_000, 3_000)
    assert run.status().phase == "evaluating the trained model, 67%"  # else a status for each would be most of the work
    journal.phase("saving")
    assert run.status().phase == "saving"


def test_a_long_error_can_be_read_again(run):
    Journal(run).end("failed", "x" * 2_000_000)
    assert run.status().error == "x" * 10_000


# --------------------------------------------------------------------------------------------------------------- stops


def test_a_stop_is_answered_within_a_step_and_within_an_evaluation(run):
    for hook in ("on_substep_end", "on_prediction_step"):
        run.forget_stop()
        journal = Journal(run)
        getattr(journal, hook)(None, None, None)
        run.request_stop()
        run.write_status(replace(run.status(), state="running"))
        getattr(journal, hook)(None, None, None)
        assert run.status().state == "stopping"


def test_the_trainer_asks_after_every_batch(small_settings, tmp_path, monkeypatch):
    """Of two batches in the first optimiser step, the first is the moment to answer."""
    states = []
    begin, write = Journal.on_train_begin, RunDirectory.write_status

    def begin_and_stop(self, *arguments, **more):
        begin(self, *arguments, **more)
        self.directory.request_stop()

    def note(self, status):
        states.append((status.state, status.global_step))
        write(self, status)

    monkeypatch.setattr(Journal, "on_train_begin", begin_and_stop)
    monkeypatch.setattr(RunDirectory, "write_status", note)
    stopped = training.run(make_config(small_settings), tmp_path / "run")
    assert stopped.status().state == "stopped"
    assert next(step for state, step in states if state == "stopping") == 0


def test_a_run_trains_the_policy_that_a_spare_has_loaded_if_it_is_its_own(small_settings, tmp_path):
    config = make_config(small_settings, {"max_steps": 1, "save_steps": None})
    loaded = load_policy(config.model)
    same = training.run(config, tmp_path / "same", loaded)
    other = training.run(config, tmp_path / "other", Policy("another", loaded.model, loaded.tokenizer))
    assert same.metrics()[0][0]["loss"] == other.metrics()[0][0]["loss"]
    trained = load_policy(str(same.final)).model.state_dict()
    assert all(torch.equal(trained[name], values) for name, values in loaded.model.state_dict().items())


def test_case_11_a_first_stop_during_the_save_of_a_checkpoint(small_settings, tmp_path, monkeypatch):
    """It is answered as soon as the checkpoint is there, and heeded after the next step."""
    states = []
    save, write = SoundTrainer._save_checkpoint, RunDirectory.write_status

    def stop_and_save(self, *arguments):
        if self.state.global_step == 2:
            RunDirectory(tmp_path / "run").request_stop()
        save(self, *arguments)

    def note(self, status):
        states.append((status.state, status.global_step, (self.path / "checkpoint-2").exists()))
        write(self, status)

    monkeypatch.setattr(SoundTrainer, "_save_checkpoint", stop_and_save)
    monkeypatch.setattr(RunDirectory, "write_status", note)
    stopped = training.run(make_config(small_settings), tmp_path / "run")
    assert (stopped.status().state, stopped.status().error, stopped.status().global_step) == ("stopped", None, 3)
    assert [found.global_step for found in stopped.checkpoints(verify=True)] == [3, 2]
    assert faults(stopped.final) == []
    assert next(entry for entry in states if entry[0] == "stopping") == ("stopping", 2, True)


def test_a_worker_has_time_to_note_its_end_at_sigterm(supervisor, config, worker, monkeypatch):
    monkeypatch.setattr(module, "STOP_GRACE_SECONDS", 0.0)
    worker(
        "say('running')\n"
        "try:\n"
        "    time.sleep(600)\n"
        "except KeyboardInterrupt:\n"
        "    time.sleep(1)\n"  # the supervisor repeats its signal meanwhile
        "    say('interrupted')\n"
        "    raise"
    )
    run = supervisor.start(config)
    wait_for(lambda: supervisor.status(run).state == "running")
    supervisor.stop(run)
    wait_for(lambda: not supervisor.status(run).active, 20)
    assert run.status().state == "interrupted"
    wait_for(lambda: "ended by SIGTERM" in run.events.read_text(), 10)


def test_who_ends_a_run_without_asking_it_to_stop_interrupts_it(supervisor, config, worker):
    worker("say('running')\ntry: time.sleep(600)\nfinally: say('interrupted')")
    run = supervisor.start(config)
    wait_for(lambda: supervisor.status(run).state == "running")
    os.kill(run.status().pid, signal.SIGTERM)
    wait_for(lambda: not supervisor.status(run).active, 20)
    assert run.status().state == "interrupted"


def test_a_run_ended_by_force_says_whether_anybody_asked_and_what_is_kept(run, config, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    def ending():
        with pytest.raises(KeyboardInterrupt):
            training._attend(config, run, None)
        return run.status().state, run.status().error

    monkeypatch.setattr(training, "_run", interrupt)
    assert ending() == ("interrupted", "interrupted by Ctrl-C or SIGTERM")
    run.request_stop()
    assert ending() == ("stopped", "ended before anything could be kept")
    run.final.mkdir()
    (run.final / "config.json").write_text("{}")
    assert ending() == ("stopped", None)
