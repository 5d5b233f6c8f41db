"""The figure of curves: plain also after an epoch or two, nothing covers a line, and what differs is said."""

import math

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from callbacks.figures.axis import Axis, loss_axis, percent_axis
from callbacks.figures.curves import draw
from callbacks.monitors.curves import axes_of
from zoo.classification.resnet_mini import ResNetMini
from zoo.system import System

AXES = {"loss": loss_axis("cross-entropy in nats"), "acc": percent_axis("Accuracy"), "drop": Axis("Drop", "drop in dB")}


@pytest.mark.parametrize(
    ("metric", "values", "limits"),
    [
        ("acc", {"train": 0.5, "val": 0.625}, (0, 100)),
        ("loss", {"train": 2.0, "val": 0.5}, (0, 2.1)),
        ("drop", {"val": -3.0}, (-3.15, 0)),
        ("loss", {"train": 0.0}, (0, 1)),
    ],
)
def test_a_single_epoch_is_bars_that_begin_at_zero(texts_of, assert_legible, metric, values, limits):
    figure = draw({f"{split}/{metric}": {4: value} for split, value in values.items()}, AXES)
    (axes,) = figure.axes
    factor = AXES[metric].factor
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([factor * value for value in values.values()])
    assert {bar.get_x() for bar in axes.patches} == {0}
    assert axes.get_xlim() == pytest.approx(limits)
    texts = texts_of(figure)
    assert f"{AXES[metric].label}, epoch 4" in texts
    for split, value in values.items():
        name = {"train": "train", "val": "validation"}[split]
        assert f"{name} {AXES[metric].text.format(factor * value)}" in texts
    assert_legible(figure)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_single_epoch_without_a_finite_value_is_text(texts_of, assert_legible, value):
    figure = draw({"train/loss": {1: value}, "val/loss": {1: value}}, AXES)
    assert f"train {value}" in texts_of(figure)
    assert_legible(figure)


@pytest.mark.parametrize("shape", [lambda e: 0.2 + abs(e - 8) / 20, lambda e: 1 / e + (e > 9) * e / 30])
@pytest.mark.parametrize("epochs", [2, 12, 40])
def test_the_best_epoch_covers_no_curve(assert_legible, shape, epochs):
    course = {epoch: shape(epoch) for epoch in range(1, epochs + 1)}
    if epochs == 2:
        course = {1: 0.5, 2: 0.9}
    figure = draw({"val/loss": course, "train/loss": {e: v / 2 for e, v in course.items()}}, AXES)
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    best = next(text for text in figure.findobj(Text) if text.get_text().startswith("best: epoch"))
    assert not best.get_window_extent().overlaps(axes.bbox)
    ring = next(line for line in axes.lines if line.get_marker() == "o" and line.get_markersize() == 9)
    assert tuple(ring.get_xydata()[0]) == min(course.items(), key=lambda point: point[1])
    assert ring.get_markerfacecolor() == "none"
    assert_legible(figure)


def test_smoothed_labels_are_told_where_the_losses_differ_by_them(texts_of, assert_legible):
    smooth, plain = (
        ResNetMini(3, widths=(4, 8), strides=(1, 1), label_smoothing=0.1),
        ResNetMini(3, widths=(4, 8), strides=(1, 1)),
    )
    remark = "(training: label smoothing 0.1)"
    assert axes_of(plain) == type(plain).axes == type(smooth).axes
    axes = axes_of(smooth)
    assert axes["acc"] == System.axes["acc"]
    history = {f"{split}/{name}": {1: 0.9, 2: 0.05} for split in ("train", "val") for name in ("loss", "acc")}
    figure = draw(history, axes)
    assert f"cross-entropy in nats, log scale\n{remark}" in texts_of(figure)
    assert_legible(figure)
    figure = draw({"train/loss": {1: 0.9}, "val/loss": {1: 0.5}}, axes)
    assert f"cross-entropy in nats, epoch 1 {remark}" in texts_of(figure)
    assert_legible(figure)


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("count", [4, 30])
def test_parts_of_a_metric_share_a_panel(texts_of, assert_legible, epochs, count):
    """The value of each class, the lowest first, and of many the lowest only; the terms of a loss in their order."""
    axes = dict(AXES)
    axes |= {f"ap/class {i}": percent_axis(f"AP of class {i}", "AP")._replace(part_of="acc") for i in range(count)}
    axes |= {name: loss_axis("sum", f"Loss of {name}")._replace(part_of="loss") for name in ("boxes", "objects")}
    history = {f"val/ap/class {i}": {e: 1 - (i + e) / 100 for e in range(1, epochs + 1)} for i in range(count)}
    for metric, value in (("acc", 0.5), ("loss", 3.0), ("boxes", 2.0), ("objects", math.nan)):
        history |= {f"{split}/{metric}": dict.fromkeys(range(1, epochs + 1), value) for split in ("train", "val")}
    figure = draw(history, axes)
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert sorted(titles) == ["Accuracy", "Accuracy: its parts", "Loss", "Loss: its parts"]
    shown = figure.axes[titles.index("Accuracy: its parts")]
    names = [label.get_text() for label in shown.get_yticklabels()]
    assert names == [f"class {i}" for i in reversed(range(count))][:20]
    assert ("the lowest 20 of 30" in shown.get_xlabel()) == (count == 30)
    assert {"train 2.000", "validation nan"} <= set(texts_of(figure))
    assert_legible(figure)


def test_names_with_dollars_are_no_formulas(assert_legible):
    for course in ({1: 1.0}, {1: 1.0, 2: 2.0}, {1: math.nan, 2: math.nan}):
        assert_legible(draw({"val/x$^$": course, "$^$": course}, {}))
