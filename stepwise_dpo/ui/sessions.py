"""What Gradio keeps for each page that is opened, without what this page doesn't use."""

from types import SimpleNamespace

import gradio as gr
from gradio import state_holder

CAPACITY = 500
"""Pages whose state is kept, those that were used last: Gradio forgets a closed one's state, never its own record, of
about 250 KiB. An open page that loses its state, hidden for long on a busy server, loads itself again."""


class LeanSession(state_holder.SessionState):
    """Gradio's, which describes no component.

    Gradio keeps a description of each for links to a session's state, which this page has none of. The first took 60 ms
    of the server's only event loop for every page that was opened, and half a megabyte for as long as the server ran;
    later ones are made for each output of each event.
    """

    def __init__(self, blocks: gr.Blocks) -> None:
        super().__init__(SimpleNamespace(default_config=blocks.default_config, blocks={}))  # type: ignore[arg-type]
        # Of the session's own copy; only pages that are rendered anew by an event read what it says.
        self.blocks_config.config_for_block = lambda *_: {}  # type: ignore[method-assign]


def use_lean_sessions() -> None:
    """Let Gradio make such sessions from now on."""
    state_holder.SessionState = LeanSession  # type: ignore[misc]
