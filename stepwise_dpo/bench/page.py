"""How fast the page is, measured on the real app in a real Chromium: start, first loss point, lag, many examples.

Comparisons with a peer run side by side in one call and are given as ratios, since machines drift.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from stepwise_dpo.bench.browser import APP, CHROMIUM_OPTIONS, Server, find_chromium
from stepwise_dpo.errors import RunError
from stepwise_dpo.preferences.pairs import save_pairs
from stepwise_dpo.preferences.synthetic import generate_pairs
from stepwise_dpo.runs.directory import list_runs

if TYPE_CHECKING:
    from playwright.sync_api import Page

EMPTY_APP = """
import os, sys
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
import gradio as gr
with gr.Blocks() as demo:
    pass
demo.launch(server_port=int(sys.argv[2]), quiet=True, ssr_mode=False)
"""

MANY = 10_000
WARM_SECONDS = 30
"""After the page is up, server and spare worker import for some seconds each, one after the other."""

# Counts the milliseconds in which the browser could not react, beyond the 50 that nobody notices.
_WATCH_STALLS = """
window.stalls = [];
new PerformanceObserver((list) => window.stalls.push(...list.getEntries().map((e) => e.duration)))
  .observe({ type: 'longtask', buffered: false });
"""
# Notes when Train was pressed, and when each new point of the loss arrives.
_WATCH_POINTS = """
window.arrivals = {};
addEventListener('pointerdown', () => { window.pressedAt = Date.now() / 1000; }, { capture: true });
setInterval(() => {
  const x = document.querySelector('#train-charts [data-id=loss] .figure')?.data?.[0]?.x ?? [];
  for (const step of x) window.arrivals[step] ??= Date.now() / 1000;
}, 20);
"""
_POINTS = "(document.querySelector('#train-charts [data-id=loss] .figure')?.data?.[0]?.x?.length ?? 0)"

# When the mouse was pressed in the list, and when another example's scored rows stood there.
_WATCH_ROWS = """
() => {
  const example = document.querySelector('#rewards-example');
  let before = '';
  document.addEventListener('pointerdown', () => {
    before = example.querySelector('.question').innerText;
    window.pressed = performance.now();
  }, { capture: true });
  new MutationObserver(() => {
    const question = example.querySelector('.question')?.innerText;
    if (window.pressed && !window.drawn && question && question !== before && example.querySelector('.value')) {
      window.drawn = performance.now();
    }
  }).observe(example, { childList: true, subtree: true, characterData: true });
}
"""


class Measure(NamedTuple):
    """One line of the table.

    Attributes:
        name: what was measured.
        value: in `unit`.
        unit: "s", "ms" or "x" for a ratio.
        target: what the value should stay below; None where there is no target.
        how: what exactly, in words.
    """

    name: str
    value: float
    unit: str
    target: float | None
    how: str


def run_page(starts: int = 5) -> Iterator[Measure]:
    """Measure the page; gives each figure as soon as it has it.

    Args:
        starts: how often the app and an empty one are started.

    Raises:
        RunError: there is no browser, no Playwright, or no app.py beside the package.
    """
    if not APP.is_file():
        raise RunError("bench page needs app.py, which lies beside the package in a clone of the project")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise RunError("bench page needs Playwright: pip install -e '.[test]'") from error
    browser_path = find_chromium()
    if browser_path is None:
        raise RunError("no browser found: install Chromium (Debian: apt-get install chromium) or set CHROME_PATH")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield start_ratio(folder, starts)
        app = Server(APP, ["--runs-dir", str(folder / "runs")], folder=folder, log=folder / "app.log")
        try:
            app.wait()
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=browser_path, args=CHROMIUM_OPTIONS)
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                page.add_init_script(_WATCH_STALLS + _WATCH_POINTS)
                page.set_default_timeout(120_000)
                page.goto(app.url)
                page.locator("#data-editor textarea").first.wait_for()
                page.wait_for_timeout(WARM_SECONDS * 1000)
                yield from training(page, folder / "runs")
                page.wait_for_timeout(WARM_SECONDS * 1000)  # until the next spare worker has imported everything
                yield heatmap(page)
                yield from many_examples(page, folder)
                browser.close()
        finally:
            app.stop()


def start_ratio(folder: Path, starts: int) -> Measure:
    """Compare the time from the process's start to its first answered request with that of an empty Gradio app."""
    empty = folder / "empty.py"
    empty.write_text(EMPTY_APP)
    ratios, own = [], []
    for _ in range(starts):
        seconds = []
        for script, options in ((empty, []), (APP, ["--runs-dir", str(folder / "none")])):
            server = Server(script, options, folder=folder, log=folder / "start.log")
            try:
                seconds.append(server.wait("/"))
            finally:
                server.stop()
        ratios.append(seconds[1] / seconds[0])
        own.append(seconds[1])
    words = f"first answered request, app.py against an empty gr.Blocks, median of {starts} pairs ({median(own):.1f} s)"
    return Measure("start", median(ratios), "x", 1.25, words)


def training(page: "Page", runs_dir: Path) -> Iterator[Measure]:
    """Press Train as the page opens; measure the first point, then how far the page lags behind the worker."""
    page.get_by_role("tab", name="Train").click()
    page.locator("#train-start").wait_for()
    page.locator("#train-start").click()
    page.wait_for_function(f"{_POINTS} >= 1")
    # By the page's own clock: the driver's click waits until a button has stood still, which no visitor does.
    first = page.evaluate("Math.min(...Object.values(window.arrivals)) - window.pressedAt")
    yield Measure("first loss point", first, "s", 2.0, "from the press on Train, default form, warm worker")
    page.wait_for_function(f"{_POINTS} >= 100")
    arrivals = {int(step): at for step, at in page.evaluate("window.arrivals").items()}
    run = list_runs(runs_dir)[0]

    def written() -> dict[int, float]:
        """When the worker wrote each optimiser step."""
        return {record["global_step"]: record["time"] for record in run.metrics()[0] if "loss" in record}

    known = written()
    lags = [arrivals[step] - known[step] for step in arrivals if step in known]
    words = f"from metrics.jsonl to the curve, {len(lags)} points; the median is {median(lags):.2f} s"
    yield Measure("live lag, longest", max(lags), "s", 1.0, words)
    page.wait_for_selector('#train-head [data-state="finished"]')
    took = max(written().values()) - page.evaluate("window.pressedAt")
    yield Measure("demo run", took, "s", 60.0, "from the press on Train to its last optimiser step, watched live")


def heatmap(page: "Page") -> Measure:
    """Choose examples that were never shown, a second apart, and read on the page's clock when their rows are drawn."""
    page.get_by_role("tab", name="Rewards").click()
    page.locator("#rewards-example .value").first.wait_for()
    page.evaluate(_WATCH_ROWS)
    seconds = []
    for number in range(3, 13):
        page.wait_for_timeout(1_000)
        page.evaluate("window.drawn = window.pressed = null")
        page.locator("#rewards-list .list-item").nth(number).click()
        page.wait_for_function("window.drawn")
        seconds.append(page.evaluate("(window.drawn - window.pressed) / 1000"))
    words = f"slowest of 10 clicks in the list, from press to rows; the median is {median(seconds):.2f} s"
    return Measure("reward rows of a new example", max(seconds), "s", 0.5, words)


def many_examples(page: "Page", folder: Path) -> Iterator[Measure]:
    """Upload 10,000 examples, turn a page, search; note the longest time without a reaction."""
    file = folder / "many.json"
    save_pairs(generate_pairs(MANY, seed=11), file)
    page.get_by_role("tab", name="Data").click()
    page.evaluate("window.stalls.length = 0")
    count = page.locator("#data-table .count")

    def upload() -> None:
        page.locator("#data-upload input[type=file]").set_input_files(file)

    words = f"{MANY:,} examples ({file.stat().st_size / 1e6:.0f} MB)"
    loaded = _seconds(upload, lambda: count.get_by_text(f"{MANY:,} examples").wait_for())
    yield Measure("upload", loaded, "s", None, f"{words}, read, checked and listed")
    arrow, second = page.get_by_label("Next page").first, page.locator("#data-table").get_by_text("page 2 of")
    turned = _seconds(arrow.click, second.wait_for)
    yield Measure("next page", turned, "s", 1.0, "from the press on the arrow to the next examples, in the same set")
    search = page.get_by_label("Search", exact=True).first
    found = _seconds(lambda: search.fill("shop"), lambda: count.get_by_text(f"of {MANY:,} examples").wait_for())
    yield Measure("search", found, "s", 1.0, "from the last key to the table, in the same set")
    stalls = json.loads(page.evaluate("JSON.stringify(window.stalls)"))
    yield Measure("longest stall", max(stalls, default=0.0), "ms", 200, "of the browser meanwhile (long tasks)")


def _seconds(act: Callable[[], object], wait: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    wait()
    return time.perf_counter() - started


def measure_line(measure: Measure) -> str:
    """Lay one figure out as a line: name, value, target, what it is."""
    digits = 0 if measure.unit == "ms" else 2
    target = "" if measure.target is None else f"< {measure.target:g} {measure.unit}"
    return f"{measure.name:30}{measure.value:9.{digits}f} {measure.unit:3}{target:10}{measure.how}"
