import json
import re
from pathlib import Path

import pytest
from driving import ROOT, open_tab
from playwright.sync_api import Page, expect

from stepwise_dpo.preferences.pairs import dump_pairs, load_pairs, parse_pairs
from stepwise_dpo.ui.library import BUNDLED_SETS

FIRST_SET = "onpolicy_prm.json"
FIRST_PAIRS = load_pairs(ROOT / "data" / FIRST_SET)
COUNT = len(FIRST_PAIRS)
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "${alert(1)}",
    "{{x}} {{#each value}}",
    "`backticks` \\underline{x} \\u0041",
    "</textarea><script>alert(1)</script>",
]
PAIRS = [
    {
        "id": "hostile",
        "prompt": "Read this: " + HOSTILE[0] + " " + HOSTILE[1] + " {{x}} `",
        "chosen": [{"text": text, "label": True} for text in HOSTILE],
        "rejected": [{"text": text, "label": True} for text in HOSTILE[:2]] + [{"text": "a \u202e b", "label": False}],
    },
    {"id": "plain", "prompt": "What is 1 + 1?", "chosen": ["1 + 1 = 2"], "rejected": ["1 + 1 = 3"]},
]


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(PAIRS), encoding="utf-8")
    return path


def upload(page: Page, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator("#data-upload button").first.click()
    chooser.value.set_files(path)


def field(page: Page, name: str):
    return page.locator("#data-editor").get_by_label(name, exact=True)


def button(page: Page, name: str):
    return page.get_by_role("button", name=name, exact=True)


def rows(page: Page):
    return page.locator("#data-table tbody tr")


def texts(page: Page, side: str) -> list[str]:
    return [area.input_value() for area in page.locator(f"#data-editor [data-side={side}] textarea").all()]


def has_count(page: Page, words: str) -> None:
    expect(page.locator("#data-table .count")).to_have_text(words)


def has_state(page: Page, words: str) -> None:
    expect(page.locator("#data-editor .editor-state")).to_contain_text(words)


# ----------------------------------------------------------------------------------------------------------- the editor


def test_edit_save_and_download(page):
    field(page, "Chosen step 1").fill("a better first step")
    button(page, "Insert a step after chosen step 1").click()
    field(page, "Chosen step 2").fill("a step between")
    field(page, "Chosen step 2 label").select_option("right")
    button(page, "Move chosen step 2 up").click()
    button(page, "Delete rejected step 1").click()
    has_state(page, "Unsaved changes")
    expect(rows(page).first).to_contain_text("unsaved text")
    button(page, "Save example").click()
    expect(page.get_by_text("Saved example 1.")).to_be_visible()
    has_state(page, "No unsaved changes")
    expect(rows(page).first).not_to_contain_text("unsaved text")

    button(page, "Add example").click()
    expect(field(page, "Prompt")).to_have_value("What is 2 + 3 × 4?")
    expect(rows(page).and_(page.locator('[aria-selected="true"]'))).to_contain_text("What is 2 + 3 × 4?")
    page.get_by_text("Download", exact=True).click()
    with page.expect_download() as download:
        button(page, "Download JSON").click()
    assert download.value.suggested_filename == FIRST_SET
    after = parse_pairs(Path(download.value.path()).read_bytes(), "downloaded.json")
    assert [(s.text, s.label) for s in after[0].chosen[:2]] == [
        ("a step between", True),
        ("a better first step", FIRST_PAIRS[0].chosen[0].label),
    ]
    assert after[0].rejected == FIRST_PAIRS[0].rejected[1:]
    assert after[1:-1] == FIRST_PAIRS[1:]

    button(page, "Delete example").click()
    has_count(page, f"{COUNT} examples")
    for change in (f"deleted example {COUNT + 1}", f"added example {COUNT + 1}", "saved example 1"):
        button(page, f"Undo: {change}").click()
    expect(field(page, "Chosen step 1")).to_have_value(FIRST_PAIRS[0].chosen[0].text)
    button(page, "Redo: saved example 1").click()
    expect(field(page, "Chosen step 1")).to_have_value("a step between")
    button(page, "Duplicate").click()
    has_count(page, f"{COUNT + 1} examples")
    expect(rows(page).nth(1)).to_contain_text("repeated prompt")


def test_steps_are_split_merged_moved_and_taken_back_by_keyboard(page):
    step = field(page, "Chosen step 1")
    before = texts(page, "chosen")
    step.fill("one and two")
    step.press("Home")
    for _ in "one":
        step.press("ArrowRight")
    step.press("Control+Enter")
    expect(field(page, "Chosen step 2")).to_be_focused()
    assert texts(page, "chosen")[:2] == ["one", "and two"]
    page.keyboard.type("then ")
    assert texts(page, "chosen")[1] == "then and two"
    page.keyboard.press("Alt+ArrowUp")
    assert texts(page, "chosen")[:2] == ["then and two", "one"]
    page.keyboard.press("Alt+Enter")
    page.keyboard.type("between")
    assert texts(page, "chosen")[:3] == ["then and two", "between", "one"]
    page.keyboard.press("Home")
    page.keyboard.press("Backspace")
    assert texts(page, "chosen")[:2] == ["then and two between", "one"]
    # The caret stands where the two met.
    page.keyboard.type("!")
    assert texts(page, "chosen")[0] == "then and two! between"

    undone = [texts(page, "chosen")]
    while undone[-1] != before:
        page.keyboard.press("Control+z")
        undone.append(texts(page, "chosen"))
        assert len(undone) < 12, undone
    has_state(page, "No unsaved changes")
    assert ["one", "and two"] in [state[:2] for state in undone]
    assert not any(state[1] == "the" for state in undone)  # a word that was typed at once is taken back at once
    for _ in undone[1:]:
        page.keyboard.press("Control+Shift+z")
    assert texts(page, "chosen") == undone[0]


def test_a_wrong_step_that_is_split_asks_which_half_is_wrong(page):
    wrong = next(i for i, step in enumerate(FIRST_PAIRS[0].rejected) if step.label is False) + 1
    name = f"Rejected step {wrong}"
    field(page, name).evaluate("area => area.setSelectionRange(2, 2)")
    button(page, f"Split rejected step {wrong} at the caret").click()
    has_state(page, "say of both halves")
    expect(field(page, f"{name} label")).to_have_value("null")
    button(page, f"Merge rejected step {wrong} with the next").click()
    field(page, name).evaluate("area => area.setSelectionRange(0, 0)")
    button(page, f"Split rejected step {wrong} at the caret").click()
    has_state(page, "Put the caret inside the text")


def test_what_is_odd_is_said_at_its_row_while_typing(page):
    marks = page.locator("#data-editor .diverges")
    expect(marks).to_have_count(2)
    field(page, "Rejected step 1").fill("another beginning")
    expect(page.locator("#data-editor .edit-rows > :first-child")).to_have_text(["diverges here"] * 2)
    field(page, "Chosen step 2").fill(" ")
    second = page.locator("#data-editor [data-side=chosen] [data-step='1']")
    expect(second.locator(".row-notes")).to_have_text("write this step, or delete it")
    expect(field(page, "Chosen step 2")).to_have_attribute("aria-invalid", "true")
    has_state(page, "1 to put right")
    field(page, "Chosen step 2").fill("a step")
    field(page, "Chosen step 2 label").select_option("wrong")
    # From the server: the same words as `data validate` has.
    expect(second.locator(".row-notes")).to_have_text("chosen step 2 is labelled wrong")
    expect(second.get_by_text("first error (label)")).to_be_visible()
    expect(page.get_by_text("first error (label)").filter(visible=True)).to_have_count(2)

    page.get_by_label("Count tokens of").select_option("tiny")
    expect(second.locator(".tokens")).to_have_text("6 tokens")
    field(page, "Chosen step 2").fill("a longer step")
    expect(second.locator(".tokens")).to_have_text("13 tokens")
    page.get_by_label("Count tokens of").select_option("google/flan-t5-small")
    expect(page.locator("#data-editor .prompt-head")).to_contain_text("is not on this machine")
    # A model of one's own, once Train names it.
    folder = str(ROOT / "data" / "models" / "policy")
    open_tab(page, "Train")
    page.locator("#train-model input").fill(folder)
    page.locator("#train-model input").press("Enter")
    open_tab(page, "Data")
    page.get_by_label("Count tokens of").select_option(folder)
    expect(page.locator("#data-editor .prompt-head")).to_contain_text(re.compile(r"prompt: \d+ tokens"))


def test_what_is_typed_survives_errors_other_examples_and_a_refresh(page, watch):
    field(page, "Rejected step 2").fill("   ")
    button(page, "Save example").click()
    expect(page.locator("#data-message")).to_contain_text("rejected step 2 is empty")
    expect(field(page, "Rejected step 2")).to_have_value("   ")
    field(page, "Rejected step 2").fill("kept")
    rows(page).nth(1).click()
    has_state(page, "No unsaved changes")
    open_tab(page, "Train")
    open_tab(page, "Data")
    watch.refresh()
    expect(rows(page).first).to_contain_text("unsaved text")
    rows(page).first.click()
    expect(field(page, "Rejected step 2")).to_have_value("kept")
    # From another page of the table, it is one click away.
    button(page, "Last page").click()
    button(page, "Show the other example with unsaved text").click()
    expect(rows(page).and_(page.locator('[aria-selected="true"]'))).to_contain_text("unsaved text")
    expect(field(page, "Rejected step 2")).to_have_value("kept")
    button(page, "Discard changes").click()
    has_state(page, "No unsaved changes")
    watch.refresh()
    expect(field(page, "Rejected step 2")).to_have_value(FIRST_PAIRS[0].rejected[1].text)


def test_what_is_typed_during_a_save_is_not_lost(page):
    step = field(page, "Chosen step 1")
    step.fill("saved")
    step.press("Control+s")
    step.press_sequentially(" and typed on", delay=5)
    expect(page.get_by_text("Saved example 1.")).to_be_visible()
    expect(step).to_have_value("saved and typed on")
    expect(step).to_be_focused()
    has_state(page, "Unsaved changes")


def test_what_is_typed_during_a_slow_save_outlasts_another_example(page):
    """The page's own values come in between, and the answer comes when another example is open."""
    held = []
    page.route("**/queue/join*", lambda route: held.append(route))
    step = field(page, "Chosen step 1")
    step.fill("saved")
    step.press("Control+s")
    step.press_sequentially(" and typed on")
    rows(page).nth(1).click()
    page.wait_for_timeout(1000)
    assert held
    for route in held:
        route.continue_()
    page.unroute("**/queue/join*")
    expect(step).to_have_value(FIRST_PAIRS[1].chosen[0].text)
    expect(rows(page).first).to_contain_text("unsaved text")
    rows(page).first.click()
    expect(step).to_have_value("saved and typed on")
    button(page, "Discard changes").click()
    expect(step).to_have_value("saved")


def test_a_browser_that_keeps_nothing_says_so(page):
    page.evaluate(
        "() => { Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }; }"
    )
    field(page, "Chosen step 1").fill("x")
    has_state(page, "its storage is full")


# ------------------------------------------------------------------------------------------------------------- the sets


def test_saved_changes_survive_a_refresh_and_are_nobody_elses(page, app, visit, watch, pairs_file):
    button(page, "Delete example").click()
    has_count(page, f"{COUNT - 1} examples")
    upload(page, pairs_file)
    has_count(page, "2 examples")
    watch.refresh()
    has_count(page, "2 examples")
    page.locator("#data-set input").click()
    page.get_by_role("option", name=FIRST_SET).click()
    has_count(page, f"{COUNT - 1} examples")
    # The set is as it came again by one click, and that can be undone.
    button(page, "Restore the bundled examples").click()
    has_count(page, f"{COUNT} examples")
    expect(button(page, "Restore the bundled examples")).to_be_hidden()
    button(page, "Undo: restored the bundled examples").click()
    has_count(page, f"{COUNT - 1} examples")

    other = visit(app.url).page
    has_count(other, f"{COUNT} examples")
    other.locator("#data-set input").click()
    expect(other.get_by_role("option", name=re.compile(r"\.json"))).to_have_count(len(BUNDLED_SETS))


def test_upload_by_click_or_drop_and_the_formats_of_downloads(page, pairs_file, tmp_path):
    upload(page, pairs_file)
    expect(page.get_by_text("Loaded 2 examples from mine.json.")).to_be_visible()
    has_count(page, "2 examples")

    content = '[{"prompt": "p", "chosen": ["a"], "rejcted": ["b"]}]'
    dropped = page.evaluate_handle(
        """text => {
            const files = new DataTransfer();
            files.items.add(new File([text], 'bad.json', { type: 'application/json' }));
            return files;
        }""",
        content,
    )
    page.locator("#data-upload button").first.dispatch_event("drop", {"dataTransfer": dropped})
    expect(page.locator("#data-set-message")).to_contain_text("did you mean 'rejected'?")
    has_count(page, "2 examples")

    page.get_by_text("Download", exact=True).click()
    files = {}
    for name in ("Download JSON", "Download TRL preference", "Download TRL stepwise"):
        with page.expect_download() as download:
            button(page, name).click()
        files[download.value.suggested_filename] = Path(download.value.path()).read_text(encoding="utf-8")
    assert files["mine.json"] == dump_pairs(load_pairs(pairs_file))
    preference = [json.loads(line) for line in files["mine-preference.jsonl"].splitlines()]
    assert preference[1] == {"prompt": "What is 1 + 1?", "chosen": "1 + 1 = 2", "rejected": "1 + 1 = 3"}
    assert len(files["mine-stepwise.jsonl"].splitlines()) == 4

    button(page, "Remove this set").click()
    expect(page.get_by_text("Removed mine.json.")).to_be_visible()
    button(page, "Undo: removed mine.json").click()
    has_count(page, "2 examples")


def test_generate_and_look_at_the_statistics(page):
    page.get_by_text("Generate examples", exact=True).first.click()
    page.locator("#data-families input").click()
    page.get_by_role("option", name="chain").click()
    page.keyboard.press("Escape")
    page.get_by_label("Examples", exact=True).fill("12")
    page.get_by_label("Fewest steps").fill("3")
    page.get_by_label("Most steps").fill("3")
    page.locator("#data-make").click()
    expect(page.get_by_text("Generated 12 examples as generated-12-seed-7.json.")).to_be_visible()
    has_count(page, "12 examples")
    expect(rows(page).first).to_contain_text("4 | ")  # three computations and the answer
    expect(page.locator("#data-table tr[data-example^=chain-7-]")).to_have_count(12)  # the one family that was chosen
    page.get_by_text("Statistics of this set").click()
    steps = "document.querySelector('#data-charts [data-id=data_steps] .figure')?.data?.[0]"
    page.wait_for_function(f"{steps}?.y?.[0] === 12")
    assert page.evaluate(f"{steps}.x") == [4]
    button(page, "Duplicate").click()
    expect(page.locator("#data-numbers")).to_contain_text("1repeated prompt")
    page.get_by_label("Most steps").fill("2")
    page.locator("#data-make").click()
    expect(page.locator("#data-set-message")).to_contain_text("steps must be the fewest and the most")


# ------------------------------------------------------------------------------------------------------------ the table


def test_search_sort_filter_and_pages(page):
    search = page.get_by_label("Search", exact=True).filter(visible=True)
    search.fill("makes true")
    expect(page.locator("#data-table .count")).to_have_text(re.compile(rf"^\d+ of {COUNT} examples$"))
    found = next(pair for pair in FIRST_PAIRS if "makes" in pair.prompt and "true" in pair.prompt)
    expect(rows(page).first).to_contain_text(found.prompt[:30])
    search.fill("")
    has_count(page, f"{COUNT} examples")

    sort = button(page, "Sort by first error")
    sort.click()
    expect(page.locator("#data-table th.col-error")).to_have_attribute("aria-sort", "ascending")
    expect(rows(page).first.locator(".col-error")).to_have_text("1")
    expect(button(page, "Sort by first error")).to_be_focused()
    sort.press("Enter")
    latest = max(i for pair in FIRST_PAIRS for i, step in enumerate(pair.rejected, 1) if step.label is False and all(
        earlier.label is not False for earlier in pair.rejected[: i - 1]
    ))  # fmt: skip
    expect(rows(page).first.locator(".col-error")).to_have_text(str(latest))
    button(page, "Sort by number").click()

    button(page, "Next page").click()
    expect(rows(page).first.locator(".col-number")).to_have_text("26")
    # One row is in the tab order; arrows move, Enter opens.
    rows(page).first.locator("button").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(field(page, "Prompt")).to_have_value(FIRST_PAIRS[26].prompt)
    expect(rows(page).nth(1)).to_have_attribute("aria-selected", "true")

    page.get_by_label("Show", exact=True).click()
    page.get_by_role("option", name="Worth a look").click()
    odd = sum(bool(pair.problems()) for pair in FIRST_PAIRS)
    has_count(page, f"{odd} of {COUNT} examples")


def test_ten_thousand_examples_load_page_and_search(page, tmp_path):
    path = tmp_path / "many.jsonl"
    rows_ = (
        {"id": f"id{i}", "prompt": f"problem {i}", "chosen": [f"{i}"], "rejected": [f"{i + 1}"]} for i in range(10_000)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_))
    upload(page, path)
    has_count(page, "10,000 examples")
    button(page, "Last page").click()
    expect(rows(page).last).to_contain_text("problem 9999")
    page.get_by_label("Search", exact=True).filter(visible=True).fill("id7777")
    has_count(page, "1 of 10,000 examples")
    rows(page).first.click()
    expect(field(page, "Prompt")).to_have_value("problem 7777")


def test_case_04_hostile_text_is_shown_literally(page, pairs_file):
    upload(page, pairs_file)
    has_count(page, "2 examples")
    for number, text in enumerate(HOSTILE, 1):
        expect(field(page, f"Chosen step {number}")).to_have_value(text)
    expect(rows(page).first).to_contain_text("<img src=x onerror=alert(1)> ${alert(1)}")
    field(page, "Prompt").fill(HOSTILE[0])
    button(page, "Save example").click()
    expect(rows(page).first).to_contain_text(HOSTILE[0])
    page.get_by_text("Statistics of this set").click()
    expect(page.locator("#data-charts .main-svg").first).to_be_visible()
    assert page.locator("#page img, #page script").count() == 0
