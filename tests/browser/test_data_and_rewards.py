import json
from pathlib import Path

import pytest
from driving import open_tab
from playwright.sync_api import Page, expect

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
        page.locator("#data-upload button").first.click()
    chooser.value.set_files(path)


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(PAIRS), encoding="utf-8")
    return path


def test_every_tab_opens(page):
    for name, mark in (
        ("Rewards", "#rewards-example .step"),
        ("Train", "#train-start"),
        ("Compare", "#compare-summary .empty-state"),
        ("Learn", "#learn-lesson input[type=range]"),
        ("Data", "#data-editor textarea"),
    ):
        open_tab(page, name)
        expect(page.locator(mark).first).to_be_visible(timeout=60_000)
    expect(page).to_have_title("Stepwise DPO")


def test_case_04_hostile_text_is_shown_literally(page, pairs_file):
    upload(page, pairs_file)
    expect(page.locator("#data-table .count")).to_have_text("2 examples")
    open_tab(page, "Rewards")
    texts = page.locator("#rewards-example .solution").first.locator(".text")
    expect(texts).to_have_text(HOSTILE, timeout=60_000)
    expect(page.locator("#rewards-example .question")).to_have_text(PAIRS[0]["prompt"])
    expect(page.locator("#rewards-example .mark")).to_have_text("U+202E")
    page.get_by_role("button", name="Score the set").click()
    expect(page.locator("#rewards-heatmap .heatmaplayer").first).to_be_visible()
    assert page.locator("#page img, #page script").count() == 0
