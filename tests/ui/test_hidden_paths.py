import json
import re
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from stepwise_dpo.ui import hidden_paths
from stepwise_dpo.ui.hidden_paths import HiddenPaths

NAME = re.compile(r"held-[0-9a-f]{32}")


@pytest.fixture
def folder(tmp_path):
    """Of a name that JSON and an address spell in ways of their own."""
    folder = tmp_path / 'wo "ä"' / "kept"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def client(folder):
    def answer_to_upload(_):
        (folder / "mine.json").write_text("[1]")
        return JSONResponse([str(folder / "mine.json")])

    async def read(request):
        sent = await request.json()
        return JSONResponse({"is": sent["path"] == str(folder / "mine.json"), "text": sent["text"]})

    def stream(_):
        archive = folder / "run 1.zip"
        archive.write_bytes(b"PK")
        address = f"http://host/gradio_api/file={quote(str(archive))}"
        for ascii_only in (True, False):
            yield f"data: {json.dumps({'path': str(archive), 'url': address}, ensure_ascii=ascii_only)}\n\n"

    def serve(request):
        return FileResponse(request.path_params["path"])

    routes = [
        Route("/gradio_api/upload", answer_to_upload, methods=["POST"]),
        Route("/gradio_api/read", read, methods=["POST"]),
        Route("/gradio_api/stream", lambda _: StreamingResponse(stream(_), media_type="text/event-stream")),
        Route("/gradio_api/words", lambda _: JSONResponse({"said": f"not found: {folder}/x", "id": "held-no"})),
        Route("/gradio_api/file={path:path}", serve),
        Route("/gradio_api/file/{path:path}", serve),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(HiddenPaths, folder=str(folder))])
    with TestClient(app) as client:
        yield client


def upload(client):
    (name,) = client.post("/gradio_api/upload").json()
    return name


def test_an_upload_has_a_name_by_which_it_is_read_and_served(client):
    name = upload(client)
    assert NAME.fullmatch(name)
    assert upload(client) == name
    other = NAME.sub("held-" + "0" * 32, name)
    answer = client.post("/gradio_api/read", json={"path": name, "text": f"{other} and held-over"})
    assert answer.json() == {"is": True, "text": f"{other} and held-over"}
    assert client.get(f"/gradio_api/file={name}").json() == [1]
    assert client.get(f"/gradio_api/file/{name}").json() == [1]


def test_no_file_is_served_by_its_path(client, folder):
    upload(client)
    for asked in (str(folder / "mine.json"), quote(str(folder / "mine.json")), "/etc/passwd", "held-", ""):
        assert client.get(f"/gradio_api/file={asked}").status_code == 404


def test_a_download_keeps_what_it_is_called_and_nothing_of_where_it_lies(client, folder):
    answer = client.get("/gradio_api/stream").text
    first, second = (json.loads(line[6:]) for line in answer.split("\n\n")[:2])
    assert first == second
    assert re.fullmatch(NAME.pattern + r"/run 1\.zip", first["path"])
    assert first["url"] == f"http://host/gradio_api/file={quote(first['path'])}"
    assert client.get(first["url"].removeprefix("http://host")).content == b"PK"


def test_words_that_name_the_folder_are_left_as_they_are(client, folder):
    # They are no file's path; our own words name no folder.
    assert client.get("/gradio_api/words").json() == {"said": f"not found: {folder}/x", "id": "held-no"}


def test_only_the_newest_names_are_remembered(client, folder, monkeypatch):
    monkeypatch.setattr(hidden_paths, "MAX_NAMES", 1)
    name = upload(client)
    assert client.get(f"/gradio_api/file={name}").status_code == 200
    client.get("/gradio_api/stream")
    assert client.get(f"/gradio_api/file={name}").status_code == 404
    assert upload(client) != name
