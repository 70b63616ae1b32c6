"""The Python side of the Learn tab; the sliders' arithmetic is tested where it runs, in the browser."""

import math

import pytest

from stepwise_dpo.learning.names import DATA_DIR
from stepwise_dpo.preferences.pairs import PreferencePair, Step, load_pairs
from stepwise_dpo.ui.glossary import GLOSSARY
from stepwise_dpo.ui.judges import Judges
from stepwise_dpo.ui.learn_tab import (
    CHARTS,
    Point,
    example_html,
    formulas_html,
    lesson_html,
    lesson_value,
    meaning,
    point_of,
)
from stepwise_dpo.ui.policies import Policies

HOSTILE = "<img src=x onerror=alert(1)> ${alert(1)} {{x}}"


@pytest.mark.parametrize("p", [-5, -0.3, 0, 0.01, 2, 400])
@pytest.mark.parametrize("d", [-3, -0.2, 0, 1.5, 3])
def test_a_points_loss_and_pull_are_those_of_the_loss(p, d):
    import torch

    from stepwise_dpo.learning.losses import Side, stepwise_loss

    gap = torch.tensor([[float(d)]], dtype=torch.float64, requires_grad=True)
    there = torch.ones(1, 1, dtype=torch.bool)

    def side(logps, reward):
        rewards = torch.tensor([[float(reward)]], dtype=torch.float64)
        return Side(logps, torch.zeros_like(rewards), torch.zeros(1, 1, dtype=torch.long), rewards, there)

    loss = stepwise_loss(side(gap, p), side(torch.zeros_like(gap), 0)).losses.sum()
    loss.backward()
    assert Point(p, d).loss == pytest.approx(loss.item(), abs=1e-12)
    assert Point(p, d).pull == pytest.approx(-gap.grad.item(), abs=1e-12)


def test_an_examples_point_is_that_of_the_bundled_models():
    pair = load_pairs(DATA_DIR / "heldout_prm.json")[0]
    judges, policies = Judges(), Policies()
    point = point_of(pair, judges, policies)
    chosen, rejected = judges.score("reward", [pair], "centered")[0]
    assert point.p == pytest.approx(sum(chosen) - sum(rejected))
    assert point.d == policies.logps("policy", [pair])[0].margin
    assert lesson_value(point)["example"] == {"p": point.p, "d": point.d}


def test_an_example_with_its_numbers():
    pair = PreferencePair(HOSTILE, [Step("a")], [Step("b")])
    html = example_html(pair, Point(-2.0, 0.5))
    assert "<img" not in html
    assert f"{math.log1p(math.exp(1)):.3f}" in html
    assert "−1.462" in html  # -2 sigmoid(1)
    assert "towards rejected" in html
    assert "stat" not in example_html(pair, None)
    assert html.count('class="what"') == html.count('class="stat"') == 5


def test_every_slider_explains_itself_and_the_template_holds_no_code():
    html = lesson_html()
    for title in ("Preference", "Log-likelihood gap", "Beta"):
        assert f'aria-label="What is {title}?"' in html
    assert "<!--" not in html
    assert not [part for part in ("`", "${", "{{") if part in html]


def test_directions_in_words():
    assert meaning(Point(1, -1)) == "towards chosen"
    assert meaning(Point(0, 1)) == "nowhere"


def test_charts_and_losses_explain_themselves():
    assert lesson_value(None)["example"] is None
    assert set(lesson_value(None)["what"]) == set(CHARTS) <= set(GLOSSARY)
    html = formulas_html()
    assert html.count("<math") == 3
    assert "What is DPO?" in html
