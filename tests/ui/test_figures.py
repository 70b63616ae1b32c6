import plotly.graph_objects as go

from stepwise_dpo.ui.colours import diverging
from stepwise_dpo.ui.figures import reward_heatmap


def test_heatmap_has_one_scale_for_both_sides():
    rows = [("1. <b>first</b>", [1.0, -0.5], [0.25]), ("2. second", [0.0], [0.5, 0.5, -1.0])]
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
    assert "<b>" not in chosen["customdata"][0][0]


def test_many_examples_have_no_numbers_in_their_cells():
    figure = reward_heatmap([(str(i), [0.1], [0.2]) for i in range(200)], 1.0)
    assert [trace["type"] for trace in figure["data"]] == ["heatmap", "heatmap"]


def test_probabilities_are_centred_at_a_half():
    figure = reward_heatmap([("a", [0.9], [0.1])], 0.5, 0.5, "{:.2f}".format)
    assert (figure["layout"]["coloraxis"]["cmin"], figure["layout"]["coloraxis"]["cmax"]) == (0.0, 1.0)
    assert figure["data"][1]["text"] == ["0.90"]
