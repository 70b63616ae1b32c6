import os
import shutil
import tempfile
import time
from dataclasses import asdict, replace

import orjson
import psutil
import pytest

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory, list_runs
from stepwise_dpo.runs.retention import DAY_SECONDS, forget, forget_uploads, repeat_hourly, upload_folder
from stepwise_dpo.runs.supervisor import Supervisor


def test_a_day_later_runs_and_examples_are_gone_and_what_is_in_use_stays(tmp_path):
    supervisor = Supervisor(tmp_path)
    (tmp_path / "data").mkdir()
    old = time.time() - DAY_SECONDS - 60
    for name in ("used.json", "unused.json", "fresh.json"):
        (tmp_path / "data" / name).write_text("[]")
        if name != "fresh.json":
            os.utime(tmp_path / "data" / name, (old, old))
    me = os.getpid(), psutil.Process().create_time()
    runs = {}
    for name, state, updated in (
        ("old-finished", "finished", old),
        ("old-running", "running", old),
        ("fresh", "finished", time.time()),
    ):
        run = runs[name] = RunDirectory(tmp_path / name)
        run.create(make_config({"data": str(tmp_path / "data" / "used.json")}))
        status = replace(run.status(), state=state, pid=me[0], create_time=me[1], updated=updated)
        (run.path / "status.json").write_bytes(orjson.dumps(asdict(status)))
    for name, updated in (("broken", time.time()), ("old-broken", old)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{")
        os.utime(tmp_path / name, (updated, updated))
    assert sorted(forget(supervisor)) == ["old-broken", "old-finished", "unused.json"]
    assert {path.name for path in tmp_path.iterdir()} == {"broken", "data", "fresh", "old-running"}
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"used.json", "fresh.json"}
    assert forget(Supervisor(tmp_path / "nowhere")) == []


def test_uploads_of_a_day_ago_are_deleted_whoever_took_them_in(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    folder = upload_folder(tmp_path / "runs")
    assert folder == upload_folder(tmp_path / "runs") != upload_folder(tmp_path / "others")
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "hash").mkdir()
    (folder / "hash" / "pairs.json").write_text("[]")
    (tmp_path / "kept.json").write_text("[]")
    (folder / "link").symlink_to(tmp_path / "kept.json")
    assert forget_uploads(folder) == 0
    assert forget_uploads(folder, seconds=-1) == 2  # the time of a change can't be set back
    assert list(folder.iterdir()) == []
    assert (tmp_path / "kept.json").exists()


def test_a_folder_for_uploads_that_is_none_of_ours_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = upload_folder(tmp_path / "runs")
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(RunError, match="somebody else"):
        upload_folder(tmp_path / "runs")


def test_a_run_that_is_deleted_while_runs_are_listed_is_none(tmp_path, monkeypatch):
    kept, going = RunDirectory(tmp_path / "kept"), RunDirectory(tmp_path / "going")
    for run in (kept, going):
        run.create(make_config({"data": "x.json"}))
    exists = RunDirectory.exists

    def look_and_delete(self):
        found = exists(self)
        if self.id == "going":
            shutil.rmtree(self.path)
        return found

    monkeypatch.setattr(RunDirectory, "exists", look_and_delete)
    assert [run.id for run in list_runs(tmp_path)] == ["kept"]


def test_what_goes_wrong_once_does_not_end_what_is_done_every_hour(monkeypatch, caplog):
    done = []

    def fail():
        done.append("failed")
        raise OSError("no space left")

    def pause(seconds):
        assert seconds == 3600
        if len(done) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", pause)
    with pytest.raises(KeyboardInterrupt):
        repeat_hourly(fail, lambda: done.append("did"))
    assert done == ["failed", "did"] * 2
    assert "no space left" in caplog.text
