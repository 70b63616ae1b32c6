import json
import os
import subprocess
import sys
from dataclasses import replace

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


DAMAGED = [
    *(("", "can't be read"), ("[]", "must hold an object"), ("{", "can't be read"), (" " * 2**21, "has 2.1 MB")),
    *(('{"mood": 1}', r"unexpected fields: \['mood'\]"), ('{"state": "queued", "mood": 1}', "unexpected fields")),
    ('{"state": "queued", "__dataclass_self__": 1}', "unexpected fields"),
    *(('{"state": "dancing", "pid": -1}', 'unknown state "dancing"'), ('{"state": 1}', "unknown state 1")),
    *((f'{{"state": "queued", "pid": {pid}}}', "unusable pid") for pid in ("0", "-1", "true", "1.0", '"1"', 2**31)),
    *(
        (f'{{"state": "queued", "started": {at}}}', "unusable started")
        for at in ("null", "true", '"1"', 2**53, "1e308")
    ),
    *((f'{{"state": "queued", "global_step": {n}}}', "unusable global_step") for n in ("null", "-1", "1.5", "true")),
    *(('{"state": "queued", "phase": null}', "unusable phase"), ('{"state": "queued", "error": 1}', "unusable error")),
]


@pytest.mark.parametrize(("content", "words"), DAMAGED, ids=lambda part: part[:60])
def test_damaged_status(run, content, words):
    (run.path / "status.json").write_text(content)
    with pytest.raises(RunError, match=rf"status\.json .*{words}"):
        run.status()


def test_a_status_that_says_little_and_one_that_is_whole(run):
    (run.path / "status.json").write_text('{"state": "queued"}')
    assert run.status() == RunStatus("queued")
    whole = RunStatus("failed", 7, 1.5, 3, 4, "training", 2, 3, "words " * 10_000)
    run.write_status(whole)
    assert replace(run.status(), updated=3.0) == whole


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        *(("report.json", {"before": wrong}, "before") for wrong in ([1], "x", {"solve_rate": "x"}, {"pairs": True})),
        ("report.json", {"before": {"pairs": 1, "solve_rate": None}, "after": None, "change": 7}, "change"),
        *(("environment.json", {"data": {}, "versions": wrong}, "versions") for wrong in (None, [], 1)),
        *(("environment.json", {"data": {}, "versions": {}, part: 7}, part) for part in ("weights", "resumed")),
        ("environment.json", {"versions": {}}, "data"),
    ],
)
def test_the_damaged_part_of_a_record_is_named(run, name, content, part):
    (run.path / name).write_text(json.dumps(content))
    with pytest.raises(RunError, match=rf"run 'one': {name}: {part} is damaged"):
        run.report() if name == "report.json" else run.environment()


def test_what_a_record_holds_beside_stays(run):
    run.write_report({"before": {"pairs": 1}, "after": None, "by": "a later version"})
    assert run.report() == {"before": {"pairs": 1}, "after": None, "by": "a later version"}
    run.write_environment({"versions": {"torch": "2"}, "data": {}, "threads": 1})  # as older runs have it
    assert run.environment() == {"versions": {"torch": "2"}, "data": {}, "threads": 1}


def test_metrics_of_no_number_are_passed_over(run):
    lines = ['{"loss": 1}', '{"time": "x"}', '{"global_step": null}', '{"time": 1e300}', '{"time": 2, "more": [1]}']
    (run.path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert run.metrics()[0] == [{"loss": 1}, {"time": 2, "more": [1]}]


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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize(("name", "read"), [("status.json", "status"), ("examples.jsonl", "examples")])
def test_a_pipe_in_a_files_place_is_not_waited_for(run, name, read):
    (run.path / name).unlink(missing_ok=True)
    os.mkfifo(run.path / name)
    with pytest.raises(RunError, match=rf"{name} can't be read: .*not a regular file"):
        getattr(run, read)()
