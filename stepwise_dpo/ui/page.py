"""The page: header, tabs, the address, and what keeps them up to date."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from stepwise_dpo.errors import DataError, RunError
from stepwise_dpo.learning.names import DATA_DIR
from stepwise_dpo.preferences.pairs import load_pairs
from stepwise_dpo.runs.supervisor import Supervisor
from stepwise_dpo.ui import api, compare_tab, data_tab, learn_tab, pulse, rewards_link, rewards_tab, train_tab, welcome
from stepwise_dpo.ui.address import LOST, NO_REWARDS, Address, address_of, arrive, read_address
from stepwise_dpo.ui.compare_choice import Session
from stepwise_dpo.ui.compare_link import link_of
from stepwise_dpo.ui.components import PLOTLY_JS, PLOTLY_URL, Shared, asset, choice_list, html, note, notes, stylesheet
from stepwise_dpo.ui.hidden_paths import HiddenPaths
from stepwise_dpo.ui.judges import Judges
from stepwise_dpo.ui.library import BUNDLED_SETS, ExampleSet, Library
from stepwise_dpo.ui.places import hide_places
from stepwise_dpo.ui.policies import Policies
from stepwise_dpo.ui.request_bodies import CheckedBodies
from stepwise_dpo.ui.run_reader import RunReader
from stepwise_dpo.ui.security import SecurityHeaders, fetch_nothing
from stepwise_dpo.ui.sessions import CAPACITY, use_lean_sessions
from stepwise_dpo.ui.visitors import known_or_new
from stepwise_dpo.ui.workspace import Workspace

TITLE = "Stepwise DPO"
AT_ONCE = 4
"""Events of a kind that are answered at the same time, where nothing else is said."""

SCROLLING = "<style>@media (min-width: 901px) { html { scroll-padding-top: 60px; } }</style>"
"""In the document's head: what is scrolled to, or has the focus, stops below the header, which page.css makes 56 px
high. Gradio keeps the rest of our styles from the document itself."""

PUBLIC_WORKSPACE: dict[str, Any] = {"max_bytes": 32 * 2**20, "keep_seconds": 24 * 3600.0}

_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]


def build_app(
    runs: str | os.PathLike[str] | Supervisor = "runs",
    data_dir: str | os.PathLike[str] = DATA_DIR,
    public: bool | None = None,
) -> gr.Blocks:
    """Build the page; nothing of torch is imported and no file is written before somebody uses it.

    Args:
        runs: where runs are kept and found again; or their supervisor, which has limits and a queue.
        data_dir: holds the bundled example sets; one that is missing or broken is left out.
        public: whether strangers use the page, so that models come from a list and runs are short; by default that
            is so on a Hugging Face Space.
    """
    on_space = bool(os.environ.get("SPACE_ID"))
    public = on_space if public is None else public
    supervisor = runs if isinstance(runs, Supervisor) else Supervisor(runs)
    reader, judges, policies = RunReader(supervisor, public), Judges(), Policies()
    known = bundled_library(Path(data_dir))
    workspace = Workspace(supervisor.runs_dir / "workspaces", known, **(PUBLIC_WORKSPACE if public else {}))
    use_lean_sessions()
    fetch_nothing()

    # Uploads are deleted an hour after they came; they are read at once.
    demo = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600), fill_width=True)
    with demo:
        with gr.Column(elem_id="page"):
            html(f"<h1>{TITLE}</h1>", elem_id="brand")
            chip = choice_list(elem_id="chip")
            # Its secret has to be the same after a restart, or the browser could not read what it kept; what is kept
            # is a secret of its own.
            browser = gr.BrowserState("", storage_key="stepwise-dpo-visitor", secret="stepwise-dpo")
            # Here and not within its tab, where the browser reads it back only once that has been opened.
            kept = gr.BrowserState("", storage_key="stepwise-dpo-train-form", secret="stepwise-dpo")
            comparison = gr.State(Session())
            shared = Shared(gr.State(known), gr.State(0), gr.State(""), gr.State(""), gr.State(0.0), comparison, kept)
            asks_every = pulse.SPACE_SECONDS if on_space else pulse.PUBLIC_SECONDS if public else pulse.LOCAL_SECONDS
            asking = pulse.build(reader, asks_every)
            first_steps = welcome.build()
            message = html(elem_id="page-message")
            # Wrapped: the other way measures the tabs at times before their style is there, and hides one that fits.
            with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
                with _tab("Data") as tab:
                    data = data_tab.build(shared, tab, workspace, policies, public=public, tell=reader.tell)
                with _tab("Train") as tab:
                    train = train_tab.build(shared, tab, reader, chip, asking, data)
                with _tab("Rewards") as tab:
                    rewards_fields = rewards_tab.build(shared, tab, judges, policies, reader, asking)
                with _tab("Compare") as tab:
                    compare_tab.build(shared, tab, reader, judges, policies, asking)
                with _tab("Learn") as tab:
                    learn_tab.build(shared, tab, judges, policies)
            address = gr.HTML(None, html_template="", js_on_load=asset("address.js"), elem_id="address", padding=False)
            gr.HTML(None, html_template="", js_on_load=asset("radios.js"), elem_id="radios", padding=False)
            here = gr.State(None)

        def on_follow(
            visitor: str, library: Library, selected: int, run_id: str, compared: Session, before: object, *rewards: Any
        ) -> list[Any]:
            if not visitor:  # the page has not arrived yet, or its state is gone
                return [LOST, gr.skip()]
            now = address_of(library, selected, run_id) | link_of(compared, run_id) | rewards_link.link_of(*rewards)
            return [now, now] if now != before else [gr.skip(), gr.skip()]

        def on_run(*sent: Any) -> list[Any]:
            state = len(train.inputs)
            return [*on_follow(*sent[:-state]), *train.look(*sent[-state:])]

        def on_moved(visitor: str, *state: Any) -> list[Any]:
            if not visitor:
                return [gr.skip(), LOST, *[gr.skip()] * len(train.outputs)]
            return [pulse.beat(reader, visitor, asks_every), gr.skip(), *train.look(visitor, *state)]

        def on_load(token: object, request: gr.Request) -> list[Any]:
            visitor = known_or_new(token)
            asked = read_address(dict(request.query_params))
            own, lost = workspace.load(visitor)
            library, selected, lacking = arrive(own, asked)
            try:
                run_id = reader.own(visitor).run(asked.run).id if asked.run else ""
            except RunError:
                run_id = ""
                lacking = "\n".join(filter(None, [lacking, f"This link leads to a run “{asked.run}” that isn't here."]))
            compared = Session(run=run_id, link=asked.comparison)
            rewards = rewards_link.fields_of(asked.rewards, public)
            now = address_of(library, selected, run_id) | link_of(compared, run_id) | rewards_link.link_of(*rewards)
            fields = [gr.skip()] * len(rewards) if asked.rewards == NO_REWARDS else list(rewards)
            tab = gr.Tabs(selected=asked.tab) if asked.tab else gr.skip()
            remarks = notes(lost, "Not all of your earlier changes could be read back") + note(lacking)
            session = [visitor, library, selected, run_id, time.time(), compared]
            return [visitor, *session, *fields, tab, remarks, now, now]

        def on_chip(event: gr.EventData) -> list[Any]:
            return [_key(event), gr.Tabs(selected="train")]

        def on_first_step(event: gr.EventData) -> Any:
            return gr.Tabs(selected=Address(_key(event)).tab)

        unlimited: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}
        following: tuple[Any, ...] = (
            on_follow,
            [shared.visitor, shared.library, shared.selected, shared.run_id, shared.comparison, here, *rewards_fields],
            [address, here],
        )
        moving: tuple[Any, ...] = (on_moved, train.inputs, [asking, address, *train.outputs])
        session = [shared.visitor, shared.library, shared.selected, shared.run_id, shared.arrived, shared.comparison]
        arrived = [browser, *session, *rewards_fields, tabs, message, address, here]
        demo.load(on_load, browser, arrived, show_progress="hidden").then(*moving, **unlimited)
        asking.moved(*moving, **unlimited)
        # Set, example and run are chosen in many places: the address follows them all, and the Train tab the run.
        for followed in (address.follow, data.open_set.change, shared.selected.change):
            followed(*following, **unlimited)
        shared.run_id.change(on_run, [*following[1], *train.inputs], [*following[2], *train.outputs], **unlimited)
        chip.choose(on_chip, None, [shared.run_id, tabs], show_progress="hidden").then(
            None, None, None, js=train_tab.SHOW_RUN
        )
        first_steps.choose(on_first_step, None, tabs, show_progress="hidden")
        # Clients call the functions that are made for them, not what a click on the page does. Within the same block:
        # with each that ends, Gradio makes a web app of the page, which takes a part of a second.
        for function in demo.fns.values():
            function.api_visibility = "private"
            # Else each output of each event so far gets its progress noted at each event, and with a container all
            # that is in it: most of what a browser did while it watched a run.
            if function.show_progress == "hidden" and not function.show_progress_on:
                function.show_progress_on = [address]
        api.build(api.Endpoints(known, reader, judges, policies))
        # Not by Blocks.queue(), which makes another web app of the page at start.
        for function in demo.fns.values():
            if function.concurrency_limit == "default":
                function.concurrency_limit = AT_ONCE
    if public:
        workspace.purge_hourly()
        for function in demo.fns.values():
            if function.fn is not None:
                function.fn = hide_places(function.fn, reader.tell)
    # Also a launch option; set here too because the reload of `gradio app.py` forgets that one.
    demo.run_history = False
    return demo


@contextmanager
def _tab(name: str) -> Iterator[gr.Tab]:
    """Open a tab with the heading that screen readers need between the page's name and the tab's parts."""
    with gr.Tab(name, id=name.lower()) as tab:
        html(f'<h2 class="out-of-sight">{name}</h2>')
        yield tab


def _key(event: gr.EventData) -> str:
    key = event._data.get("key") if isinstance(event._data, dict) else None
    return key if isinstance(key, str) else ""


def launch_options(public: bool = False) -> dict[str, Any]:
    """Everything that `launch` has to be told for the page to look and behave as it should.

    Args:
        public: whether strangers use the page.
    """
    return {
        "theme": _theme(),
        "css": stylesheet(),
        "head": welcome.HEAD + SCROLLING,
        "footer_links": ["api"],
        "ssr_mode": False,  # on a Space it would need Node
        "run_history": False,  # would keep other people's text in the browser
        "max_file_size": "64mb",
        "state_session_capacity": CAPACITY,
        # What our own functions raise is shown anyway; Gradio's own errors name folders of this machine.
        "show_error": not public,
        "app_kwargs": {
            "middleware": [
                Middleware(SecurityHeaders, on_space=bool(os.environ.get("SPACE_ID"))),
                Middleware(CheckedBodies),
                Middleware(HiddenPaths, folder=get_upload_folder()),
            ],
            "routes": [Route(PLOTLY_URL, _plotly), Route("/gradio_api/mcp/schema", _no_tools)],
        },
    }


def _plotly(_: Request) -> FileResponse:
    # Its address names its version.
    return FileResponse(PLOTLY_JS, media_type="text/javascript", headers={"Cache-Control": "public, max-age=604800"})


def _no_tools(_: Request) -> Response:
    # “Use via API” asks here for tools of language models, which this app doesn't offer. An answer of 200 to 299 would
    # make it say that they are there; at 404, Gradio's own, the browser logs an error. This is neither.
    return Response(status_code=300)


def bundled_library(data_dir: Path) -> Library:
    """Read the bundled sets; without any, an empty one to start from."""
    sets = []
    for name in BUNDLED_SETS:
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
