"""Draw the README's pictures from the real app: `python tests/browser/pictures.py` writes data/pictures/*.png."""

import os
import sys
import tempfile
from pathlib import Path

from driving import ROOT, App, open_page, open_tab
from playwright.sync_api import Page, sync_playwright

from stepwise_dpo.bench.browser import CHROMIUM_OPTIONS, find_chromium

PICTURES = ROOT / "data" / "pictures"
WIDTH = 1440
MAX_BYTES = 300_000


def main() -> int:
    """Start the app, score an example, train a run, and take the pictures."""
    path = find_chromium()
    if path is None:
        print("error: no browser found: install Chromium or set CHROME_PATH", file=sys.stderr)
        return 1
    os.environ["TZ"] = "UTC"
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        app = App(Path(folder) / "runs", Path(folder) / "app.log")
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_OPTIONS)
        try:
            page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, color_scheme="light")
            open_page(page, app.url)
            draw_data(page)
            draw_train(page)
            draw_rewards(page)
            draw_compare(page)
        finally:
            browser.close()
            app.stop()
    too_large = [file.name for file in PICTURES.glob("*.png") if file.stat().st_size > MAX_BYTES]
    if too_large:
        print(f"error: larger than {MAX_BYTES} bytes: {', '.join(too_large)}", file=sys.stderr)
    return int(bool(too_large))


def draw_data(page: Page) -> None:
    """The table and the editor, with the first example open."""
    page.locator("#data-editor textarea").first.wait_for(timeout=60_000)
    page.locator("#data-editor").get_by_text("counting tokens").wait_for(state="hidden", timeout=60_000)
    page.mouse.move(0, 0)
    page.screenshot(path=PICTURES / "data.png")


def draw_rewards(page: Page) -> None:
    """One example's step rewards, as somebody sees them first."""
    open_tab(page, "Rewards")
    page.locator("#rewards-example .value").first.wait_for(timeout=60_000)
    page.locator("#rewards-bars .bar-number").first.wait_for()
    page.mouse.move(0, 0)
    page.screenshot(path=PICTURES / "rewards.png")


def draw_train(page: Page) -> None:
    """The curves of a finished quick demo, as the page opens with it."""
    open_tab(page, "Train")
    page.locator("#train-start").click()
    page.locator('#train-head [data-state="finished"]').wait_for(timeout=300_000)
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=PICTURES / "train.png")


def draw_compare(page: Page) -> None:
    """What the run changed."""
    open_tab(page, "Compare")
    page.locator("#compare-example .value").first.wait_for(timeout=60_000)
    page.mouse.move(0, 0)
    page.screenshot(path=PICTURES / "compare.png")


if __name__ == "__main__":
    sys.exit(main())
