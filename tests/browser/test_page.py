"""The frame around the tabs: first steps, addresses that open the same view again, a server that goes away."""

import re
import time

import pytest
from driving import CUT_OFF, ROOT, App, open_tab, violations
from playwright.sync_api import expect

from stepwise_dpo.preferences.pairs import load_pairs
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory, RunStatus

# What a visitor must see on each tab before it is judged.
MARKS = {
    "Data": "#data-editor textarea",
    "Train": "#train-start",
    "Rewards": "#rewards-example .value",
    "Compare": "#compare-summary .empty-state",
    "Learn": "#learn-point .stat",
}

FOURTH = load_pairs(ROOT / "data" / "onpolicy_prm.json")[3]
NO_ANSWER = "console: Failed to load resource: net::ERR_"

# What a page sees of it when a visitor goes to another tab of the browser, and comes back.
HIDE = """hidden => {
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event('visibilitychange'));
}"""


def test_a_link_opens_the_same_view(page, visit):
    open_tab(page, "Rewards")
    item = page.locator("#rewards-list .list-item").nth(3)
    expect(page.locator("#rewards-example .value").first).to_be_visible()
    item.click()
    expect(page).to_have_url(re.compile(r"tab=rewards&set=onpolicy_prm\.json&example=[^&]*0004"))
    expect(page.locator("#rewards-example .question")).to_have_text(FOURTH.prompt)
    other = visit(page.url).page
    expect(other.locator("#rewards-example .question")).to_have_text(FOURTH.prompt, timeout=60_000)
    expect(other.get_by_role("tab", name="Rewards")).to_have_attribute("aria-selected", "true")


def test_a_link_to_what_is_not_here_says_so(page, app, watch):
    watch.go(f"{app.url}/?tab=compare&set=nowhere.json&run=../x")
    expect(page.locator("#page-message")).to_contain_text("nowhere.json")
    expect(page.locator("#page-message")).to_contain_text("a run “../x” that isn't here")
    expect(page.get_by_role("tab", name="Compare")).to_have_attribute("aria-selected", "true")


def test_a_table_that_has_come_stays(page, app, watch):
    page.add_init_script("""
        window.counts = [];
        setInterval(() => {
            const text = document.querySelector('#data-table .count')?.innerText;
            if (text && text !== window.counts.at(-1)) window.counts.push(text);
        }, 10);
    """)
    watch.go(app.url)
    expect(page.locator("#data-editor textarea").first).to_be_visible()
    page.wait_for_timeout(2_000)  # what the page's own events would change by then
    assert page.evaluate("window.counts") == ["450 examples"]


@pytest.mark.slow
def test_an_open_page_outlasts_a_restart_of_the_server_and_questions_without_an_answer(visit, tmp_path):
    """It finds its state gone, as it does where the server kept newer pages' states instead, and loads itself again."""
    runs, log = tmp_path / "runs", tmp_path / "app.log"
    server = App(runs, log)
    watch = visit(server.url)
    page = watch.page
    page.locator("#data-editor textarea").first.fill("Typed before the restart.")
    open_tab(page, "Rewards")
    page.locator("#rewards-list .list-item").nth(3).click()
    expect(page).to_have_url(re.compile("tab=rewards.*0004"))
    question = page.locator("#rewards-example .question")
    expect(question).to_have_text(FOURTH.prompt)
    page.evaluate("window.opened_before = true")
    page.wait_for_timeout(1_000)  # nothing that the visitor did is under way
    with watch.expecting(NO_ANSWER, *CUT_OFF):
        server.stop()
        server = App(runs, log, port=server.port)
        page.wait_for_function("!window.opened_before", timeout=60_000)
    expect(question).to_have_text(FOURTH.prompt)
    expect(page).to_have_url(re.compile("tab=rewards.*0004"))

    # One question fails, and the next ones are answered.
    made = RunDirectory(runs / "20261122-153000-dpo-1a2b")
    with watch.expecting(NO_ANSWER):
        page.route("**/component_server/", lambda route: route.abort(), times=1)
        with page.expect_event("requestfailed", lambda request: request.url.endswith("/component_server/")):
            pass
        made.create(make_config({"data": "pairs.json"}))
        made.write_status(RunStatus("finished", started=time.time(), max_steps=4, global_step=4))
        expect(page.locator("#chip .chip")).to_be_visible()

    # Hidden for long while it looked, and seen again.
    page.evaluate(HIDE, True)
    page.wait_for_timeout(1_000)  # what it had asked before is answered
    made.write_status(RunStatus("failed", started=time.time(), max_steps=4, error="broke"))
    page.wait_for_timeout(2_000)  # time for three questions or four
    expect(page.locator("#chip .chip")).not_to_contain_text("failed")
    page.evaluate(HIDE, False)
    expect(page.locator("#chip .chip")).to_contain_text("failed")
    watch.close()
    server.stop()


def test_first_steps_lead_on_and_can_be_hidden_for_good(page, watch):
    page.get_by_role("button", name="2. Train").click()
    expect(page.locator("#train-start")).to_be_visible()
    page.get_by_role("button", name="Got it, hide").click()
    expect(page.locator("#welcome")).to_be_hidden()
    watch.refresh()
    expect(page.locator("#welcome")).to_be_hidden()


def test_a_page_without_runs_is_accessible(page):
    """Full of them: see the Train tab's tests."""
    expect(page).to_have_title("Stepwise DPO")
    found = []
    for name, mark in MARKS.items():
        open_tab(page, name)
        expect(page.locator(mark).first).to_be_visible(timeout=60_000)
        found += [f"{name}: {words}" for words in violations(page)]
    assert not found, "\n".join(found)


def test_the_endpoints_are_documented_on_the_page(page):
    page.get_by_role("button", name="Use via API").click()
    # And no tools of language models, which Gradio would show first if there were any.
    expect(page.locator(".api-docs .current-lang")).to_have_text("Python")
    for words in ("/score_steps", "Score each step of a solution"):
        expect(page.get_by_text(words).filter(visible=True).first).to_be_visible()


def test_what_a_page_must_not_do_is_seen(app, visit):
    """Every page of these tests is opened this way; without this, they could all be blind."""
    visitor = visit(app.url, width=390, theme="dark")
    visitor.page.evaluate("""() => {
        console.error('logged');
        setTimeout(() => { throw new Error('raised'); });
        alert('asked');
        open('http://127.0.0.1:9/');
    }""")
    for begins in ("console: logged", "exception: ", "dialog: asked", "another host: http://127.0.0.1:9/"):
        until = time.monotonic() + 30
        while not any(text.startswith(begins) for text in visitor.problems) and time.monotonic() < until:
            visitor.page.wait_for_timeout(50)
        assert any(text.startswith(begins) for text in visitor.problems), begins
    visitor.problems.clear()
