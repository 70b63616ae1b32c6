"""Free text that the browser keeps over a refresh, a tab's own: nobody else gets it, and no server stores it.

Unlike the Train form's, see `kept_form`, it is kept by the browser alone: an answer of the server could come after the
next key.
"""

import json

import gradio as gr

from stepwise_dpo.ui.components import asset

BOX = "keeps-text"
"""The class of the part of a page whose text areas `keeper` keeps."""

MAX_KEPT = 20_000
"""Characters of a tab, all its fields together. A longer text isn't kept: no tab does anything with one."""

JUDGED, ASKED = "judged-text", "asked-problem"
"""The tabs' names for it: Rewards' problem and solution, and Compare's problem."""


def keeper(name: str) -> gr.HTML:
    """Make what keeps the text areas of the part around it, of class `BOX`, while somebody types."""
    settings = f"const key = {json.dumps(_key(name))}, most = {MAX_KEPT}, around = {json.dumps(f'.{BOX}')};\n"
    return gr.HTML(
        None, html_template="", js_on_load=settings + asset("typed.js"), elem_classes="text-keeper", padding=False
    )


def kept_js(name: str, fields: int) -> str:
    """Write what puts the text back into fields that are all empty, by Gradio itself: a script's text can vanish.

    Args:
        name: as the `keeper`'s.
        fields: how many there are.
    """
    return f"""(...shown) => {{
  if (shown.some((text) => text)) return {_returned(fields)};
  try {{
    const kept = JSON.parse(localStorage.getItem({json.dumps(_key(name))}));
    const whole = Array.isArray(kept) && kept.length === {fields} && kept.every((text) => typeof text === 'string');
    if (whole && kept.join('').length <= {MAX_KEPT}) shown = kept;
  }} catch {{
    // no storage, or not ours
  }}
  return {_returned(fields)};
}}"""


def _returned(fields: int) -> str:
    # Gradio takes the value of a single output as it is.
    return "shown" if fields > 1 else "shown[0]"


def _key(name: str) -> str:
    return f"stepwise-dpo-{name}"
