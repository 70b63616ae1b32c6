"""app.py: its options, its headers, what it does at the start. One real server answers the requests."""

import http.client
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from stepwise_dpo.bench.browser import APP, Server
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.runs.limits import GIB, QueueLimits, RunLimits
from stepwise_dpo.runs.retention import DAY_SECONDS, upload_folder
from stepwise_dpo.runs.ticket import Ticket, write_ticket
from stepwise_dpo.ui.security import headers


@pytest.fixture(scope="module")
def app():
    spec = importlib.util.spec_from_file_location("app_of_tests", APP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A public server that follows one that was killed."""
    folder = tmp_path_factory.mktemp("server")
    config = make_config({"data": "nowhere.json", "model": "tiny"})
    for name, change in (("lost", {"state": "running", "pid": 2**22 + 1, "create_time": 1.0}), ("waited", {})):
        run = RunDirectory(folder / "runs" / name)
        run.create(config)
        run.write_status(replace(run.status(), **change))
        write_ticket(run, Ticket(None, 2**22 + 1, 1.0))
    options = ["--runs-dir", "runs", "--public", "--no-warm"]
    running = Server(APP, options, folder=folder, log=folder / "app.log")
    running.wait()
    yield running
    running.stop()


FORGETFUL = """
import runpy, sys
from functools import partial
from stepwise_dpo.runs import retention

retention.HOUR_SECONDS = 0.5
# When a file was changed can't be set back, so an upload is old sooner here. A run is old after a day, as always.
retention.forget_uploads = partial(retention.forget_uploads, seconds=3.0)
sys.path.insert(0, {root!r})
runpy.run_path({app!r}, run_name="__main__")
"""


def wait_until(found, seconds=60):
    deadline = time.monotonic() + seconds
    while not found() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found()


def upload(server):
    data = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.json"\r\n\r\n[]\r\n--x--\r\n'
    request = urllib.request.Request(server.url + "/gradio_api/upload", data)
    request.add_header("Content-Type", "multipart/form-data; boundary=x")
    with urllib.request.urlopen(request, timeout=30) as answer:
        (name,) = json.loads(answer.read())
    assert re.fullmatch(r"held-[0-9a-f]{32}", name)  # and neither where it lies nor how it was called
    return name


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def is_refused(url):
    try:
        return get(url)[0] != 200
    except http.client.IncompleteRead:  # deleted between the answer's head and its body: ask again
        return False


def test_local_by_default(app, monkeypatch):
    options = app.parse_options([])
    made = app.make_supervisor(options)
    assert (options.public, options.host, options.warm) == (False, "127.0.0.1", True)
    assert (made.limits, made.queue_limits) == (RunLimits(None, None), QueueLimits(concurrent=1, per_owner=None))
    assert made.recover() == ([], [])
    assert not made._keep_warm
    monkeypatch.setenv("SPACE_ID", "someone/space")
    assert app.parse_options([]).public
    assert not app.parse_options(["--no-public"]).public


def test_public_limits_and_their_options(app):
    made = app.make_supervisor(app.parse_options(["--public"]))
    assert made.limits == RunLimits(memory_bytes=6 * GIB, seconds=1800)
    assert made.queue_limits == QueueLimits(concurrent=1, per_owner=2)
    words = ["--public", "--max-memory", "2.5", "--max-minutes", "5", "--max-concurrent-runs", "3"]
    made = app.make_supervisor(app.parse_options(words))
    assert (made.limits.memory_bytes, made.limits.seconds) == (2.5 * GIB, 300)
    assert made.queue_limits.concurrent == 3


@pytest.mark.parametrize(
    "words",
    [
        ["--max-concurrent-runs", "0"],
        ["--max-concurrent-runs", "1000000000"],
        ["--max-memory", "nan"],
        ["--max-memory", "x"],
        ["--max-memory", "1e308"],  # of GiB, no number of bytes
        ["--max-minutes", "-1"],
        ["--max-minutes", "inf"],
        ["--port", "65536"],
        ["--port", "-1"],
        ["--host", "192.0.2.1"],  # nobody's, for documents
        ["--host", "x" * 70],
        ["--runs-dir", str(APP)],
        ["--runs-dir", "x" * 300],
        ["--runs-dir", ""],
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_options_out_of_range(app, capsys, words):
    with pytest.raises(SystemExit):
        app.parse_options(words)
    assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/nowhere"])
def test_every_answer_has_the_security_headers(server, path):
    _, found, _ = get(server.url + path)
    for name, value in headers(on_space=False).items():
        assert found[name] == value, path
    assert "frame-ancestors 'self'" in found["Content-Security-Policy"]
    assert found["X-Content-Type-Options"] == "nosniff"


def test_on_a_space_huggingface_may_frame_the_page():
    policy = headers(on_space=True)["Content-Security-Policy"]
    assert "frame-ancestors 'self' https://huggingface.co https://*.hf.space" in policy


def test_nothing_that_is_served_says_where_it_lies(server):
    _, _, page = get(server.url + "/")
    for text in (page, get(server.url + "/config")[2]):
        for place in (APP.parent, Path(sys.prefix), server.log.parent):
            assert str(place).encode() not in text
    status, found, script = get(server.url + "/plotly.min.js")
    assert (status, found["Content-Type"].split(";")[0]) == (200, "text/javascript")
    assert b"plotly.js v" in script[:200]
    assert b"/plotly.min.js?" in page


def test_nobody_sees_what_others_call(server):
    # The page's list of endpoints asks for this, so it is there, but app.py sees to it that nothing is counted.
    call = urllib.request.Request(server.url + "/gradio_api/call/example_sets", b'{"data": []}')
    call.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(call, timeout=30) as answer:
        event = json.loads(answer.read())["event_id"]
    assert b"complete" in get(f"{server.url}/gradio_api/call/example_sets/{event}")[2]
    assert json.loads(get(server.url + "/monitoring/summary")[2]) == {"functions": {}}


def test_uploads_of_strangers_go_where_only_this_app_looks(server):
    name = upload(server)
    assert get(f"{server.url}/gradio_api/file={name}")[2] == b"[]"
    (path,) = upload_folder(server.log.parent / "runs").rglob("a.json")
    assert path.read_text() == "[]"
    assert get(f"{server.url}/gradio_api/file={path}")[0] == 404  # not even to who guesses where it lies


@pytest.mark.parametrize("public", [True, False])
def test_a_public_server_deletes_old_runs_and_uploads_while_it_runs_and_a_local_one_keeps_them(tmp_path, public):
    runs = {}
    for name, age in (("old", 2 * DAY_SECONDS), ("new", 60)):
        run = runs[name] = RunDirectory(tmp_path / "runs" / name)
        run.create(make_config({"data": "nowhere.json", "model": "tiny"}))
        status = replace(run.status(), state="finished", updated=time.time() - age)
        (run.path / "status.json").write_text(json.dumps(asdict(status)))
    script = tmp_path / "forgetful.py"
    script.write_text(FORGETFUL.format(root=str(APP.parent), app=str(APP)))
    options = ["--runs-dir", "runs", "--no-warm", *["--public"] * public]
    running = Server(script, options, folder=tmp_path, log=tmp_path / "app.log")
    try:
        running.wait()
        wait_until(lambda: "is ready at" in running.log.read_text())
        uploaded = f"{running.url}/gradio_api/file={upload(running)}"
        assert get(uploaded)[2] == b"[]"
        if public:
            wait_until(lambda: is_refused(uploaded))
            wait_until(lambda: not runs["old"].path.exists())
        else:
            time.sleep(5)
            assert get(uploaded)[0] == 200
            assert runs["old"].path.exists()
        assert runs["new"].path.exists()
    finally:
        running.stop()


@pytest.mark.parametrize("path", ["x", "/etc/passwd", "https://example.org/large", "http://127.0.0.1:1/"])
def test_a_file_that_was_not_uploaded_is_neither_read_nor_fetched_nor_places_told(server, path):
    """Gradio takes a dictionary like this one, wherever it stands in an input, for a file that was uploaded."""
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    call = urllib.request.Request(
        server.url + "/gradio_api/call/convert", json.dumps({"data": [[file], "native"]}).encode()
    )
    call.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(call, timeout=30) as answer:
        event = json.loads(answer.read())["event_id"]
    answer = get(f"{server.url}/gradio_api/call/convert/{event}")[2].decode()
    assert "event: error" in answer
    for place in (APP.parent, Path(sys.prefix), server.log.parent):
        assert str(place) not in answer
    assert ("not its address" in answer) == path.startswith("http")


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=runs/lost/config.json",
        "/gradio_api/file={runs}/lost/config.json",
        "/gradio_api/file=../app.log",
        "/gradio_api/file=/etc/passwd",
        "/file=runs/lost/status.json",
    ],
)
def test_no_file_of_a_run_is_served(server, path):
    status, _, body = get(server.url + path.format(runs=server.log.parent / "runs"))
    assert status in (403, 404)
    assert b"nowhere.json" not in body


def test_what_an_earlier_server_left_is_set_right_and_reported(server):
    deadline = time.monotonic() + 60  # it answers before it has looked at everything
    while "is ready at" not in (log := server.log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "found from an earlier start, interrupted: lost\n" in log
    assert "found from an earlier start, waiting again: waited\n" in log
    run = RunDirectory(server.log.parent / "runs" / "lost")
    assert json.loads((run.path / "status.json").read_text())["state"] == "interrupted"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [("GRADIO_SERVER_PORT", "abc", "from 1 to 65,535"), ("GRADIO_ANALYTICS_MAX_EVENTS", "1.5", "from 1 up")],
)
def test_what_gradio_would_stumble_over_is_named(name, value, allowed):
    started = subprocess.run(
        [sys.executable, str(APP), "--no-warm"], env={**os.environ, name: value}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert started.returncode == 1
    assert started.stderr == (
        f"error: the environment variable {name} must be a whole number {allowed}, not {value!r}; correct it, or "
        "unset it\n"
    )


def test_nothing_calls_home(app):
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] in ("1", "True")  # Gradio writes it its own way
    assert app.demo.analytics_enabled is False
