import json
import re
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest

from stepwise_dpo.runs import supervisor
from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory, RunStatus
from stepwise_dpo.runs.notes import write_note
from stepwise_dpo.runs.supervisor import Supervisor
from stepwise_dpo.runs.ticket import new_ticket, owner_hash, write_ticket
from stepwise_dpo.ui import run_table, runs_view
from stepwise_dpo.ui.curves import Curves
from stepwise_dpo.ui.run_exports import exported, packed_in_cache
from stepwise_dpo.ui.run_reader import RunReader
from stepwise_dpo.ui.run_table import Choice, overlay, table_value
from stepwise_dpo.ui.train_live import Actions, Live, forget, take_along_html, updates
from stepwise_dpo.ui.train_tab import _resume

SETTINGS = {"data": "/secret/place/pairs.json", "model": "<img src=x>", "loss": "stepwise", "reward_model": "tiny"}
SKIP = gr.skip()


@pytest.fixture
def make(tmp_path):
    def make(name, state="finished", **settings):
        directory = RunDirectory(tmp_path / name)
        directory.create(make_config(SETTINGS | settings))
        directory.write_status(RunStatus(state, started=time.time(), max_steps=4, global_step=4))
        return directory

    return make


@pytest.fixture
def run(make):
    return make("20261122-153000-stepwise-1a2b")


@pytest.fixture
def reader(tmp_path):
    return RunReader(Supervisor(tmp_path))


def live(values):
    return Live(*values[1:])


# --------------------------------------------------------------------------------------------------------------- head


def test_a_failed_run_says_why(run, reader):
    run.write_status(RunStatus("failed", started=time.time(), error="<img src=x> broke"))
    run.events.write_text("0%|\r50%|\r100%|\nTraceback <b>\n")
    html = live(updates(reader, "", "", Choice()))
    assert "The run failed" in html.head
    assert "&lt;img src=x&gt; broke" in html.head
    assert "100%|\nTraceback &lt;b&gt;" in html.head
    assert "50%" not in html.head
    assert not html.archive["visible"]
    (run.final).mkdir()
    (run.final / "config.json").write_text("{}")
    assert live(updates(reader, "", "", Choice())).archive["visible"]
    view = reader.views("")[0]
    shown = html.head + html.chip + take_along_html(view, True)
    assert "/secret" not in shown
    assert "<img" not in shown + html.take_along


def test_a_run_says_which_checkpoints_it_skipped_and_that_the_disk_is_nearly_full(run, reader):
    def head(**environment):
        run.write_environment({"versions": {}, "data": {}, **environment})
        return live(updates(reader, "", "", Choice())).head

    close = {"warning": "the run needs up to 2 MB of disk and 3 MB <b> are free: that is close"}
    assert "message" not in head()  # an older run's
    assert "message" not in head(disk={"warning": None})
    assert "<li>The run needs up to 2 MB of disk and 3 MB &lt;b&gt; are free: that is close.</li>" in head(disk=close)
    skipped = [
        "checkpoint-6 (<img src=x> has other contents)",
        "checkpoint-4 (manifest.json is gone)",
    ]
    html = head(disk=close, resumed=[{"skipped": ["checkpoint-2 (long ago)"]}, {"skipped": skipped, "disk": {}}])
    assert "<li>Skipped checkpoint-6 (&lt;img src=x&gt; has other contents) when it was resumed.</li>" in html
    assert "<li>Skipped checkpoint-4 (" in html
    assert not re.search("that is close|long ago|<img", html)  # only what is so since it last began
    for damaged in ({"resumed": [7]}, {"resumed": [{"skipped": [7]}]}, {"disk": 7}, {"disk": {"warning": 7}}):
        assert f"environment.json: {next(iter(damaged))} is damaged." in head(**damaged)


def test_a_stopped_run_says_whether_anything_was_kept(run, reader):
    run.write_status(RunStatus("stopped", error="ended before anything could be kept"))
    html = live(updates(reader, "", "", Choice())).head
    assert "stopped, nothing kept" in html
    assert "Ended before anything could be kept." in html
    run.write_status(RunStatus("stopped"))
    run.final.mkdir()
    (run.final / "config.json").write_text("{}")
    html = live(updates(reader, "", "", Choice())).head
    assert "stopped, kept" in html
    assert "message" not in html


def test_the_loss_is_the_configurations_whatever_the_runs_name(make, reader):
    for name, loss in (("mine", "stepwise"), ("not-stepwise-at-all", "dpo"), ("20261122-153000-dpo-1a2b", "dpo")):
        make(name, loss=loss)
    assert {view.run.id: (view.loss, reader.drawn(view).loss) for view in reader.views("")} == {
        "mine": ("stepwise", "stepwise"),
        "not-stepwise-at-all": ("dpo", "dpo"),
        "20261122-153000-dpo-1a2b": ("dpo", "dpo"),
    }


def test_a_run_that_imitates_is_not_called_plain_dpo(make, reader):
    for name, kinds in (("20261122-153000-dpo-aaaa", ["sigmoid", "sft"]), ("20261122-153001-dpo-bbbb", ["sft"])):
        make(name, loss="dpo", loss_type=kinds, reward_model=None)
    make("20261122-153002-dpo-cccc", loss="dpo", loss_type=["hinge"], reward_model=None)
    views = reader.views("")
    assert [view.name.split(" · ")[0] for view in views] == ["DPO", "Imitation", "DPO + imitation"]
    table = live(updates(reader, "", views[2].run.id, Choice())).table
    dpo, alone, imitating = (row["colour"] for row in table["rows"])
    assert len({dpo, imitating}) == 2
    assert alone == imitating
    assert reader.drawn(views[2]).loss == "imitation"


def test_progress_and_time_left(run):
    view = runs_view.RunView(run, RunStatus("running", global_step=20, max_steps=50, phase="training"), False)
    records = [{"global_step": n, "time": 100 + 2 * n, "loss": 0.1} for n in range(1, 21)]
    assert runs_view.progress_words(view, Curves(records)) == "20 / 50 · 1 min 0 s left"
    assert runs_view.progress_words(view, Curves(records[:1])) == "20 / 50"
    last = view._replace(status=replace(view.status, global_step=50))
    assert runs_view.progress_words(last, Curves(records)) == "50 / 50 · finishing"
    assert view._replace(stop_requested=True).state == "stopping"
    assert view._replace(discarded=True).state == "being discarded"
    assert runs_view.seconds_left(Curves(), 5) is None


def test_what_can_be_done_with_a_run(run):
    view = runs_view.RunView(run, RunStatus("running"), False)
    assert Actions.of(view) == Actions(stop=True, discard=True, resume=False, again=False, load=True, delete=False)
    assert not Actions.of(view._replace(discarded=True)).discard
    for state, resumable in (("finished", False), ("interrupted", True)):  # the other one begins again
        run.write_status(RunStatus(state))
        ended = view._replace(status=run.status())
        expected = Actions(stop=False, discard=False, resume=resumable, again=True, load=True, delete=True)
        assert Actions.of(ended) == expected
    assert not any(Actions.of(None))


def test_resume_says_that_a_run_without_a_checkpoint_begins_again(make, reader, monkeypatch):
    monkeypatch.setattr(supervisor, "WORKER", (sys.executable, "-c", "pass"))
    run = make("a", "interrupted")
    (run.path / "checkpoint-2").mkdir()
    assert "manifest.json is missing" in _resume(reader.own(""), run.id)
    (run.path / "checkpoint-2").rmdir()
    assert "No checkpoint has been written, so the run begins again" in _resume(reader.own(""), run.id)
    assert "still active" in _resume(reader.own(""), run.id)


# ------------------------------------------------------------------------------------------------------------ updates


def test_nothing_is_sent_when_nothing_changed(run, reader):
    seen, *values = updates(reader, "", "", Choice())
    assert Live(*values).run == run.id
    assert all(value == SKIP for value in updates(reader, "", "", Choice(), seen))


def test_only_what_changed_is_sent(run, make, reader):
    seen, *_ = updates(reader, "", run.id, Choice())
    run.append_metrics({"global_step": 1, "loss": 0.5, "time": 1.0})
    sent = live(updates(reader, "", run.id, Choice(), seen))
    assert json.loads(sent.charts)["charts"][0]["figure"]["data"][0]["y"] == [0.5]
    assert sent.take_along == sent.stop == sent.exports == sent.run == SKIP
    assert sent.table["rows"][0]["loss"] == "0.500"
    # The browser's own tick is confirmed, or taken back, although nothing else has changed.
    seen, *_ = updates(reader, "", run.id, Choice())
    again = live(updates(reader, "", run.id, Choice(), forget(seen, "table")))
    assert again.table != SKIP
    assert again.charts == SKIP


def test_another_run_is_shown_where_the_chosen_one_is_gone(run, make, reader):
    other = make("20261122-160000-dpo-2b3c", loss="dpo", reward_model=None)
    assert live(updates(reader, "", run.id, Choice())).run == run.id
    reader.supervisor.delete(run)
    assert live(updates(reader, "", run.id, Choice((run.id,)))).run == other.id


def test_several_runs_are_drawn_together(run, make, reader):
    other = make("20261122-160000-dpo-2b3c", loss="dpo", reward_model=None)
    other.append_metrics({"global_step": 1, "loss": 0.5, "time": 1.0})
    sent = live(updates(reader, "", run.id, Choice((other.id, "gone"))))
    assert [entry["group"] for entry in json.loads(sent.charts)["charts"][0]["figure"]["legend"]] == [run.id, other.id]


# -------------------------------------------------------------------------------------------------------------- table


def test_the_table_says_only_what_differs(run, make, reader):
    same = make("20261122-154000-stepwise-0000")
    faster = make("20261122-155000-stepwise-1111", learning_rate=1e-3, data="/other/more.json")
    views = reader.views("")
    current = runs_view.find(views, run.id)

    def differs(choice):
        rows = table_value(reader, views, current, choice)["rows"]
        return {row["id"]: row["differs"] for row in rows}

    alone = differs(Choice())
    assert alone == {run.id: None, same.id: [], faster.id: ["data more.json", "learning_rate 0.001"]}
    # Those that are drawn together each say their own value of what differs among them.
    together = differs(Choice((faster.id,)))
    assert together[run.id] == ["data pairs.json", "learning_rate 5e−05"]
    assert together[faster.id] == ["data more.json", "learning_rate 0.001"]
    assert together[same.id] == []


def test_many_differences_are_counted_and_all_are_in_the_title(run, make, reader):
    few = make("20261122-154000-stepwise-0000", seed=1)
    many = make("20261122-155000-stepwise-1111", seed=1, beta=3.0, epochs=1.0, batch_size=9, model="tiny", generate=0)
    views = reader.views("")
    rows = {row["id"]: row for row in table_value(reader, views, runs_view.find(views, run.id), Choice())["rows"]}
    shown = ["model tiny", "epochs 1", "batch_size 9", "seed 1", "beta 3"]
    assert rows[many.id]["differs"] == [*shown, "and 1 more"]
    assert rows[many.id]["all"].split("\n") == [*shown, "generate 0"]
    assert [rows[each.id]["all"] for each in (run, few)] == ["", ""]
    assert run_table.differences(None, [make_config({"data": "b"})]) is None


def test_a_row_of_the_table(run, reader):
    for step, loss in ((1, 0.9), (2, 0.5)):
        run.append_metrics({"global_step": step, "loss": loss, "time": float(step)})
    run.write_report({"before": {"solve_rate": 0.4, "preference_accuracy": 0.5}, "after": {"solve_rate": 0.55}})
    write_note(run, "<b>first</b>")
    (row,) = table_value(reader, reader.views(""), reader.views("")[0], Choice())["rows"]
    assert (row["state"], row["steps"], row["loss"], row["result"]) == (
        "finished",
        "4 / 4",
        "0.500",
        "40% → 55% solved, on training examples",
    )
    assert row["note"] == "<b>first</b>"  # set as textContent
    assert row["spark"].startswith("M1.0 2.0L95.0")
    assert (row["opened"], row["overlaid"], row["active"]) == (True, True, False)


def test_a_figure_that_is_not_defined_is_passed_over(run, reader):
    sides = {"solve_rate": None, "preference_accuracy": 0.5}
    run.write_report({"before": sides, "after": sides})
    (row,) = table_value(reader, reader.views(""), reader.views("")[0], Choice())["rows"]
    assert (row["result"], row["intervals"]) == ("50% → 50% ranked right, on training examples", "")


def test_a_result_says_of_how_many_and_how_sure_it_is(run, reader):
    sides = [{"solve_rate": rate, "answers": 8.0, "preference_accuracy": 0.5, "pairs": 30.0} for rate in (0.375, 0.5)]
    run.write_report(dict(zip(("before", "after"), sides, strict=True)))
    view = reader.views("")[0]
    facts = reader.facts(view)
    words, title, change = run_table.result_of(facts)
    assert change == ""  # an older run's report
    assert words == "38% → 50% solved, of 8 training examples"
    assert title == "95% intervals: before 14% to 69%, after 22% to 78%"
    assert f'<span title="{title}">{words}</span>' in live(updates(reader, "", run.id, Choice())).head
    (row,) = table_value(reader, [view], view, Choice())["rows"]
    assert (row["result"], row["intervals"]) == (words, title)
    held_out = facts._replace(config=make_config({"data": "a", "eval_data": "b"}))
    assert run_table.result_of(held_out).words == "38% → 50% solved, of 8"
    leaking = held_out._replace(after={**sides[1], "trained_on": 20.0})
    assert run_table.result_of(leaking).words == (
        "38% → 50% solved, of 8 (20 held-out pairs on problems that were trained on)"
    )
    assert run_table.result_of(held_out._replace(after={**sides[1], "trained_on": 0.0})).words.endswith("of 8")
    ranked = [{name: side[name] for name in ("preference_accuracy", "pairs")} for side in sides]
    assert run_table.result_of(held_out._replace(before=ranked[0], after=ranked[1])).words == (
        "50% → 50% ranked right, of 30"
    )
    damaged = {"solve_rate": 1.5, "answers": 8.0}
    assert run_table.result_of(held_out._replace(after=damaged)) == ("38% → 150% solved", "", "")
    moved = {"solve_rate": 0.125, "solve_rate/low": -0.25, "solve_rate/high": 0.5, "preference_accuracy": 0.0}
    run.write_report({**dict(zip(("before", "after"), sides, strict=True)), "change": moved})
    change = "+12.5 points (95% interval \N{MINUS SIGN}25.0 to +50.0)"
    assert run_table.result_of(reader.facts(reader.views("")[0])) == (words, title, change)
    assert f'<span title="{title}">{words}: <b>{change}</b></span>' in live(updates(reader, "", run.id, Choice())).head
    (row,) = table_value(reader, [view], view, Choice())["rows"]
    assert (row["result"], row["intervals"]) == (words, f"{change}; {title}")
    for odd in ({"solve_rate": 1e300}, {"solve_rate": 0.5, "solve_rate/low": -1e308, "solve_rate/high": 2.0}):
        assert run_table.result_of(held_out._replace(change=odd)).change == ""
    alone = held_out._replace(change={"solve_rate": -0.125})
    assert run_table.result_of(alone).change == "\N{MINUS SIGN}12.5 points"


def test_a_run_that_cant_be_read_stays_in_the_table(run, reader):
    (run.path / "config.json").write_text("{}")
    (row,) = table_value(reader, reader.views(""), reader.views("")[0], Choice())["rows"]
    assert row["differs"] is None
    assert "data" in live(updates(reader, "", run.id, Choice())).take_along


def test_a_damaged_run_is_seen_with_the_reason_and_can_be_deleted(run, reader):
    (run.path / "status.json").write_text("{")
    (view,) = reader.views("")
    assert view.status.state == "failed"
    html = live(updates(reader, "", run.id, Choice()))
    assert "status.json" in html.head
    assert (html.resume, html.delete) == (gr.update(visible=False), gr.update(visible=True))
    reader.own("").delete(run.id)
    assert reader.views("") == []


def test_many_runs_come_in_pages(make, reader):
    runs = [make(f"20261122-1530{n:02}-dpo-aaaa", loss="dpo", reward_model=None) for n in range(20)]
    views = reader.views("")
    first, second = (table_value(reader, views, views[0], Choice(page=page)) for page in (0, 99))
    assert (len(first["rows"]), len(second["rows"]), second["page"], second["pages"]) == (15, 5, 1, 2)
    assert first["head"] == "20 runs · page 1 of 2"
    assert {row["id"] for table in (first, second) for row in table["rows"]} == {run.id for run in runs}


def test_no_more_runs_are_drawn_than_can_be_told_apart():
    choice = Choice()
    for number in range(5):
        choice = overlay(choice, str(number), True, "current")
    assert overlay(choice, "current", True, "current") == choice
    assert overlay(choice, "3", False, "current").overlaid == ("0", "1", "2", "4")
    with pytest.raises(ValueError, match="at most 6"):
        overlay(choice, "5", True, "current")
    assert overlay(choice, {"not": "an id"}, True, "current") == choice


def test_sparkline():
    assert run_table.sparkline([]) == run_table.sparkline([1.0]) == ""
    assert run_table.sparkline([1.0, 1.0, 1.0]).count("L") == 2  # a flat line, no division by zero
    assert run_table.sparkline([0.0, 1.0]) == "M1.0 20.0L95.0 2.0"


# ------------------------------------------------------------------------------------------------------------ exports


def test_files_to_take_along(run, reader, tmp_path):
    run.append_metrics({"global_step": 1, "loss": 0.5})
    assert exported(reader, "", run.id, "csv") == {"name": f"{run.id}.csv", "text": "global_step,loss\n1,0.5\n"}
    assert json.loads(exported(reader, "", run.id, "json")["text"]) == [{"global_step": 1, "loss": 0.5}]
    assert "/secret/place/pairs.json" in exported(reader, "", run.id, "yaml")["text"]
    strangers = RunReader(reader.supervisor, public=True)
    with pytest.raises(runs_view.RunError, match="there is no run"):
        exported(strangers, "another's secret", run.id, "yaml")
    write_ticket(run, new_ticket(owner_hash("a secret")))
    assert "data: pairs.json" in exported(strangers, "a secret", run.id, "yaml")["text"]
    for key in ("../x", "", "nowhere"):
        with pytest.raises(runs_view.RunError, match="there is no run"):
            exported(reader, "", key, "csv")
    with pytest.raises(runs_view.RunError, match="has no model"):
        packed_in_cache(run, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_clicks_on_the_same_archive_make_no_more_files(run, tmp_path):
    run.final.mkdir()
    (run.final / "config.json").write_text("{}")
    cache = tmp_path / "cache"
    first = packed_in_cache(run, cache)
    assert first.name == f"{run.id}.zip"
    assert packed_in_cache(run, cache) == first
    assert [path for path in cache.rglob("*") if path.is_file()] == [first]
    write_note(run, "something has changed")
    assert packed_in_cache(run, cache) != first


def test_events_can_hold_anything():
    from stepwise_dpo.ui.train_tab import _sent

    assert _sent(SimpleNamespace(_data=None), "key") is None
    assert _sent(SimpleNamespace(_data={"key": 3}), "key") == 3


def test_a_run_that_ended_before_its_first_step_has_no_curves(run, reader):
    run.write_status(RunStatus("failed", started=time.time(), error="broke"))
    assert json.loads(live(updates(reader, "", run.id, Choice())).charts)["charts"] == []
    run.append_metrics({"global_step": 1, "loss": 0.5, "time": 1.0})
    assert json.loads(live(updates(reader, "", run.id, Choice())).charts)["charts"]
