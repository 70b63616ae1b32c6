import os
import tempfile
import time
from dataclasses import asdict, replace

import orjson
import psutil
import pytest

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.retention import DAY_SECONDS, forget, forget_uploads, upload_folder
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
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert forget(supervisor) == ["old-finished", "unused.json"]
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
