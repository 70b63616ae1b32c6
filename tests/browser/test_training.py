import json
import os
import re
import signal
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from driving import CUT_OFF, App, open_tab, take_picture, too_wide, violations
from playwright.sync_api import Page, expect

from stepwise_dpo.preferences.pairs import save_pairs
from stepwise_dpo.preferences.synthetic import generate_pairs
from stepwise_dpo.runs.directory import list_runs

ENDED = 150_000
# Long enough to be stopped, short enough to end by itself should that fail.
LONG = {"#train-examples": "40", "#train-epochs": "100", "#train-batch": "4", "#train-held-out": "2"}
SHORT = {"#train-examples": "8", "#train-epochs": "4", "#train-batch": "4", "#train-held-out": "2"}


def fill(page: Page, values: dict[str, str]) -> None:
    open_tab(page, "Train")
    for field, value in values.items():
        page.locator(f"{field} input").fill(value)
        page.locator(f"{field} input").press("Tab")


def start(page: Page, app: App) -> None:
    """Press the button and wait until the new run is the one that the page shows."""
    known = len(list(app.runs_dir.glob("*/config.json")))
    page.locator("#train-start").click()
    expect(rows(page)).to_have_count(known + 1)
    expect(rows(page).first.locator(".name")).to_have_attribute("aria-current", "true")


@contextmanager
def held(app: App) -> Iterator[None]:
    """Hold the one run that goes on, so that it doesn't end before a page is there that shall see it going on."""
    deadline = time.monotonic() + 30
    while not (pids := [run.status().pid for run in list_runs(app.runs_dir) if run.status().active]) or pids == [None]:
        assert time.monotonic() < deadline, "no run to hold"
        time.sleep(0.02)
    (pid,) = pids
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def rows(page: Page):
    return page.locator("#train-runs tbody tr")


def state(page: Page, name: str):
    return page.locator(f'#train-head [data-state="{name}"]')


def figure(chart: str = "loss") -> str:
    return f"document.querySelector('#train-charts [data-id={chart}] .figure')"


def points(page: Page, chart: str = "loss") -> int:
    """How many points the first curve of a chart has, as plotly holds them."""
    return page.evaluate(f"{figure(chart)}?.data?.[0]?.x?.length ?? 0")


def wait_for_points(page: Page, count: int) -> None:
    page.wait_for_function(f"n => ({figure()}?.data?.[0]?.x?.length ?? 0) >= n", arg=count, timeout=ENDED)


def updates(page: Page, chart: str = "loss") -> int:
    return int(page.locator(f"#train-charts [data-id={chart}] .figure").get_attribute("data-updates") or 0)


def visible(page: Page, chart: str, name: str) -> bool:
    return page.evaluate(f"name => {figure(chart)}.data.find((t) => t.name === name).visible !== false", name)


def download(page: Page, button: str, name: str = ".+") -> Path:
    with page.expect_download() as waited:
        page.locator(button).click()
    assert re.fullmatch(name, waited.value.suggested_filename)
    return Path(waited.value.path())


def test_a_short_dpo_run_to_its_end_and_all_that_can_be_taken_from_it(page, app, visit):
    open_tab(page, "Train")
    # On a first visit the button is seen without scrolling, and the charts stand there, empty.
    expect(page.locator("#train-start")).to_be_in_viewport(ratio=1)
    expect(page.locator("#train-charts .plot.empty")).to_have_count(7)
    expect(page.locator("#train-estimate")).to_contain_text("about 1 min on two cores; not measured here yet")
    fill(page, SHORT)
    page.get_by_label("DPO", exact=True).check()
    expect(page.locator("#train-start")).to_have_text("Train 8 steps")
    charts = page.locator("#train-charts").bounding_box()
    judging = visit(f"{app.url}/?tab=rewards").page
    expect(judging.locator("#rewards-example .value").first).to_be_visible(timeout=60_000)
    judging.get_by_role("radiogroup", name="Before or after training").get_by_label("After", exact=True).check()
    expect(judging.locator("#rewards-rows")).to_contain_text("Nothing “after” to show")
    start(page, app)
    with held(app):
        comparing = visit(f"{app.url}/?tab=compare").page
        expect(comparing.locator("#compare-summary")).to_contain_text("is still going")
    expect(state(page, "finished")).to_be_visible(timeout=ENDED)
    # Who waits for its end in another tab sees it there, and need not open that again.
    expect(comparing.locator("#compare-summary")).to_contain_text("Preference accuracy")
    expect(judging.locator("#rewards-run input")).to_have_value(re.compile("^DPO"))
    expect(judging.locator("#rewards-rows")).not_to_contain_text("Nothing")
    comparing.close()
    judging.close()
    assert page.locator("#train-charts").bounding_box() == charts  # nothing jumped
    expect(page.locator("#train-estimate")).to_contain_text("judged by the last run")  # by itself
    # Where the run stands is seen from everywhere, and a press leads there, below the header.
    page.locator("#train-charts .plot").last.scroll_into_view_if_needed()
    expect(page.locator("#chip .chip")).to_be_in_viewport(ratio=1)
    page.locator("#chip .chip").click()
    page.wait_for_function("document.querySelector('#train-head h2').getBoundingClientRect().top >= 56")
    expect(page.locator("#train-head")).to_contain_text("8 / 8")
    assert points(page) == 8
    assert points(page, "accuracy") == 8
    assert page.evaluate(f"{figure()}.data[0].y[0]") == pytest.approx(0.693147, abs=1e-4)
    buttons = page.locator("#train-charts [data-id=loss] .modebar-btn")
    assert "Reset axes" in buttons.evaluate_all("all => all.map((one) => one.dataset.title)")
    expect(buttons.and_(page.locator("[data-title*=hare]"))).to_have_count(0)  # it would upload the chart
    expect(rows(page).first).to_contain_text("finished")
    expect(rows(page).first.locator(".spark path")).to_have_attribute("d", re.compile("^M.*L"))
    for head, term in (("Loss", "Loss of a run"), ("Before → after", "Result of a run")):
        cell = page.locator("#train-runs th", has_text=head)
        expect(cell.get_by_role("button")).to_have_attribute("aria-label", f"What is {term}?")

    # Its downloads, and the command in words.
    page.get_by_role("button", name="Take it along").click()
    expect(page.locator("#train-take-along pre").first).to_contain_text("python -m stepwise_dpo train --loss dpo")
    with zipfile.ZipFile(download(page, "#export-zip", r"\d{8}-\d{6}-dpo-\w+\.zip")) as archive:
        assert {"README.md", "model.safetensors", "config.json"} <= set(archive.namelist())
    assert download(page, "#export-csv").read_text().startswith("global_step,epoch,time,loss")
    assert len(json.loads(download(page, "#export-json").read_text())) >= 8
    assert yaml.safe_load(download(page, "#export-yaml").read_text())["loss"] == "dpo"

    # A note, typed while updates come; a preset, which the saved run doesn't follow; and back from the run.
    note = rows(page).first.get_by_role("textbox")
    note.fill("<b>first</b> try")
    note.press("Enter")
    page.get_by_label("Phase 2", exact=True).check()
    expect(page.locator("#train-model input")).to_have_value("google/flan-t5-small")
    expect(page.locator("#train-start")).to_have_text("Train 360 steps")
    expect(page.locator("#train-take-along .config")).to_contain_text("onpolicy-prm-8-")
    rows(page).first.get_by_role("button", name="Load into form").click()
    expect(page.locator("#train-model input")).to_have_value("policy")
    expect(page.locator("#train-start")).to_have_text("Train 8 steps")
    expect(page.locator("#train-estimate")).to_contain_text("judged by the last run")

    open_tab(page, "Compare")
    expect(page.locator("#compare-summary")).to_contain_text("Preference accuracy")


@pytest.mark.slow
def test_the_first_click_trains_as_the_page_opens_and_f5_in_the_middle_changes_nothing(page, app, watch):
    open_tab(page, "Train")
    # Nothing is set: this is what somebody sees who presses the button.
    expect(page.locator("#train-data")).to_contain_text(
        "Trains on all 450 of onpolicy_prm.json; held out are 300 of onpolicy_heldout_prm.json."
    )
    expect(page.locator("#train-start")).to_have_text("Train 114 steps")
    start(page, app)
    wait_for_points(page, 2)
    (run,) = [run for run in list_runs(app.runs_dir) if run.status().active]
    assert run.config().loss_type == ["sigmoid", "sft"]
    address = page.url
    assert re.search(f"[?&]tab=train&.*run={run.id}$", address)
    expect(page.locator("#train-head h2")).to_contain_text("DPO + imitation")
    seen = points(page)

    with watch.expecting(*CUT_OFF):
        page.reload()
        expect(state(page, "running")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("tab", name="Train")).to_have_attribute("aria-selected", "true")
    assert page.url == address
    expect(rows(page).first.locator(".name")).to_have_attribute("aria-current", "true")
    expect(page.locator("#train-head")).to_contain_text("/ 114")
    wait_for_points(page, seen + 2)  # it goes on
    page.get_by_role("button", name="Stop and keep").click()
    expect(state(page, "stopped, kept")).to_be_visible(timeout=ENDED)  # it answers the 300 held-out problems first
    assert page.url == address
    page.locator("#train-delete").click()  # the tests that follow count on the runs that they start
    page.locator("#train-do-it").click()
    expect(rows(page).filter(has_text="DPO + imitation")).to_have_count(0)


def test_two_losses_have_their_own_curves_and_lie_over_each_other(page, app):
    open_tab(page, "Train")
    expect(rows(page).first.get_by_role("textbox")).to_have_value("<b>first</b> try")  # after a reload
    page.get_by_label("Step-wise", exact=True).check()
    expect(page.locator("#train-formula")).to_contain_text("preference p")
    expect(page.locator("#train-beta")).to_be_hidden()
    expect(page.locator("#train-reward-model")).to_be_visible()
    expect(page.locator("#train-rate input")).to_have_value("0.000003")
    expect(page.locator("#train-start")).to_be_in_viewport(ratio=1)
    fill(page, SHORT | {"#train-rate": "0.00001"})
    page.get_by_label("DPO", exact=True).check()
    expect(page.locator("#train-formula")).to_contain_text("Starts at ln 2")
    expect(page.locator("#train-beta input")).to_have_value("3")
    expect(page.locator("#train-rate input")).to_have_value("0.00001")  # what was typed stays
    page.get_by_label("Step-wise", exact=True).check()
    expect(page.locator("#train-formula")).to_contain_text("preference p")
    start(page, app)
    expect(state(page, "finished")).to_be_visible(timeout=ENDED)
    assert points(page) == 8
    for chart in ("process", "negative"):  # below what is seen, where a chart isn't drawn at each update
        page.wait_for_function(f"{figure(chart)}.data[0].x.length === 8")

    rows(page).nth(1).get_by_role("checkbox").check()
    loss = page.locator("#train-charts [data-id=loss]")
    expect(loss.locator(".legend button")).to_have_count(2)
    expect(loss.locator(".plot-note")).to_contain_text("different scales")
    expect(rows(page).nth(1).locator(".differs")).to_contain_text("loss dpo")
    name = loss.locator(".legend button").nth(1).inner_text()
    assert visible(page, "loss", name)
    loss.locator(".legend button").nth(1).press("Enter")  # by keyboard, and in all charts
    page.wait_for_function(f"name => {figure()}.data.find((t) => t.name === name).visible === false", arg=name)
    assert not visible(page, "rewards", f"{name}, chosen")
    rows(page).nth(1).get_by_role("checkbox").uncheck()
    expect(loss.locator(".legend button")).to_have_text(["each step", "smoothed", "held out"])

    # Delete asks first, and the keyboard suffices.
    rows(page).nth(1).locator(".name").press("Enter")
    expect(rows(page).nth(1).locator(".name")).to_have_attribute("aria-current", "true")
    page.locator("#train-delete").press("Enter")
    expect(page.locator("#train-keep")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#train-confirm")).to_be_hidden()
    count = rows(page).count()
    rows(page).nth(1).get_by_role("button", name="Delete").press("Enter")
    expect(rows(page).nth(1).get_by_role("button", name="Keep")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(rows(page)).to_have_count(count - 1)
    expect(state(page, "finished")).to_contain_text("Step-wise")


def test_case_08_case_21_a_run_outlasts_its_page_and_what_a_reader_chose_each_update(page, app, watch, visit):
    fill(page, LONG)
    start(page, app)
    wait_for_points(page, 2)
    # Zoom as a user does: drag over the plot, from where the pointer really reaches it.
    read = f"{figure()}._fullLayout.xaxis.range"
    plot = page.locator("#train-charts [data-id=loss] .nsewdrag")
    box = plot.bounding_box()
    plot.hover(position={"x": box["width"] * 0.1, "y": box["height"] * 0.5})
    box = plot.bounding_box()
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.5, steps=5)
    page.mouse.up()
    page.wait_for_function(f"(range => range[1] - range[0] < 600)({read})")
    # A hidden curve and a logarithmic scale.
    page.locator("#train-charts [data-id=rewards]").get_by_role("button", name="rejected").click()
    page.get_by_role("button", name="Logarithmic scale of Loss").click()
    page.wait_for_function(f"{figure()}._fullLayout.yaxis.type === 'log'")
    zoomed, seen, drawn = page.evaluate(read), points(page), updates(page)
    wait_for_points(page, seen + 5)
    assert updates(page) > drawn
    assert page.evaluate(read) == zoomed
    assert page.evaluate(f"{figure()}._fullLayout.yaxis.type") == "log"
    assert not visible(page, "rewards", "rejected")
    assert visible(page, "rewards", "chosen")

    # The same visitor after a refresh, or another one after the browser was closed, finds it running and live.
    watch.refresh()
    expect(page.locator("#chip .chip")).to_contain_text("/ 1,000")
    page.locator("#chip .chip").click()
    expect(state(page, "running")).to_be_visible()
    wait_for_points(page, seen + 7)
    seen = points(page)
    watch.close()
    page = visit(app.url).page
    page.locator("#chip .chip").click()
    expect(state(page, "running")).to_be_visible()
    wait_for_points(page, seen + 3)
    fill(page, LONG)

    # A second run would share the cores: it waits, says its place, and can be stopped before it begins.
    page.locator("#train-start").click()
    expect(state(page, "queued")).to_contain_text("waiting, place 1 of 1")
    page.get_by_role("button", name="Stop and keep").click()
    expect(rows(page).first).to_contain_text("stopped, nothing kept")
    page.locator("#chip .chip").click()
    expect(state(page, "running")).to_be_visible()
    page.get_by_role("button", name="Stop and keep").click()
    expect(state(page, "stopped, kept")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("button", name="Stop and keep")).to_be_hidden()
    expect(rows(page).nth(1)).to_contain_text("stopped, kept")

    # The same again. Its worker is killed (case 8): that is said, and the page and its only slot serve on. With no
    # checkpoint yet, the run begins again.
    count = rows(page).count()
    page.locator("#train-again").click()
    expect(rows(page)).to_have_count(count + 1)
    expect(state(page, "running")).to_be_visible(timeout=60_000)
    wait_for_points(page, 2)
    (killed,) = [run for run in list_runs(app.runs_dir) if run.status().active]
    assert killed.checkpoints() == []
    os.kill(killed.status().pid, signal.SIGKILL)
    expect(page.locator("#train-head .message.error")).to_contain_text("killed, probably out of memory")
    page.locator("#train-resume").click()
    expect(page.locator("#run-message")).to_contain_text("so the run begins again at optimiser step 0")
    expect(state(page, "running")).to_be_visible(timeout=60_000)
    wait_for_points(page, 2)

    # And this time nothing of it shall stay.
    page.locator("#train-discard").click()
    expect(page.locator("#train-confirm")).to_contain_text("Discard the run")
    page.locator("#train-do-it").click()
    expect(rows(page)).to_have_count(count, timeout=60_000)
    assert len(list(app.runs_dir.glob("*/config.json"))) == count


def test_a_chart_out_of_view_is_drawn_rarely_and_with_the_others_once_it_is_seen(page, app):
    page.set_viewport_size({"width": 1440, "height": 640})
    open_tab(page, "Train")
    fill(page, LONG)
    start(page, app)
    last = page.locator("#train-charts .plot").last
    name = last.get_attribute("data-id")
    wait_for_points(page, 2)

    def draw_twelve_times() -> int:
        """How often the last chart is drawn meanwhile."""
        of_loss, of_last = updates(page), updates(page, name)
        page.wait_for_function(
            "n => Number(document.querySelector('#train-charts [data-id=loss] .figure').dataset.updates) >= n",
            arg=of_loss + 12,
            timeout=ENDED,
        )
        return updates(page, name) - of_last

    assert draw_twelve_times() <= 6
    page.set_viewport_size({"width": 1440, "height": 1400})
    page.wait_for_function(f"n => {figure(name)}.data[0].x.length >= n", arg=points(page))
    assert draw_twelve_times() >= 8
    page.get_by_role("button", name="Discard").click()
    page.locator("#train-do-it").click()
    expect(state(page, "running")).to_be_hidden(timeout=60_000)


def test_arrow_keys_choose_preset_and_loss(page):
    open_tab(page, "Train")
    losses = page.get_by_role("radiogroup", name="with the loss")
    losses.get_by_label("DPO + imitation").focus()
    page.keyboard.press("ArrowRight")
    expect(losses.get_by_label("DPO", exact=True)).to_be_checked()
    page.keyboard.press("ArrowRight")
    expect(losses.get_by_label("Step-wise")).to_be_focused()
    expect(page.locator("#train-formula")).to_contain_text("preference p")
    page.keyboard.press("ArrowRight")  # from the last to the first
    expect(losses.get_by_label("DPO + imitation")).to_be_checked()
    expect(page.locator("#train-formula")).to_contain_text("imitation of the chosen answer")
    presets = page.get_by_role("radiogroup", name="Start from")
    presets.get_by_label("Quick demo").focus()
    page.keyboard.press("ArrowLeft")
    expect(presets.get_by_label("Phase 2")).to_be_checked()
    expect(page.locator("#train-epochs input")).to_have_value("3")


def choose_set(page: Page, field: str, name: str) -> None:
    page.locator(f"{field} input").click()
    page.get_by_role("option", name=name, exact=True).click()


def test_the_form_chooses_the_set_for_the_whole_page(page, watch):
    open_tab(page, "Train")
    chosen, hint = page.locator("#train-set input"), page.locator("#train-data")
    expect(chosen).to_have_value("onpolicy_prm.json")
    epochs = page.locator("#train-epochs input")
    epochs.fill("3")
    choose_set(page, "#train-set", "heldout_prm.json")
    expect(hint).to_contain_text("Trains on all 120 of heldout_prm.json")
    expect(page.locator("#train-start")).to_have_text("Train 45 steps")
    expect(page).to_have_url(re.compile("[?&]set=heldout_prm.json"))
    expect(epochs).to_have_value("3")  # nothing else of the form has changed
    open_tab(page, "Data")
    expect(page.locator("#data-set input")).to_have_value("heldout_prm.json")
    expect(page.locator("#data-table .count")).to_have_text("120 examples")
    choose_set(page, "#data-set", "synthetic_prm.json")
    expect(page.locator("#data-table .count")).not_to_have_text("120 examples")
    open_tab(page, "Train")
    expect(chosen).to_have_value("synthetic_prm.json")
    expect(hint).to_contain_text("of synthetic_prm.json")
    choose_set(page, "#train-set", "heldout_prm.json")
    expect(hint).to_contain_text("of heldout_prm.json")
    watch.go(page.url)
    expect(chosen).to_have_value("heldout_prm.json")
    expect(epochs).to_have_value("3")
    page.get_by_label("Phase 1", exact=True).check()
    expect(chosen).to_have_value("synthetic_prm.json")


def test_a_part_of_ones_own_set_is_held_out_by_a_click(page, watch, tmp_path):
    own = tmp_path / "own.json"
    save_pairs(generate_pairs(12, seed=5), own)
    with page.expect_file_chooser() as chooser:
        page.locator("#data-upload button").first.click()
    chooser.value.set_files(own)
    expect(page.locator("#data-table .count")).to_have_text("12 examples")
    open_tab(page, "Train")
    hint, offer = page.locator("#train-data"), page.locator("#train-hold-out")
    expect(page.locator("#train-odd")).to_contain_text("the bundled problems, not yours")
    offer.click()
    expect(hint).to_have_text("Trains on the first 10 of own.json; held out are 2 of own.json.")
    expect(offer).to_be_hidden()
    expect(page.locator("#train-examples input")).to_have_value("10")
    # After a reload, with the other options closed, a preset brings its own set to compare on.
    expect(page).to_have_url(re.compile("tab=train"))
    watch.go(page.url)
    expect(hint).to_have_text("Trains on the first 10 of own.json; held out are 2 of own.json.")
    page.get_by_label("Quick demo", exact=True).check()
    expect(hint).to_have_text("Trains on all 450 of onpolicy_prm.json; held out are 300 of onpolicy_heldout_prm.json.")
    page.wait_for_timeout(1_000)  # nothing covers it later
    expect(hint).to_contain_text("held out are 300 of onpolicy_heldout_prm.json.")


def test_bad_settings_are_explained_beside_the_button(page, app):
    estimate, message = page.locator("#train-estimate"), page.locator("#train-message")
    fill(page, {"#train-epochs": "0"})
    # Before the click, where steps and time stand otherwise.
    expect(estimate).to_contain_text("epochs")
    expect(page.locator("#train-start")).to_have_text("Train")
    page.locator("#train-start").click()
    expect(message).to_contain_text("epochs")
    expect(estimate).to_be_hidden()  # it would say the same
    fill(page, {"#train-epochs": "2", "#train-beta": "0"})
    expect(message).to_be_empty()
    expect(estimate).to_contain_text("beta")
    fill(page, {"#train-beta": "2"})
    expect(estimate).to_contain_text("optimiser steps")
    fill(page, {"#train-epochs": "1", "#train-examples": "8", "#train-batch": "4", "#train-held-out": "0"})
    page.get_by_role("button", name="More options").click()
    # By keys, as a visitor would: what a script writes into a field that Gradio still draws can vanish.
    page.locator("#train-other textarea").click()
    page.locator("#train-other textarea").press_sequentially("warmup: 3", delay=40)
    expect(estimate).to_contain_text("did you mean 'warmup_steps'")
    page.locator("#train-start").click()
    expect(page.locator("#train-message")).to_contain_text("did you mean 'warmup_steps'")
    expect(page.locator("#train-other textarea")).to_have_value("warmup: 3")  # nothing typed is lost
    page.locator("#train-other textarea").fill("")
    model = page.locator("#train-model input")
    model.fill("/nowhere/at/all")
    model.press("Enter")
    start(page, app)
    expect(state(page, "failed")).to_be_visible(timeout=ENDED)
    expect(page.locator("#train-head .message.error")).to_contain_text("no such folder")


def test_the_form_survives_a_refresh(page, app, watch):
    open_tab(page, "Train")
    epochs, aggregation = page.locator("#train-epochs input"), page.get_by_label("Step rewards become one number by")
    page.get_by_label("Step-wise", exact=True).check()
    expect(page.locator("#train-rate input")).to_have_value("0.000003")
    # Fields that every loss has explain themselves too.
    for term in ("Compared on", "Epochs", "Batch", "Seed", "Learning rate"):
        expect(page.locator("#train-form").get_by_role("button", name=f"What is {term}?")).to_be_visible()
    page.get_by_role("button", name="More options").click()
    expect(page.locator("#train-form").get_by_role("button", name="What is Longest example?")).to_be_visible()
    # Each option explains itself, and only those of the loss are there.
    expect(page.get_by_role("button", name="What is Anchor to the reference?")).to_be_visible()
    expect(page.get_by_role("button", name="What is Kind of DPO?")).to_be_hidden()
    page.get_by_role("button", name="What is A preference of zero or less?").click()
    expect(page.get_by_text("“Skip” takes such a pair out")).to_be_visible()
    page.keyboard.press("Escape")
    aggregation.click()
    page.get_by_role("option", name="min", exact=True).click()
    expect(page.locator("#train-formula")).to_contain_text("the lowest reward of a step stands in place")
    epochs.fill("7")
    watch.refresh()
    open_tab(page, "Train")
    expect(epochs).to_have_value("7")
    expect(page.locator("#train-rate input")).to_have_value("0.000003")
    expect(page.locator("#train-formula")).to_contain_text("the lowest reward of a step stands in place")
    expect(page.locator("#train-reward-model")).to_be_visible()
    # A preset that is chosen later is what stays, and an address leads to it too.
    page.get_by_label("Phase 2", exact=True).check()
    expect(epochs).to_have_value("3")
    watch.go(f"{app.url}/?tab=train")
    expect(page.locator("#train-model input")).to_have_value("google/flan-t5-small")
    # What isn't the page's own is passed over.
    page.evaluate("localStorage.setItem('stepwise-dpo-train-form', 'junk')")
    with watch.expecting("console: Error reading from localStorage"):  # Gradio says so
        watch.refresh()
        open_tab(page, "Train")
        expect(page.locator("#train-start")).to_have_text("Train 114 steps")
        expect(epochs).to_have_value("2")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_every_tab_fits_and_is_accessible(app, visit, width, theme):
    """Runs last, so that there are runs to show; leaves pictures for people to look at."""
    page = visit(app.url, width=width, theme=theme).page
    marks = {
        "Data": "#data-table tbody tr",
        "Rewards": "#rewards-example .value",
        "Train": "#train-runs tbody tr",
        "Compare": "#compare-example .value",
        "Learn": "#learn-point .stat",
    }
    found = []
    for name, mark in marks.items():
        open_tab(page, name)
        expect(page.locator(mark).first).to_be_visible(timeout=60_000)
        if name == "Train":
            rows(page).filter(has_text="Step-wise").locator(".name").click()
            expect(page.locator("#train-charts .main-svg").first).to_be_visible()
            # The opened run's dot has the colour of its curves, on a dark page as well.
            curve = page.evaluate(f"{figure()}.data[1].line.color")
            channels = ", ".join(str(int(curve[i : i + 2], 16)) for i in (1, 3, 5))
            for dot in ("#train-head .dot", "#train-runs tr.opened .dot"):
                expect(page.locator(dot)).to_have_css("background-color", f"rgb({channels})")
        if name == "Rewards":
            page.get_by_role("button", name="Score the set").click()
            expect(page.locator("#rewards-heatmap .heatmaplayer").first).to_be_visible(timeout=90_000)
        take_picture(page, f"{name.lower()}-{width}-{theme}")
        assert too_wide(page) == []
        if (width, theme) != (390, "light"):  # colours don't depend on the width, and what is narrow not on the colours
            found += [f"{name}: {words}" for words in violations(page)]
    assert not found, "\n".join(found)
