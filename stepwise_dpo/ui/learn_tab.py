"""Learn: the two losses with sliders, the trap of a negative preference, and the chosen example's real point."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr

from stepwise_dpo.errors import StepwiseDPOError
from stepwise_dpo.learning.names import POLICY, REWARD
from stepwise_dpo.preferences.pairs import PreferencePair
from stepwise_dpo.ui.colours import LOSS_COLOURS
from stepwise_dpo.ui.components import (
    PLOTLY_TAG,
    Shared,
    asset,
    empty_state,
    error,
    html,
    note,
    stats,
    what,
)
from stepwise_dpo.ui.glossary import GLOSSARY
from stepwise_dpo.ui.judges import Judges
from stepwise_dpo.ui.library import Library
from stepwise_dpo.ui.policies import Policies
from stepwise_dpo.ui.text import MINUS, shown, signed

CHARTS = ("learn_loss", "learn_pull", "learn_training")


class Point(NamedTuple):
    """Where an example stands.

    Attributes:
        p: preference: the sum of the chosen steps' process rewards minus that of the rejected steps'.
        d: log-likelihood of chosen minus that of rejected, in nats per token.
    """

    p: float
    d: float

    @property
    def loss(self) -> float:
        """The step-wise loss, -ln sigmoid(p d), in nats."""
        z = self.p * self.d
        return max(-z, 0.0) + math.log1p(math.exp(-abs(z)))

    @property
    def pull(self) -> float:
        """-d loss / d gap = p sigmoid(-p d): above 0 training moves the gap towards chosen."""
        return self.p * math.exp(-math.log1p(math.exp(-abs(self.p * self.d))) - max(self.p * self.d, 0.0))


def build(shared: Shared, tab: gr.Tab, judges: Judges, policies: Policies) -> None:
    """Lay out the tab and connect its events."""
    with gr.Column(elem_classes="learn-page"):
        html(formulas_html(), elem_id="learn-formulas")
        lesson = sliders(elem_id="learn-lesson")
        with gr.Column(elem_id="learn-own"):
            message = html(elem_id="learn-message")
            point = html(elem_id="learn-point")

    def on_show(library: Library, selected: int) -> Any:
        pairs = library.current.pairs
        if not pairs:
            nothing = empty_state("No examples in this set", "Add or load some in the Data tab.")
            yield [lesson_value(None), "", nothing]
            return
        pair = pairs[max(0, min(selected, len(pairs) - 1))]
        yield [gr.skip(), note("Judging the example…"), gr.skip()]
        try:
            found = point_of(pair, judges, policies)
        except StepwiseDPOError as problem:
            yield [lesson_value(None), error(str(problem)), example_html(pair, None)]
            return
        yield [lesson_value(found), "", example_html(pair, found)]

    tab.select(on_show, [shared.library, shared.selected], [lesson, message, point], show_progress="hidden")


def sliders(**options: Any) -> gr.HTML:
    """Make the lesson with its sliders and charts; its value comes from `lesson_value`."""
    return gr.HTML(
        lesson_value(None),
        html_template=lesson_html(),
        apply_default_css=False,
        head=PLOTLY_TAG,
        js_on_load=f"const drawInto = (element, props, trigger, watch) => {{\n{asset('plots.js')}\n}};\n"
        + asset("learn.js"),
        **options,
    )


def lesson_html() -> str:
    """Write the lesson with its explanations; nobody's text but ours is in it, for Gradio compiles it as JavaScript."""
    return re.sub("<!-- what:(.+?) -->", lambda term: what(term[1]), asset("learn.html"))


def lesson_value(point: Point | None) -> dict[str, Any]:
    """Write the lesson's value: the example's point, and what its charts say about themselves."""
    return {
        "example": None if point is None else point._asdict(),
        "what": {key: GLOSSARY[key]._asdict() for key in CHARTS},
    }


def formulas_html() -> str:
    """Write both losses as formulas."""
    boxes = (
        f'<div class="learn-formula" style="--formula:{LOSS_COLOURS[key]}"><h3>{name} {what(key)}</h3>{asset(file)}'
        "</div>"
        for name, key, file in (
            ("DPO", "dpo", "formula_dpo.html"),
            ("Step-wise", "stepwise", "formula_stepwise.html"),
        )
    )
    return f'<div class="learn-formulas">{"".join(boxes)}</div>'


def point_of(pair: PreferencePair, judges: Judges, policies: Policies) -> Point:
    """Find where an example stands by the bundled reward model and policy.

    Raises:
        StepwiseDPOError: a model can't be loaded, or the example is too long for it.
    """
    chosen, rejected = judges.score(REWARD, [pair], "centered")[0]
    logps = policies.logps(POLICY, [pair])[0]
    return Point(math.fsum(chosen) - math.fsum(rejected), logps.margin)


def example_html(pair: PreferencePair, point: Point | None) -> str:
    """Write an example with its numbers; without a point the prompt alone."""
    prompt = f'<p class="question"><bdi>{shown(pair.prompt)}</bdi></p>'
    return f'<div class="example">{prompt}{_numbers(point) if point else ""}</div>'


def _numbers(point: Point) -> str:
    cells: Sequence[tuple[str, str]] = [
        (signed(point.p), f"preference p {what('preference')}"),
        (signed(point.d, 3), f"gap d, nats per token {what('log_likelihood_gap')}"),
        (f"{point.loss:.3f}", f"step-wise loss, {MINUS}ln σ(p·d), nats {what('stepwise')}"),
        (signed(point.pull, 3), f"its pull on d: {meaning(point)} {what('learn_pull')}"),
        ("0.693", f"DPO’s first loss: ln 2 for every example {what('dpo')}"),
    ]
    return stats(cells)


def meaning(point: Point) -> str:
    """Say in words which way the step-wise loss trains an example."""
    if point.p > 0:
        return "towards chosen"
    return "towards rejected, the trap" if point.p < 0 else "nowhere"
