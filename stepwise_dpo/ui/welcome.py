"""The first steps: what a first visitor can do here, until the visitor hides them."""

import gradio as gr

from stepwise_dpo.ui.components import asset
from stepwise_dpo.ui.text import shown
from stepwise_dpo.ui.train_form import DEMO_EXAMPLES
from stepwise_dpo.ui.train_words import demo_words

_STEPS = (
    ("rewards", "See the rewards", "A small reward model has judged every step of an example. Find the wrong one."),
    (
        "train",
        "Train",
        f"Press the button as it is: training on {DEMO_EXAMPLES} mistakes, {demo_words()}, with live curves.",
    ),
    ("compare", "Compare", "What changed: preferences that flipped, problems solved, step by step."),
)

# Before the page is drawn, so that whoever has hidden them never sees them flash.
HEAD = """<script>
try { if (localStorage.getItem('stepwise-dpo-welcomed')) document.documentElement.classList.add('welcomed'); }
catch { /* no storage: the first steps stay */ }
</script>"""


def build() -> gr.HTML:
    """Make the row of first steps; its `choose` event brings {"key": tab}."""
    steps = "".join(
        f'<li><button type="button" data-tab="{tab}"><b>{number}. {shown(title)}</b><span>{shown(words)}</span>'
        "</button></li>"
        for number, (tab, title, words) in enumerate(_STEPS, 1)
    )
    close = '<button type="button" class="welcome-close">Got it, hide</button>'
    return gr.HTML(
        f'<section class="welcome" aria-label="First steps"><ol>{steps}</ol>{close}</section>',
        apply_default_css=False,
        js_on_load=asset("welcome.js"),
        elem_id="welcome",
    )
