import plotly.graph_objects as go

from stepwise_dpo.ui.colours import diverging
from stepwise_dpo.ui.figures import HeatmapRow, reward_heatmap


def row(place, chosen, rejected, text="step"):
    return HeatmapRow(place, [(text, value) for value in chosen], [(text, value) for value in rejected])


def test_heatmap_has_one_scale_for_both_sides():
    rows = [row(4, [1.0, -0.5], [0.25], "<b>x</b> %{y}"), row(0, [0.0], [0.5, 0.5, -1.0])]
    figure = reward_heatmap(rows, 1.0)
    go.Figure(data=figure["data"], layout=figure["layout"])
    chosen, rejected = figure["data"]
    assert chosen["z"] == [[1.0, -0.5], [0.0, None]]
    assert rejected["z"] == [[0.25, None, None], [0.5, 0.5, -1.0]]
    assert chosen["coloraxis"] == rejected["coloraxis"]
    axis = figure["layout"]["coloraxis"]
    assert (axis["cmin"], axis["cmax"]) == (-1.0, 1.0)
    numbers, _ = figure["numbers"]
    assert numbers["texts"] == [["+1.00", "−0.50"], ["0.00", ""]]
    for theme, dark in (("light", False), ("dark", True)):
        inks = [numbers["inks"][int(digit)] for digit in "".join(numbers[theme])]
        assert inks[:3] == [diverging(v, dark).ink for v in (1.0, -0.5, 0.0)]
    # A click names the example's place in the set, wherever its row stands; so does the axis.
    assert chosen["customdata"][0] == ["4", "4"]
    assert figure["layout"]["yaxis"]["ticktext"] == ["5", "1"]
    assert chosen["text"][0][1] == "<b>−0.50</b> chosen step 2 of example 5<br>&lt;b&gt;x&lt;/b&gt; %{y}"


def test_many_examples_take_no_more_height_and_a_zoom_lasts_while_they_are_the_same():
    figures = [reward_heatmap([row(i, [0.1], [0.2]) for i in places], 1.0) for places in (range(200), range(400))]
    heights, revisions = ([f["layout"][name] for f in figures] for name in ("height", "uirevision"))
    assert heights[0] == heights[1]
    assert revisions[0] != revisions[1]
    assert revisions[0] == reward_heatmap([row(i, [0.3], [0.4]) for i in range(200)], 1.0)["layout"]["uirevision"]


def test_probabilities_are_centred_at_a_half():
    figure = reward_heatmap([row(0, [0.9], [0.1])], 0.5, 0.5, "{:.2f}".format)
    assert (figure["layout"]["coloraxis"]["cmin"], figure["layout"]["coloraxis"]["cmax"]) == (0.0, 1.0)
    assert figure["numbers"][0]["texts"] == [["0.90"]]
