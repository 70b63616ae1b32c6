from itertools import pairwise

import plotly.graph_objects as go
import pytest

from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.preferences.statistics import statistics
from stepwise_dpo.ui.data_figures import binned, statistics_charts
from stepwise_dpo.ui.glossary import GLOSSARY

PAIRS = [
    PreferencePair("p", [Step("abc", True)], [Step("a", False), Step("b")]),
    PreferencePair("p", [Step("abc", True), Step("d")], [Step("a", True), Step("b", False)]),
]


@pytest.mark.parametrize("pairs", [PAIRS, []])
def test_every_figure_is_one_that_plotly_takes_and_explains_itself(pairs):
    charts = statistics_charts(statistics(pairs), [])
    assert [chart.id for chart in charts] == ["data_steps", "data_gap", "data_first_error", "data_repeats"]
    for chart in charts:
        go.Figure({"data": chart.figure["data"], "layout": chart.figure["layout"]})
        assert chart.id in GLOSSARY


def test_figures_show_the_counts():
    steps, gap, error, repeats = (c.figure["data"] for c in statistics_charts(statistics(PAIRS), [("<b>x", 2)]))
    assert [(trace["name"], trace["x"], trace["y"]) for trace in steps] == [
        ("chosen", [1, 2], [1, 1]),
        ("rejected", [2], [2]),
    ]
    assert list(zip(gap[0]["customdata"], gap[0]["y"], strict=True)) == [("1", 1), ("2", 1)]
    assert (error[0]["x"], error[0]["y"]) == ([1, 2], [1, 1])
    assert repeats[0]["x"] == [1, 0, 2]
    assert repeats[0]["y"][2] == "prompt also in &lt;b&gt;x"


def test_a_set_without_error_labels_says_so():
    unlabelled = [PreferencePair("p", [Step("abc")], [Step("a")])]
    notes = [
        {c.id: c.note for c in statistics_charts(statistics(p), [])}["data_first_error"] for p in (PAIRS, unlabelled)
    ]
    assert notes[0] == ""
    assert "labelled wrong" in notes[1]


def test_bins_hold_every_value_once_and_one_begins_at_zero():
    values = [-95, -1, 0, 0, 3, 204]
    bins = binned(values, 10)
    assert sum(count for _, _, count in bins) == len(values)
    assert 0 in [low for low, _, _ in bins]
    assert all(before[1] + 1 == after[0] for before, after in pairwise(bins))
    assert len(bins) <= 11
    assert binned([5]) == [(5, 5, 1)]
    assert binned([]) == []
