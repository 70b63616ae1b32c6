"""The form of the generator of labelled problems."""

from typing import Any, NamedTuple

import gradio as gr

from stepwise_dpo.preferences.synthetic import CORRUPTIONS, FAMILIES
from stepwise_dpo.ui.data_actions import to_avoid
from stepwise_dpo.ui.library import Library
from stepwise_dpo.ui.recipe import MAX_GENERATED, PUBLIC_MAX_GENERATED
from stepwise_dpo.ui.text import counted


class Generator(NamedTuple):
    """The form: its fields in the order of `recipe.Recipe`, the field of sets to avoid, and its button."""

    fields: list[Any]
    avoid: gr.Dropdown
    button: gr.Button


def generator(bundled: Library, public: bool) -> Generator:
    """Lay out the form, folded; on a public page the number of examples has a lower limit."""
    limit = PUBLIC_MAX_GENERATED if public else MAX_GENERATED
    small: dict[str, Any] = {"precision": 0, "min_width": 90}
    with gr.Accordion("Generate examples", open=False, elem_id="data-generate"):
        families = gr.Dropdown(
            list(FAMILIES),
            multiselect=True,
            label="Families of problems",
            info="none chosen: all",
            elem_id="data-families",
        )
        corruptions = gr.Dropdown(
            [(name.replace("_", " "), name) for name in CORRUPTIONS],
            multiselect=True,
            label="Kinds of mistakes",
            info="none chosen: all",
            elem_id="data-corruptions",
        )
        with gr.Row():
            n = gr.Number(
                100, label="Examples", info=f"up to {limit:,}", minimum=1, maximum=limit, elem_id="data-n", **small
            )
            seed = gr.Number(7, label="Seed", info="same seed, same set", minimum=0, elem_id="data-seed", **small)
        with gr.Row():
            fewest = gr.Number(2, label="Fewest steps", minimum=2, maximum=12, elem_id="data-fewest", **small)
            most = gr.Number(6, label="Most steps", minimum=2, maximum=12, elem_id="data-most", **small)
        max_number = gr.Number(100, label="Largest number", minimum=20, maximum=10**6, elem_id="data-largest", **small)
        avoid = gr.Dropdown(
            bundled.names,
            value=to_avoid(bundled),
            multiselect=True,
            label="No problem that is in",
            info="so that nothing held out is trained on",
            elem_id="data-avoid",
        )
        button = gr.Button("Generate examples", variant="primary", size="sm", elem_id="data-make")
    n.change(
        lambda value: f"Generate {counted(int(value), 'example')}" if value and value > 0 else "Generate examples",
        n,
        button,
        show_progress="hidden",
    )
    return Generator([families, corruptions, n, seed, fewest, most, max_number, avoid], avoid, button)
