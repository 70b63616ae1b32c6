import json
import re
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from stepwise_dpo.ui import hidden_paths
from stepwise_dpo.ui.hidden_paths import FileNames, HiddenPaths

NAME = re.compile(r"held-[0-9a-f]{32}")
META = {"_type": "gradio.FileData"}


@pytest.fixture
def folder(tmp_path):
    """Of a name that JSON and an address spell in ways of their own."""
    folder = tmp_path / 'wo "ä"' / "kept"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def names():
    return FileNames()


@pytest.fixture
def client(folder, names):
    archive = folder / "run 1.zip"

    async def answer_to_upload(request):
        if b"large" in await request.body():
            return PlainTextResponse("too large", status_code=413)
        (folder / "mine.json").write_text(json.dumps([str(archive)]))
        return JSONResponse([str(folder / "mine.json")])

    async def echo(request):
        return JSONResponse(await request.json())

    async def read(request):
        path = (await request.json())["data"][0]["path"]
        return JSONResponse(path == str(folder / "mine.json"))

    async def refuse(request):
        return JSONResponse({"detail": [{"input": await request.json()}, f"{folder}/x"]}, 422)

    def stream(_):
        archive.write_bytes(b"PK")
        names.offer(str(archive))
        address = f"http://host/gradio_api/file={quote(str(archive))}"
        for ascii_only in (True, False):
            yield f"data: {json.dumps({'path': str(archive), 'url': address}, ensure_ascii=ascii_only)}\n\n"

    def serve(request):
        return FileResponse(request.path_params["path"])

    routes = [
        Route("/gradio_api/upload", answer_to_upload, methods=["POST"]),
        Route("/gradio_api/read", read, methods=["POST"]),
        Route("/gradio_api/echo", echo, methods=["POST"]),
        Route("/gradio_api/refuse", refuse, methods=["POST"]),
        Route("/gradio_api/stream", lambda _: StreamingResponse(stream(_), media_type="text/event-stream")),
        Route("/gradio_api/file={path:path}", serve),
        Route("/gradio_api/file/{path:path}", serve),
    ]
    with TestClient(Starlette(routes=routes, middleware=[Middleware(HiddenPaths, str(folder), names)])) as client:
        yield client


def upload(client):
    (name,) = client.post("/gradio_api/upload").json()
    return name


def test_an_upload_has_a_name_by_which_it_is_read_and_served(client, folder):
    name = upload(client)
    assert NAME.fullmatch(name)
    assert upload(client) != name
    assert client.post("/gradio_api/read", json={"data": [{"path": name, "meta": META}]}).json() is True
    for place in ("file=", "file/"):
        assert client.get(f"/gradio_api/{place}{name}").json() == [str(folder / "run 1.zip")]
    for ranges, status in (("bytes=0-1", 206), ("bytes=0-1,3-4", 200)):  # at several, Gradio fails
        assert client.get(f"/gradio_api/file={name}", headers={"range": ranges}).status_code == status
    head = client.head(f"/gradio_api/file={name}")
    assert int(head.headers["content-length"]) == (folder / "mine.json").stat().st_size


def test_an_upload_that_is_refused_is_answered_as_it_was(client):
    answer = client.post("/gradio_api/upload", content=b"large")
    assert (answer.status_code, answer.text) == (413, "too large")


def test_no_file_is_served_by_its_path(client, folder):
    upload(client)
    for asked in (str(folder / "mine.json"), quote(str(folder / "mine.json")), "/etc/passwd", "held-", "held-/x", ""):
        assert client.get(f"/gradio_api/file={asked}").status_code == 404


def test_a_name_means_a_file_only_as_an_events_input(client):
    name = upload(client)
    file = {"path": name, "meta": META}
    for sent in (
        {"data": [f"see {name}", [file], {"rows": file}, {"path": name}], name: name},
        {**file, "data": file},
        {
            "data": [
                {"path": [name], "meta": META},
                {"meta": META},
                *({**file, "meta": meta} for meta in (None, [], "x")),
            ]
        },
        [file],
    ):
        assert client.post("/gradio_api/echo", json=sent).json() == sent


def test_what_was_not_uploaded_is_no_input(client, folder):
    upload(client)
    for path in (str(folder / "mine.json"), "held-" + "0" * 32, "", "https://example.org/x"):
        sent = {"data": [{"path": path, "meta": META}]}
        assert client.post("/gradio_api/echo", json=sent).json()["data"][0]["path"] == hidden_paths.NOWHERE


@pytest.mark.parametrize("quick", [0, 2**16])
def test_a_refusal_names_no_folder(client, folder, quick, monkeypatch):
    monkeypatch.setattr(hidden_paths, "QUICK_BYTES", quick)
    answer = client.post("/gradio_api/refuse", json={"data": [{"path": upload(client), "meta": META}]})
    said = answer.json()["detail"]
    assert answer.status_code == 422
    assert said[0]["input"]["data"][0]["path"] == "uploads/mine.json"
    assert said[1] == "uploads/x"
    assert json.dumps(str(folder))[1:-1] not in answer.text


def test_a_file_that_is_gone_is_not_found(client, folder):
    name = upload(client)
    (folder / "mine.json").unlink()
    answer = client.get(f"/gradio_api/file={name}")
    assert (answer.status_code, answer.text) == (404, "no such file")


def test_a_download_keeps_what_it_is_called_and_nothing_of_where_it_lies(client):
    answer = client.get("/gradio_api/stream").text
    first, second = (json.loads(line[6:]) for line in answer.split("\n\n")[:2])
    assert first == second
    assert re.fullmatch(NAME.pattern + r"/run 1\.zip", first["path"])
    assert first["url"] == f"http://host/gradio_api/file={quote(first['path'])}"
    assert client.get(first["url"].removeprefix("http://host")).content == b"PK"
    assert client.get(f"/gradio_api/file={first['path'].partition('/')[0]}").status_code == 404


def test_what_a_visitor_wrote_stays_as_it_is(client, folder):
    client.get("/gradio_api/stream")
    sent = {"data": [f'{folder}/x, "{folder}/x" and /file={folder}/x', {"text": f'{{"path": "{folder}/mine.json"}}'}]}
    assert client.post("/gradio_api/echo", json=sent).json() == sent


def test_only_the_names_used_last_are_kept(client, monkeypatch):
    monkeypatch.setattr(hidden_paths, "MAX_DOWNLOADS", 2)
    names = FileNames()
    for path in ("/a", "/b", "/a", "/c"):
        names.offer(path)
    assert sorted(names.downloads) == ["/a", "/c"]
    assert names.path(names.downloads["/a"]) == "/a"
