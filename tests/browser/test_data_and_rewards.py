import json
import re
from pathlib import Path

import pytest
from driving import ROOT, open_tab
from playwright.sync_api import Page, expect

from stepwise_dpo.preferences.pairs import dump_pairs, load_pairs, parse_pairs

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


def upload(page: Page, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator("#data-upload").click()
    chooser.value.set_files(path)


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(PAIRS), encoding="utf-8")
    return path


def field(page: Page, name: str):
    return page.locator("#data-editor").get_by_label(name, exact=True)


def test_every_tab_opens(page):
    for name, mark in (
        ("Rewards", "#rewards-example .step"),
        ("Train", "#train-start"),
        ("Compare", "#compare-summary .empty-state"),
        ("Data", "#data-editor textarea"),
    ):
        open_tab(page, name)
        expect(page.locator(mark).first).to_be_visible(timeout=60_000)
    expect(page).to_have_title("Stepwise DPO")


def test_edit_save_and_download(page):
    before = FIRST_PAIRS
    field(page, "Chosen step 1").fill("a better first step")
    page.get_by_role("button", name="Insert a step after chosen step 1", exact=True).click()
    field(page, "Chosen step 2").fill("a step between")
    field(page, "Chosen step 2 label").select_option("right")
    page.get_by_role("button", name="Move chosen step 2 up", exact=True).click()
    page.get_by_role("button", name="Delete rejected step 1", exact=True).click()
    expect(page.get_by_text("Unsaved changes", exact=True)).to_be_visible()
    page.get_by_role("button", name="Save example").click()
    expect(page.get_by_text("Saved in this session.")).to_be_visible()
    expect(page.get_by_text("No unsaved changes")).to_be_visible()

    page.get_by_role("button", name="Add example").click()
    expect(field(page, "Prompt")).to_have_value("What is 2 + 3 × 4?")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download JSON").click()
    assert download.value.suggested_filename == FIRST_SET
    after = parse_pairs(Path(download.value.path()).read_bytes(), "downloaded.json")
    assert [(s.text, s.label) for s in after[0].chosen[:2]] == [
        ("a step between", True),
        ("a better first step", before[0].chosen[0].label),
    ]
    assert after[0].rejected == before[0].rejected[1:]
    assert after[1:-1] == before[1:]

    page.get_by_role("button", name="Delete example").click()
    expect(page.locator("#data-list .list-head")).to_contain_text(re.compile(rf"^{COUNT} examples"))
    undo = page.get_by_role("button", name="Undo")
    undo.click()
    expect(page.locator("#data-list .list-head")).to_contain_text(re.compile(rf"^{COUNT + 1} examples"))
    undo.click()
    expect(page.locator("#data-list .list-head")).to_contain_text(re.compile(rf"^{COUNT} examples"))
    page.locator("#data-list .list-item").first.click()
    expect(field(page, "Chosen step 1")).to_have_value("a step between")
    undo.click()
    expect(field(page, "Chosen step 1")).to_have_value(before[0].chosen[0].text)


def test_what_is_typed_survives_errors_and_other_examples(page):
    field(page, "Rejected step 2").fill("   ")
    page.get_by_role("button", name="Save example").click()
    expect(page.locator("#data-message")).to_contain_text("rejected step 2 is empty")
    expect(field(page, "Rejected step 2")).to_have_value("   ")
    field(page, "Rejected step 2").fill("kept")
    page.locator("#data-list .list-item").nth(1).click()
    expect(page.get_by_text("No unsaved changes")).to_be_visible()
    open_tab(page, "Train")
    open_tab(page, "Data")
    page.locator("#data-list .list-item").nth(0).click()
    expect(field(page, "Rejected step 2")).to_have_value("kept")
    expect(page.get_by_text("Unsaved changes", exact=True)).to_be_visible()
    page.get_by_role("button", name="Discard changes").click()
    expect(page.get_by_text("No unsaved changes")).to_be_visible()


def test_search(page):
    page.get_by_label("Search", exact=True).first.fill("makes true")
    expect(page.locator("#data-list .list-head")).to_contain_text(re.compile(rf"^\d+ of {COUNT} examples$"))
    found = next(pair for pair in FIRST_PAIRS if "makes" in pair.prompt and "true" in pair.prompt)
    expect(page.locator("#data-list .list-item").first).to_contain_text(found.prompt[:30])


def test_upload(page, pairs_file, tmp_path):
    upload(page, pairs_file)
    expect(page.get_by_text("Loaded 2 examples from mine.json.")).to_be_visible()
    expect(page.locator("#data-list .list-head")).to_have_text("2 examples")

    bad = tmp_path / "bad.json"
    bad.write_text('[{"prompt": "p", "chosen": ["a"], "rejcted": ["b"]}]')
    upload(page, bad)
    expect(page.locator("#data-upload-message")).to_contain_text("did you mean 'rejected'?")
    expect(page.locator("#data-list .list-head")).to_have_text("2 examples")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download JSON").click()
    expected = dump_pairs(load_pairs(pairs_file))
    assert Path(download.value.path()).read_text(encoding="utf-8") == expected


def test_visitors_do_not_see_each_other(page, app, browser):
    page.get_by_role("button", name="Delete example").click()
    expect(page.locator("#data-list .list-head")).to_contain_text(re.compile(rf"^{COUNT - 1} examples"))
    other = browser.new_page()
    other.goto(app.url)
    expect(other.locator("#data-list .list-head")).to_contain_text(re.compile(rf"^{COUNT} examples"), timeout=60_000)
    other.close()


def test_hostile_text_is_shown_literally(page, pairs_file):
    upload(page, pairs_file)
    expect(page.locator("#data-list .list-head")).to_have_text("2 examples")
    for number, text in enumerate(HOSTILE, 1):
        expect(field(page, f"Chosen step {number}")).to_have_value(text)
    expect(page.locator("#data-list .list-item").first).to_contain_text("<img src=x onerror=alert(1)> ${alert(1)}")
    open_tab(page, "Rewards")
    texts = page.locator("#rewards-example .solution").first.locator(".text")
    expect(texts).to_have_text(HOSTILE, timeout=60_000)
    expect(page.locator("#rewards-example .question")).to_have_text(PAIRS[0]["prompt"])
    expect(page.locator("#rewards-example .mark")).to_have_text("U+202E")
    page.get_by_role("button", name="Score the set").click()
    expect(page.locator("#rewards-heatmap .heatmaplayer").first).to_be_visible()
    assert page.locator("#page img, #page script").count() == 0
