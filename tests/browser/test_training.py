import re
from pathlib import Path

import pytest
from driving import App, open_page, open_tab
from playwright.sync_api import Page, expect

SCREENSHOTS = Path(__file__).parent / "screenshots"
ENDED = 150_000
# Long enough to be stopped, short enough to end by itself should that fail.
LONG = {"#train-examples": "40", "#train-epochs": "100", "#train-batch": "4", "#train-held-out": "2"}
SHORT = {"#train-examples": "8", "#train-epochs": "4", "#train-batch": "4", "#train-held-out": "2"}


def fill(page: Page, values: dict[str, str]) -> None:
    open_tab(page, "Train")
    for field, value in values.items():
        page.locator(f"{field} input").fill(value)
        page.locator(f"{field} input").press("Tab")


def start(page: Page, app: App) -> None:
    """Press the button and wait until the new run is the one that the page shows."""
    known = len(list(app.runs_dir.glob("*/config.json")))
    page.locator("#train-start").click()
    expect(page.locator("#train-runs .list-item")).to_have_count(known + 1)
    expect(page.locator("#train-runs .list-item").first).to_have_attribute("aria-current", "true")


def state(page: Page, name: str):
    return page.locator(f'#train-head [data-state="{name}"]')


def points(page: Page, chart: str = "loss") -> int:
    """How many points the first curve of a chart has, as plotly holds them."""
    return page.evaluate(
        "id => document.querySelector(`#train-charts [data-id=${id}] .figure`)?.data?.[0]?.x?.length ?? 0", chart
    )


def wait_for_points(page: Page, count: int) -> None:
    page.wait_for_function(
        "n => (document.querySelector('#train-charts [data-id=loss] .figure')?.data?.[0]?.x?.length ?? 0) >= n",
        arg=count,
        timeout=ENDED,
    )


def updates(page: Page) -> int:
    return int(page.locator("#train-charts [data-id=loss] .figure").get_attribute("data-updates") or 0)


def test_a_short_dpo_run_to_its_end_and_its_comparison(page, app):
    fill(page, SHORT)
    page.get_by_label("DPO", exact=True).check()
    expect(page.locator("#train-start")).to_have_text("Train 8 steps")
    start(page, app)
    expect(state(page, "finished")).to_be_visible(timeout=ENDED)
    expect(page.locator("#train-head")).to_contain_text("8 / 8")
    assert points(page) == 8
    assert points(page, "accuracy") == 8
    first = page.evaluate("document.querySelector('#train-charts [data-id=loss] .figure').data[0].y[0]")
    assert first == pytest.approx(0.693147, abs=1e-4)
    expect(page.locator("#train-runs .list-item").first).to_contain_text("finished")

    open_tab(page, "Compare")
    expect(page.locator("#compare-summary")).to_contain_text("Preference accuracy")
    expect(page.locator("#compare-summary")).to_contain_text("measured on 2 examples, none of them trained on")
    expect(page.locator("#compare-example .value").first).to_have_text(re.compile(r"^(\+|−)?\d+\.\d\d$"))
    page.locator("#compare-examples .list-item").nth(1).click()
    expect(page.locator("#compare-examples .list-item").nth(1)).to_have_attribute("aria-current", "true")


def test_a_short_stepwise_run_has_its_own_curves(page, app):
    open_tab(page, "Train")
    page.get_by_label("Step-wise", exact=True).check()
    expect(page.locator("#train-formula")).to_contain_text("preference p")
    expect(page.locator("#train-beta")).to_be_hidden()
    expect(page.locator("#train-reward-model")).to_be_visible()
    expect(page.locator("#train-rate input")).to_have_value("0.000003")
    fill(page, SHORT | {"#train-rate": "0.00001"})
    page.get_by_label("DPO", exact=True).check()
    expect(page.locator("#train-formula")).to_contain_text("Starts at ln 2")
    expect(page.locator("#train-beta input")).to_have_value("3")
    expect(page.locator("#train-rate input")).to_have_value("0.00001")  # what was typed stays
    page.get_by_label("Step-wise", exact=True).check()
    expect(page.locator("#train-formula")).to_contain_text("preference p")
    start(page, app)
    expect(state(page, "finished")).to_be_visible(timeout=ENDED)
    assert points(page) == 8
    assert points(page, "process") == 8
    assert points(page, "negative") == 8


def test_zoom_and_run_survive_updates_a_refresh_and_stop(page, app, watch):
    fill(page, LONG)
    start(page, app)
    wait_for_points(page, 2)
    # Zoom as a user does: drag over the plot, from where the pointer really reaches it.
    read = "document.querySelector('#train-charts [data-id=loss] .figure')._fullLayout.xaxis.range"
    plot = page.locator("#train-charts [data-id=loss] .nsewdrag")
    box = plot.bounding_box()
    plot.hover(position={"x": box["width"] * 0.1, "y": box["height"] * 0.5})
    box = plot.bounding_box()
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.5, steps=5)
    page.mouse.up()
    page.wait_for_function(f"(range => range[1] - range[0] < 600)({read})")
    zoomed, seen, drawn = page.evaluate(read), points(page), updates(page)
    wait_for_points(page, seen + 5)
    assert updates(page) > drawn
    assert page.evaluate(read) == zoomed

    # The same visitor after a refresh, or another one, finds it running and live.
    watch.refresh()
    expect(page.locator("#chip .chip")).to_contain_text("/ 1,000")
    page.locator("#chip .chip").click()
    expect(state(page, "running")).to_be_visible()
    wait_for_points(page, seen + 7)

    # A second run would share the cores: it is refused in words, the first goes on.
    page.locator("#train-start").click()
    expect(page.locator("#train-message")).to_contain_text("is still active")
    page.get_by_role("button", name="Stop and keep").click()
    expect(state(page, "stopped, kept")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("button", name="Stop and keep")).to_be_hidden()
    expect(page.locator("#train-runs .list-item").first).to_contain_text("stopped, kept")


def test_bad_settings_are_explained_beside_the_button(page, app):
    fill(page, {"#train-epochs": "0"})
    page.locator("#train-start").click()
    expect(page.locator("#train-message")).to_contain_text("epochs")
    fill(page, {"#train-epochs": "1", "#train-examples": "8", "#train-batch": "4", "#train-held-out": "0"})
    model = page.locator("#train-model input")
    model.fill("/nowhere/at/all")
    model.press("Enter")
    start(page, app)
    expect(state(page, "failed")).to_be_visible(timeout=ENDED)
    expect(page.locator("#train-head .message.error")).to_contain_text("no such folder")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_nothing_scrolls_sideways(app, browser, width, theme):
    """Runs last, so that there are runs to show; leaves pictures for people to look at."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    open_page(page, app.url)
    marks = {
        "Data": "#data-list .list-item",
        "Rewards": "#rewards-example .value",
        "Train": "#train-runs .list-item",
        "Compare": "#compare-example .value",
    }
    for name, mark in marks.items():
        open_tab(page, name)
        expect(page.locator(mark).first).to_be_visible(timeout=30_000)
        if name == "Train":
            page.locator("#train-runs .list-item").filter(has_text="Step-wise").click()
            expect(page.locator("#train-charts .main-svg").first).to_be_visible()
        page.screenshot(path=SCREENSHOTS / f"{name.lower()}-{width}-{theme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
