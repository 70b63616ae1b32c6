"""Imports Trainer and TRL once, then forks a child for every line of standard input: [function, arguments].

Answers each with a line: the child's exit code, negative for a signal. What the children print goes to standard error.
"""

import json
import os
import resource
import shutil
import signal
import sys
import traceback
from pathlib import Path

import torch
from transformers import modeling_utils

import stepwise_dpo.runs.training as training
from stepwise_dpo.learning.checkpoints import HIDDEN
from stepwise_dpo.learning.sound_trainer import SoundTrainer
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory

save_checkpoint = SoundTrainer._save_checkpoint
save_models = training.save_models


def run(config, run_dir):
    training.run(make_config(config), run_dir)


def resume(run_dir):
    training.resume(run_dir)


def kill_at_every_operation(config, run_dir, copies, global_step):
    """Train; at one checkpoint, let one process after the other write it in a copy of the run, and die over it."""

    def save(self, model, trial):
        def save_into(copy):
            self.args.output_dir = str(copy)
            save_checkpoint(self, model, trial)

        if self.state.global_step == global_step:
            die_at_each(save_into, run_dir, copies)
        save_checkpoint(self, model, trial)

    SoundTrainer._save_checkpoint = save
    run(config, run_dir)


def kill_at_every_operation_of_the_end(config, run_dir, copies):
    """The same with the save of the trained models."""

    def save(directory, *models, writes):
        die_at_each(lambda copy: save_models(RunDirectory(copy), *models, writes=writes), run_dir, copies)
        save_models(directory, *models, writes=writes)

    training.save_models = save
    run(config, run_dir)


def die_at_each(save, run_dir, copies):
    """Let processes save into copies of a run; the k-th dies right before its k-th operation on files.

    The last one survives its save. At what the others died is written to `copies`/operations.json.
    """
    killed = []
    while True:
        copy = Path(copies, f"{len(killed) + 1:03}")
        shutil.copytree(run_dir, copy)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            die_before(len(killed) + 1, copy, writer)
            save(copy)
            os._exit(0)
        os.close(writer)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with os.fdopen(reader, "rb") as pipe:
            name = pipe.read().decode()
        if code == 0:
            break
        assert code == -signal.SIGKILL, (code, name)
        killed.append(name)
    Path(copies, "operations.json").write_text(json.dumps(killed))


def die_before(count, folder, tell):
    """Kill this process right before it operates on files of a folder for the count-th time; name that to a pipe."""
    left = count

    def tick(name):
        nonlocal left
        left -= 1
        if left == 0:
            os.write(tell, name.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event, arguments):
        # Opening for reading changes nothing; where libraries write on their own, see below.
        if event == "open" and not (arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"):
            places = [os.fspath(place) for place in arguments[:2] if isinstance(place, (str, os.PathLike))]
            inside = [os.path.relpath(place, folder) for place in places if str(folder) in place]
            # rmtree removes by names relative to an open folder.
            if inside or event in ("os.remove", "os.rmdir"):
                tick(f"{event} {inside or places}")

    sys.addaudithook(hook)

    def with_ticks(module, name, function=None):
        function = function or getattr(module, name)

        def call(*arguments, **settings):
            tick(f"before {name}")
            result = function(*arguments, **settings)
            tick(f"after {name}")
            return result

        setattr(module, name, call)

    with_ticks(os, "fsync", lambda descriptor: None)  # takes long, and matters to a machine's death, not a process's
    with_ticks(torch, "save")  # it and the next write files in C++ and Rust
    with_ticks(modeling_utils, "safe_save_file")


def save_with_a_limit(config, run_dir, global_step, limit):
    """Train, and let no file grow over `limit` bytes while one checkpoint is written."""

    limited = _limited(save_checkpoint, limit)

    def save(self, model, trial):
        (limited if self.state.global_step == global_step else save_checkpoint)(self, model, trial)

    SoundTrainer._save_checkpoint = save
    run(config, run_dir)


def write_with_a_limit(config, run_dir, what, global_step, limit):
    """Train, and from a global_step on let no file grow over `limit` bytes, once its metrics or status are written."""
    function = getattr(RunDirectory, what)

    def write(self, content):
        of = content["global_step"] if what == "append_metrics" else content.global_step
        if of >= global_step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        function(self, content)

    setattr(RunDirectory, what, write)
    run(config, run_dir)


def save_models_with_a_limit(config, run_dir, limit):
    """Train, and let no file grow over `limit` bytes while the trained models are saved."""
    training.save_models = _limited(save_models, limit)
    run(config, run_dir)


def write_results_with_a_limit(config, run_dir, what, limit):
    """Train, and let no file grow over `limit` bytes while what a run ends with is written."""
    write = getattr(RunDirectory, what)
    limited = _limited(write, limit)

    def write_at_the_end(self, results):
        (limited if what == "write_examples" or "after" in results else write)(self, results)

    setattr(RunDirectory, what, write_at_the_end)
    run(config, run_dir)


def _limited(function, limit):
    def call(*arguments, **settings):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            return function(*arguments, **settings)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    return call


def fill_the_disk(config, run_dir, global_step):
    """Train, and from a global_step on leave no byte free on the run's file system."""
    append = RunDirectory.append_metrics

    def fill(self, metrics):
        append(self, metrics)
        if metrics["global_step"] == global_step:
            with open(Path(run_dir, HIDDEN + "-ballast"), "wb", buffering=0) as file:
                for size in (1 << 16, 1):
                    try:
                        while file.write(bytes(size)):
                            pass
                    except OSError:
                        continue

    RunDirectory.append_metrics = fill
    run(config, run_dir)


def main():
    torch.set_num_threads(1)  # a forked child has none of its parent's threads
    for line in sys.stdin:
        name, arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.dup2(2, 1)
            code = 0
            try:
                globals()[name](**arguments)
            except BaseException:
                # A limit would hold for the log as well.
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                traceback.print_exc()
                code = 1
            sys.stderr.flush()
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    os._exit(0)  # taking torch apart takes seconds


if __name__ == "__main__":
    main()
