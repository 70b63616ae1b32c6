import plotly.graph_objects as go
import pytest

from stepwise_dpo.ui.colours import LOSS_COLOURS, diverging
from stepwise_dpo.ui.figures import HeatmapRow, points_of, reward_heatmap, smooth, thinned, training_charts

RECORDS = [
    {"global_step": 1, "loss": 0.6, "rewards/chosen": 0.0, "learning_rate": 1e-3, "grad_norm": 1.0},
    {"global_step": 2, "loss": None, "rewards/chosen": float("nan"), "learning_rate": 5e-4, "grad_norm": 2.0},
    {"global_step": 2, "eval_loss": 0.7, "eval_rewards/chosen": 0.2},
    {"global_step": 3, "loss": 0.4, "rewards/chosen": 0.1, "learning_rate": 0.0, "grad_norm": 0.5},
]


def test_smoothing_starts_at_the_first_value_and_keeps_gaps():
    # weights 0.2 and 0.8 * 0.2, corrected by their sum 0.36
    assert smooth([1.0, None, 2.0], 0.8) == [1.0, None, pytest.approx((0.16 * 1 + 0.2 * 2) / 0.36)]
    assert smooth([3.0] * 5, 0.9) == pytest.approx([3.0] * 5)
    assert smooth([]) == []


def test_thinning_keeps_spikes_and_both_ends():
    points = [(float(i), 0.0) for i in range(10_000)]
    points[5_003] = (5_003.0, 99.0)
    kept = thinned(points, 100)
    assert len(kept) <= 100
    assert (5_003.0, 99.0) in kept
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert thinned(points[:100], 100) == points[:100]


def test_points_without_a_number_are_gaps():
    assert points_of(RECORDS, "loss") == [(1, 0.6), (2, None), (3, 0.4)]
    assert points_of(RECORDS, "rewards/chosen") == [(1, 0.0), (2, None), (3, 0.1)]
    assert points_of(RECORDS, "absent") == []


@pytest.mark.parametrize("loss", ["dpo", "stepwise"])
def test_the_same_charts_before_and_after_the_first_point(loss):
    before, after = training_charts([], loss), training_charts(RECORDS, loss, 3)
    assert [chart.id for chart in before] == [chart.id for chart in after]
    assert before[0].id == "loss"
    assert ("process" in [chart.id for chart in before]) == (loss == "stepwise")
    for chart in after:
        assert chart.figure["layout"]["uirevision"] == "kept"
        go.Figure(data=chart.figure["data"], layout=chart.figure["layout"])  # plotly accepts every property


def test_loss_chart_shows_raw_smoothed_and_held_out():
    loss = training_charts(RECORDS, "stepwise", 3)[0].figure
    raw, steady, held_out = loss["data"]
    assert raw["x"] == [1, 2, 3]
    assert raw["y"] == [0.6, None, 0.4]
    assert steady["y"][0] == pytest.approx(0.6)
    assert held_out["y"] == [0.7]
    assert steady["line"]["color"] == LOSS_COLOURS["stepwise"]
    assert loss["layout"]["xaxis"]["range"] == [0, 3.5]


def row(place, chosen, rejected, text="step"):
    return HeatmapRow(place, [(text, value) for value in chosen], [(text, value) for value in rejected])


def test_heatmap_has_one_scale_for_both_sides():
    rows = [row(4, [1.0, -0.5], [0.25], "<b>x</b> %{y}"), row(0, [0.0], [0.5, 0.5, -1.0])]
    figure = reward_heatmap(rows, 1.0)
    go.Figure(data=figure["data"], layout=figure["layout"])
    chosen, chosen_text, rejected, _ = figure["data"]
    assert chosen["z"] == [[1.0, -0.5], [0.0, None]]
    assert rejected["z"] == [[0.25, None, None], [0.5, 0.5, -1.0]]
    assert chosen["coloraxis"] == rejected["coloraxis"]
    axis = figure["layout"]["coloraxis"]
    assert (axis["cmin"], axis["cmax"]) == (-1.0, 1.0)
    assert chosen_text["text"] == ["+1.00", "−0.50", "0.00"]
    assert chosen_text["textfont"]["color"] == [diverging(v).ink for v in (1.0, -0.5, 0.0)]
    # A click names the example's place in the set, wherever its row stands; so does the axis.
    assert chosen["customdata"][0] == ["4", "4"]
    assert figure["layout"]["yaxis"]["ticktext"] == ["5", "1"]
    assert chosen["text"][0][1] == "<b>−0.50</b> chosen step 2 of example 5<br>&lt;b&gt;x&lt;/b&gt; %{y}"


def test_many_examples_have_no_numbers_in_their_cells():
    figure = reward_heatmap([row(i, [0.1], [0.2]) for i in range(200)], 1.0)
    assert [trace["type"] for trace in figure["data"]] == ["heatmap", "heatmap"]
    assert (
        figure["layout"]["height"]
        == reward_heatmap([row(i, [0.1], [0.2]) for i in range(400)], 1.0)["layout"]["height"]
    )


def test_probabilities_are_centred_at_a_half():
    figure = reward_heatmap([row(0, [0.9], [0.1])], 0.5, 0.5, "{:.2f}".format)
    assert (figure["layout"]["coloraxis"]["cmin"], figure["layout"]["coloraxis"]["cmax"]) == (0.0, 1.0)
    assert figure["data"][1]["text"] == ["0.90"]
