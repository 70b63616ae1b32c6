import gradio as gr
from gradio import state_holder

from stepwise_dpo.ui.page import build_app, launch_options
from stepwise_dpo.ui.sessions import CAPACITY, LeanSession


def test_a_session_describes_no_component(tmp_path):
    demo = build_app(tmp_path)
    holder = state_holder.StateHolder()
    holder.set_blocks(demo)
    session = holder["a page"]
    assert isinstance(session, LeanSession)
    number, box = next((number, block) for number, block in demo.blocks.items() if isinstance(block, gr.Textbox))
    session[number] = changed = gr.Textbox("typed", render=False)
    session._update_config(number)
    session._update_value_in_config(number, "typed")
    assert session[number] is changed
    assert list(session.components) == []
    assert holder["another"][number] is box
    assert demo.default_config.config_for_block(number, [], box)["type"] == "textbox"


def test_states_of_a_lean_session_are_its_own(tmp_path):
    with gr.Blocks() as demo:
        count = gr.State(3)
    one, other = LeanSession(demo), LeanSession(demo)
    one[count._id] = 4
    assert (one[count._id], other[count._id]) == (4, 3)


def test_the_pages_that_are_remembered_are_bounded():
    assert launch_options()["state_session_capacity"] == CAPACITY
    assert state_holder.StateHolder().capacity > CAPACITY  # otherwise the option would be needless
