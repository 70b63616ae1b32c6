"""A public page, as on a Space: two visitors at the same time, who know nothing of each other."""

import re
from collections.abc import Iterator

import pytest
from driving import App, open_tab
from playwright.sync_api import Page, expect

SECONDS = 1_000
ENDED = 150 * SECONDS


@pytest.fixture(scope="module")
def public_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("public")
    running = App(folder / "runs", folder / "app.log", ["--public"])
    yield running
    running.end_runs()
    running.stop()


def train(page: Page, epochs: str) -> None:
    open_tab(page, "Train")
    for field, value in (("#train-examples", "40"), ("#train-epochs", epochs), ("#train-held-out", "2")):
        page.locator(f"{field} input").fill(value)
        page.locator(f"{field} input").press("Tab")
    page.locator("#train-start").click()
    expect(page.locator("#train-runs tbody tr")).to_have_count(1)


def test_case_06_visitors_of_a_public_page_see_only_their_own(public_app, visit):
    anna = visit(public_app.url).page
    train(anna, "100")  # as many steps as a stranger may have: it is stopped
    head = anna.locator("#train-head")
    expect(head.locator('[data-state="running"]')).to_be_visible(timeout=ENDED)
    expect(anna).to_have_url(re.compile("[?&]run="))

    ben = visit(anna.url).page
    expect(ben.locator("#page-message")).to_contain_text("that isn't here")
    open_tab(ben, "Train")
    expect(ben.locator("#train-start")).to_be_visible()
    expect(ben.locator("#train-runs tbody tr")).to_have_count(0)
    expect(ben.locator("#chip .chip")).to_have_count(0)

    train(ben, "1")
    expect(ben.locator("#train-head")).to_contain_text("place 1 of 1")
    anna.get_by_role("button", name="Stop and keep").click()
    expect(head.locator('[data-state="stopped, kept"]')).to_be_visible(timeout=ENDED)
    expect(ben.locator('#train-head [data-state="finished"]')).to_be_visible(timeout=ENDED)
    for page in (anna, ben):
        expect(page.locator("#train-runs tbody tr")).to_have_count(1)
        assert str(public_app.runs_dir) not in page.content()
