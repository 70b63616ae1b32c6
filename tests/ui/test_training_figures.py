import json
import math

import numpy as np
import orjson
import plotly.graph_objects as go
import pytest

from stepwise_dpo.runs.config import make_config
from stepwise_dpo.runs.directory import RunDirectory
from stepwise_dpo.ui.colours import LOSS_COLOURS, RUN_COLOURS
from stepwise_dpo.ui.components import plots_value
from stepwise_dpo.ui.curves import CurveCache, Curves, smooth, thinned
from stepwise_dpo.ui.training_figures import MAX_RUNS, Drawn, displaced, run_colours, training_charts

RECORDS = [
    {"global_step": 1, "time": 10.0, "loss": 0.6, "rewards/chosen": 0.0, "learning_rate": 1e-3, "grad_norm": 1.0},
    {"global_step": 2, "time": 11.0, "loss": None, "rewards/chosen": float("nan"), "grad_norm": 2.0},
    {"global_step": 2, "time": 15.0, "eval_loss": 0.7, "eval_rewards/chosen": 0.2},
    {"global_step": 3, "time": 16.0, "loss": 0.4, "rewards/chosen": 0.1, "learning_rate": 0.0, "grad_norm": 0.5},
]


def drawn(records=RECORDS, key="a", loss="dpo", **more):
    return Drawn(key, f"run {key}", loss, Curves(records), **more)


def chart(charts, id):
    return next(chart for chart in charts if chart.id == id)


def trace(chart, name):
    return next(trace for trace in chart.figure["data"] if trace["name"] == name)


# ------------------------------------------------------------------------------------------------------------- curves


def test_smoothing_starts_at_the_first_value_and_keeps_gaps():
    # weights 0.2 and 0.8 * 0.2, corrected by their sum 0.36
    smoothed = smooth(np.array([1.0, math.nan, 2.0]), 0.8).tolist()
    assert smoothed == [1.0, pytest.approx(math.nan, nan_ok=True), pytest.approx((0.16 * 1 + 0.2 * 2) / 0.36)]
    assert smooth(np.full(5, 3.0), 0.9).tolist() == pytest.approx([3.0] * 5)
    assert smooth(np.array([])).tolist() == []


def test_thinning_keeps_spikes_and_both_ends():
    values = np.zeros(10_000)
    values[5_003], values[7_000] = 99.0, -99.0
    values[2_000:3_000] = math.nan
    kept = thinned(values, 100).tolist()
    assert len(kept) <= 100
    assert {0, 5_003, 7_000, 9_999} <= set(kept)
    assert kept == sorted(kept)
    assert thinned(values[:100], 100).tolist() == list(range(100))


def test_what_is_no_number_is_a_gap():
    curves = Curves(RECORDS)
    steps, values = curves.points("loss")
    assert steps.tolist() == [1, 2, 3]
    assert values.tolist() == [0.6, pytest.approx(math.nan, nan_ok=True), 0.4]
    assert curves.points("absent")[0].tolist() == []
    assert curves.points("time")[0].tolist() == [1, 2, 3]  # of training steps only: they tell the pace
    assert curves.last("loss") == 0.4
    assert Curves(RECORDS[:2]).last("loss") is None


def test_curves_are_read_on_where_they_were_left(tmp_path, monkeypatch):
    run = RunDirectory(tmp_path / "run")
    run.create(make_config({"data": "x.json"}))
    cache, offsets = CurveCache(), []
    assert cache.of(run).count("loss") == 0
    read = RunDirectory.metrics
    monkeypatch.setattr(RunDirectory, "metrics", lambda run, offset=0: offsets.append(offset) or read(run, offset))
    for record in RECORDS[:2]:
        run.append_metrics(record)
        cache.of(run)
    assert cache.of(run).count("loss") == 2
    assert offsets[0] == 0
    assert 0 < offsets[1] < offsets[2]
    # Another, shorter file in its place, as at a resume: read from its start.
    (run.path / "new").write_bytes(orjson.dumps(RECORDS[3]) + b"\n")
    (run.path / "new").replace(run.path / "metrics.jsonl")
    assert cache.of(run).points("loss")[1].tolist() == [0.4]


# ------------------------------------------------------------------------------------------------------------- charts


@pytest.mark.parametrize(("loss", "judged"), [("dpo", False), ("stepwise", True)])
def test_the_same_charts_before_and_after_the_first_point(loss, judged):
    before = training_charts([drawn([], loss=loss, judged=judged)])
    after = training_charts([drawn(loss=loss, judged=judged, max_steps=3)])
    assert [chart.id for chart in before] == [chart.id for chart in after]
    assert [len(chart.figure["data"]) for chart in before] == [len(chart.figure["data"]) for chart in after]
    assert before[0].id == "loss"
    assert ("process" in [chart.id for chart in before]) == judged
    later = training_charts([drawn([*RECORDS, {"global_step": 9, "loss": 0.1}], loss=loss, judged=judged, max_steps=9)])
    drawn_ones = [chart.id for chart in after if any(trace["x"] for trace in chart.figure["data"])]
    assert "loss" in drawn_ones
    for one, other, third in zip(before, after, later, strict=True):
        # What lets a zoom survive: the same mark at every update, and traces that keep their place.
        if other.id in drawn_ones:
            assert other.figure["layout"]["uirevision"] == third.figure["layout"]["uirevision"] == "runs a"
        assert [t["name"] for t in one.figure["data"]] == [t["name"] for t in other.figure["data"]]
        go.Figure(data=other.figure["data"], layout=other.figure["layout"])  # plotly accepts every property


def test_a_reward_model_adds_charts_and_moves_none():
    def ids(*runs):
        return [each.id for each in training_charts(runs)]

    assert ids(drawn(loss="stepwise", judged=True)) == [*ids(drawn()), "process", "negative"]
    assert ids(drawn(), drawn(key="b", judged=True)) == ids(drawn(judged=True))


def test_charts_without_points_are_the_same_before_and_in_a_run():
    """So the page draws none of them while the first step is computed."""
    waiting = training_charts([drawn([], max_steps=3)])
    assert [each.figure for each in waiting] == [each.figure for each in training_charts([])]


def test_without_a_run_there_are_empty_charts():
    charts = training_charts([])
    assert charts[0].id == "loss"
    assert not any(trace["x"] for chart in charts for trace in chart.figure["data"])


def test_every_chart_explains_itself():
    charts = json.loads(plots_value(training_charts([drawn(judged=True)])))["charts"]
    assert [chart["id"] for chart in charts if chart["what"] is None] == []


def test_loss_chart_shows_raw_smoothed_and_held_out():
    loss = training_charts([drawn(loss="stepwise", max_steps=3)])[0]
    assert trace(loss, "each step")["y"] == [0.6, None, 0.4]
    assert trace(loss, "smoothed")["y"][0] == 0.6
    assert trace(loss, "held out")["y"] == [0.7]
    assert trace(loss, "smoothed")["line"]["color"] == LOSS_COLOURS["stepwise"]
    assert loss.figure["layout"]["xaxis"]["range"] == [0, 3.5]
    assert loss.log
    assert loss.note == ""


def test_chosen_and_rejected_share_a_chart():
    rewards = chart(training_charts([drawn()]), "rewards")
    assert [entry["name"] for entry in rewards.figure["legend"]] == ["chosen", "rejected", "margin"]
    assert trace(rewards, "chosen")["y"] == [0.0, None, 0.1]
    assert trace(rewards, "chosen, held out")["y"] == [0.2]


@pytest.mark.parametrize("runs", [1, 2])
def test_quantities_are_told_apart_without_colours(runs):
    for found in training_charts([drawn(key=key, judged=True) for key in "ab"[:runs]])[1:]:
        lines = [trace for trace in found.figure["data"] if "marker" not in trace]
        marks = [trace for trace in found.figure["data"] if "marker" in trace]
        for run in range(runs):
            own = lines[run * len(lines) // runs : (run + 1) * len(lines) // runs]
            assert len({trace["line"]["dash"] for trace in own}) == len(own)
        assert [entry["dash"] for entry in found.figure["legend"]] in ([], [t["line"]["dash"] for t in own])
        # A dotted line would look like the third quantity's.
        assert {(trace["line"]["dash"], trace["marker"]["symbol"]) for trace in marks} == {("solid", "diamond-open")}


def test_several_runs_have_a_colour_each_and_one_legend():
    runs = [drawn(key="a"), drawn(key="b", loss="stepwise", max_steps=9), drawn(key="c")]
    charts = training_charts(runs)
    loss, rewards = charts[0], chart(charts, "rewards")
    assert [(entry["group"], entry["colour"]) for entry in loss.figure["legend"]] == [
        ("a", LOSS_COLOURS["dpo"]),
        ("b", LOSS_COLOURS["stepwise"]),
        ("c", "#CC79A7"),
    ]
    assert "different scales" in loss.note
    assert "different scales" in training_charts([runs[0], drawn(key="b", loss="imitation")])[0].note
    assert "different scales" not in training_charts([runs[0], runs[2]])[0].note
    # A run's entry hides it everywhere; a quantity's entry hides it of all runs.
    assert trace(rewards, "run c, rejected")["meta"] == ["c", "rewards/rejected"]
    assert trace(rewards, "run c, rejected")["line"] == {"color": "#CC79A7", "width": 2, "dash": "dash"}
    assert loss.figure["layout"]["xaxis"]["range"] == [0, 9.5]
    assert loss.figure["layout"]["uirevision"] != training_charts(runs[:1])[0].figure["layout"]["uirevision"]


def test_names_of_runs_are_no_markup():
    loss = training_charts([Drawn("a", "a", "dpo", Curves()), Drawn("b", "<a href=x>", "dpo", Curves())])[0]
    assert not [trace["name"] for trace in loss.figure["data"] if "<" in trace["name"]]
    assert loss.figure["legend"][1]["name"] == "<a href=x>"  # set as textContent


def test_as_many_colours_as_runs():
    for loss in LOSS_COLOURS:
        colours = run_colours([drawn(key=str(i), loss=loss) for i in range(MAX_RUNS)])
        assert sorted(colours) == sorted(RUN_COLOURS)


@pytest.mark.parametrize("loss", LOSS_COLOURS)
def test_a_loss_keeps_its_colour_from_runs_of_the_others(loss):
    own = LOSS_COLOURS[loss]
    others = set(LOSS_COLOURS.values()) - {own}
    assert run_colours([drawn(key=key, loss=loss) for key in "ab"]) == [own, "#CC79A7"]
    assert not others & set(run_colours([drawn(key=key, loss=loss) for key in "abcd"]))  # only a fifth has no other


def test_a_long_run_is_sent_in_few_bytes():
    rng = np.random.default_rng(0)
    keys = [line for line in RECORDS[0] if line != "global_step"] + [
        *("rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected", "entropy")
    ]
    records = [{"global_step": i} | dict(zip(keys, rng.normal(size=len(keys)), strict=True)) for i in range(20_000)]
    for runs in ([drawn(records)], [drawn(records, key=str(i)) for i in range(MAX_RUNS)]):
        assert len(orjson.dumps(plots_value(training_charts(runs)))) < 300_000  # as text within the answer’s JSON


# ------------------------------------------------------------------------------------------------------- displacement


def rewards(chosen, rejected):
    return Curves(
        {"global_step": i, "rewards/chosen": c, "rewards/rejected": r, "rewards/margins": c - r}
        for i, (c, r) in enumerate(zip(chosen, rejected, strict=True))
    )


def test_both_rewards_falling_while_the_margin_rises_is_explained():
    down, steeply = np.linspace(0, -2, 50), np.linspace(0, -6, 50)
    assert displaced(rewards(down, steeply))
    assert not displaced(rewards(-down, steeply))  # chosen rises
    assert not displaced(rewards(steeply, down))  # the margin falls as well
    assert not displaced(rewards(down / 100, steeply / 100))  # within noise
    assert not displaced(rewards(down[::15], steeply[::15]))  # four points are no trend
    assert not displaced(Curves(RECORDS))
    charts = training_charts([Drawn("a", "a", "dpo", rewards(down, steeply))])
    assert "DPO + imitation" in chart(charts, "rewards").note
    imitating = chart(training_charts([Drawn("a", "a", "imitation", rewards(down, steeply))]), "rewards").note
    assert "Both fall" in imitating
    assert "DPO + imitation" not in imitating  # nobody needs to be told what they do
    assert chart(charts, "accuracy").note == ""


def test_axes_make_up_no_numbers():
    def axes(*runs, id="loss"):
        layout = chart(training_charts(runs), id).figure["layout"]
        return layout["xaxis"], layout["yaxis"]

    assert [axis["showticklabels"] for axis in axes()] == [False, False]
    assert [axis["showticklabels"] for axis in axes(id="accuracy")] == [False, True]  # the range of a share is known
    assert [axis["showticklabels"] for axis in axes(drawn())] == [True, True]
    assert axes(drawn(max_steps=3))[0]["dtick"] == 1
    assert "dtick" not in axes(drawn(max_steps=400))[0]
