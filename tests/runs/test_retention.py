import os
import time
from dataclasses import asdict, replace

import orjson
import psutil

from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.retention import DAY_SECONDS, forget
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
