"""A visitor with a phone: 390 pixels and a finger, through every tab, with pictures for people to look at."""

import csv
import re
from pathlib import Path

import pytest
from driving import App, open_tab, take_picture, too_wide, violations
from finished_runs import FIRST, HELD_OUT, MEASURED
from playwright.sync_api import Locator, Page, expect

from stepwise_dpo.preferences.pairs import save_pairs

WIDTH, HEIGHT = 390, 844
PAIRS = HELD_OUT[:9]
ENDED = 150_000
# Long enough to be stopped, short enough to end by itself should that fail.
LONG = {"#train-examples": "7", "#train-epochs": "400", "#train-batch": "4", "#train-held-out": "2"}


@pytest.fixture
def app(measured_app: App) -> App:
    return measured_app


@pytest.fixture
def phone(app: App, visit) -> Page:
    return visit(app.url, width=WIDTH, height=HEIGHT, phone=True).page


def fits(page: Page, name: str) -> None:
    """Nothing is wider than the screen, and each thing to tap is large enough or has room around it."""
    take_picture(page, f"phone-{name}-screen", whole=False)
    take_picture(page, f"phone-{name}")
    assert too_wide(page) == []
    assert page.evaluate("visualViewport.scale") == 1
    assert too_small(page) == []


def too_small(page: Page) -> list[str]:
    """What is too small for a finger; a bar that stays in view covers a part of something at most places of scrolling.

    axe counts only what is uncovered, so how far the page happened to be scrolled would decide: meanwhile the bars
    stand where they belong.
    """
    bars = page.evaluate_handle(
        """() => [...document.querySelectorAll("*")].filter((part) => getComputedStyle(part).position === "sticky")"""
    )
    bars.evaluate("(bars) => { for (const bar of bars) bar.style.position = 'relative'; }")
    found = violations(page, "target-size")
    bars.evaluate("(bars) => { for (const bar of bars) bar.style.position = ''; }")
    return found


def pick(page: Page, field: str, option: str) -> None:
    page.locator(f"{field} input").tap()
    page.locator(field).get_by_role("option", name=option, exact=True).tap()
    expect(page.get_by_role("option")).to_have_count(0)


def is_on_screen(part: Locator) -> None:
    """Somebody who has just tapped sees this without scrolling."""
    expect(part).to_be_in_viewport(ratio=1)


def test_a_phone_goes_through_every_tab(phone, app, tmp_path):
    load_a_set(phone, tmp_path / "nine.json")
    edit_save_and_undo(phone)
    train_and_stop(phone)
    open_an_example_from_the_heatmap(phone)
    compare_filter_and_download(phone)
    move_a_slider(phone)
    delete_the_run(phone, app)
    unfold_what_the_data_tab_folds(phone)


def load_a_set(page: Page, path: Path) -> None:
    save_pairs(PAIRS, path)
    fits(page, "first-visit")
    steps, close = (page.locator(part).bounding_box() for part in (".welcome ol", ".welcome-close"))
    assert steps["x"] + steps["width"] <= close["x"]  # beside them: no line of its own
    assert close["y"] < steps["y"] + steps["height"]
    with page.expect_file_chooser() as chooser:
        page.locator("#data-upload button").first.tap()
    chooser.value.set_files(path)
    expect(page.locator("#data-table .count")).to_have_text("9 examples")


def edit_save_and_undo(page: Page) -> None:
    page.locator("#data-table tbody tr").nth(2).locator("button").first.tap()
    editor = page.locator("#data-editor")
    expect(editor.get_by_label("Prompt", exact=True)).to_have_value(PAIRS[2].prompt)
    step = editor.get_by_label("Chosen step 1", exact=True)
    step.tap()
    step.fill("A better first step, long enough to be wrapped once or twice on a screen as narrow as this one.")
    expect(editor.locator(".editor-state")).to_contain_text("Unsaved changes")
    fits(page, "edit")
    page.get_by_role("button", name="Save example", exact=True).tap()
    expect(page.get_by_text("Saved example 3.")).to_be_visible()
    page.get_by_role("button", name="Undo: saved example 3", exact=True).tap()
    expect(step).to_have_value(PAIRS[2].chosen[0].text)


def train_and_stop(page: Page) -> None:
    page.get_by_role("tab", name="Train").tap()
    for field, value in LONG.items():
        page.locator(f"{field} input").fill(value)
        page.locator(f"{field} input").press("Tab")
    expect(page.locator("#train-start")).to_have_text("Train 800 steps")
    is_on_screen(page.locator("#train-start"))
    fits(page, "train-form")
    page.locator("#train-start").tap()
    running, stop = page.locator('#train-head [data-state="running"]'), page.get_by_role("button", name="Stop and keep")
    expect(running).to_be_visible(timeout=ENDED)
    is_on_screen(running)
    page.wait_for_function(
        "() => document.querySelector('#train-charts [data-id=loss] .figure')?.data?.[0]?.x?.length >= 3", timeout=ENDED
    )
    is_on_screen(page.locator("#train-charts [data-id=loss] .main-svg").first)
    # From another tab, the chip leads to it.
    page.get_by_role("tab", name="Data").tap()
    page.locator("#chip .chip").tap()
    is_on_screen(running)
    is_on_screen(stop)
    fits(page, "train-running")
    stop.tap()
    expect(page.locator('#train-head [data-state="stopped, kept"]')).to_be_visible(timeout=60_000)


def open_an_example_from_the_heatmap(page: Page) -> None:
    page.get_by_role("tab", name="Rewards").tap()
    expect(page.locator("#rewards-example .value").first).to_be_visible(timeout=90_000)
    assert page.locator(".bars-scroll").evaluate("e => e.scrollWidth - e.clientWidth") <= 1
    fits(page, "rewards")
    page.get_by_role("button", name="Score the set").tap()
    plot = page.locator("#rewards-heatmap .nsewdrag").first
    expect(page.locator("#rewards-heatmap .heatmaplayer").first).to_be_visible(timeout=90_000)
    box = plot.bounding_box()
    # The set's order: the fifth row.
    plot.tap(position={"x": 12, "y": box["height"] * 4.5 / len(PAIRS)})
    question = page.locator("#rewards-example .question")
    expect(question).to_have_text(PAIRS[4].prompt)
    is_on_screen(question)
    fits(page, "rewards-opened")


def compare_filter_and_download(page: Page) -> None:
    page.get_by_role("tab", name="Compare").tap()
    pick(page, "#compare-before", "Base of DPO · 1 Jan 10:00:00")
    pick(page, "#compare-after", "DPO · 1 Jan 10:00:00")
    expect(page.locator("#compare-summary h2")).to_have_text("DPO · 1 Jan 10:00:00, before and after training")
    expect(page).to_have_url(re.compile(f"run={FIRST}"))
    rows = page.locator("#compare-table .row")
    changed = page.get_by_label(re.compile(r"Preference flipped \(\d+\)"))
    flipped = int(re.search(r"\d+", changed.locator("xpath=..").inner_text())[0])
    changed.tap()
    expect(rows).to_have_count(flipped)
    page.get_by_label(f"All ({len(MEASURED)})").tap()
    rows.nth(1).tap()
    expect(page.locator("#compare-example .question")).to_have_text(MEASURED[1].prompt)
    is_on_screen(page.locator("#compare-example .question"))
    fits(page, "compare")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").tap()
    with open(download.value.path(), encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(MEASURED)


def move_a_slider(page: Page) -> None:
    page.get_by_role("tab", name="Learn").tap()
    expect(page.locator("#learn-point .stat").first).to_be_visible(timeout=60_000)
    expect(page.locator(".learn-verdict")).to_contain_text("towards chosen")
    slider = page.locator("#learn-p")
    wide = slider.bounding_box()["width"]
    assert wide > 200
    slider.tap(position={"x": wide * 0.2, "y": 12})
    expect(page.locator("output[for=learn-p]")).to_have_text(re.compile(r"^−[23]\.\d$"))
    expect(page.locator(".learn-verdict")).to_contain_text("towards rejected")
    fits(page, "learn")


def delete_the_run(page: Page, app: App) -> None:
    """In the table, which is wider than the screen and scrolls within its box."""
    open_tab(page, "Train")
    rows = page.locator("#train-runs tbody tr")
    expect(rows).to_have_count(4)
    rows.first.get_by_role("button", name="Delete").tap()
    rows.first.get_by_role("button", name="Delete", exact=True).tap()
    expect(rows).to_have_count(3)
    assert len(list(app.runs_dir.glob("*/config.json"))) == 3
    fits(page, "train-runs")


def unfold_what_the_data_tab_folds(page: Page) -> None:
    page.get_by_role("tab", name="Data").tap()
    page.get_by_text("Statistics of this set").tap()
    page.get_by_text("Generate examples", exact=True).first.tap()
    expect(page.locator("#data-charts .main-svg").first).to_be_visible()
    take_picture(page, "phone-data-unfolded")
    assert too_wide(page) == []
