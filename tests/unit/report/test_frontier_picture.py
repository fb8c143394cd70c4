"""Labels and numbers of the picture of toxicity against quality."""

import re

from lora_detox.report.frontier import FrontierCurve, FrontierPoint, frontier_plot

UNKNOWN = float("nan")


def point(label, x, y, reach=0.01):
    return FrontierPoint(label=label, x=(x, x - reach, x + reach), y=(y, y - reach, y + reach))


def labels_in(plot):
    return re.findall(r"<text[^>]*>([^<]*)</text>", plot.svg)


def test_points_in_one_place_share_a_label():
    curves = [
        FrontierCurve(label="first", points=[point("0", 30, 0.4), point("1", 31, 0.1)]),
        FrontierCurve(label="second", points=[point("0", 30, 0.4), point("1.5", 31.001, 0.1)]),
    ]
    labels = labels_in(frontier_plot("a", curves, ("perplexity", "toxicity")))
    assert labels.count("1, 1.5") == 1
    assert "1.5" not in labels


def test_numbers_are_behind_the_picture_and_say_what_is_not_known():
    bare = FrontierPoint(label="base", x=(28.0, UNKNOWN, UNKNOWN), y=(0.5, UNKNOWN, UNKNOWN))
    curves = [
        FrontierCurve(label="adapter", points=[point("0", 30, 0.4), point("1", 31, 0.1)]),
        FrontierCurve(label="base", points=[bare]),
    ]
    plot = frontier_plot("b", curves, ("perplexity", "toxicity"), digits=(1, 2))
    assert plot.columns == ("", "perplexity", "toxicity")
    assert [cells for _, cells in plot.points] == [
        ["adapter, 0", "30.0 [30.0, 30.0]", "0.40 [0.39, 0.41]"],
        ["adapter, 1", "31.0 [31.0, 31.0]", "0.10 [0.09, 0.11]"],
        ["base", "28.0", "0.50"],
    ]
