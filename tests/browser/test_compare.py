"""The Compare tab over real records: the bundled policy, and copies of it whose weights were shaken."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
from driving import App, open_tab, too_wide, violations
from finished_runs import EVIL, FIRST, HOSTILE, MEASURED, OTHER, SECOND, STEPS
from playwright.sync_api import Page, expect

from stepwise_dpo.runs.directory import RunDirectory, RunStatus

NUMBER = re.compile(r"^(\+|−)?\d+\.\d\d$")


@pytest.fixture
def app(measured_app: App) -> App:
    return measured_app


@pytest.fixture
def compare(page: Page) -> Page:
    open_tab(page, "Compare")
    expect(page.locator("#compare-example .value").first).to_have_text(NUMBER)
    return page


def pick(page: Page, field: str, option: str | re.Pattern) -> None:
    page.locator(f"#compare-{field} input").click()
    page.get_by_role("option", name=option, exact=isinstance(option, str)).click()


def rows(page: Page):
    return page.locator("#compare-table .row")


def test_numbers_first_then_what_flipped_then_one_example(compare, app):
    # The newest run against its base.
    expect(compare.locator("#compare-summary h2")).to_have_text("Step-wise · 1 Jan 11:00:00, before and after training")
    expect(compare.locator("#compare-summary")).to_contain_text("measured on 17 examples, none of them trained on")
    records = stored(app, SECOND)
    right = sum(record["preferred"] == "chosen" for record in records)
    share = f"{right / 17:.1%}" if right < 17 else "100%"
    expect(compare.locator("#compare-summary tbody tr").first).to_contain_text(share)
    # The hostile problem is no known one, so its answer counts nowhere.
    expect(compare.locator("#compare-summary tbody tr").last).to_contain_text("of 16 problems")

    flipped = [i for i, record in enumerate(records) if record["before_preferred"] != record["preferred"]]
    compare.get_by_label(f"Preference flipped ({len(flipped)})").check()
    if flipped:
        expect(rows(compare)).to_have_count(min(15, len(flipped)))
    else:
        expect(compare.locator("#compare-table .empty-state")).to_be_visible()
    compare.get_by_label("All (17)").check()
    expect(rows(compare)).to_have_count(15)
    compare.get_by_role("button", name="Next").click()
    expect(rows(compare)).to_have_count(2)

    # Sorted by change, the largest first.
    changes = [
        (one["chosen_score"] - one["rejected_score"]) - (one["before_chosen_score"] - one["before_rejected_score"])
        for one in records
    ]
    compare.get_by_role("button", name="Change", exact=True).click()
    best = max(range(17), key=lambda i: changes[i])
    expect(rows(compare).first).to_contain_text(f"{best + 1}. ")
    rows(compare).first.click()
    expect(compare.locator("#compare-example .question")).to_have_text(records[best]["prompt"])
    expect(compare.locator("#compare-prompt textarea")).to_have_value(records[best]["prompt"])
    cells = compare.locator("#compare-example .solution").nth(2).locator(".value").all_inner_texts()
    ratios = [float(text.replace("−", "-")) for text in cells]
    assert ratios == pytest.approx(records[best]["chosen_step_logratios"], abs=0.0051)
    # Found as it was left.
    open_tab(compare, "Data")
    expect(compare.locator("#data-editor textarea").first).to_be_visible()
    open_tab(compare, "Compare")
    expect(compare.locator("#compare-example .question")).to_have_text(records[best]["prompt"])
    expect(rows(compare).first).to_have_attribute("aria-current", "true")


def stored(app: App, name: str) -> list[dict]:
    """The records that a run wrote."""
    return [json.loads(line) for line in (app.runs_dir / name / "examples.jsonl").read_text().splitlines()]


def test_a_point_opens_its_example(compare):
    # The point with the largest margin stands alone.
    figure = "document.querySelector('#compare-charts [data-id=margin_moves] .figure')"
    expect(compare.locator("#compare-charts [data-id=margin_moves] .point").first).to_be_visible()
    compare.locator("#compare-charts [data-id=margin_moves]").scroll_into_view_if_needed()
    key = compare.evaluate(
        f"(() => {{ const trace = {figure}.data[0]; const at = trace.x.indexOf(Math.max(...trace.x));"
        f"const layout = {figure}._fullLayout; const box = {figure}.getBoundingClientRect();"
        "return [trace.customdata[at], box.x + layout.xaxis._offset + layout.xaxis.l2p(trace.x[at]),"
        " box.y + layout.yaxis._offset + layout.yaxis.l2p(trace.y[at])] })()"
    )
    compare.mouse.move(key[1], key[2])
    compare.mouse.click(key[1], key[2])
    number = int(key[0].removeprefix("row:"))
    expect(compare.locator("#compare-example .question")).to_have_text(MEASURED[number].prompt)


def test_two_runs_and_examples_measured_now(compare, watch):
    pick(compare, "before", "DPO · 1 Jan 10:00:00")
    expect(compare.locator("#compare-summary h2")).to_have_text("DPO · 1 Jan 10:00:00 and Step-wise · 1 Jan 11:00:00")
    expect(compare.locator("#compare-summary")).to_contain_text("measured on 17 examples")
    pick(compare, "after", "DPO · 1 Jan 10:00:00")
    expect(compare.locator("#compare-summary")).to_contain_text("both sides are the same model")
    pick(compare, "after", "DPO · 1 Jan 09:00:00")
    expect(compare.locator("#compare-summary")).to_contain_text("measured on 1 example")
    expect(compare).to_have_url(re.compile(f"run={OTHER}"))  # so a refresh opens it

    pick(compare, "source", "a bundled held-out set, heldout_prm.json")
    expect(compare.locator("#compare-summary .empty-state")).to_contain_text("Not measured yet")
    slider = compare.locator("#compare-count input[type=number]")
    slider.fill("20")
    slider.press("Enter")
    compare.get_by_role("button", name="Measure 20 examples").click()
    words = "measured on 20 examples (the first 20 of 120"
    expect(compare.locator("#compare-summary")).to_contain_text(words, timeout=90_000)
    expect(compare.locator("#compare-summary")).to_contain_text("4 of them trained on")
    expect(compare.locator("#compare-message")).to_have_text("")
    expect(rows(compare)).to_have_count(15)
    # Measured once: the same choice is there at once.
    pick(compare, "source", "what the runs held out")
    expect(compare.locator("#compare-summary")).to_contain_text("measured on 1 example")
    pick(compare, "source", "a bundled held-out set, heldout_prm.json")
    expect(compare.locator("#compare-summary")).to_contain_text("measured on 20 examples")

    # The address keeps it all, so that a refresh, or somebody else with the link, finds the same.
    compare.get_by_role("button", name="Change", exact=True).click()
    rows(compare).nth(2).click()
    expect(rows(compare).nth(2)).to_have_attribute("aria-current", "true")
    words = rows(compare).nth(2).inner_text()
    expect(compare).to_have_url(re.compile("tab=compare.*&on=heldout_prm.json&number=20&sort=-change&row="))
    watch.go(compare.url)
    expect(compare.locator("#compare-summary")).to_contain_text("measured on 20 examples")
    expect(rows(compare).nth(2)).to_have_text(words)
    expect(rows(compare).nth(2)).to_have_attribute("aria-current", "true")
    expect(slider).to_have_value("20")
    expect(compare.locator("#compare-before input")).to_have_value("DPO · 1 Jan 10:00:00")


def test_both_models_answer_a_typed_problem_that_outlasts_a_refresh(compare, watch):
    prompt = compare.locator("#compare-prompt textarea")
    prompt.fill("Start with 15. Add 13, then subtract 4. What is the result?")
    compare.get_by_role("button", name="Let both answer").click()
    expect(compare.locator("#compare-answers .solution")).to_have_count(2)
    expect(compare.locator("#compare-answers .value").first).to_have_text(NUMBER, timeout=60_000)
    expect(compare.locator("#compare-answers .sum").first).to_have_text(re.compile("right|wrong"))
    expect(compare.locator("#compare-answers")).to_contain_text("by reward")
    # What was typed stays with its answers when another example is opened.
    rows(compare).nth(1).click()
    expect(compare.locator("#compare-example .question")).to_have_text(MEASURED[1].prompt)
    expect(compare.locator("#compare-ask-message")).to_contain_text("is yours, so it stays")
    expect(prompt).to_have_value(re.compile("^Start with 15"))
    expect(compare.locator("#compare-answers .value").first).to_be_visible()
    watch.refresh()
    open_tab(compare, "Compare")
    expect(compare.locator("#compare-ask-message")).to_contain_text("is yours, so it stays")
    expect(prompt).to_have_value(re.compile("^Start with 15"))
    prompt.fill("")
    compare.get_by_role("button", name="Let both answer").click()
    expect(compare.locator("#compare-ask-message")).to_contain_text("the problem is empty")


def test_downloads(compare, app):
    with compare.expect_download() as download:
        compare.get_by_role("button", name="Download CSV").click()
    assert download.value.suggested_filename == "inference_results.csv"
    with open(download.value.path(), encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(io.StringIO(file.read(), newline="")))
    assert [row["prompt"] for row in read] == [pair.prompt for pair in MEASURED[:-1]] + [f"'{EVIL.prompt}"]
    with compare.expect_download() as download:
        compare.get_by_role("button", name="Download JSONL").click()
    with open(download.value.path(), encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    written = stored(app, SECOND)
    assert [record["chosen_step_logps"] for record in records] == [record["chosen_step_logps"] for record in written]
    assert [record["model_output"] for record in records] == [record["model_output"] for record in written]


def test_case_04_hostile_text_is_shown_literally(compare):
    compare.get_by_role("button", name="Next").click()
    expect(rows(compare)).to_have_count(2)
    rows(compare).last.click()
    expect(compare.locator("#compare-example .question")).to_have_text(EVIL.prompt)
    expect(compare.locator("#compare-example .text").first).to_have_text(HOSTILE)
    assert compare.locator("#page img, #page script").count() == 0


def test_a_keyboard_reaches_filter_sort_and_rows(compare):
    shown = compare.get_by_role("radiogroup", name="Examples to show")
    shown.get_by_label("All (17)").focus()
    compare.keyboard.press("ArrowRight")
    expect(shown.get_by_label(re.compile("Preference flipped"))).to_be_checked()
    expect(shown.get_by_label(re.compile("Preference flipped"))).to_be_focused()
    expect(compare.locator("#compare-table .row")).not_to_have_count(15)
    compare.keyboard.press("ArrowLeft")
    expect(shown.get_by_label("All (17)")).to_be_checked()
    expect(rows(compare)).to_have_count(15)
    # One stop for the whole group.
    compare.keyboard.press("Tab")
    expect(compare.get_by_role("button", name="Download CSV")).to_be_focused()
    head = compare.get_by_role("columnheader", name=re.compile("Margin after"))
    head.get_by_role("button").focus()
    compare.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "descending")
    expect(head.get_by_role("button")).to_be_focused()  # of the new table, which has taken the old one's place
    rows(compare).nth(2).focus()
    compare.keyboard.press("Enter")
    expect(rows(compare).nth(2)).to_have_attribute("aria-current", "true")
    expect(rows(compare).nth(2)).to_be_focused()


@pytest.fixture
def going(app: App) -> Iterator[RunDirectory]:
    """A run at work, as far as its files say."""
    run = RunDirectory(app.runs_dir / "20260101-120000-dpo-dddd")
    run.create(RunDirectory(app.runs_dir / FIRST).config())
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(200)"]) as worker:
        created = psutil.Process(worker.pid).create_time()
        run.write_status(RunStatus("running", worker.pid, created, max_steps=STEPS, started=time.time()))
        yield run
        worker.kill()
    shutil.rmtree(run.path)


# Between the look with which a page opens and its first question, much can happen.
LATE_QUESTIONS = """
const { fetch } = window;
window.fetch = (...sent) => String(sent[0]?.url ?? sent[0]).includes('component_server')
  ? new Promise((resolve) => setTimeout(resolve, 5000)).then(() => fetch(...sent))
  : fetch(...sent);
"""


@pytest.mark.parametrize("late", [False, True])
def test_a_run_that_ends_is_shown_where_another_one_stood_in_for_it(app, visit, going, late):
    watch = visit(app.url)
    page = watch.page
    if late:
        page.add_init_script(LATE_QUESTIONS)
    watch.go(f"{app.url}/?tab=compare")
    after = page.locator("#compare-after input")
    expect(after).to_have_value("Step-wise · 1 Jan 11:00:00")
    expect(page).to_have_url(re.compile(f"run={going.id}$"))
    expect(page.locator("#chip .chip")).to_be_visible()  # the page has looked at the runs
    shutil.copytree(app.runs_dir / FIRST / "final", going.final)
    shutil.copy(app.runs_dir / FIRST / "examples.jsonl", going.path)
    going.write_status(RunStatus("finished", started=time.time(), global_step=STEPS, max_steps=STEPS))
    expect(after).to_have_value("DPO · 1 Jan 12:00:00")
    expect(page.locator("#compare-summary h2")).to_have_text("DPO · 1 Jan 12:00:00, before and after training")


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (390, "dark")])
def test_full_of_results_it_fits_and_is_accessible(app, visit, width, theme):
    page = visit(f"{app.url}/?tab=compare", width=width, theme=theme).page
    expect(page.locator("#compare-example .value").first).to_be_visible()
    page.get_by_role("button", name="Let both answer").click()
    expect(page.locator("#compare-answers .value").first).to_be_visible(timeout=60_000)
    assert too_wide(page) == []
    page.evaluate(
        "document.querySelector('#compare-answers .value').insertAdjacentHTML('afterend', '<b id=wide>wide</b>')"
    )
    page.evaluate("document.getElementById('wide').style.cssText = 'display: block; width: 2000px'")
    assert [part.split()[:2] for part in too_wide(page)] == [["B", "wide"]]
    page.evaluate("document.getElementById('wide').remove()")
    found = violations(page)
    assert not found, "\n".join(found)
