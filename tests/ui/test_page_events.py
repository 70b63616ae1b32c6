"""What the page's own events do where no browser is needed to see it."""

import gradio as gr
import pytest

from stepwise_dpo.ui.address import LOST
from stepwise_dpo.ui.page import AT_ONCE, build_app


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return build_app(tmp_path_factory.mktemp("runs"))


def component(page, elem_id):
    return next(number for number, block in page.blocks.items() if getattr(block, "elem_id", None) == elem_id)


def event(page, elem_id, kind):
    """The function that an event of a component calls, and its outputs."""
    target = (component(page, elem_id), kind)
    return next(function for function in page.fns.values() if target in function.targets)


def test_no_event_waits_for_another_of_its_kind_or_marks_the_whole_page(page):
    own = [function for function in page.fns.values() if function.api_visibility == "private"]
    assert len(own) > 50
    for function in page.fns.values():
        assert function.concurrency_limit != "default", function.name
    assert AT_ONCE in {function.concurrency_limit for function in own}
    for function in own:
        if function.show_progress == "hidden" and function.fn is not None:
            assert [block.elem_id for block in function.show_progress_on] == ["address"], function.name


def test_a_page_that_the_server_has_let_go_of_is_told_so(page):
    moved = event(page, "pulse", "moved")
    answer = moved.fn("", *[None] * (len(moved.inputs) - 1))
    sent = dict(zip([block.elem_id for block in moved.outputs], answer, strict=True))
    assert sent.pop("address") == LOST
    assert all(value == gr.skip() for value in sent.values())
    follow = event(page, "address", "follow")
    assert follow.fn("", None, 0, "", None, None) == [LOST, gr.skip()]


def test_what_is_saved_on_such_a_page_is_not_called_saved(page):
    """Nobody knows whose it would be: the browser keeps the draft, and loads the page again."""
    save = event(page, "data-editor", "save")
    data = gr.EventData(None, {"key": "x", "index": 0, "draft": {}})
    states = [block.value for block in save.inputs]
    assert states[0] == ""  # the visitor, in a state that was never filled
    answer = save.fn(data, *states)
    sent = dict(zip([block.elem_id or number for number, block in enumerate(save.outputs)], answer, strict=True))
    assert "nothing was changed" in sent["data-message"]
    assert sent["data-editor"] == gr.skip()
