"""Fixtures: one app and one browser for all tests, and a page for each that must stay free of errors."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from driving import App, Watch, install_chromium, open_page
from playwright.sync_api import Browser, Page, expect, sync_playwright

from stepwise_dpo.bench.browser import CHROMIUM_OPTIONS, find_chromium

# A machine that trains beside the browser is slow at times; a condition that holds is still seen at once.
expect.set_options(timeout=30_000)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: drives the app in Chromium")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(240))


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("app")
    running = App(folder / "runs", folder / "app.log")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = find_chromium() or install_chromium(playwright)
        if path is None:
            pytest.fail("no browser found: install Chromium (Debian: apt-get install chromium) or set CHROME_PATH")
        launched = playwright.chromium.launch(executable_path=path, args=CHROMIUM_OPTIONS)
        yield launched
        launched.close()


@pytest.fixture
def page(watch: Watch) -> Page:
    return watch.page


@pytest.fixture
def watch(app: App, browser: Browser) -> Iterator[Watch]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(30_000)
    watch = Watch(opened, app.url)
    open_page(opened, app.url)
    yield watch
    context.close()
    app.end_runs()
    assert watch.problems == []
