"""The page: header, four tabs, one timer."""

import os
from pathlib import Path
from typing import Any

import gradio as gr

from stepwise_dpo.errors import DataError
from stepwise_dpo.learning.names import DATA_DIR
from stepwise_dpo.preferences.pairs import load_pairs
from stepwise_dpo.runs.supervisor import Supervisor
from stepwise_dpo.ui import compare_tab, data_tab, rewards_tab, train_tab
from stepwise_dpo.ui.components import PLOTLY_JS, Shared, choice_list, html, stylesheet
from stepwise_dpo.ui.judges import Judges
from stepwise_dpo.ui.library import ExampleSet, Library

TITLE = "Stepwise DPO"
BUNDLED = ("onpolicy_prm.json", "synthetic_prm.json", "heldout_prm.json")
LOCAL_SECONDS, SPACE_SECONDS = 0.8, 2.5  # Spaces answer 429 to a faster poll

_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]


def build_app(
    runs_dir: str | os.PathLike[str] = "runs", data_dir: str | os.PathLike[str] = DATA_DIR, public: bool | None = None
) -> gr.Blocks:
    """Build the page; nothing of torch is imported and no file is written before somebody uses it.

    Args:
        runs_dir: where runs are kept and found again.
        data_dir: holds the bundled example sets; one that is missing or broken is left out.
        public: whether strangers use the page, so that models come from a list and runs are short; by default that
            is so on a Hugging Face Space.
    """
    on_space = bool(os.environ.get("SPACE_ID"))
    public = on_space if public is None else public
    supervisor, judges = Supervisor(runs_dir), Judges()
    gr.set_static_paths([PLOTLY_JS])

    # Uploads are deleted an hour after they came; they are read at once.
    demo = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600), fill_width=True)
    with demo:
        with gr.Column(elem_id="page"):
            html(f"<h1>{TITLE}</h1>", elem_id="brand")
            chip = choice_list(elem_id="chip")
            shared = Shared(gr.State(bundled_library(Path(data_dir))), gr.State(0), gr.State(""), gr.State(""))
            # Wrapped: the other way measures the tabs at times before their style is there, and hides one that fits.
            with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
                with gr.Tab("Data", id="data") as tab:
                    data_tab.build(shared, tab, demo)
                with gr.Tab("Train", id="train") as tab:
                    train = train_tab.build(shared, tab, supervisor, public, chip)
                with gr.Tab("Rewards", id="rewards") as tab:
                    rewards_tab.build(shared, tab, judges, public)
                with gr.Tab("Compare", id="compare") as tab:
                    compare_tab.build(shared, tab, supervisor)

        def on_chip(event: gr.EventData) -> list[Any]:
            key = event._data.get("key") if isinstance(event._data, dict) else None
            return [key if isinstance(key, str) else "", gr.Tabs(selected="train")]

        # One timer for the page: inactive tabs are not rendered, and a hidden page doesn't tick.
        timer = gr.Timer(SPACE_SECONDS if on_space else LOCAL_SECONDS)
        timer.tick(train.look, train.inputs, train.outputs, show_progress="hidden", concurrency_limit=None)
        demo.load(train.look, train.inputs, train.outputs, show_progress="hidden")
        chip.choose(on_chip, None, [shared.run_id, tabs], show_progress="hidden")
    # Also a launch option; set here too because the reload of `gradio app.py` forgets that one.
    demo.run_history = False
    demo.queue(default_concurrency_limit=4)
    return demo


def launch_options() -> dict[str, Any]:
    """Everything that `launch` has to be told for the page to look and behave as it should."""
    return {
        "theme": _theme(),
        "css": stylesheet(),
        "footer_links": [],
        "ssr_mode": False,  # on a Space it would need Node
        "run_history": False,  # would keep other people's text in the browser
        "max_file_size": "64mb",
        "show_error": True,
    }


def bundled_library(data_dir: Path) -> Library:
    """Read the bundled sets; without any, an empty one to start from."""
    sets = []
    for name in BUNDLED:
        try:
            sets.append(ExampleSet(name, tuple(load_pairs(data_dir / name))))
        except DataError:
            continue
    return Library(tuple(sets), sets[0].name) if sets else Library((ExampleSet("new set", ()),), "new set")


def _theme() -> gr.themes.Base:
    theme = gr.themes.Base(
        primary_hue="teal",
        neutral_hue="slate",
        font=_FONTS,
        font_mono=["ui-monospace", "Menlo", "monospace"],
        radius_size="md",
    )
    # The colours themselves live in page.css. Both names are set, since dark values are declared apart.
    colours = {f"{name}{mode}": f"var({variable})" for name, variable in _COLOURS.items() for mode in ("", "_dark")}
    return theme.set(
        input_border_width="1px",
        input_border_width_dark="1px",
        button_border_width="1px",
        button_border_width_dark="1px",
        block_border_width="0px",
        block_border_width_dark="0px",
        block_shadow="none",
        button_small_text_weight="500",
        button_large_text_size="*text_md",
        **colours,
    )


_COLOURS = {
    "body_background_fill": "--sd-surface",
    "body_text_color": "--sd-ink",
    "body_text_color_subdued": "--sd-muted",
    "background_fill_primary": "--sd-surface",
    "background_fill_secondary": "--sd-soft",
    "block_background_fill": "--sd-surface",
    "block_border_color": "--sd-line",
    "block_label_text_color": "--sd-muted",
    "block_title_text_color": "--sd-ink",
    "block_info_text_color": "--sd-muted",
    "border_color_primary": "--sd-line",
    "input_background_fill": "--sd-surface",
    "input_border_color": "--sd-line",
    "input_border_color_focus": "--sd-accent",
    "button_primary_background_fill": "--sd-accent",
    "button_primary_background_fill_hover": "--sd-accent",
    "button_primary_text_color": "--sd-accent-ink",
    "button_secondary_background_fill": "--sd-surface",
    "button_secondary_background_fill_hover": "--sd-soft",
    "button_secondary_border_color": "--sd-line",
    "button_secondary_border_color_hover": "--sd-zero",
    "button_primary_border_color": "--sd-accent",
    "button_primary_border_color_hover": "--sd-accent",
    "button_secondary_text_color": "--sd-ink",
    "panel_background_fill": "--sd-surface",
    "checkbox_label_background_fill": "--sd-surface",
    "checkbox_label_background_fill_hover": "--sd-soft",
    "checkbox_label_background_fill_selected": "--sd-soft",
    "checkbox_label_border_color": "--sd-line",
    "checkbox_background_color_selected": "--sd-accent",
    "checkbox_border_color_selected": "--sd-accent",
    "slider_color": "--sd-accent",
}
