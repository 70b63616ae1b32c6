"""Cases of the reliability list that the supervisor and its workers answer for, each by its number."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import pytest
from comparing import assert_same
from processes_of_tests import group_of, wait_for

from stepwise_dpo.errors import ConfigError, ModelError, RunError
from stepwise_dpo.runs import event_log
from stepwise_dpo.runs import supervisor as module
from stepwise_dpo.runs.directory import ACTIVE, RunDirectory
from stepwise_dpo.runs.limits import QueueLimits, RunLimits, check_public
from stepwise_dpo.runs.supervisor import Supervisor
from stepwise_dpo.runs.worker_process import WorkerProcess

ANNA, BEN = "a" * 43, "b" * 43
FOREVER = "say('running')\nwhile True: time.sleep(1)"
WITH_A_CHILD = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"


# --------------------------------------------------------------------------------------------- 5, 6, 7: what is refused


@pytest.mark.parametrize("run_id", ["../one", "/etc", "x" * 300, "a\0b", "", ".", "..", "link", None, 7, ["one"]])
def test_case_05_ids_that_are_no_runs(supervisor, config, run_id, tmp_path):
    outside = RunDirectory(tmp_path / "one")
    outside.create(config)
    supervisor.runs_dir.mkdir()
    (supervisor.runs_dir / "link").symlink_to(outside.path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(RunError, match="there is no run"):
        supervisor.run(run_id)
    assert supervisor.runs() == []
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_case_05_deleting_follows_no_link(supervisor, config, tmp_path):
    outside, run = RunDirectory(tmp_path / "outside"), RunDirectory(supervisor.runs_dir / "run")
    for known in (outside, run):
        known.create(config)
        known.write_status(replace(known.status(), state="finished"))
    (run.path / "inside").symlink_to(outside.path)
    (supervisor.runs_dir / "link").symlink_to(outside.path)
    with pytest.raises(RunError, match="can't be removed"):
        supervisor.delete(RunDirectory(supervisor.runs_dir / "link"))
    supervisor.delete(run)
    assert not run.path.exists()
    assert outside.config() == config


def test_case_06_a_visitor_reaches_no_other_visitors_run(supervisor, config, worker):
    worker(FOREVER)
    run = supervisor.start(config, ANNA)
    by_hand = RunDirectory(supervisor.runs_dir / "by-hand")
    by_hand.create(config)
    wait_for(lambda: supervisor.status(run).state == "running")
    assert supervisor.run(run.id, ANNA).path == run.path
    assert [known.id for known in supervisor.runs(ANNA)] == [run.id]
    with pytest.raises(RunError) as missing:
        supervisor.run("none", BEN)
    for owner in (BEN, "", "A" * 43):
        with pytest.raises(RunError) as refused:
            supervisor.run(run.id, owner)
        assert str(refused.value) == str(missing.value).replace("none", run.id)  # another's run is no run at all
        assert supervisor.runs(owner) == []
    with pytest.raises(RunError, match="reload the page"):
        supervisor.start(config, "")
    assert supervisor.status(run).state == "running"
    assert {known.id for known in supervisor.runs()} == {run.id, "by-hand"}  # whoever runs the app sees everything
    written = b"".join(path.read_bytes() for path in run.path.iterdir() if path.is_file())
    assert ANNA.encode() not in written  # a hash of it only


def test_case_07_models_that_are_refused_before_loading(config, tmp_path, monkeypatch, causal_folder):
    def public(**change):
        check_public(config.model_copy(update=change), examples=8, held_out=2, steps=4)

    public()
    public(model="google/flan-t5-small", reward_model="reward", loss="stepwise")
    for name in (str(causal_folder), "./policy", "someone/else", "google/flan-t5-base"):
        with pytest.raises(ConfigError, match="must be one of policy, reward, google/flan-t5-small, tiny"):
            public(model=name)
        with pytest.raises(ConfigError, match="must be one of"):
            public(reward_model=name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "google" / "flan-t5-small").mkdir(parents=True)
    with pytest.raises(ConfigError, match="is a folder here"):
        public(model="google/flan-t5-small")


def loaders():
    """Everything that reads a model's files by its name; imported late, since it brings torch."""
    from stepwise_dpo.learning import loading
    from stepwise_dpo.learning.rewards import LLMRewardModel

    return {
        "policy": loading.load_policy,
        "token classifier": loading.load_token_classifier,
        "reward model": LLMRewardModel.from_pretrained,
        "tokenizer": loading.load_tokenizer,
    }


@pytest.fixture
def own_code(causal_folder, tmp_path):
    """A model's folder with Python code that leaves a file: `own_code(name, **settings)` makes a file of it name it."""
    folder = tmp_path / "own-code"
    shutil.copytree(causal_folder, folder)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")

    def name_it(file, **settings):
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | settings))
        return str(folder)

    yield name_it
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("loader", ["policy", "token classifier", "reward model"])
def test_case_07_pickled_weights_are_refused_everywhere(causal_folder, tmp_path, loader):
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "pickled"
    shutil.copytree(causal_folder, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="pickled weights are never loaded"):
        loaders()[loader](str(folder))


@pytest.mark.parametrize("loader", ["policy", "token classifier", "reward model", "tokenizer"])
def test_case_07_a_models_code_is_refused_everywhere(own_code, loader):
    named = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model", "AutoTokenizer": ["own.Words", None]}
    folder = own_code("config.json", model_type="own", auto_map=named)
    own_code("tokenizer_config.json", tokenizer_class="Words", auto_map=named)
    with pytest.raises(ModelError, match="its own Python code, which is never run here"):
        loaders()[loader](folder)


@pytest.mark.parametrize("loader", ["policy", "token classifier", "reward model", "tokenizer"])
def test_case_07_a_tokenizers_code_is_refused_everywhere(own_code, loader):
    folder = own_code("tokenizer_config.json", tokenizer_class="Words", auto_map={"AutoTokenizer": ["own.Words", None]})
    with pytest.raises(ModelError, match="its own Python code, which is never run here"):
        loaders()[loader](folder)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"examples": 10_000}, "at most 1,000 examples to train on, not 10,000"),
        ({"held_out": 1_000}, "at most 300 examples to compare on"),
        ({"steps": 501}, "at most 500 steps, not 501"),
        ({"batch_size": 4096}, "at most 32 pairs in a batch"),
        ({"gradient_accumulation": 4096}, "at most 8 batches per step"),
        ({"max_length": 10**9}, "at most 1,024 tokens of the longest example"),
        ({"max_new_tokens": 4096}, "at most 128 tokens of an answer"),
        ({"generate": 10_000}, "at most 300 answers to generate"),
    ],
)
def test_case_07_case_17_what_is_too_much_for_a_public_page(config, what, words):
    sizes = {"examples": 8, "held_out": 2, "steps": 4}
    settings = {name: value for name, value in what.items() if name not in sizes}
    with pytest.raises(ConfigError, match=words):
        check_public(config.model_copy(update=settings), **{**sizes, **{n: v for n, v in what.items() if n in sizes}})


# ----------------------------------------------------------------------------------------- 8, 9, 10: what ends a worker


def test_case_08_a_killed_worker_is_seen_as_what_it_is_and_the_slot_is_free(supervisor, config, worker):
    worker(WITH_A_CHILD + FOREVER)
    run, following = supervisor.start(config), supervisor.start(config)
    status = wait_for(lambda: (s := supervisor.status(run)).state == "running" and s)
    os.kill(status.pid, signal.SIGKILL)
    wait_for(lambda: not run.status().active, seconds=5)  # written, also where nobody asks
    assert (run.status().state, run.status().error) == ("failed", "killed, probably out of memory")
    wait_for(lambda: supervisor.status(following).state == "running")
    assert group_of(status.pid) == []  # its child neither


def test_case_09_memory_over_the_limit_ends_the_whole_group(make_supervisor, config, worker):
    # Neither of the two alone is over the limit.
    hog = "held = b'x' * (150 * 2**20); "
    worker(f"subprocess.Popen([sys.executable, '-c', {hog + 'import time; time.sleep(600)'!r}])\n{hog}\n{FOREVER}")
    supervisor = make_supervisor(RunLimits(memory_bytes=256 * 2**20))
    run = supervisor.start(config)
    wait_for(lambda: not supervisor.status(run).active, seconds=60)
    status = supervisor.status(run)
    assert status.state == "failed"
    assert status.error == "used more than 0.25 GiB of memory (limit --max-memory 0.25)"
    wait_for(lambda: group_of(status.pid) == [], seconds=5)  # the system takes a moment to free their memory


def test_case_09_so_does_time(make_supervisor, config, worker):
    worker(FOREVER)
    supervisor = make_supervisor(RunLimits(seconds=1.5))
    run = supervisor.start(config)
    wait_for(lambda: not supervisor.status(run).active, seconds=60)
    status = supervisor.status(run)
    assert (status.state, status.error) == ("failed", "ran longer than 0.025 minutes (limit --max-minutes 0.025)")
    assert group_of(status.pid) == []


SERVER = """
import json, sys, time
from stepwise_dpo.runs import supervisor
from stepwise_dpo.runs.config import make_config
folder, config, supervisor.WORKER, count, warm = [sys.argv[1], *map(json.loads, sys.argv[2:])]
made = supervisor.Supervisor(folder)
made._may_warm = lambda: True
runs = [made.start(make_config(config)) for _ in range(count)]
if warm:
    made.warm()
    while made._spare is None: time.sleep(0.05)
print(*(run.path for run in runs), *([made._spare.pid] if warm else []), flush=True)
time.sleep(300)
"""


@pytest.fixture
def serve():
    """A server in a process of its own, to be killed: `serve(folder, config, runs, warm)` gives it and what it says."""
    servers = []

    def start(runs_dir, config, runs=1, warm=False):
        arguments = [config.model_dump_json(), *map(json.dumps, (module.WORKER, runs, warm))]
        command = [sys.executable, "-c", SERVER, str(runs_dir), *arguments]
        servers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return servers[-1], servers[-1].stdout.readline().split()

    yield start
    for server in servers:
        server.kill()
        server.wait()


def test_case_10_worker_and_spare_end_with_their_server_and_a_new_one_notices(make_supervisor, config, worker, serve):
    worker(WITH_A_CHILD + FOREVER)
    after = make_supervisor()
    server, (path, queued, spare) = serve(after.runs_dir, config, runs=2, warm=True)
    run, waiting = RunDirectory(path), RunDirectory(queued)
    status = wait_for(lambda: (s := run.status()).state == "running" and s)
    server.kill()
    server.wait()
    wait_for(lambda: not group_of(status.pid) and not group_of(int(spare)), seconds=3)
    found = after.recover()
    assert ([r.id for r in found.interrupted], [r.id for r in found.queued]) == ([run.id], [waiting.id])
    assert (after.status(run).state, after.status(run).error) == ("interrupted", "its process is gone")
    wait_for(lambda: after.status(waiting).state == "running")  # it was promised a turn, and gets it


@pytest.mark.slow
def test_case_10_a_run_that_really_trains_is_resumed_after_its_server_was_killed(make_supervisor, config, serve):
    after = make_supervisor()
    server, (path,) = serve(after.runs_dir, config.model_copy(update={"max_steps": 200}))
    run = RunDirectory(path)
    status = wait_for(lambda: (s := run.status()).global_step >= 1 and s)
    server.kill()
    server.wait()
    wait_for(lambda: not group_of(status.pid), seconds=3)
    assert [found.id for found in after.recover().interrupted] == [run.id]
    assert (after.status(run).state, run.checkpoints()) == ("interrupted", [])
    after.resume(run)
    wait_for(lambda: not after.status(run).active)
    assert (after.status(run).state, after.status(run).global_step) == ("finished", 200)
    assert [line["global_step"] for line in run.metrics()[0]] == list(range(1, 201))
    assert run.environment()["resumed"][0]["global_step"] == 0
    assert "no checkpoint has been written, so the run begins again at optimiser step 0" in run.events.read_text()
    assert (run.final / "model.safetensors").is_file()


@pytest.mark.slow
def test_case_10_a_run_goes_on_from_its_last_checkpoint_after_its_server_was_killed(
    make_supervisor, config, serve, forks, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the workers too: another number of threads rounds in another way
    config = config.model_copy(update={"max_steps": 200, "save_steps": 20})
    whole = RunDirectory(tmp_path / "whole")
    assert forks("run", config=config.model_dump(exclude_none=True), run_dir=whole.path) == 0, forks.said()
    after = make_supervisor()
    server, (path,) = serve(after.runs_dir, config)
    run = RunDirectory(path)
    wait_for(run.checkpoints)
    status = run.status()
    server.kill()
    server.wait()
    wait_for(lambda: not group_of(status.pid), seconds=3)
    assert [found.id for found in after.recover().interrupted] == [run.id]
    kept = run.checkpoints(verify=True)[0].global_step
    assert kept in range(20, 200, 20)
    after.resume(run)
    wait_for(lambda: not after.status(run).active)
    assert [resumed["global_step"] for resumed in run.environment()["resumed"]] == [kept]
    assert [line["global_step"] for line in run.metrics()[0]] == list(range(1, 201))
    assert_same(run.path, whole.path)


# ------------------------------------------------------------------------------------------------------------- 11: stop

MARGIN_SECONDS = 15.0
"""Beyond the grace time, for a busy machine: what is asked for takes as long as the processor lets it wait."""


def stopped_once(supervisor, run, grace):
    """Wait for the end that a stop has just asked for, which comes within a grace time in seconds, once, and whole."""
    states = []

    def is_gone():
        status = supervisor.status(run)
        if [status.state] != states[-1:]:
            states.append(status.state)
        return not status.active and not (status.pid and group_of(status.pid))

    wait_for(is_gone, grace + MARGIN_SECONDS)
    terminal = run.status()
    assert terminal.pid is not None
    assert [state for state in states if state not in ACTIVE] == [terminal.state]
    supervisor.stop(run)  # once more, long after
    assert run.status() == terminal
    return terminal


def test_case_11_stop_during_load_twice(supervisor, config):
    run = supervisor.start(config)
    supervisor.stop(run)
    supervisor.stop(run)
    status = stopped_once(supervisor, run, module.KILL_GRACE_SECONDS)
    assert (status.state, status.error) == ("stopped", "ended before anything could be kept")


def test_case_11_stop_of_a_fresh_run_while_its_models_are_loaded_twice(supervisor, config, worker):
    worker(
        """
        from stepwise_dpo.runs import training
        load = training.load_policy
        def slowly(name):
            while not run.stop_requested():
                time.sleep(0.02)
            time.sleep(1)
            return load(name)
        training.load_policy = slowly
        training.run(config, path)
        """.replace("\n        ", "\n")
    )
    run = supervisor.start(config)
    wait_for(lambda: supervisor.status(run).phase == "loading models")
    supervisor.stop(run)
    supervisor.stop(run)
    status = stopped_once(supervisor, run, module.STOP_GRACE_SECONDS)
    assert (status.state, status.error) == (
        "stopped",
        "stopped before the first optimiser step; there is nothing to keep",
    )
    assert not run.final.exists()


def test_case_11_stop_during_training_and_again_during_the_save(supervisor, config, worker):
    worker(
        """
        from stepwise_dpo.runs import training
        save = training.StepwiseDPOTrainer.save_model
        def slowly(self, *arguments, **options):
            time.sleep(1.5)
            save(self, *arguments, **options)
        training.StepwiseDPOTrainer.save_model = slowly
        training.run(config, path)
        """.replace("\n        ", "\n")
    )
    run = supervisor.start(config)
    wait_for(lambda: supervisor.status(run).global_step >= 2)
    supervisor.stop(run)
    wait_for(lambda: supervisor.status(run).phase == "saving")
    supervisor.stop(run)
    status = stopped_once(supervisor, run, module.STOP_GRACE_SECONDS)
    assert (status.state, status.error) == ("stopped", None)
    assert (run.final / "model.safetensors").is_file()


def test_case_11_who_does_not_listen_is_ended_in_stages(supervisor, config, worker, monkeypatch):
    sent, send = [], WorkerProcess.signal

    def record(self, number):
        sent.append((number, time.monotonic()))
        send(self, number)

    monkeypatch.setattr(WorkerProcess, "signal", record)
    monkeypatch.setattr(module, "STOP_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(module, "KILL_GRACE_SECONDS", 0.5)
    worker(
        "import signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('heard', run.stop_requested(), flush=True))\n"
        + WITH_A_CHILD
        + FOREVER
    )
    run = supervisor.start(config)
    wait_for(lambda: supervisor.status(run).state == "running")
    asked = time.monotonic()
    supervisor.stop(run)
    status = stopped_once(supervisor, run, 1.0)
    assert (status.state, status.error) == ("stopped", "ended before anything could be kept")
    # First the flag, then, not before each one's grace, SIGTERM, and SIGKILL.
    assert set(run.events.read_text().splitlines()) == {"heard True"}
    numbers = [number for number, _ in sent]
    assert numbers == sorted(numbers, key=[signal.SIGTERM, signal.SIGKILL].index)
    first = {number: moment - asked for number, moment in reversed(sent)}
    assert first[signal.SIGTERM] >= 0.5
    assert first[signal.SIGKILL] >= 1.0


def test_case_11_who_saves_after_the_last_step_may_finish(supervisor, config, worker, monkeypatch):
    """It hears of a stop between steps only, and there are none any more."""
    monkeypatch.setattr(module, "STOP_GRACE_SECONDS", 0.2)
    worker(
        """
        saving = replace(run.status(), state="running", phase="saving", global_step=4, max_steps=4)
        run.write_status(saving)
        time.sleep(2)
        run.write_status(replace(saving, state="finished"))
        """.replace("\n        ", "\n")
    )
    run = supervisor.start(config)
    wait_for(lambda: supervisor.status(run).phase == "saving")
    supervisor.stop(run)
    assert stopped_once(supervisor, run, 2.0).state == "finished"  # as long as the save takes


@pytest.mark.parametrize(
    "busy",
    [
        "(run.path / '.saving').mkdir()\ntime.sleep(2)\n(run.path / '.saving').rmdir()",
        # Steps of 100 s by the metrics, and the next one is about to end.
        "for step in (3, 2, 1):\n"
        "    run.append_metrics({'global_step': 4 - step, 'loss': 0.5, 'time': time.time() - 100 * step})\n"
        "run.write_status(replace(run.status(), phase='training', started=time.time() - 400))\n"
        "time.sleep(2)",
    ],
    ids=["a checkpoint", "a batch"],
)
def test_case_11_a_first_stop_that_comes_while_the_worker_cannot_listen(supervisor, config, worker, monkeypatch, busy):
    """It answers after that: by then it would have been ended."""
    monkeypatch.setattr(module, "STOP_GRACE_SECONDS", 1.0)
    worker(f"say('running')\n{busy}\nif run.stop_requested(): say('stopping')\nsay('stopped')")
    run = supervisor.start(config)
    wait_for(lambda: (run.path / ".saving").exists() or supervisor.status(run).phase == "training")
    supervisor.stop(run)
    status = stopped_once(supervisor, run, 3.0)  # as long as it can't listen, and the grace
    assert (status.state, status.error) == ("stopped", None)


def test_case_12_the_disk_is_full_while_a_worker_writes_its_status(supervisor, config, worker):
    """It can say so in its log only; its supervisor notes that, and the next run starts."""
    worker(
        "from stepwise_dpo.runs import directory\n"
        "def full(*_): raise OSError(28, os.strerror(28))\n"
        "say('running')\n"
        "run.append_metrics({'global_step': 1, 'loss': 0.5})\n"
        "while not (run.path.parent / 'full').exists(): time.sleep(0.02)\n"
        "directory.write_atomically = directory._overwrite = full\n"
        "run.write_last_status(replace(run.status(), state='failed'))"
    )
    run, following = supervisor.start(config), supervisor.start(config)
    wait_for(lambda: supervisor.status(run).state == "running")
    (supervisor.runs_dir / "full").touch()
    wait_for(lambda: not run.status().active, seconds=20)
    assert run.status().state == "failed"
    assert run.status().error == f"run {run.id!r}: status.json can't be written: No space left on device"
    assert [line["global_step"] for line in run.metrics()[0]] == [1]
    wait_for(lambda: following.status().state == "failed")
    assert supervisor.place(following) == 0


# ----------------------------------------------------------------------------------------- 14, 20, 21, 22: many at once


def test_case_14_a_reader_beside_ten_thousand_appends_sees_whole_records_only(config, tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create(config)
    seen, done = [], threading.Event()

    def read():
        offset = 0
        while True:
            last = done.is_set()
            records, offset = run.metrics(offset)
            seen.extend(records)
            if last:
                return

    reader = threading.Thread(target=read)
    reader.start()
    with open(run.path / "metrics.jsonl", "ab", buffering=0) as torn:
        for step in range(1, 10_001):
            if step % 1000 == 0:  # a line that comes in two halves is waited for
                line = b'{"global_step": %d, "loss": 0.5}\n' % step
                torn.write(line[:9])
                time.sleep(0.002)
                torn.write(line[9:])
            else:
                run.append_metrics({"global_step": step, "loss": 0.5})
    done.set()
    reader.join()
    assert [record["global_step"] for record in seen] == list(range(1, 10_001))
    assert all(record["loss"] == 0.5 for record in seen)
    with open(run.path / "metrics.jsonl", "ab") as torn:
        torn.write(b'{"global_step": 10001, "lo')  # the process died here
    assert len(run.metrics()[0]) == 10_000


def test_case_20_of_twenty_clicks_the_limit_runs_and_the_others_see_their_place(make_supervisor, config, worker):
    worker(FOREVER)
    supervisor = make_supervisor(queue_limits=QueueLimits(concurrent=2, waiting=15))

    def click(number):
        try:
            return supervisor.start(config, f"{number:043d}")
        except RunError as error:
            return str(error)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(click, range(20)))
    runs = [answer for answer in answers if isinstance(answer, RunDirectory)]
    refused = [answer for answer in answers if isinstance(answer, str)]
    assert (len(runs), refused) == (17, ["15 runs wait already, which is the limit; try again later"] * 3)
    assert sorted(supervisor.place(run) for run in runs) == [0, 0, *range(1, 16)]
    wait_for(lambda: sum(supervisor.status(run).state == "running" for run in runs) == 2)
    time.sleep(1)
    assert sorted(supervisor.status(run).state for run in runs) == ["queued"] * 15 + ["running"] * 2
    for run in runs:
        place = supervisor.place(run)
        assert supervisor.status(run).phase == (f"waiting, place {place} of 15" if place else "loading")


def test_case_21_a_hundred_megabytes_of_output_block_nothing_and_the_log_stays_short(supervisor, config, worker):
    worker(
        "print('the first line', flush=True)\n"
        "for _ in range(100): os.write(1, (b'x' * 1023 + b'\\n') * 1024)\n"
        "subprocess.run(['sh', '-c', 'echo from another program'])\n"
        "print('the last line', flush=True)\n"
        "say('finished')"
    )
    run = supervisor.start(config)
    wait_for(lambda: not supervisor.status(run).active, seconds=60)
    assert supervisor.status(run).state == "finished"
    wait_for(lambda: run.events.stat().st_size < event_log.MAX_BYTES, seconds=10)
    text = run.events.read_text()
    assert text.startswith("the first line\n")
    assert text.endswith("from another program\nthe last line\n")
    assert "bytes left out …]\n" in text


def test_case_21_what_is_written_during_a_cut_is_carried_over(tmp_path, monkeypatch):
    log, looks, fstat = tmp_path / "events.log", [], os.fstat
    log.write_bytes(b"early\n" + b"x" * 5000 + b"\n")

    def write_and_look(descriptor):
        looks.append(descriptor)
        if len(looks) in (2, 3):
            with log.open("ab") as file:
                file.write(b"late %d\n" % len(looks))
        return fstat(descriptor)

    monkeypatch.setattr(event_log.os, "fstat", write_and_look)
    assert event_log.cap_log(log, max_bytes=2000, kept_bytes=500)
    assert log.read_bytes().startswith(b"early\n")
    assert log.read_bytes().endswith(b"late 2\nlate 3\n")
    assert log.stat().st_size < 2000


def test_case_21_the_log_is_cut_while_it_is_written(tmp_path):
    log = tmp_path / "events.log"
    writer = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in range(1000):
        os.write(writer, b"line %d\n" % number)
    assert event_log.cap_log(log, max_bytes=2000, kept_bytes=500)
    os.write(writer, b"the end\n")
    os.close(writer)
    text = log.read_text()
    assert len(text) < 1100
    assert text.startswith("line 0\nline 1\n")
    assert text.endswith("line 998\nline 999\nthe end\n")
    assert not event_log.cap_log(log, max_bytes=2000, kept_bytes=500)
    assert event_log.last_line(log) == "the end"


def test_case_22_another_process_with_the_same_pid_gets_no_signal(supervisor, config, monkeypatch):
    monkeypatch.setattr(module, "STOP_GRACE_SECONDS", 0.0)
    monkeypatch.setattr(module, "KILL_GRACE_SECONDS", 0.0)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        run = RunDirectory(supervisor.runs_dir / "old")
        run.create(config)
        created = psutil.Process(bystander.pid).create_time()
        # The pid is alive, but it was given to somebody else an hour after the run's process had it.
        run.write_status(replace(run.status(), state="running", pid=bystander.pid, create_time=created - 3600))
        supervisor.stop(run)
        assert run.status().state == "interrupted"
        # Also where the status says so while a stop is on its way.
        run.write_status(replace(run.status(), state="running"))
        supervisor._stopping[run.id] = module._Wish(run, 0.0, 0.0, 0.0)
        supervisor._look_after()
        wait_for(lambda: run.id not in supervisor._stopping)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_case_22_the_same_process_gets_it(supervisor, config, monkeypatch):
    """The other half: without it the test above would pass with no signals at all."""
    monkeypatch.setattr(module, "STOP_GRACE_SECONDS", 0.0)
    alone = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # leads no group, like the CLI's
    run = RunDirectory(Supervisor(supervisor.runs_dir).runs_dir / "old")
    run.create(config)
    created = psutil.Process(alone.pid).create_time()
    run.write_status(replace(run.status(), state="running", pid=alone.pid, create_time=created))
    supervisor.stop(run)
    assert alone.wait(20) == -signal.SIGTERM
    wait_for(lambda: run.status().state == "interrupted")
