from pathlib import Path

import gradio as gr
import pytest

from stepwise_dpo.ui.components import error, note, notes
from stepwise_dpo.ui.library import Library
from stepwise_dpo.ui.page import build_app
from stepwise_dpo.ui.places import ROOT, hide_places, places_of_this_machine, without_places

PLACES = ["/srv/app/runs", "/srv/app"]


def tell(text):
    return without_places(text, PLACES)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("/srv/app/runs/x/final can't be read", "x/final can't be read"),
        ("'/srv/app/runs' is full", "'…' is full"),
        ('File "/srv/app/stepwise_dpo/a.py", line 3', 'File "stepwise_dpo/a.py", line 3'),
        ("file:///srv/app/x", "file://x"),
        ("3/4 of 1/srv", "3/4 of 1/srv"),
        ("a/srv/app of b, and/srv/app", "a/srv/app of b, and/srv/app"),
        ("/srv/application, /srv/app-2", "/srv/application, /srv/app-2"),
    ],
)
def test_places_are_left_out(said, shown):
    assert without_places(said, PLACES) == shown


def test_only_messages_are_rewritten_and_examples_never():
    library = Library((), "/srv/app/set")
    draft = {"prompt": "What is in /srv/app?"}
    texts = ["What is in /srv/app?", "<p>/srv/app</p>", error("/srv/app/x is gone") + note("see /srv/app/y")]
    told = hide_places(lambda: [library, draft, *texts], tell)()
    assert told[0] is library
    assert told[1] is draft
    assert told[2:] == [*texts[:2], error("x is gone") + note("see y")]
    assert hide_places(lambda: notes(["/srv/app/z <b>/srv/app</b>"], "Odd"), tell)() == notes(["z <b>…</b>"], "Odd")


def test_this_machines_places(tmp_path):
    places = places_of_this_machine(tmp_path / "runs")
    assert str(ROOT) in places
    assert str(tmp_path / "runs") in places
    assert "/" not in places
    assert places == sorted(places, key=len, reverse=True)


def test_errors_and_yielded_values_name_no_place():
    def fails():
        raise OSError(2, "No such file", "/srv/app/runs/x")

    def tells():
        yield error("/srv/app/runs/one")
        raise gr.Error("/srv/app/two", print_exception=False)

    with pytest.raises(gr.Error, match="No such file: 'x'"):
        hide_places(fails, tell)()
    told = hide_places(tells, tell)()
    assert next(told) == error("one")
    with pytest.raises(gr.Error) as caught:
        next(told)
    assert (caught.value.message, caught.value.print_exception) == ("two", False)


def test_a_public_page_hides_them_in_every_function_and_a_local_one_in_none(tmp_path):
    def names(demo):
        return {Path(f.fn.__code__.co_filename).name for f in demo.fns.values() if hasattr(f.fn, "__code__")}

    assert names(build_app(tmp_path, public=True)) == {"places.py"}
    assert "places.py" not in names(build_app(tmp_path, public=False))
