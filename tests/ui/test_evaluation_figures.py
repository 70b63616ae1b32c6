import plotly.graph_objects as go
import pytest

from stepwise_dpo.ui.evaluation_figures import policy_figures, reward_figures

GROUPS = {
    "chain": {"process_bench": {"f1": 90.0}, "intervals": {"f1": [80.0, 95.0]}, "counts": {"solutions": 40}},
    "<b>odd</b>": {"process_bench": {"f1": None}, "intervals": {"f1": None}, "counts": {"solutions": 1}},
}
REWARD = {
    "calibration": {"error": 0.1, "bins": [{"score": 0.2, "right": 0.5, "steps": 2}]},
    "histogram": {"edges": [0.0, 0.5, 1.0], "right": [0, 7], "wrong": [3, 1]},
    "threshold": 0.25,
    "per_family": GROUPS,
    "per_corruption": {},
}
POLICY = {
    "solve_rate": 0.5,
    "intervals": {"solve_rate": [0.3, 0.6]},
    "counts": {"prompts": 20},
    "per_family": {"chain": {"solve_rate": None, "intervals": {"solve_rate": None}, "counts": {"prompts": 0}}},
}


def valid(figure):
    """plotly itself refuses a property that it doesn't know."""
    return go.Figure(data=figure["data"], layout=figure["layout"])


def test_reward_figures():
    charts = {chart.id: chart.figure for chart in reward_figures(REWARD)}
    assert list(charts) == ["calibration", "scores", "f1_per_family"]  # no chart of no corruptions
    for figure in charts.values():
        valid(figure)
    perfect, curve = charts["calibration"]["data"]
    assert (perfect["x"], perfect["y"]) == ([0, 1], [0, 1])
    assert (curve["x"], curve["y"], curve["customdata"]) == ([0.2], [0.5], [2])
    right, wrong = charts["scores"]["data"]
    assert (right["x"], right["y"]) == ([0.25, 0.75], [None, 7])
    assert wrong["y"] == [3, 1]
    assert charts["scores"]["layout"]["shapes"][0]["x0"] == 0.25


def test_bars_have_intervals_and_dashes():
    figure = reward_figures(REWARD)[-1].figure
    (bars,) = figure["data"]
    assert (bars["x"], bars["y"]) == ([0, 1], [90.0, None])
    labels = ["chain<br>90.0", "&lt;b&gt;odd&lt;/b&gt;<br>–"]
    assert (figure["layout"]["xaxis"]["tickvals"], figure["layout"]["xaxis"]["ticktext"]) == ([0, 1], labels)
    assert bars["error_y"]["arrayminus"] == [10.0, 0.0]
    assert bars["error_y"]["array"] == [5.0, 0.0]
    assert bars["customdata"] == [[labels[0], "40 solutions"], [labels[1], "1 solutions"]]


def test_without_labels_there_is_no_curve():
    figure = reward_figures({**REWARD, "calibration": None})[0].figure
    valid(figure)
    assert figure["data"][1]["x"] == []


def test_policy_figures():
    (chart,) = policy_figures(POLICY)
    valid(chart.figure)
    (bars,) = chart.figure["data"]
    assert chart.figure["layout"]["xaxis"]["ticktext"] == ["all<br>50%", "chain<br>–"]
    assert bars["y"] == [0.5, None]
    assert bars["error_y"]["arrayminus"] == pytest.approx([0.2, 0])


def test_a_family_called_all_has_a_bar_beside_the_total():
    family = {"solve_rate": 0.5, "intervals": {"solve_rate": [0.1, 0.9]}, "counts": {"prompts": 4}}
    (chart,) = policy_figures({**POLICY, "per_family": {"all": family}})
    (bars,) = valid(chart.figure).data
    assert (bars.x, bars.y) == ((0, 1), (0.5, 0.5))  # places of their own, though their labels are the same
    assert [list(said) for said in bars.customdata] == [["all<br>50%", "20 prompts"], ["all<br>50%", "4 prompts"]]
