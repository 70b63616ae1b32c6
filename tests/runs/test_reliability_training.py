"""What a training run survives: bad numbers, a full disk, odd examples; and what it promises to be the same."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest
import torch
from comparing import assert_same, metrics_of
from safetensors.torch import load_file

from stepwise_dpo.errors import DataError, RunError
from stepwise_dpo.learning.evaluation import pair_logps
from stepwise_dpo.learning.loading import load_policy
from stepwise_dpo.preferences.pairs import PreferencePair, Step, load_pairs, save_pairs
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.provenance import git_commit
from stepwise_dpo.runs.training import run

ROOT = Path(__file__).parents[2]


# 12: a full disk


@pytest.fixture(scope="module")
def whole(forks, small_settings, tmp_path_factory):
    """A run that nothing went wrong with."""
    path = tmp_path_factory.mktemp("whole") / "run"
    assert forks("run", config=small_settings, run_dir=path) == 0, forks.said()
    return RunDirectory(path)


def assert_failed_but_whole(forks, path, message, whole, global_steps):
    """A run that says why it failed, has sound checkpoints and a history that is read, and can go on."""
    failed = RunDirectory(path)
    status = failed.status()
    assert status.state == "failed"
    assert re.search(message, status.error), status.error
    assert [line["global_step"] for line in failed.metrics()[0]] == global_steps
    assert failed.checkpoints() == failed.checkpoints(verify=True) != []
    assert not (failed.path / ".saving").exists()
    assert forks("resume", run_dir=path) == 0, forks.said()
    assert_same(path, whole.path)


def test_case_12_the_disk_is_full_while_a_checkpoint_is_saved(forks, small_settings, whole, tmp_path):
    # Between what the weights need and what the optimiser's state does: one library after the other complains.
    for limit in (10_000, 1_000_000):
        path = tmp_path / str(limit)
        assert forks("save_with_a_limit", config=small_settings, run_dir=path, global_step=3, limit=limit) == 1
        message = r"checkpoint-3 can't be saved: .* are free in .*make room there, then resume the run"
        assert_failed_but_whole(forks, path, message, whole, [1, 2, 2, 3])


def test_case_12_the_disk_is_full_while_metrics_are_written(forks, small_settings, whole, tmp_path):
    path = tmp_path / "run"
    limit = (whole.path / "metrics.jsonl").read_bytes().index(b'{"global_step":3') + 5
    code = forks(
        "write_with_a_limit", config=small_settings, run_dir=path, what="append_metrics", global_step=3, limit=limit
    )
    assert code == 1
    assert_failed_but_whole(forks, path, r"metrics\.jsonl can't be written", whole, [1, 2, 2])


def test_case_12_the_disk_is_full_while_the_status_is_written(forks, small_settings, whole, tmp_path):
    """Not even the last words fit: the status stays the old one, and the dead process tells the supervisor the rest."""
    path = tmp_path / "run"
    arguments = {"config": small_settings, "run_dir": path, "what": "write_status", "global_step": 3, "limit": 20}
    assert forks("write_with_a_limit", **arguments) == 1
    assert "status.json can't be written: No space left on device" in forks.said()
    left = RunDirectory(path)
    assert left.status().state in ("running", "stopping")
    assert left.metrics()[0]
    assert left.checkpoints() == left.checkpoints(verify=True) != []
    assert forks("resume", run_dir=path) == 0, forks.said()
    assert_same(path, whole.path)


def test_case_12_the_disk_is_full_while_the_trained_policy_is_saved(forks, small_settings, whole, tmp_path):
    path = tmp_path / "run"
    assert forks("save_models_with_a_limit", config=small_settings, run_dir=path, limit=10_000) == 1
    assert not (path / "final").exists()
    message = r"the trained policy can't be saved: .* are free in .*make room there, then resume the run"
    assert_failed_but_whole(forks, path, message, whole, [1, 2, 2, 3, 4, 4])


@pytest.mark.parametrize(("what", "name"), [("write_examples", "examples.jsonl"), ("write_report", "report.json")])
def test_case_12_the_disk_is_full_while_results_are_written(forks, small_settings, whole, tmp_path, what, name):
    path = tmp_path / "run"
    assert forks("write_results_with_a_limit", config=small_settings, run_dir=path, what=what, limit=20) == 1
    message = f"{re.escape(name)} can't be written: File too large; make room on the disk, then resume the run"
    assert not list(path.glob(f".{name}.*"))  # half a file
    assert_failed_but_whole(forks, path, message, whole, [1, 2, 2, 3, 4, 4])


def may_mount():
    """Whether this process has the capability CAP_SYS_ADMIN, which root of a container often lacks; Linux only."""
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return False
    return bool(int(re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)[1], 16) >> 21 & 1)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 20 MB, where this process may mount one."""
    if not may_mount():
        pytest.skip("only who has CAP_SYS_ADMIN may mount a small disk; the cases before this one need none")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_case_12_a_disk_without_a_free_byte(forks, small_settings, whole, small_disk):
    path = small_disk / "run"
    assert forks("fill_the_disk", config=small_settings, run_dir=path, global_step=3) == 1
    (path / ".saving-ballast").unlink()
    # The last words went over the old status: there was no room beside it.
    assert_failed_but_whole(forks, path, r"No space left on device|checkpoint-3 can't be saved", whole, [1, 2, 2, 3])


def test_a_run_that_does_not_fit_is_refused_before_it_begins(small_settings, small_disk):
    (small_disk / "ballast").write_bytes(bytes(15_000_000))
    config = make_config(small_settings, {"save_total_limit": 9})
    with pytest.raises(RunError, match=r"the run needs up to .* MB of disk and .* are free"):
        run(config, small_disk / "run")
    refused = RunDirectory(small_disk / "run")
    assert refused.status().state == "failed"
    assert refused.metrics()[0] == []


# 13: bad numbers


def test_case_13_a_loss_that_is_not_finite(small_settings, tmp_path):
    config = make_config(small_settings, {"lr_schedule": "constant", "learning_rate": 1e20})
    with pytest.raises(RunError) as error:
        run(config, tmp_path / "run")
    failed = RunDirectory(tmp_path / "run")
    assert failed.status().state == "failed"
    assert failed.status().error == str(error.value)
    found = re.match(
        r"the (?:loss|gradient's norm) became (nan|inf|-inf) at global_step 2 \(examples? (.*)\); training stopped "
        r"before that step could change the weights, and the last checkpoint is that of global_step 1; lower the "
        r"learning rate",
        str(error.value),
    )
    assert found, str(error.value)
    ids = {pair.id for pair in load_pairs(config.data)}
    named = set(re.findall(r"'(.*?)'", found[2]))
    # The first step took four of the five examples; the second one is the rest.
    assert len(named) == 1
    assert named < ids
    assert not failed.final.exists()
    (checkpoint,) = failed.checkpoints(verify=True)
    weights = load_file(checkpoint.path / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_case_13_weights_that_are_not_finite_are_never_saved(small_settings, tmp_path):
    # Larger than a 32-bit number: the first update leaves no finite weight, before any loss tells. No file, form or
    # call may ask for it.
    config = make_config(small_settings, {"lr_schedule": "constant"}).model_copy(update={"learning_rate": 1e39})
    with pytest.raises(RunError, match=r"weights are not finite after global_step 1 \(.* more\).* nothing was saved"):
        run(config, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    with pytest.raises(RunError, match="weights are not finite after global_step 1"):
        run(config.model_copy(update={"save_steps": None, "eval_data": None, "max_steps": 1}), tmp_path / "other")
    assert not list((tmp_path / "other").rglob("*.safetensors"))


# 18: the same again


def command(arguments, **environment):
    """Start a process with these variables added; None takes one away."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={name: value for name, value in variables.items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_case_18_two_processes_measure_the_same(small_data, tmp_path):
    """With as many threads as a run gets where nobody says how many; the runs of the other tests have one."""
    words = ["--model", "tiny", "--data", small_data["data"], "--eval-data", small_data["eval_data"], "--generate", "2",
             "--max-new-tokens", "8", "--epochs", "2", "--loss", "stepwise"]  # fmt: skip
    processes = [
        command(
            ["-m", "stepwise_dpo", "train", *words, "--output-dir", str(tmp_path / seed)],
            PYTHONHASHSEED=seed,
            OMP_NUM_THREADS=None,
        )
        for seed in ("1", "2")
    ]
    for process in processes:
        said, _ = process.communicate()
        assert process.returncode == 0, said
    one, other = (RunDirectory(tmp_path / seed) for seed in ("1", "2"))
    assert len(metrics_of(one)) == 8
    assert_same(one.path, other.path)
    alike = [{name: value for name, value in run.environment().items() if name != "disk"} for run in (one, other)]
    assert alike[0] == alike[1]
    assert alike[0]["threads"] > 1 or os.cpu_count() == 1


def test_case_18_another_seed_gives_another_order(forks, whole, small_settings, tmp_path):
    first = {"max_steps": 1, "eval_data": None, "save_steps": None}
    for seed, same in ((whole.config().seed, True), (3, False)):
        path = tmp_path / str(seed)
        assert forks("run", config={**small_settings, **first, "seed": seed}, run_dir=path) == 0, forks.said()
        # Before the first update only the examples in the batches differ.
        logps = [run.metrics()[0][0]["logps/chosen"] for run in (RunDirectory(path), whole)]
        assert (logps[0] == logps[1]) is same


def test_a_run_says_what_its_figures_depend_on(whole, small_data):
    environment = whole.environment()
    assert {"torch", "transformers", "trl", "datasets", "accelerate", "python", "stepwise-dpo"} <= set(
        environment["versions"]
    )
    assert environment["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert (environment["seed"], environment["threads"]) == (42, 1)
    digests = subprocess.run(
        ["sha256sum", small_data["data"], small_data["eval_data"]], capture_output=True, text=True, check=True
    ).stdout
    assert list(environment["data"].values()) == [line.split()[0] for line in digests.splitlines()]
    assert environment["disk"]["free_bytes"] > environment["disk"]["needed_bytes"] > 0
    assert environment["git_commit"] == git_commit(ROOT)


def test_the_commit_is_read_as_git_would(tmp_path):
    def git(*words):
        settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
        return subprocess.run(
            ["git", *settings, "-C", str(tmp_path / "one"), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    installed = tmp_path / "one" / ".venv" / "site-packages"
    installed.mkdir(parents=True)
    assert git_commit(tmp_path / "one") is None
    git("init")
    assert git_commit(tmp_path / "one") is None
    git("commit", "--allow-empty", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert git_commit(tmp_path / "one") == commit
    assert git_commit(installed) is None  # another project's commit is not this package's
    git("worktree", "add", str(tmp_path / "two"), "-b", "feature/two")
    assert git_commit(tmp_path / "two") == commit
    git("pack-refs", "--all")
    assert git_commit(tmp_path / "two") == git_commit(tmp_path / "one") == commit
    git("checkout", "--detach")
    assert git_commit(tmp_path / "one") == commit
    (tmp_path / "one" / ".git" / "HEAD").write_bytes(b"\xff")
    assert git_commit(tmp_path / "one") is None


# 19: one process and two


def logps_of(policy, examples):
    """{id: (of chosen, of rejected, mean per token of either)}, each example scored by itself."""
    found = {}
    for example in examples:
        (both,) = pair_logps(policy, [example], batch_size=1)
        found[example.id] = (sum(both.chosen.steps), sum(both.rejected.steps), both.chosen.mean, both.rejected.mean)
    return found


def assert_metrics_are_means_over_examples(run):
    """Every logged figure, recomputed in this one process from single examples and plain means."""
    config, examples = run.config(), load_pairs(run.config().data)
    reference = logps_of(load_policy("tiny"), examples)
    preferences = {record["id"]: record["preference"] for record in (run.rewards() or {"pairs": []})["pairs"]}
    lines, seen = metrics_of(run), []
    for line in lines:
        is_eval = "eval_loss" in line
        # A training line is about the weights before its optimiser step, an evaluation about those after.
        updates = line["global_step"] - (0 if is_eval else 1)
        policy = load_policy("tiny")
        if updates:
            weights = load_file(run.path / f"checkpoint-{updates}" / "model.safetensors")
            missing, unknown = policy.model.load_state_dict(weights, strict=False)
            assert not unknown
            assert set(missing) <= {"lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
        step = run.path / "gradients-of-2" / f"{line['global_step'] - 1}.json"
        ids = [example.id for example in examples] if is_eval else json.loads(step.read_text())
        assert len(set(ids)) == len(ids)
        seen += [] if is_eval else ids
        logps = logps_of(policy, examples)
        chosen, rejected = ([config.beta * (logps[id][side] - reference[id][side]) for id in ids] for side in (0, 1))
        margins = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
        if config.loss == "dpo":
            losses = [math.log1p(math.exp(-margin)) for margin in margins]
        else:
            losses = [math.log1p(math.exp(-preferences[id] * (logps[id][2] - logps[id][3]))) for id in ids]
        truth = {
            "loss": fmean(losses),
            "logps/chosen": fmean(logps[id][0] for id in ids),
            "logps/rejected": fmean(logps[id][1] for id in ids),
            "rewards/chosen": fmean(chosen),
            "rewards/rejected": fmean(rejected),
            "rewards/margins": fmean(margins),
        }
        if updates:  # before the first, rounding decides
            truth["rewards/accuracies"] = fmean(margin > 0 for margin in margins)
        if config.loss == "stepwise":
            truth["process_rewards/preference"] = fmean(preferences[id] for id in ids)
            truth["process_rewards/negative_fraction"] = fmean(preferences[id] < 0 for id in ids)
        prefix = "eval_" if is_eval else ""
        logged = {name: line[prefix + name] for name in truth}
        assert logged == pytest.approx(truth, rel=1e-5, abs=1e-5)
    assert sorted(seen) == sorted(2 * [example.id for example in examples])  # two epochs, no filler among them


@pytest.mark.slow
def test_case_19_two_processes_train_as_one(small_settings, tmp_path):
    """Five pairs in batches of four: two processes get two pairs each, then one gets a pair and the other none."""
    script = str(Path(__file__).with_name("two_processes.py"))
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # fmt: skip
    processes = {}
    for name, batch_size, words in (("one", 4, []), ("two", 2, launch)):
        (tmp_path / name).mkdir()
        # AdamW makes large updates of tiny differences; at this rate they stay differences of rounding.
        settings = {**small_settings, "batch_size": batch_size, "gradient_accumulation": 1, "learning_rate": 1e-5}
        settings["eval_data"] = small_settings["data"]  # uneven as well
        (tmp_path / f"{name}.json").write_text(json.dumps({**settings, "save_total_limit": 9}))
        processes[name] = command(
            [*words, script, str(tmp_path / f"{name}.json"), str(tmp_path / name), {"one": "1", "two": "2"}[name]],
            GLOO_SOCKET_IFNAME="lo",
            ACCELERATE_USE_CPU="true",
        )
    for name, process in processes.items():
        said, _ = process.communicate()
        print(name, said)
        assert process.returncode == 0
    for loss in ("dpo", "stepwise"):
        one, two = (RunDirectory(tmp_path / name / loss) for name in ("one", "two"))
        assert (one.environment()["processes"], two.environment()["processes"]) == (1, 2)
        for global_step in range(4):
            alone = load_file(one.path / "gradients-of-1" / f"{global_step}.safetensors")
            together = load_file(two.path / "gradients-of-2" / f"{global_step}.safetensors")
            assert alone.keys() == together.keys()
            exact = global_step < 2  # the first epoch, its uneven batch too: then AdamW has driven the weights apart
            if exact:  # far above the tolerance, which gradients of nothing would keep as well
                assert max(value.abs().max() for value in alone.values()) > 1e-3
            for key, value in alone.items():
                torch.testing.assert_close(
                    together[key], value, atol=1e-6 if exact else 1e-3, rtol=0 if exact else 1e-3
                )
        assert len(metrics_of(one)) == len(metrics_of(two)) == 6
        for alone, together in zip(metrics_of(one), metrics_of(two), strict=True):
            assert together == pytest.approx(alone, rel=1e-5, abs=1e-5)
        assert_metrics_are_means_over_examples(two)
    (alone, alone_line), (together, together_line) = (
        (load_file(run.path / f"gradients-of-{n}" / "0.safetensors"), metrics_of(run)[0])
        for n, run in ((n, RunDirectory(tmp_path / name / "accumulated")) for n, name in ((1, "one"), (2, "two")))
    )
    for key, value in alone.items():
        torch.testing.assert_close(together[key], value, atol=1e-5, rtol=0)
    assert together_line["loss"] == pytest.approx(alone_line["loss"], rel=1e-5)
    resumed = RunDirectory(tmp_path / "two" / "resumed")
    assert len(resumed.environment()["resumed"]) == 1
    assert_same(resumed.path, tmp_path / "two" / "dpo")
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {
        file.name for file in resumed.checkpoints(verify=True)[0].path.iterdir()
    }


# 24: odd examples


def pair(name, prompt="2 + 3 * 4 = ?", chosen=("3 * 4 = 12", "2 + 12 = 14"), rejected=("2 + 3 = 5", "5 * 4 = 20")):
    return PreferencePair(prompt=prompt, chosen=tuple(map(Step, chosen)), rejected=tuple(map(Step, rejected)), id=name)


ODD = {
    "one step each": pair("one step each", chosen=["14"], rejected=["20"]),
    "identical": pair("identical", rejected=("3 * 4 = 12", "2 + 12 = 14")),
    "emoji": pair("emoji", "🙂👩‍👩‍👧‍👦 + 🇩🇪 = ?", ["🙂"], ["👩‍👩‍👧‍👦", "🇩🇪"]),
    "right to left": pair("right to left", "כמה זה 2 + 2?", ["זה 4"], ["العدد"]),
    "a thousand steps": pair("a thousand steps", chosen=[str(n % 10) for n in range(1000)], rejected=["1"]),
}


@pytest.mark.parametrize("loss", ["dpo", "stepwise"])
def test_case_24_odd_examples_train_whole(tmp_path, loss):
    save_pairs(ODD.values(), tmp_path / "odd.json")
    settings = {"model": "tiny", "data": str(tmp_path / "odd.json"), "loss": loss, "epochs": 1, "generate": 0}
    rewards = {"reward_model": "tiny", "reward_head": "likelihood"} if loss == "stepwise" else {}
    done = run(make_config(settings, rewards, {"batch_size": 1, "max_length": 4096}), tmp_path / "run")
    assert done.status().state == "finished"
    lines = done.metrics()[0]
    assert len(lines) == len(ODD)
    assert all(math.isfinite(value) for line in lines for value in line.values())
    # Not a token was left out: prompt and answer of both sides of every example.
    steps = load_policy("tiny").step_tokenizer()
    expected = 0
    for example in ODD.values():
        prompt = len(steps.encode_prompt(example.prompt))
        expected += sum(prompt + len(steps.encode_steps(side)[0]) for side in (example.chosen, example.rejected))
    assert lines[-1]["num_tokens"] == expected
    if loss == "stepwise":
        (thousand,) = [record for record in done.rewards()["pairs"] if record["id"] == "a thousand steps"]
        assert len(thousand["chosen"]) == 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"prompt": "1 + 1", "chosen": [], "rejected": ["3"]}]', "row 1: chosen must have 1 to 1,000 steps, not 0"),
        ('[{"prompt": "1 + 1", "chosen": ["2"], "rejected": ""}]', "row 1: rejected must have 1 to 1,000 steps, not 0"),
        (
            '[{"prompt": "1 + 1", "chosen": ["2", " "], "rejected": ["3"]}]',
            'row 1: chosen[1] must be a non-blank string, not " "',
        ),
        (
            '[{"prompt": "%s", "chosen": ["2"], "rejected": ["3"]}]' % ("1 + " * 400),
            "example '1': prompt (1601) and chosen (2) have 1603 tokens together, more than the maximum length of "
            "1024; raise max_length (--max-length) or shorten the example",
        ),
    ],
    ids=["no steps", "an empty solution", "a blank step", "a prompt over the limit"],
)
def test_case_24_what_cannot_be_trained_is_a_clear_error(tmp_path, content, message):
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(DataError, match=rf"{re.escape(message)}$") as error:
        run(make_config({"model": "tiny", "data": str(tmp_path / "data.json")}), tmp_path / "run")
    failed = RunDirectory(tmp_path / "run")
    assert (failed.status().state, failed.status().error) == ("failed", str(error.value))
    assert not failed.final.exists()
