import plotly.graph_objects as go

from stepwise_dpo.ui.colours import diverging
from stepwise_dpo.ui.figures import HeatmapRow, reward_heatmap


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
