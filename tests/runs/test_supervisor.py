"""Real worker processes, real signals; what they do is training only where that is the point."""

import json
import os
import signal
import time
from dataclasses import replace

import psutil
import pytest
from processes_of_tests import group_of, wait_for

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs import supervisor as module
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.discarding import discard, sweep
from stepwise_dpo.runs.limits import QueueLimits
from stepwise_dpo.runs.ticket import Ticket, read_ticket, write_ticket

UNTIL_STOPPED = "say('running')\nwhile not run.stop_requested(): time.sleep(0.05)\nsay('stopped')"
ANNA, BEN = "a" * 43, "b" * 43


def state(supervisor, run):
    return supervisor.status(run).state


def test_a_run_to_its_end(supervisor, config):
    run = supervisor.start(config.model_copy(update={"max_steps": 3}))
    wait_for(lambda: not supervisor.status(run).active)
    status = supervisor.status(run)
    assert (status.state, status.global_step, status.max_steps, status.error) == ("finished", 3, 3, None)
    assert [record["global_step"] for record in run.metrics()[0]] == [1, 2, 3]
    assert (run.final / "model.safetensors").is_file()
    supervisor.delete(run)
    assert supervisor.runs() == []


def test_a_warm_spare_does_the_same_and_is_replaced(make_supervisor, config):
    config = config.model_copy(update={"max_steps": 3})
    cold, warm = make_supervisor(), make_supervisor(queue_limits=QueueLimits(concurrent=2))
    warm.warm()
    assert warm.wait_until_warm(120)
    spare = warm._spare
    used = psutil.Process(spare.pid).cpu_times().user
    time.sleep(1)
    assert psutil.Process(spare.pid).cpu_times().user - used < 0.1  # it waits without working
    runs = [warm.start(config), cold.start(config)]
    assert [runs[0].status().pid == spare.pid, runs[1].status().pid == spare.pid] == [True, False]
    wait_for(lambda: all(state(warm, run) == "finished" for run in runs))
    from_spare, from_cold = ([{**r, "time": 0} for r in run.metrics()[0]] for run in runs)
    assert from_spare == from_cold
    wait_for(lambda: warm._spare not in (None, spare))  # the next one


def test_a_run_may_come_while_the_spare_still_imports(supervisor, config, worker):
    worker(UNTIL_STOPPED)
    supervisor.warm()
    spare = wait_for(lambda: supervisor._spare)
    run = supervisor.start(config)
    wait_for(lambda: state(supervisor, run) != "starting")
    assert (state(supervisor, run), run.status().pid) == ("running", spare.pid)


def test_a_spare_that_cannot_import_leaves_the_message_to_the_run(supervisor, config, worker):
    worker(
        "raise ImportError('no torch here')",
        before="def broken(): raise ImportError\nworker._prepare = broken",
    )
    supervisor.warm()
    assert supervisor.wait_until_warm(30)
    run = supervisor.start(config)
    wait_for(lambda: not supervisor.status(run).active)
    assert supervisor.status(run).error == "ImportError: no torch here"


def test_a_dead_spare_is_no_obstacle(supervisor, config, worker):
    worker(UNTIL_STOPPED)
    supervisor.warm()
    spare = wait_for(lambda: supervisor._spare)
    os.kill(spare.pid, signal.SIGKILL)
    wait_for(lambda: not group_of(spare.pid))
    run = supervisor.start(config)
    wait_for(lambda: state(supervisor, run) == "running")
    assert run.status().pid != spare.pid


def test_no_spare_takes_a_core_from_a_run_that_trains(make_supervisor, config, worker):
    worker(UNTIL_STOPPED)
    alone, beside = make_supervisor(), make_supervisor(queue_limits=QueueLimits(concurrent=2))
    run, other = alone.start(config), beside.start(config)
    status = wait_for(lambda: (s := run.status()).state == "running" and s)
    wait_for(lambda: other.status().state == "running")
    run.write_status(replace(status, global_step=3, max_steps=4))
    assert not alone._may_warm()
    run.write_status(replace(status, global_step=4, max_steps=4))  # what is left is evaluation
    assert alone._may_warm()
    # Where another one may start at any time, a spare is worth it.
    assert not beside._may_warm()
    beside._live[other.id]._assigned -= 60
    assert beside._may_warm()


def test_the_spare_ends_when_it_is_not_wanted(supervisor, worker):
    worker(UNTIL_STOPPED)
    supervisor.warm()
    spare = wait_for(lambda: supervisor._spare)
    supervisor.close()
    wait_for(lambda: spare.poll() is not None)


def test_stop_keeps_what_is_there(supervisor, config):
    run = supervisor.start(config)
    wait_for(lambda: supervisor.status(run).global_step >= 2)
    with pytest.raises(RunError, match="still active; stop it first"):
        supervisor.delete(run)
    supervisor.stop(run)
    wait_for(lambda: not supervisor.status(run).active)
    status = supervisor.status(run)
    assert status.state == "stopped"
    assert 2 <= status.global_step < 5000
    assert (run.final / "model.safetensors").is_file()
    assert run.report().keys() == {"before", "after", "change"}


def test_a_discarded_run_is_not_waited_for(supervisor, config, worker):
    worker("say('running')\nwhile True: time.sleep(0.05)")  # deaf to a wish to stop
    run = supervisor.start(config)
    wait_for(lambda: state(supervisor, run) == "running")
    pid = run.status().pid
    discard(supervisor, run)
    # Sooner than a stop's grace, after which it would have been ended anyway.
    wait_for(lambda: not group_of(pid), seconds=module.STOP_GRACE_SECONDS / 2)
    wait_for(lambda: sweep(supervisor) or not run.path.exists())
    assert supervisor.runs() == []


def test_a_mistake_in_the_configuration_is_the_runs_error(supervisor, config):
    run = supervisor.start(config.model_copy(update={"model": "./nowhere"}))
    wait_for(lambda: not supervisor.status(run).active)
    assert state(supervisor, run) == "failed"
    assert supervisor.status(run).error == "model './nowhere': no such folder"


def test_a_process_that_cannot_be_started(supervisor, config, monkeypatch):
    monkeypatch.setattr(module, "WORKER", ("/nowhere/python",))
    with pytest.raises(RunError, match="the process could not be started"):
        supervisor.start(config)
    assert [run.status().state for run in supervisor.runs()] == ["failed"]


def test_a_worker_that_breaks_at_once_says_why(supervisor, config, monkeypatch, tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    monkeypatch.setattr(module, "WORKER", (*module.WORKER[:1], str(tmp_path / "broken.py")))
    run = supervisor.start(config)
    wait_for(lambda: not supervisor.status(run).active)
    assert supervisor.status(run).error == "ModuleNotFoundError: No module named 'nothing_of_that_name'"


def test_runs_wait_for_their_turn_and_know_their_place(supervisor, config, worker):
    worker(UNTIL_STOPPED)
    runs = [supervisor.start(config) for _ in range(4)]
    assert [supervisor.place(run) for run in runs] == [0, 1, 2, 3]
    assert [state(supervisor, run) for run in runs[1:]] == ["queued"] * 3
    assert supervisor.status(runs[2]).phase == "waiting, place 2 of 3"
    supervisor.stop(runs[1])  # before it began
    assert (state(supervisor, runs[1]), supervisor.status(runs[1]).error) == ("stopped", "stopped before it started")
    assert [supervisor.place(run) for run in runs] == [0, 0, 1, 2]
    runs[2].request_stop()  # as another process on the same folder does
    wait_for(lambda: state(supervisor, runs[2]) == "stopped")
    supervisor.stop(runs[0])
    wait_for(lambda: state(supervisor, runs[3]) == "running")
    assert supervisor.place(runs[3]) == 0


def test_a_run_that_was_removed_while_it_waited(supervisor, config, worker):
    worker(UNTIL_STOPPED)
    first, second, third = [supervisor.start(config) for _ in range(3)]
    for file in second.path.iterdir():
        file.unlink()
    supervisor.stop(first)
    wait_for(lambda: state(supervisor, third) == "running")


def test_a_run_of_the_command_line_counts(supervisor, config, worker):
    worker(UNTIL_STOPPED)
    other = RunDirectory(supervisor.runs_dir / "by-hand")
    other.create(config)
    me = psutil.Process()
    other.write_status(module.replace(other.status(), state="running", pid=me.pid, create_time=me.create_time()))
    run = supervisor.start(config)
    assert supervisor.place(run) == 1
    other.write_status(module.replace(other.status(), state="finished"))
    wait_for(lambda: state(supervisor, run) == "running")


def test_enough_is_enough(make_supervisor, config, worker):
    worker(UNTIL_STOPPED)
    supervisor = make_supervisor(queue_limits=QueueLimits(waiting=3, per_owner=2))
    for owner in (ANNA, ANNA):
        supervisor.start(config, owner)
    with pytest.raises(RunError, match="you have 2 runs that run or wait already, and at most 2 are allowed"):
        supervisor.start(config, ANNA)
    supervisor.start(config, BEN)
    supervisor.start(config)  # whoever runs the app is no visitor
    with pytest.raises(RunError, match="3 runs wait already"):
        supervisor.start(config, BEN)
    assert len(supervisor.runs()) == 4  # what is refused leaves nothing


def test_a_server_finds_what_the_one_before_left(make_supervisor, config, worker):
    worker(UNTIL_STOPPED)
    before = make_supervisor()
    before.runs_dir.mkdir()
    gone = {"pid": 2**22 + 1, "create_time": 1.0}
    dead = RunDirectory(before.runs_dir / "dead")
    for run in (dead, RunDirectory(before.runs_dir / "z"), RunDirectory(before.runs_dir / "a")):
        run.create(config)
        write_ticket(run, Ticket("hash", gone["pid"], 1.0))
        time.sleep(0.01)
    dead.write_status(module.replace(dead.status(), state="running", **gone))
    after = make_supervisor()
    found = after.recover()
    assert ([run.id for run in found.interrupted], [run.id for run in found.queued]) == (["dead"], ["z", "a"])
    assert state(after, dead) == "interrupted"
    z, a = found.queued
    assert (after.place(z), after.place(a)) == (0, 1)  # who waited longer begins
    assert read_ticket(a) == Ticket("hash", os.getpid(), psutil.Process().create_time())
    wait_for(lambda: state(after, z) == "running")
    assert after.recover() == ([], [])  # what is in good hands stays there


def test_who_waits_for_a_server_that_is_gone_is_interrupted(supervisor, config):
    run = RunDirectory(supervisor.runs_dir / "old")
    run.create(config)
    write_ticket(run, Ticket(None, 2**22 + 1, 1.0))
    assert state(supervisor, run) == "interrupted"
    assert supervisor.status(run).error == "the server in whose queue it waited is gone"


def test_a_run_that_never_got_a_process_blocks_nothing(supervisor, config):
    run = RunDirectory(supervisor.runs_dir / "old")
    run.create(config)
    assert state(supervisor, run) == "queued"
    status = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps({**status, "updated": time.time() - 3600}))
    assert state(supervisor, run) == "interrupted"


DAMAGED_TICKETS = [
    *("", "[]", '{"owner": 1}', "nonsense", "\xff", '{"owner": null, "server": 1}'),
    *(f'{{"owner": null, "server": {server}, "server_create_time": 1}}' for server in ("0", "true", "1.0", 2**31)),
    *('{"owner": null, "server": 1, "server_create_time": "1"}', '{"owner": 7, "server": 1, "server_create_time": 1}'),
    f'{{"owner": "{"x" * 65}", "server": 1, "server_create_time": 1}}',
    '{"owner": null, "server": 1, "server_create_time": 1, "resume": 1}',
    '{"owner": null, "server": 1, "server_create_time": 1, "more": 1}',
]


@pytest.mark.parametrize("content", DAMAGED_TICKETS)
def test_a_damaged_ticket_makes_a_run_nobodys(supervisor, config, content):
    run = RunDirectory(supervisor.runs_dir / "one")
    run.create(config)
    (run.path / "ticket.json").write_bytes(content.encode("latin-1"))
    assert read_ticket(run) is None
    assert supervisor.runs(ANNA) == []
    assert [known.id for known in supervisor.runs()] == ["one"]


def test_a_stopped_run_goes_on_where_it_was(supervisor, config, pairs):
    run = supervisor.start(config.model_copy(update={"max_steps": 400, "batch_size": 1, "max_length": 4096}))
    wait_for(lambda: len(run.metrics()[0]) >= 3 or not supervisor.status(run).active)
    supervisor.stop(run)
    wait_for(lambda: not supervisor.status(run).active)
    done = supervisor.status(run).global_step
    assert supervisor.status(run).state == "stopped"
    assert 3 <= done < 400
    supervisor.resume(run)
    with pytest.raises(RunError, match="still active"):
        supervisor.resume(run)
    # Evaluations have lines of their own; a stop before the first new step would end a worker that still imports.
    wait_for(lambda: supervisor.status(run).global_step > done or not supervisor.status(run).active)
    supervisor.stop(run)
    wait_for(lambda: not supervisor.status(run).active)
    steps = [record["global_step"] for record in run.metrics()[0] if "loss" in record]
    assert steps == list(range(1, steps[-1] + 1))
    assert steps[-1] > done
