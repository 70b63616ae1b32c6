"""What drives the real app in a real browser: starts app.py, installs Chromium where it has to, watches a page."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Page, Playwright, Request, expect

from stepwise_dpo.bench.browser import APP, Server, find_chromium
from stepwise_dpo.runs.supervisor import Supervisor

ROOT = Path(__file__).parents[2]
SCREENSHOTS = Path(__file__).parent / "screenshots"
"""Pictures that the tests leave for people to look at."""

CUT_OFF = ("console: AbortError: signal is aborted", "console: Unexpected error Connection errored out")
"""How Gradio logs the requests that leaving a page cuts off, which is no problem of ours."""

END_SECONDS = 60


def install_chromium(playwright: Playwright) -> str | None:
    """Install Chromium from Debian's or Ubuntu's packages, else as Playwright downloads it; None if neither works."""
    if shutil.which("apt-get"):
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
        prefix = [] if is_root else ["sudo", "-n"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            _attempt([*prefix, "apt-get", *arguments], 300, environment)
        if path := find_chromium():
            return path
    _attempt([sys.executable, "-m", "playwright", "install", "chromium"], 180)
    own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def _attempt(command: list[str], seconds: float, environment: dict[str, str] | None = None) -> None:
    try:
        subprocess.run(command, timeout=seconds, env=environment, capture_output=True, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return  # whether it helped shows in whether there is a browser now


_TOO_WIDE = """() => {
    const meant = ({ overflowX, textOverflow }) => /auto|scroll/.test(overflowX) || textOverflow === 'ellipsis';
    const within = (part) => part !== document.body && (meant(getComputedStyle(part)) || within(part.parentElement));
    const seen = { opacityProperty: true, visibilityProperty: true };
    return [...document.querySelectorAll('#page *')].filter((part) => {
        if (part.ownerSVGElement || !part.checkVisibility(seen)) return false;
        const { width, right } = part.getBoundingClientRect();
        return width > 1 && right > document.documentElement.clientWidth + 1 && !within(part.parentElement);
    }).map((part) => `${part.tagName} ${part.id} ${part.className} ${part.innerText?.slice(0, 40)}`);
}"""


def too_wide(page: Page) -> list[str]:
    """What reaches over the right edge of the screen, and not within a part that scrolls for itself.

    The page itself cuts off what is too wide, so its own width says nothing.
    """
    found: list[str] = page.evaluate(_TOO_WIDE)
    return found


class App(Server):
    """app.py in its own process, ready to answer."""

    def __init__(self, runs_dir: Path, log: Path, options: Sequence[str] = (), port: int | None = None) -> None:
        super().__init__(APP, ["--runs-dir", str(runs_dir), *options], folder=runs_dir.parent, log=log, port=port)
        self.runs_dir = runs_dir
        self.wait()

    def end_runs(self) -> None:
        """End what a failed test left running, so that the next one is judged by itself."""
        supervisor = Supervisor(self.runs_dir)
        for run in supervisor.runs():
            supervisor.stop(run)
        deadline = time.monotonic() + END_SECONDS
        while any(supervisor.status(run).active for run in supervisor.runs()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"a run of the test before is still active after {END_SECONDS} s")
            time.sleep(0.2)


class Watch:
    """A visitor's page, and what it must not do: log errors, raise, open a dialog, ask another host for anything.

    The whole context is watched, so another page that this one opens is, too.

    Args:
        context: a browser of its own, as far as cookies and storage go; it is closed with `close`.
        address: of the app, or of anything on it.

    Attributes:
        page: blank until an address is opened.
        url: of the app, without a path.
        problems: what was seen so far, in words.
    """

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.problems: list[str] = []
        parts = urlsplit(address)
        self.url = f"{parts.scheme}://{parts.netloc}"
        context.on("console", self._console)
        context.on("weberror", lambda raised: self.problems.append(f"exception: {raised.error}"))
        context.on("request", self._request)
        context.on("dialog", self._dialog)
        self.page = context.new_page()
        self.page.set_default_timeout(30_000)

    def open(self, address: str) -> None:
        """Load an address, and wait until the page has arrived where it leads."""
        self.page.goto(address)
        self.page.locator("#page-message").wait_for(state="attached", timeout=60_000)
        expect(self.page).to_have_url(re.compile("[?&]set="))

    def refresh(self) -> None:
        """Load the page again."""
        self.go(self.url)

    def go(self, address: str) -> None:
        """Leave for another address."""
        with self.expecting(*CUT_OFF):
            self.open(address)

    @contextmanager
    def expecting(self, *beginnings: str) -> Iterator[None]:
        """Let pass what is seen meanwhile and begins so; anything else stays a problem."""
        known = len(self.problems)
        yield
        self.problems[known:] = [text for text in self.problems[known:] if not text.startswith(beginnings)]

    def close(self) -> None:
        """Close the page and all that belongs to it."""
        self.page.context.close()

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text} ({message.location['url']})")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.url}/", "data:", "blob:")):
            self.problems.append(f"another host: {request.url}")

    def _dialog(self, dialog: Dialog) -> None:
        # Unsaved text asks before the page is left; any other dialog is a script that should not have run.
        if dialog.type != "beforeunload":
            self.problems.append(f"dialog: {dialog.message}")
        dialog.accept()


Visit = Callable[..., Watch]
"""What the `visit` fixture gives: see there."""


def open_page(page: Page, url: str) -> None:
    page.goto(url)
    page.locator("#data-editor textarea").first.wait_for(timeout=60_000)


def open_tab(page: Page, name: str) -> None:
    """Open one of the page's tabs."""
    page.get_by_role("tab", name=name).click()


def take_picture(page: Page, name: str, *, whole: bool = True) -> None:
    """Leave a picture for people to look at: of the whole page, or of what the screen shows."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=whole)


def violations(page: Page, *rules: str) -> list[str]:
    """Check the page against axe-core's rules of accessibility: each broken one, and its first places.

    Args:
        page: as it stands now.
        rules: only these, if any is named; some of axe's rules are off unless they are named.
    """
    # Only of violations does axe write down all the places: what passes is most of a page, and of axe's time.
    options: dict[str, object] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = {"type": "rule", "values": list(rules)}
    return [
        f"{broken['id']}: {broken['help']}\n"
        + "\n".join(f"    {node['html'][:300]}\n    {node['failureSummary']}" for node in broken["nodes"][:3])
        for broken in Axe().run(page, options=options).response["violations"]
    ]
