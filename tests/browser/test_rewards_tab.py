"""The Rewards tab: every step's number, before and after a run, the whole set, and free text."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from driving import ROOT, App, open_tab
from playwright.sync_api import Page, expect

from stepwise_dpo.preferences.pairs import dump_pairs, first_error, load_pairs
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory, RunStatus

HELD_OUT = load_pairs(ROOT / "data" / "heldout_prm.json")
VALUE = re.compile(r"^(\+|−)?\d+\.\d\d$")
LOADED = 90_000
"""The first example waits for torch."""


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def values(page: Page, side: str) -> list[float]:
    """The numbers beside the steps of one solution."""
    cells = page.locator("#rewards-example .solution").nth(["chosen", "rejected"].index(side)).locator(".value")
    expect(cells.first).to_have_text(VALUE, timeout=LOADED)
    return [number(text) for text in cells.all_inner_texts()]


def switch(page: Page, name: str) -> None:
    page.locator(".segments").get_by_label(name, exact=True).check(force=True)


def choose(page: Page, field: str, option: str) -> None:
    page.locator(f"{field} input").click()
    page.get_by_role("option", name=option).click()


@pytest.fixture
def small(page: Page, tmp_path: Path) -> Page:
    """The Rewards tab with eight held-out examples and one whose sides are exchanged, so that it prefers wrongly."""
    good, wrong = HELD_OUT[:8], HELD_OUT[8]
    pairs = json.loads(dump_pairs([*good, wrong]))
    pairs[-1]["chosen"], pairs[-1]["rejected"] = pairs[-1]["rejected"], pairs[-1]["chosen"]
    file = tmp_path / "nine.json"
    file.write_text(json.dumps(pairs), encoding="utf-8")
    with page.expect_file_chooser() as chooser:
        page.locator("#data-upload button, button#data-upload").first.click()
    chooser.value.set_files(file)
    expect(page).to_have_url(re.compile(r"set=nine\.json"))
    open_tab(page, "Rewards")
    expect(page.locator("#rewards-example .question")).to_have_text(good[0].prompt, timeout=LOADED)
    expect(page.locator("#rewards-example .value").first).to_have_text(VALUE, timeout=LOADED)
    return page


@pytest.fixture(scope="module")
def run(app: App) -> RunDirectory:
    """A finished DPO run whose policy is the strong end of the same line of training: nothing is trained here."""
    directory = RunDirectory(app.runs_dir / "20261125-101500-dpo-1a2b")
    directory.create(make_config({"data": str(ROOT / "data" / "onpolicy_prm.json"), "model": "policy", "beta": 2.0}))
    shutil.copytree(ROOT / "data" / "models" / "reward", directory.final)
    directory.write_status(RunStatus("finished", global_step=5, max_steps=5, started=time.time()))
    yield directory
    shutil.rmtree(directory.path)


def test_rewards_of_a_held_out_example_drop_at_its_wrong_step(small):
    chosen, rejected = values(small, "chosen"), values(small, "rejected")
    wrong = first_error(HELD_OUT[0].rejected)
    assert wrong is not None
    assert (len(chosen), len(rejected)) == (len(HELD_OUT[0].chosen), len(HELD_OUT[0].rejected))
    assert min(chosen) > 0
    assert all(value > 0 for value in rejected[:wrong])
    assert rejected[wrong] < 0
    figures = small.locator("#rewards-rows .stats")
    expect(figures).to_contain_text("preference =")
    expect(figures).to_contain_text("log-likelihood gap")
    expect(figures).to_contain_text("stepwise loss here")
    expect(figures).to_contain_text("agrees")
    expect(small.locator("#rewards-judge")).to_contain_text("judge: reward, head likelihood (lowest probability")
    expect(small.locator("#rewards-bars figcaption")).to_contain_text("sum of")
    # Which number made it: another aggregation is another preference.
    switch(small, "Min")
    expect(small.locator("#rewards-bars figcaption")).to_contain_text("by its lowest step")
    expect(small.locator("#rewards-bars .out")).to_have_count(len(chosen) + len(rejected) - 2)
    switch(small, "Product")
    expect(small.locator("#rewards-message")).to_contain_text("needs reward value 'probability'")
    switch(small, "Probability")
    expect(small.locator("#rewards-bars figcaption")).to_contain_text("product of")
    assert all(0 <= value <= 1 for value in values(small, "rejected"))


def test_figures_are_explained_and_switches_work_by_keyboard(small):
    small.locator("#rewards-rows").get_by_role("button", name="What is Log-likelihood gap?").click()
    expect(small.get_by_text("How much likelier, per token, the policy finds")).to_be_visible()
    small.get_by_role("button", name="What is Before and after training?").click()
    expect(small.get_by_text("times beta it is DPO's implicit reward")).to_be_visible()
    small.keyboard.press("Escape")
    first = small.locator("#rewards-quantity input").first
    first.focus()
    small.keyboard.press("ArrowRight")
    small.keyboard.press("ArrowRight")
    expect(small.locator("#rewards-judge")).to_contain_text("ln p")
    expect(small.get_by_role("radio", name="Log-odds")).to_be_checked()
    expect(small.get_by_role("radiogroup", name="What is shown")).to_be_visible()
    # Without a run, After says what to do.
    switch(small, "After")
    expect(small.locator("#rewards-rows .empty-state")).to_contain_text("Train one in the Train tab")
    expect(small.locator("#rewards-rows .step").first).to_be_visible()


def test_the_address_keeps_what_is_shown(page, watch):
    open_tab(page, "Rewards")
    expect(page.locator("#rewards-example .value").first).to_be_visible(timeout=60_000)
    switch(page, "Log-odds")
    switch(page, "Until error")
    choose(page, "#rewards-sort", "Position of the first error")
    expect(page.locator("#rewards-judge")).to_contain_text("in nats")
    expect(page).to_have_url(re.compile("tab=rewards.*&shown=log_odds&adds=until_error&order=error"))
    first = page.locator("#rewards-list .list-item").first.inner_text()
    watch.go(page.url)
    expect(page.locator("#rewards-judge")).to_contain_text("in nats")
    expect(page.locator("#rewards-judge")).to_contain_text("aggregation: until error")
    expect(page.locator("#rewards-quantity").get_by_label("Log-odds")).to_be_checked()
    expect(page.locator("#rewards-sort input")).to_have_value("Position of the first error")
    expect(page.locator("#rewards-list .list-item").first).to_have_text(first, use_inner_text=True)
    switch(page, "Process reward")
    switch(page, "Sum")
    expect(page).not_to_have_url(re.compile("shown=|adds="))


def test_a_set_is_scored_sorted_filtered_and_opened_from_its_heatmap(small):
    expect(small.locator("#rewards-agreement")).to_contain_text("9 examples not scored yet")
    choose(small, "#rewards-sort", "Lowest preference first")
    items = small.locator("#rewards-list .list-item")
    expect(items.first).to_contain_text("negative preference −")
    expect(items.first).to_contain_text(f"9. {HELD_OUT[8].prompt[:20]}")
    figures = small.locator("#rewards-agreement")
    expect(figures).to_contain_text("positive preference, 8 of 9")
    expect(figures).to_contain_text("AUROC")
    # A click on the heatmap's first row opens its example above.
    plot = small.locator("#rewards-heatmap .nsewdrag").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    plot.hover(position={"x": 20, "y": box["height"] / 18})
    expect(small.locator("#rewards-heatmap .hoverlayer")).to_contain_text("chosen step 1 of example 9")
    plot.click(position={"x": 20, "y": box["height"] / 18})
    expect(small.locator("#rewards-example .question")).to_have_text(HELD_OUT[8].prompt)
    expect(small.locator("#rewards-rows .verdict")).to_contain_text("Negative preference")
    expect(items.first).to_have_attribute("aria-current", "true")
    small.get_by_label("Only negative preferences").check()
    expect(items).to_have_count(1)
    expect(small.locator("#rewards-heatmap .plot h3 .unit").first).to_contain_text("1 example, by reward")
    small.get_by_label("Only negative preferences").uncheck()
    expect(items).to_have_count(9)
    # Every cell has its number where it fits, else once a drag has made the cells larger.
    cells = small.locator("#rewards-heatmap .textpoint text")
    expect(cells).to_have_count(sum(len(side) for pair in HELD_OUT[:9] for side in (pair.chosen, pair.rejected)))
    assert all(VALUE.match(text) for text in cells.all_text_contents())
    small.set_viewport_size({"width": 390, "height": 844})
    expect(cells).to_have_count(0)
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    longest = max(*(len(pair.chosen) for pair in HELD_OUT[:8]), len(HELD_OUT[8].rejected))
    small.mouse.move(box["x"] + 2, box["y"] + 2)
    small.mouse.down()
    small.mouse.move(box["x"] + box["width"] * 2 / longest, box["y"] + box["height"] * 4 / 9, steps=4)
    small.mouse.up()
    expect(cells).to_have_count(8)  # two steps of four chosen solutions


def test_scoring_can_be_stopped_and_goes_on_later(page):
    open_tab(page, "Rewards")
    expect(page.locator("#rewards-example .value").first).to_have_text(VALUE, timeout=LOADED)
    page.locator("#rewards-score-set").click()
    progress = page.get_by_role("progressbar", name="Scoring")
    expect(progress).to_have_attribute("aria-valuenow", re.compile(r"^(1[6-9]|[2-9]\d|\d{3})$"))
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#rewards-set-message")).to_contain_text(re.compile(r"\d+ of 450 examples are scored so far"))
    expect(page.locator("#rewards-heatmap .heatmaplayer").first).to_be_visible()
    expect(page.locator("#rewards-score-set")).to_be_visible()
    expect(progress).to_have_count(0)


def test_a_run_shows_before_after_and_their_difference(small, run):
    open_tab(small, "Data")
    open_tab(small, "Rewards")
    expect(small.locator("#rewards-run input")).to_have_value("DPO · 25 Nov 10:15:00")
    switch(small, "Policy log-prob / ratio")
    unit = small.locator("#rewards-judge")
    expect(unit).to_contain_text("Log-probability of each step before training")
    before = values(small, "chosen")
    switch(small, "After")
    expect(unit).to_contain_text("Log-probability of each step after training")
    after = values(small, "chosen")
    switch(small, "After − before")
    expect(unit).to_contain_text("times β = 2 it is the implicit reward")
    assert values(small, "chosen") == pytest.approx(
        [new - old for old, new in zip(before, after, strict=True)], abs=0.011
    )
    expect(small.locator("#rewards-rows .stats")).to_contain_text("DPO loss here")
    # The judge was not trained: no difference is made up for it.
    switch(small, "Process reward")
    expect(small.locator("#rewards-rows .empty-state")).to_contain_text("was not trained by this run")
    switch(small, "After")
    expect(small.locator("#rewards-message")).to_contain_text("trained the policy, not the reward model")
    expect(small.locator("#rewards-judge")).to_contain_text("gap and loss of the policy: policy after DPO")
    assert str(run.path) not in small.content()


def test_free_text_is_judged_while_it_is_typed_and_outlasts_a_refresh(page, watch):
    open_tab(page, "Rewards")
    expect(page.locator("#rewards-typed .empty-state")).to_be_visible()
    page.get_by_label("Problem").fill("Find k if (k - 30) / 5 = 11.")
    solution = page.get_by_label("Solution, one step per line")
    solution.press_sequentially("11 * 5 = 55\n55 + 30 = 95")
    cells = page.locator("#rewards-typed .value")
    expect(cells).to_have_count(2, timeout=LOADED)
    expect(page.locator("#rewards-typed .verdict")).to_contain_text("doubts step 2 first")
    solution.press("Backspace")
    solution.press("Backspace")
    solution.press_sequentially("85\nAnswer: 85")
    expect(cells).to_have_count(3)
    expect(page.locator("#rewards-typed .verdict")).to_contain_text("doubts no step")
    page.get_by_label("Problem").fill("<img src=x onerror=alert(1)> ${alert(1)} " + "long " * 2_000)
    expect(page.locator("#rewards-typed-message")).to_contain_text("shorten them")
    expect(solution).to_have_value("11 * 5 = 55\n55 + 30 = 85\nAnswer: 85")
    page.get_by_label("Problem").fill("<img src=x onerror=alert(1)> ${alert(1)}")
    expect(page.locator("#rewards-typed")).to_contain_text("This isn't one of them")
    watch.refresh()
    open_tab(page, "Rewards")
    expect(solution).to_have_value("11 * 5 = 55\n55 + 30 = 85\nAnswer: 85")
    expect(page.get_by_label("Problem")).to_have_value("<img src=x onerror=alert(1)> ${alert(1)}")
    expect(cells).to_have_count(3)


def test_other_judges_are_explained_untrained_or_missing(small, tmp_path):
    choose(small, "#rewards-model", "tiny")
    expect(small.get_by_text("Its scores are noise")).to_be_visible()
    model = small.locator("#rewards-model input")
    model.fill(str(tmp_path / "nowhere"))
    model.press("Enter")
    small.get_by_role("button", name="Load this reward model").click()
    expect(small.locator("#rewards-message")).to_contain_text("no such folder")
    expect(small.locator("#rewards-example .step").first).to_be_visible()
