"""The Learn tab: its arithmetic is the losses' own, its sliders work by keyboard, the trap is visible."""

import re

import pytest
import torch
from driving import open_tab
from playwright.sync_api import Page, expect

from stepwise_dpo.learning.losses import Side, stepwise_loss

LOSS, PULL, TRAINING = "learn_loss", "learn_pull", "learn_training"


@pytest.fixture
def learn(page: Page) -> Page:
    page.set_viewport_size({"width": 1440, "height": 2400})  # charts out of view are drawn seconds later
    open_tab(page, "Learn")
    expect(page.locator(f"#learn-lesson [data-id={LOSS}] .main-svg").first).to_be_visible()
    return page


def put(page: Page, name: str, value: float) -> None:
    page.locator(f"#learn-{name}").fill(str(value))


def traces(page: Page, chart: str) -> dict:
    """A chart's traces by name, as plotly holds them."""
    found = page.evaluate(
        "id => document.querySelector(`#learn-lesson [data-id=${id}] .figure`).data"
        ".map((trace) => ({ name: trace.name, x: [...trace.x], y: [...trace.y] }))",
        chart,
    )
    return {trace["name"]: trace for trace in found}


def annotations(page: Page, chart: str) -> list:
    read = "id => document.querySelector(`#learn-lesson [data-id=${id}] .figure`).layout.annotations"
    return page.evaluate(read, chart)


def torch_loss(factor: float, gaps: list) -> tuple[list, list]:
    """The project's own loss of a pair with this preference at these gaps, and minus its gradient by the gap."""
    d = torch.tensor([[gap] for gap in gaps], dtype=torch.float64, requires_grad=True)
    zeros = torch.zeros(len(gaps), 1, dtype=torch.float64)
    there = torch.ones(len(gaps), 1, dtype=torch.bool)
    chosen = Side(d, zeros, torch.zeros_like(there).long(), zeros + factor, there)
    rejected = Side(zeros, zeros, torch.zeros_like(there).long(), zeros, there)
    losses = stepwise_loss(chosen, rejected).losses
    losses.sum().backward()
    return losses.tolist(), (-d.grad[:, 0]).tolist()


def test_the_curves_are_those_of_the_losses(learn):
    for p, d, beta in ((2.0, -0.5, 0.5), (-5.0, 3.0, 0.01), (0.0, 0.35, 1.0), (5.0, -3.0, 3.0)):
        for name, value in (("p", p), ("d", d), ("beta", beta)):
            put(learn, name, value)
        # All three reach the charts in one drawing or several.
        learn.wait_for_function(
            "([p, d, beta]) => { const { data } = document.querySelector('#learn-lesson [data-id=learn_pull] .figure');"
            "const at = (name) => data.find((trace) => trace.name === name);"
            "const slope = (factor) => factor / (1 + Math.exp(factor * d));"
            "return Math.abs(at('DPO here').y[0] - slope(beta)) < 1e-9 && at('DPO here').x[0] === d"
            " && Math.abs(at('step-wise here').y[0] - slope(p)) < 1e-9 }",
            arg=[p, d, beta],
        )
        loss, pull = traces(learn, LOSS), traces(learn, PULL)
        for curve, spot, factor in (("DPO, factor β", "DPO here", beta), ("step-wise, factor p", "step-wise here", p)):
            losses, pulls = torch_loss(factor, loss[curve]["x"])
            assert loss[curve]["y"] == pytest.approx(losses, abs=1e-12)
            assert pull[curve]["y"] == pytest.approx(pulls, abs=1e-12)
            here = torch_loss(factor, [d])
            assert loss[spot]["y"] == pytest.approx(here[0], abs=1e-12)
            assert pull[spot]["y"] == pytest.approx(here[1], abs=1e-12)
        # The path of training: plain gradient descent, done again here.
        for curve, factor in (("DPO", beta), ("step-wise", p)):
            gaps = [d]
            for _ in range(60):
                gaps.append(gaps[-1] + 0.1 * torch_loss(factor, gaps[-1:])[1][0])
            assert traces(learn, TRAINING)[curve]["y"] == pytest.approx(gaps, abs=1e-9)


def test_the_trap_is_visible(learn):
    verdict = learn.locator(".learn-verdict")
    expect(verdict).to_contain_text("towards chosen")
    assert "trains into here" not in str(annotations(learn, LOSS))
    learn.get_by_role("button", name="Show me: p = −2").click()
    expect(verdict).to_have_text(re.compile(r"p < 0: .* lowers the gap from −0\.50 to −1\.\d\d nats, towards rejected"))
    expect(verdict).to_have_class(re.compile("negative"))
    expect(learn.locator('[data-out="stepwise-way"]')).to_have_text("left, to rejected")
    expect(learn.locator('[data-out="dpo-way"]')).to_have_text("right, to chosen")
    found = annotations(learn, LOSS)
    dpo, stepwise = found[0], found[1]
    assert dpo["x"] > dpo["ax"]
    assert stepwise["x"] < stepwise["ax"]
    assert "trains into here" in found[2]["text"]
    shape = "document.querySelector('#learn-lesson [data-id=learn_loss] .figure').layout.shapes[0]"
    assert learn.evaluate(f"({shape}).opacity") > 0
    assert learn.evaluate(f"({shape}).x1") == 0
    learn.get_by_role("button", name="No opinion: p = 0").click()
    expect(verdict).to_contain_text("trains nothing")
    expect(learn.locator('[data-out="stepwise-loss"]')).to_have_text("0.693")
    expect(learn.locator('[data-out="stepwise-way"]')).to_have_text("nowhere")


def test_sliders_have_names_and_follow_the_keyboard(learn):
    slider = learn.get_by_role("slider", name=re.compile("Preference p"))
    slider.focus()
    for _ in range(3):
        learn.keyboard.press("ArrowRight")
    expect(learn.locator("output[for=learn-p]")).to_have_text("+2.3")
    learn.keyboard.press("Home")
    expect(learn.locator("output[for=learn-p]")).to_have_text("−5.0")
    learn.keyboard.press("Tab")  # what the next slider is
    learn.keyboard.press("Tab")
    learn.keyboard.press("End")
    expect(learn.locator("output[for=learn-d]")).to_have_text("+3.00")
    expect(learn.get_by_role("slider", name=re.compile("Beta"))).to_have_value("0.5")
    learn.get_by_role("button", name="What is Pull?").first.click()
    expect(learn.get_by_text("The gradient with its sign turned").filter(visible=True)).to_be_visible()


def test_the_open_example_has_its_real_point(learn):
    stats = learn.locator("#learn-point .stat > b")
    expect(stats).to_have_count(5, timeout=60_000)
    p, d = (float(text.replace("−", "-")) for text in stats.all_inner_texts()[:2])
    learn.wait_for_function(
        "document.querySelector('#learn-lesson [data-id=learn_loss] .figure').data"
        ".some((t) => t.name === 'your example')"
    )
    point = traces(learn, LOSS)["your example"]
    assert point["x"] == pytest.approx([d], abs=5e-4)
    assert point["y"] == pytest.approx(torch_loss(p, point["x"])[0], abs=2e-3)
    learn.get_by_role("button", name="Put the sliders there").click()
    expect(learn.locator("output[for=learn-p]")).to_have_text(f"{min(5.0, p):+.1f}".replace("-", "−"))

    # Another example, another point.
    open_tab(learn, "Rewards")
    question = learn.locator("#rewards-example .question")
    before = question.inner_text()
    learn.locator("#rewards-list .list-item").nth(2).click()
    expect(question).not_to_have_text(before)
    expect(learn.locator("#rewards-list .list-item").nth(2)).to_have_attribute("aria-current", "true")
    expect(learn.locator("#rewards-example .value").first).to_be_visible(timeout=60_000)
    words = question.inner_text()
    open_tab(learn, "Learn")
    expect(learn.locator("#learn-point .question")).to_have_text(words)
    learn.wait_for_function(
        "x => document.querySelector('#learn-lesson [data-id=learn_loss] .figure').data"
        ".some((t) => t.name === 'your example' && t.x[0] !== x)",
        arg=point["x"][0],
    )
