"""Checkpoints as files: complete or not there, and able to prove it."""

import json
import os
import shutil

import pytest
from comparing import assert_same

from stepwise_dpo.errors import ModelError, RunError
from stepwise_dpo.learning import checkpoints
from stepwise_dpo.learning.checkpoints import (
    MANIFEST,
    OWN_STATE,
    Checkpoint,
    _of_manifest,
    clear_hidden,
    faults,
    find_checkpoints,
    is_sealed,
    prune,
    publish,
    read_own_state,
    seal,
)
from stepwise_dpo.learning.loading import load_policy
from stepwise_dpo.runs.checkpoints import (
    bytes_to_write,
    check_disk,
    find_resume_point,
    noted_at_start,
    refuse_to_resume,
)
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory, RunStatus
from stepwise_dpo.runs.export import pack
from stepwise_dpo.runs.journal import Journal

FILES = [
    "config.json", "generation_config.json", "manifest.json", "model.safetensors", "optimizer.pt", "rng_state.pth",
    "scheduler.pt", "stepwise_dpo.json", "tokenizer.json", "tokenizer_config.json", "trainer_state.json",
]  # fmt: skip


@pytest.fixture(scope="module")
def killed(forks, small_settings, tmp_path_factory):
    """A run that was never interrupted, and copies of it, each killed at another operation of its second checkpoint."""
    folder = tmp_path_factory.mktemp("killed")
    copies = folder / "copies"
    copies.mkdir()
    settings = {**small_settings, "save_total_limit": 1}
    code = forks("kill_at_every_operation", config=settings, run_dir=folder / "whole", copies=copies, global_step=2)
    assert code == 0, forks.said()
    return folder / "whole", json.loads((copies / "operations.json").read_text()), copies


@pytest.fixture(scope="module")
def interrupted(forks, small_settings, tmp_path_factory):
    """A run that was killed after its second checkpoint, with both."""
    folder = tmp_path_factory.mktemp("interrupted")
    settings = {**small_settings, "save_total_limit": 5}
    assert forks("run", config=settings, run_dir=folder / "whole") == 0, forks.said()
    cut = folder / "cut"
    shutil.copytree(folder / "whole", cut)
    for name in ("final", "checkpoint-3", "checkpoint-4"):
        shutil.rmtree(cut / name)
    RunDirectory(cut).write_status(RunStatus("interrupted", global_step=2, max_steps=4))
    return folder / "whole", cut


def test_case_01_killed_at_every_file_boundary_of_a_save(forks, killed):
    whole, operations, copies = killed
    # Every file that the Trainer writes, ours, the manifest, the forced writes, the rename, the removal of the old one.
    assert len(operations) > 40
    text = "\n".join(operations)
    for word in (
        "after safe_save_file",
        "after save",
        "trainer_state.json",
        "stepwise_dpo.json",
        MANIFEST,
        "os.rename",
    ):
        assert word in text, word
    groups = {}
    for index in range(1, len(operations) + 1):
        copy = RunDirectory(copies / f"{index:03}")
        visible = tuple(found.path.name for found in find_checkpoints(copy.path))
        sound = tuple(found.path.name for found in copy.checkpoints(verify=True))
        assert visible == sound, f"killed before {operations[index - 1]}"
        assert sound, f"killed before {operations[index - 1]}"
        groups.setdefault(sound, []).append(copy)
    assert list(groups) == [("checkpoint-1",), ("checkpoint-2", "checkpoint-1"), ("checkpoint-2",)]
    # Nothing else differs that a resumed run reads: so the first and the last of each kind stand for all.
    for sound, runs in groups.items():
        for run in (runs[0], runs[-1]):
            assert forks("resume", run_dir=run.path) == 0, forks.said()
            assert run.environment()["resumed"][0]["global_step"] == int(sound[0].removeprefix("checkpoint-"))
            assert_same(run.path, whole)
            assert not list(run.path.glob(".saving"))


def test_case_01_killed_at_every_file_boundary_of_the_last_save(forks, small_settings, tmp_path):
    """Of the policy, and of the reward model that was trained with it."""
    whole, copies = tmp_path / "whole", tmp_path / "copies"
    copies.mkdir()
    judge = {"loss": "stepwise", "reward_model": "tiny", "train_reward_model": True}
    settings = {**small_settings, **judge, "save_total_limit": 1}
    assert forks("kill_at_every_operation_of_the_end", config=settings, run_dir=whole, copies=copies) == 0, forks.said()
    operations = json.loads((copies / "operations.json").read_text())
    assert len(operations) > 30
    assert sum(MANIFEST in name for name in operations) == 2
    assert "\n".join(operations).count("after safe_save_file") == 2
    groups = {}
    for index, operation in enumerate(operations, 1):
        copy = RunDirectory(copies / f"{index:03}")
        there = tuple(path.name for path in (copy.path / "reward_model", copy.final) if path.exists())
        assert [faults(copy.path / name) for name in there] == [[]] * len(there), f"killed before {operation}"
        groups.setdefault(there, []).append(copy)
    assert list(groups) == [(), ("reward_model",), ("reward_model", "final")]
    for runs in groups.values():
        for run in (runs[0], runs[-1]):
            assert forks("resume", run_dir=run.path) == 0, forks.said()
            assert_same(run.path, whole)
            assert faults(run.final) == faults(run.path / "reward_model") == []
            assert not list(run.path.glob(".saving"))


def damage_deleted(file):
    file.unlink()


def damage_truncated(file):
    file.write_bytes(file.read_bytes()[:-1])


def damage_flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_the_files_of_a_checkpoint(interrupted):
    assert sorted(file.name for file in (interrupted[1] / "checkpoint-2").iterdir()) == FILES


@pytest.mark.parametrize("damage", [damage_deleted, damage_truncated, damage_flipped], ids=lambda f: f.__name__[7:])
@pytest.mark.parametrize("name", FILES)
def test_case_03_damage_is_named_and_skipped(interrupted, tmp_path, name, damage):
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(interrupted[1], run.path)
    damage(run.path / "checkpoint-2" / name)
    point = find_resume_point(run)
    assert point.checkpoint.global_step == 1
    (skipped,) = point.skipped
    assert skipped.startswith(f"checkpoint-2 ({name} ")
    assert str(point) == f"resuming from checkpoint-1; skipped {skipped}"
    damage(run.path / "checkpoint-1" / name)
    with pytest.raises(RunError, match=rf"can't be resumed: checkpoint-2 \({name} .*; checkpoint-1 \({name} "):
        find_resume_point(run)


@pytest.mark.parametrize("damage", [damage_deleted, damage_truncated, damage_flipped], ids=lambda f: f.__name__[7:])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", MANIFEST])
def test_case_03_damage_of_the_trained_model_is_named_where_it_is_used(interrupted, tmp_path, name, damage):
    shutil.copytree(interrupted[0], tmp_path / "run")
    final = RunDirectory(tmp_path / "run").final
    load_policy(str(final))
    if (name, damage) == (MANIFEST, damage_deleted):
        return  # then nobody can tell: an older version wrote none
    damage(final / name)
    with pytest.raises(ModelError, match=rf"final' is not what was saved: {name} .* remove manifest.json"):
        load_policy(str(final))
    with pytest.raises(RunError, match=rf"run 'run': final is not what was saved: {name} "):
        pack(RunDirectory(tmp_path / "run"), tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_another_programs_manifest_is_none_of_ours(tmp_path):
    for content, ours in (('{"files": []}', False), ("[]", False), ("{", True), ('{"files": {}, "sha256": ""}', True)):
        (tmp_path / MANIFEST).write_text(content)
        assert is_sealed(tmp_path) is ours


def test_a_manifest_makes_nobody_read_other_places(tmp_path):
    path = make_checkpoint(tmp_path, 3)
    (tmp_path / "outside").write_text("")
    os.mkfifo(path / "pipe")
    for name in ("../outside", "/dev/zero", "pipe", "inner"):
        files = {name: {"size": (path / name).stat().st_size, "sha256": ""}}
        (path / MANIFEST).write_text(json.dumps({"files": files, "sha256": _of_manifest(files)}))
        assert faults(path) == [f"{name} is no file of this folder"]
    wrong = (
        {"size": "x"},
        {"size": 1},
        {"size": -1, "sha256": ""},
        {"size": 1.0, "sha256": ""},
        {"size": 1, "sha256": 1},
    )
    for files in ({"a": 1}, {"a": {}}, *({"a": file} for file in wrong), [], {"\0": {"size": 1, "sha256": ""}}):
        (path / MANIFEST).write_text(json.dumps({"files": files, "sha256": _of_manifest(files)}))
        assert len(faults(path)) == 1


def test_case_03_a_run_goes_on_from_before_the_damage(forks, interrupted, tmp_path):
    whole, cut = interrupted
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(cut, run.path)
    damage_flipped(run.path / "checkpoint-2" / "optimizer.pt")
    assert forks("resume", run_dir=run.path) == 0, forks.said()
    (resumed,) = run.environment()["resumed"]
    assert resumed["global_step"] == 1
    assert resumed["skipped"] == ["checkpoint-2 (optimizer.pt has other contents than were written)"]
    assert "skipped checkpoint-2 (optimizer.pt has other contents" in forks.said()
    assert noted_at_start(run) == [f"skipped {resumed['skipped'][0]} when it was resumed"]  # the page shows it
    assert_same(run.path, whole)  # the damaged one was written again
    assert [found.global_step for found in run.checkpoints(verify=True)] == [4, 3, 2, 1]


def test_sizes_are_seen_at_a_glance(interrupted, tmp_path):
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(interrupted[1], run.path)
    assert refuse_to_resume(run) is None
    damage_flipped(run.path / "checkpoint-2" / "optimizer.pt")
    assert len(run.checkpoints()) == 2
    assert len(run.checkpoints(verify=True)) == 1
    damage_truncated(run.path / "checkpoint-2" / "optimizer.pt")
    assert [found.global_step for found in run.checkpoints()] == [1]
    damage_deleted(run.path / "checkpoint-1" / "optimizer.pt")
    assert "checkpoint-1 (optimizer.pt is missing)" in refuse_to_resume(run)


def make_checkpoint(run_dir, global_step, content="weights"):
    folder = clear_hidden(run_dir) / f"checkpoint-{global_step}"
    (folder / "inner").mkdir(parents=True)
    (folder / "a").write_text(content)
    (folder / "inner" / "b").write_text("b")
    seal(folder)
    publish(folder, run_dir / folder.name)
    return run_dir / folder.name


def test_a_sealed_folder_is_sound_and_replaces_what_had_its_place(tmp_path):
    path = make_checkpoint(tmp_path, 3)
    assert faults(path) == []
    (path / "inner" / "b").write_text("c")
    assert faults(path) == ["inner/b has other contents than were written"]
    assert faults(path, contents=False) == []
    assert make_checkpoint(tmp_path, 3, content="others") == path
    assert (path / "a").read_text() == "others"
    assert faults(path) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint-3"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"files": {}}', '{"files": {}, "sha256": "0"}', "\udcff", "[" * 100_000]
)
def test_a_manifest_that_is_none(tmp_path, content):
    path = make_checkpoint(tmp_path, 3)
    (path / MANIFEST).write_text(content, errors="surrogateescape")
    (fault,) = faults(path)
    assert fault.startswith("manifest.json ")


def test_a_manifest_that_is_no_file_or_too_large_is_not_read(tmp_path):
    path = make_checkpoint(tmp_path, 3)
    with open(path / MANIFEST, "ab") as file:
        file.truncate(2**30)
    assert faults(path) == ["manifest.json can't be read: it is no file of ours"]
    (path / MANIFEST).unlink()
    os.mkfifo(path / MANIFEST)
    assert faults(path) == ["manifest.json can't be read: it is no file of ours"]
    assert is_sealed(path)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, "No such file or directory"),
        ("{", "Invalid JSON"),
        ({}, "train_tokens: Field required"),
        ({"train_tokens": 1.5, "reference": {}, "beside": {}}, "train_tokens: "),
        ({"train_tokens": 1, "reference": {"0": [1.0]}, "beside": {}}, r"reference\.0\.1: Field required"),
        ({"train_tokens": 1, "reference": {"x": [1.0, 2.0]}, "beside": {}}, r"reference\.x"),
        ({"train_tokens": 1, "reference": {}, "beside": {}, "more": 1}, "more: Extra"),
    ],
)
def test_what_our_trainer_did_not_write_is_named(tmp_path, state, words):
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    if state is not None:
        (folder / OWN_STATE).write_text(state if isinstance(state, str) else json.dumps(state))
    with pytest.raises(RunError, match=rf"^checkpoint-2: stepwise_dpo.json can't be read: {words}"):
        read_own_state(folder)
    (folder / OWN_STATE).write_text(json.dumps({"train_tokens": 1, "reference": {"7": [-1, 2.5]}, "beside": {"a": 1}}))
    assert read_own_state(folder).reference == {"7": (-1.0, 2.5)}


@pytest.mark.parametrize("beside", [{}, {"metrics_bytes": -1}, {"metrics_bytes": 1.0}])
def test_a_checkpoint_that_does_not_say_where_its_metrics_ended(tmp_path, beside):
    run = RunDirectory(tmp_path / "run")
    run.create(make_config({"data": "pairs.json"}))
    checkpoint = Checkpoint(2, run.path / "checkpoint-2")
    checkpoint.path.mkdir()
    (checkpoint.path / OWN_STATE).write_text(json.dumps({"train_tokens": 1, "reference": {}, "beside": beside}))
    with pytest.raises(RunError, match=r"checkpoint-2/stepwise_dpo\.json: metrics_bytes is damaged"):
        Journal(run).go_on(checkpoint)


def test_only_checkpoints_are_found(tmp_path):
    for name in ("checkpoint-10", "checkpoint-9", "checkpoint-x", "checkpoint-", "checkpoint-0", "my-checkpoint-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    (tmp_path / "checkpoint-8").symlink_to(tmp_path / "checkpoint-9")
    assert [found.global_step for found in find_checkpoints(tmp_path)] == [10, 9]
    assert find_checkpoints(tmp_path / "nowhere") == []


def test_case_03_a_flipped_bit_costs_no_older_sound_checkpoint(tmp_path):
    for global_step in range(1, 6):
        make_checkpoint(tmp_path, global_step)
    damage_flipped(tmp_path / "checkpoint-4" / "a")  # of the same size
    prune(tmp_path, newest=5, keep=2)
    assert [found.global_step for found in find_checkpoints(tmp_path)] == [5, 3]


def test_only_what_may_be_kept_is_read_whole(tmp_path, monkeypatch):
    for global_step in range(1, 6):
        make_checkpoint(tmp_path, global_step)
    read, hash_of = [], checkpoints._hash
    monkeypatch.setattr(checkpoints, "_hash", lambda path: read.append(path.relative_to(tmp_path)) or hash_of(path))
    prune(tmp_path, newest=5, keep=2)
    assert {path.parts[0] for path in read} == {"checkpoint-4"}


def test_the_newest_stays_whatever_is_to_be_kept(tmp_path):
    for global_step in (1, 2, 3, 4, 5):
        make_checkpoint(tmp_path, global_step)
    (tmp_path / "checkpoint-3" / "a").unlink()
    prune(tmp_path, newest=4, keep=2)
    # 3 is damaged and doesn't count, 5 is later than what was just written.
    assert [found.global_step for found in find_checkpoints(tmp_path)] == [5, 4, 2]
    prune(tmp_path, newest=4, keep=1)
    assert [found.global_step for found in find_checkpoints(tmp_path)] == [5, 4]


def test_room_on_the_disk(tmp_path):
    config = make_config({"data": "x"})
    assert bytes_to_write(config, 100, 0, 50) == 100
    config = make_config({"data": "x", "save_steps": 10, "save_total_limit": 2})
    assert bytes_to_write(config, 100, 0, 50) == 100 + 3 * 300
    assert bytes_to_write(config, 100, 40, 11) == 140 + 2 * 3 * 140
    run = RunDirectory(tmp_path)
    free = shutil.disk_usage(tmp_path).free
    assert check_disk(run, 100)["warning"] is None
    assert "that is close" in check_disk(run, int(free * 0.9))["warning"]
    with pytest.raises(RunError, match=r"needs up to .*TB of disk and .* are free .*save_total_limit"):
        check_disk(run, 10**16)
