"""Fixtures: two apps and one browser for all tests, and pages for each that must stay free of errors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from driving import App, Visit, Watch, install_chromium
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
def measured_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """Another app, that finds the finished runs of `finished_runs`."""
    from finished_runs import write_runs  # imports torch

    folder = tmp_path_factory.mktemp("measured")
    running = App(write_runs(folder), folder / "app.log")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser. Tests don't take it: they take `visit`, so that no page goes unwatched."""
    with sync_playwright() as playwright:
        path = find_chromium() or install_chromium(playwright)
        if path is None:
            pytest.fail("no browser found: install Chromium (Debian: apt-get install chromium) or set CHROME_PATH")
        launched = playwright.chromium.launch(executable_path=path, args=CHROMIUM_OPTIONS)
        yield launched
        launched.close()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    """Opens an address as a new visitor. Every page of a test comes from here; what one must not do fails the test."""
    watches: list[Watch] = []

    def open_address(
        address: str,
        *,
        width: int = 1440,
        height: int = 900,
        theme: Literal["light", "dark"] = "light",
        phone: bool = False,
    ) -> Watch:
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, is_mobile=phone, has_touch=phone
        )
        watches.append(Watch(context, address))
        watches[-1].open(address)
        return watches[-1]

    yield open_address
    for watch in watches:
        watch.close()
    if problems := [text for watch in watches for text in watch.problems]:
        pytest.fail("a page did what it must not do:\n" + "\n".join(problems), pytrace=False)


@pytest.fixture
def watch(app: App, visit: Visit) -> Iterator[Watch]:
    """The one visitor of most tests; runs that a failed test left are ended after it."""
    watch = visit(app.url)
    watch.page.locator("#data-editor textarea").first.wait_for(timeout=60_000)
    yield watch
    watch.close()
    app.end_runs()


@pytest.fixture
def page(watch: Watch) -> Page:
    return watch.page
