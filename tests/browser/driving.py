"""What drives the real app in a real browser: starts app.py, installs Chromium where it has to, watches a page."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Dialog, Page, Playwright, expect

from stepwise_dpo.bench.browser import APP, Server, find_chromium
from stepwise_dpo.runs.supervisor import Supervisor

ROOT = Path(__file__).parents[2]
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
    """What a page must not do: log errors, raise, or ask another host for anything."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.problems: list[str] = []
        page.on("console", lambda m: self.problems.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        page.on("request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else self.problems.append(r.url))
        page.on("dialog", self._dialog)

    def refresh(self) -> None:
        """Load the page again."""
        self.go(self.url)

    def go(self, address: str) -> None:
        """Load another address. Gradio logs the requests that this cuts off, which is no problem of ours."""
        known = list(self.problems)
        self.page.goto(address)
        self.page.locator("#page-message").wait_for(state="attached")
        expect(self.page).to_have_url(re.compile("[?&]set="))
        cut_off = ("console: AbortError: signal is aborted", "console: Unexpected error Connection errored out")
        self.problems = known + [text for text in self.problems[len(known) :] if not text.startswith(cut_off)]

    def _dialog(self, dialog: Dialog) -> None:
        # Unsaved text asks before the page is left; any other dialog is a script that should not have run.
        if dialog.type != "beforeunload":
            self.problems.append(f"dialog: {dialog.message}")
        dialog.accept()


def open_page(page: Page, url: str) -> None:
    page.goto(url)
    page.locator("#data-editor textarea").first.wait_for(timeout=60_000)


def open_tab(page: Page, name: str) -> None:
    """Open one of the page's tabs."""
    page.get_by_role("tab", name=name).click()


def violations(page: Page) -> list[str]:
    """Check the page against axe-core's rules of accessibility: each broken one, and its first places."""
    return [
        f"{broken['id']}: {broken['help']}\n"
        + "\n".join(f"    {node['html'][:300]}\n    {node['failureSummary']}" for node in broken["nodes"][:3])
        for broken in Axe().run(page).response["violations"]
    ]
