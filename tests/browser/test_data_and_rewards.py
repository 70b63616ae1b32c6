import json
import re
from pathlib import Path

import pytest
from driving import ROOT, open_tab
from playwright.sync_api import Page, expect

from stepwise_dpo.preferences.pairs import first_error, load_pairs

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


def test_hostile_text_is_shown_literally(page, pairs_file):
    upload(page, pairs_file)
    expect(page.locator("#data-table .count")).to_have_text("2 examples")
    open_tab(page, "Rewards")
    texts = page.locator("#rewards-example .solution").first.locator(".text")
    expect(texts).to_have_text(HOSTILE, timeout=60_000)
    expect(page.locator("#rewards-example .question")).to_have_text(PAIRS[0]["prompt"])
    expect(page.locator("#rewards-example .mark")).to_have_text("U+202E")
    page.get_by_role("button", name="Draw heatmap").click()
    expect(page.locator("#rewards-heatmap .heatmaplayer").first).to_be_visible()
    assert page.locator("#page img, #page script").count() == 0


VALUE = re.compile(r"^(\+|−)?\d\.\d\d$")


def values(page: Page, side: str) -> list[float]:
    """The numbers beside the steps of one solution."""
    cells = page.locator("#rewards-example .solution").nth(["chosen", "rejected"].index(side)).locator(".value")
    expect(cells.first).to_have_text(VALUE, timeout=60_000)
    return [float(text.replace("−", "-")) for text in cells.all_inner_texts()]


def test_rewards_of_a_held_out_example_drop_at_its_wrong_step(page):
    held_out = load_pairs(ROOT / "data" / "heldout_prm.json")
    page.locator("#data-set input").click()
    page.get_by_role("option", name="heldout_prm.json").click()
    expect(page.locator("#data-table .count")).to_have_text(f"{len(held_out)} examples")
    open_tab(page, "Rewards")
    expect(page.locator("#rewards-example .question")).to_have_text(held_out[0].prompt)
    chosen, rejected = values(page, "chosen"), values(page, "rejected")
    wrong = first_error(held_out[0].rejected)
    assert wrong is not None
    assert (len(chosen), len(rejected)) == (len(held_out[0].chosen), len(held_out[0].rejected))
    assert min(chosen) > 0
    assert all(value > 0 for value in rejected[:wrong])
    assert rejected[wrong] < 0
    expect(page.locator("#rewards-example")).to_contain_text("preference =")
    expect(page.get_by_text("“reward” comes with the project")).to_be_visible()

    page.locator("#rewards-list .list-item").nth(3).click()
    expect(page.locator("#rewards-example .question")).to_have_text(held_out[3].prompt)
    page.get_by_role("button", name="Draw heatmap").click()
    expect(page.locator("#rewards-heatmap .textpoint text").first).to_have_text(VALUE)


def test_an_untrained_judge_is_said_to_be_one(page):
    open_tab(page, "Rewards")
    expect(page.locator("#rewards-example .value").first).to_have_text(VALUE, timeout=60_000)
    page.locator("#rewards-model input").click()
    page.get_by_role("option", name="tiny", exact=True).click()
    expect(page.get_by_text("Its scores are noise")).to_be_visible()


def test_a_missing_model_is_explained(page, tmp_path):
    open_tab(page, "Rewards")
    model = page.locator("#rewards-model input")
    model.fill(str(tmp_path / "nowhere"))
    model.press("Enter")
    page.get_by_role("button", name="Score this example").click()
    expect(page.locator("#rewards-message")).to_contain_text("no such folder", timeout=60_000)
    expect(page.locator("#rewards-example .step").first).to_be_visible()
