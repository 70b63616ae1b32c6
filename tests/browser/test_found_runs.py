"""Runs that the app finds: a link opens one of them, and the Train tab explains what its rewards do."""

import re

import pytest
from driving import App, open_tab
from finished_runs import FIRST, OTHER, SECOND
from playwright.sync_api import Page, expect

NAMES = {FIRST: "DPO · 1 Jan 10:00:00", SECOND: "Step-wise · 1 Jan 11:00:00", OTHER: "DPO · 1 Jan 09:00:00"}


@pytest.fixture
def app(measured_app: App) -> App:
    return measured_app


def is_trained(page: Page, run: str) -> None:
    """The Train tab has this run open."""
    expect(page.locator("#train-head h2")).to_have_text(NAMES[run])
    expect(page.locator(f'#train-runs tr[data-run="{run}"] .name')).to_have_attribute("aria-current", "true")


def is_compared(page: Page, run: str) -> None:
    """The Compare tab has this run open, against what it started from."""
    expect(page.locator("#compare-summary h2")).to_have_text(f"{NAMES[run]}, before and after training")


@pytest.mark.parametrize("run", [OTHER, FIRST])
def test_a_link_to_a_run_opens_it_in_train_and_in_compare(app, visit, run):
    """Neither is the newest, which both tabs show by themselves."""
    visitor = visit(f"{app.url}/?tab=train&run={run}")
    is_trained(visitor.page, run)
    open_tab(visitor.page, "Compare")
    is_compared(visitor.page, run)
    expect(visitor.page).to_have_url(re.compile(f"tab=compare.*run={run}"))
    # What the address bar holds now is such a link, too.
    visitor.go(visitor.page.url)
    is_compared(visitor.page, run)
    open_tab(visitor.page, "Train")
    is_trained(visitor.page, run)


def test_both_rewards_falling_is_explained_and_nothing_else(app, visit):
    page = visit(f"{app.url}/?tab=train&run={OTHER}").page
    note = page.locator("#train-charts [data-id=rewards] .plot-note")
    is_trained(page, OTHER)
    expect(note).to_contain_text("Both fall while the margin rises")
    expect(note).to_contain_text("DPO + imitation")
    expect(note).to_be_visible()
    # Chosen rises; both fall, and the margin as well.
    for run in (FIRST, SECOND):
        page.locator(f'#train-runs tr[data-run="{run}"] .name').click()
        is_trained(page, run)
        expect(note).to_have_text("")
    page.locator(f'#train-runs tr[data-run="{OTHER}"] .name').click()
    expect(note).to_contain_text("Both fall while the margin rises")
