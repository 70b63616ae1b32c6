"""One run that can't be written or read costs only itself, and says so."""

import errno
import os
import shutil
import threading
import time

import psutil
import pytest
from processes_of_tests import wait_for

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs import directory, ticket
from stepwise_dpo.runs.directory import RunDirectory, RunStatus
from stepwise_dpo.runs.ticket import new_ticket, write_ticket

UNTIL_STOPPED = "say('running')\nwhile not run.stop_requested(): time.sleep(0.05)\nsay('stopped')"


@pytest.fixture
def full_disk(monkeypatch):
    """A disk without room for another file of these names; what is there can be written over."""

    def fill(*names, text=""):
        write = directory.write_atomically

        def refuse(path, content):
            if path.name in names and text in content:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(path, content)

        for module in (directory, ticket):
            monkeypatch.setattr(module, "write_atomically", refuse)

    return fill


def ended(config, path, state="stopped"):
    run = RunDirectory(path)
    run.create(config)
    write_ticket(run, new_ticket(None))
    run.write_status(RunStatus(state, global_step=1, max_steps=2))
    return run


def test_a_run_whose_turn_comes_on_a_full_disk_fails_and_can_be_deleted(supervisor, config, worker, full_disk):
    worker(UNTIL_STOPPED)
    first, second = supervisor.start(config), supervisor.start(config)
    wait_for(lambda: supervisor.status(first).state == "running")
    full_disk("status.json", text='"starting"')
    supervisor.stop(first)
    wait_for(lambda: not supervisor.status(second).active, seconds=20)
    assert second.status().state == "failed"
    assert "the process could not be started: [Errno 28] No space left on device" in second.status().error
    me = psutil.Process()
    second.write_status(RunStatus("running", pid=me.pid, create_time=me.create_time()))
    assert supervisor.status(second).state == "running"  # the command line has taken it up
    second.write_status(RunStatus("stopped"))
    supervisor.delete(second)
    assert not second.path.exists()


def test_even_where_nothing_can_be_written_at_all_it_does_not_wait_for_ever(
    supervisor, config, worker, full_disk, monkeypatch
):
    def no_room(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    worker(UNTIL_STOPPED)
    first, second = supervisor.start(config), supervisor.start(config)
    wait_for(lambda: supervisor.status(first).state == "running")
    full_disk("status.json", text='"starting"')
    full_disk("status.json", text='"failed"')
    monkeypatch.setattr(directory, "_overwrite", no_room)
    supervisor.stop(first)
    wait_for(lambda: supervisor.place(second) == 0, seconds=20)
    assert supervisor.status(second).state == "failed"
    assert second.status().state == "queued"
    supervisor.delete(second)
    assert not second.path.exists()


@pytest.mark.parametrize("name", ["status.json", "config.json", "ticket.json"])
def test_a_start_on_a_full_disk_says_so_and_leaves_nothing(supervisor, config, full_disk, name):
    full_disk(name)
    with pytest.raises(RunError, match=r"can't be written: .*No space left on device"):
        supervisor.start(config)
    assert list(supervisor.runs_dir.iterdir()) == []


@pytest.mark.parametrize("name", ["status.json", "ticket.json"])
def test_a_resume_on_a_full_disk_says_so_and_leaves_the_run_as_it_was(supervisor, config, full_disk, name, monkeypatch):
    monkeypatch.setattr("stepwise_dpo.runs.supervisor.refuse_to_resume", lambda run: None)
    run = ended(config, supervisor.runs_dir / "one")
    full_disk(name)
    with pytest.raises(RunError, match="No space left on device"):
        supervisor.resume(run)
    assert supervisor.status(run).state == "stopped"


def test_a_stopping_run_that_cannot_be_read_keeps_nobody_waiting(supervisor, config, worker):
    worker("say('running')\nwhile not run.stop_requested(): time.sleep(0.05)\ntime.sleep(0.5)")
    first, second = supervisor.start(config), supervisor.start(config)
    wait_for(lambda: supervisor.status(first).state == "running")
    supervisor.stop(first)
    (first.path / "status.json").write_text('{"state": "runn')
    wait_for(lambda: supervisor.status(second).state == "running", seconds=20)
    assert supervisor._stopping == {}
    supervisor.delete(first)


def test_a_waiting_run_that_cannot_be_read_leaves_the_queue(supervisor, config, worker):
    worker(UNTIL_STOPPED)
    first, second, third = [supervisor.start(config) for _ in range(3)]
    waiting = second.status()
    (second.path / "status.json").write_text("{")
    wait_for(lambda: supervisor.place(third) == 1, seconds=20)
    wait_for(lambda: third.status().phase == "waiting, place 1 of 1", seconds=20)
    second.write_status(waiting)  # put right by hand: it doesn't claim to wait
    assert supervisor.status(second).state == "failed"
    supervisor.stop(first)
    wait_for(lambda: supervisor.status(third).state == "running")


def test_a_run_that_is_being_deleted_is_not_resumed(supervisor, config, worker, monkeypatch):
    worker(UNTIL_STOPPED)
    monkeypatch.setattr("stepwise_dpo.runs.supervisor.refuse_to_resume", lambda run: None)
    run = ended(config, supervisor.runs_dir / "one")
    remove, refused = shutil.rmtree, []

    def resume():
        try:
            supervisor.resume(run)
        except RunError as error:
            refused.append(str(error))

    def remove_while_another_resumes(path):
        threading.Thread(target=resume).start()
        time.sleep(0.3)  # long enough to start, if nothing kept it from that
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", remove_while_another_resumes)
    supervisor.delete(run)
    assert wait_for(lambda: refused, 10) == [f"{str(run.path)!r} is not a run directory: it has no status.json"]
    assert not run.path.exists()
