import subprocess
import sys

import pytest

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory, RunStatus, list_runs, new_run_id

CONFIG = make_config({"data": "pairs.json"})


@pytest.fixture
def run(tmp_path):
    directory = RunDirectory(tmp_path / "one")
    directory.create(CONFIG)
    return directory


def test_a_new_run(run):
    assert run.config() == CONFIG
    assert run.status().state == "queued"
    assert run.metrics() == ([], 0)
    assert run.report() is None
    assert run.rewards() is None
    assert run.examples() == []


def test_a_run_is_never_overwritten(run):
    with pytest.raises(RunError, match="already holds a run; choose another output directory"):
        run.create(CONFIG)


def test_a_run_that_failed_before_its_first_step_may_be_started_over(run):
    run.write_status(RunStatus("failed", error="no such model"))
    run.request_stop()
    run.create(CONFIG)
    assert run.status().error is None
    assert not run.stop_requested()
    run.append_metrics({"loss": 1.0})
    run.write_status(RunStatus("failed", error="disk full"))
    with pytest.raises(RunError, match="already holds a run"):
        run.create(CONFIG)


def test_an_unfinished_line_waits_until_it_is_complete(run):
    run.append_metrics({"global_step": 1, "loss": 0.5})
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(b'{"global_step":2,"lo')
    records, offset = run.metrics()
    assert records == [{"global_step": 1, "loss": 0.5}]
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(b'ss":0.25}\n')
    assert run.metrics(offset)[0] == [{"global_step": 2, "loss": 0.25}]


def test_a_torn_line_costs_only_itself(run):
    run.append_metrics({"loss": 1.0})
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(b'{"loss":2\n')
    run.append_metrics({"loss": 3.0})
    assert [record["loss"] for record in run.metrics()[0]] == [1.0, 3.0]


def test_a_reader_beside_a_writer_sees_every_record_once(run):
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys\nfrom stepwise_dpo.runs.directory import RunDirectory\n"
            "run = RunDirectory(sys.argv[1])\n"
            "for step in range(3000): run.append_metrics({'global_step': step, 'loss': 1 / (step + 1)})",
            str(run.path),
        ]
    )
    seen, offset = [], 0
    while True:
        ended = writer.poll() is not None  # asked before the last read, so that nothing can come after it
        records, offset = run.metrics(offset)
        seen += [record["global_step"] for record in records]
        if ended:
            break
    assert writer.returncode == 0
    assert seen == list(range(3000))


def test_stop_is_a_file(run):
    assert not run.stop_requested()
    run.request_stop()
    assert run.stop_requested()


def test_runs_are_listed_newest_first(tmp_path):
    for name in ("20260101-000000-dpo-aaaa", "20260102-000000-dpo-aaaa"):
        RunDirectory(tmp_path / name).create(CONFIG)
    (tmp_path / "no-run").mkdir()
    assert [run.id for run in list_runs(tmp_path)] == ["20260102-000000-dpo-aaaa", "20260101-000000-dpo-aaaa"]
    assert list_runs(tmp_path / "nowhere") == []
    assert new_run_id("dpo") != new_run_id("dpo")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"state": "dancing"}', '{"mood": 1}'])
def test_damaged_status(run, content):
    (run.path / "status.json").write_text(content)
    with pytest.raises(RunError, match=r"status\.json"):
        run.status()


def test_no_run(tmp_path):
    with pytest.raises(RunError, match="is not a run directory"):
        RunDirectory(tmp_path).config()
    (tmp_path / "config.json").write_text('{"data": "x", "colour": "red"}')
    with pytest.raises(RunError, match="unknown setting 'colour'"):
        RunDirectory(tmp_path).config()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="can't be written"):
        RunDirectory(tmp_path / "file" / "run").create(CONFIG)


@pytest.mark.parametrize("new", [b'{"loss":9}\n', b'{"loss":9}\n{"loss":10}\n{"loss":11}\n'])
def test_an_offset_from_before_a_cut_reads_all(run, new):
    for loss in (1.0, 2.0):
        run.append_metrics({"loss": loss})
    _, offset = run.metrics()
    assert run.metrics(offset) == ([], offset)
    (run.path / "metrics.jsonl").write_bytes(new)  # shorter than before, or longer by now
    records, position = run.metrics(offset)
    assert [record["loss"] for record in records] == [9, 10, 11][: len(records)]
    assert len(records) == new.count(b"\n")
    assert position == len(new)
    assert run.metrics(10**30) == (records, position)
    (run.path / "metrics.jsonl").unlink()
    assert run.metrics(offset) == ([], 0)
