"""Curves of metrics over the epochs, in panels: one for each metric, with the lines of several splits or runs."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator

from callbacks.figures.axis import Axis
from callbacks.figures.style import BLUE, GRAY, PURPLE, VERMILION, add_axes, plain_axes

PERCENT_TICKS = (0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99)  # about equally far apart
LABEL_GAP = 13  # points between the labels at the ends of lines
PANELS_PER_ROW = 3
BAR = 0.36  # height of the bars of a single epoch, of a row


class Curve(NamedTuple):
    """A metric over the epochs.

    name: of the line, such as "validation".
    color, style: of the line, as matplotlib takes them.
    values: by epoch, counted from 1.
    marked: whether its best epoch is marked, where the metric has one.
    """

    name: str
    color: str
    style: dict[str, Any]
    values: Mapping[int, float]
    marked: bool = False


LINES: dict[str, Curve] = {  # by split, without values; they can be told apart without color, too
    "train": Curve("train", VERMILION, {"linestyle": "--", "linewidth": 1.6, "zorder": 2.5}, {}),
    "val": Curve("validation", BLUE, {"linewidth": 2.2, "zorder": 3}, {}, marked=True),
    "test": Curve("test (only watched)", GRAY, {"linestyle": ":", "linewidth": 1.2, "zorder": 2.2}, {}),
    "": Curve("", PURPLE, {"linewidth": 1.6, "zorder": 2.5}, {}),  # of a metric without a split, such as a callback's
}


def split_of(name: str) -> str:
    """The split that a logged name begins with, "" if it begins with none.

    >>> [split_of(name) for name in ("val/acc", "sparsity", "layer/0")]
    ['val', '', '']
    """
    head, slash, _ = name.partition("/")
    return head if slash and head in LINES else ""


def by_metric(
    history: Mapping[str, Mapping[int, float]], axes_of: Mapping[str, Axis] | None = None
) -> dict[str, tuple[Axis, list[Curve]]]:
    """Sorts a history into panels: the metrics that have an axis first, in the order of the axes, then the others.

    Args:
        history: metric with its split -> {epoch: value}.
        axes_of: name of a metric, without its split -> how it is plotted.

    Returns:
        Metric without its split -> its axis and the curves of its splits.
    """
    axes_of = axes_of or {}
    found = {name.removeprefix(f"{split_of(name)}/") for name in history}
    panels = {}
    for metric in [name for name in axes_of if name in found] + sorted(found - set(axes_of)):
        names = {split: f"{split}/{metric}" if split else metric for split in LINES}
        curves = [LINES[split]._replace(values=history[name]) for split, name in names.items() if name in history]
        panels[metric] = axes_of.get(metric) or Axis(metric, metric), curves
    return panels


def draw(history: Mapping[str, Mapping[int, float]], axes_of: Mapping[str, Axis] | None = None) -> Figure:
    """Draws a history: one panel for each metric, with a name and the last value at the end of each line.

    Args:
        history, axes_of: see `by_metric`.
    """
    panels = by_metric(history, axes_of)
    panel, tall, left, right = 5.3, 4.0, 0.95, 2.0 if any(name.startswith("test/") for name in history) else 1.5
    columns = min(PANELS_PER_ROW, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure((panel * columns, tall * rows), facecolor="white")
    for i, (axis, curves) in enumerate(panels.values()):
        row, column = divmod(i, columns)
        # Placed by hand: room on the right for the labels at the lines' ends.
        x, y = left + column * panel, (rows - 1 - row) * tall + 0.52
        axes = add_axes(figure, x, y, panel - left - right, tall - 0.92)
        axes.set_title(_literal(axis.title), loc="left", weight="bold")
        if epochs_of(curves) < 2:
            draw_bars(axes, curves, axis)
            continue
        draw_lines(axes, curves, axis)
        _label_ends(axes, curves, axis)
        for curve in curves:
            if (best := best_epoch(curve, axis)) is not None:
                text = f"best: epoch {best}, {axis.text.format(axis.factor * curve.values[best])}"
                right_edge = 1 + (right - 0.05) / (panel - left - right)  # of the panel
                axes.annotate(
                    text, (right_edge, 0), (0, -23), xycoords="axes fraction", textcoords="offset points", size=9,
                    color=curve.color, ha="right", va="top",
                )  # fmt: skip
    return figure


def epochs_of(curves: Sequence[Curve]) -> int:
    """How many epochs there are."""
    return len({epoch for curve in curves for epoch in curve.values})


def best_epoch(curve: Curve, axis: Axis) -> int | None:
    """The epoch to be marked as the best one; None if there is none, or if it is the last, which is labeled anyway."""
    finite = {epoch: value for epoch, value in curve.values.items() if math.isfinite(value)}
    if not (curve.marked and axis.better and len(finite) > 1):
        return None
    best = (max if axis.better == "max" else min)(sorted(finite), key=lambda epoch: finite[epoch])
    return best if best < max(finite) else None


def draw_lines(axes: Axes, curves: Sequence[Curve], axis: Axis, over: str = "epoch") -> None:
    """Draws lines; a value that is not finite has no point, and a line without any is told as text.

    Args:
        axes: to draw on.
        curves, axis: see `by_metric`.
        over: what the values are counted by.
    """
    never_finite = []
    for curve in curves:
        values = {epoch: axis.factor * value for epoch, value in sorted(curve.values.items()) if math.isfinite(value)}
        if not values:
            never_finite.append(_literal(label_of(curve, axis)))
            continue
        marker = "o" if len(values) < 25 else None
        axes.plot([*values], [*values.values()], color=curve.color, marker=marker, markersize=3, **curve.style)
        if (best := best_epoch(curve, axis)) is not None:
            axes.plot(
                best, values[best], "o", markersize=9, markerfacecolor="none", markeredgecolor=curve.color,
                markeredgewidth=1.5, zorder=curve.style.get("zorder", 2),
            )  # fmt: skip
    plain_axes(axes)
    axes.set_xlabel(over)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(tick_label)
    _set_label(axes, axis.label, _set_scale(axes, axis))
    axes.margins(x=0.03, y=0.08)
    axes.autoscale_view()  # now, as labels need the limits
    if len(never_finite) == len(curves):
        axes.set(xticks=(), yticks=())
    if never_finite:
        axes.text(0.5, 0.5, "\n".join(never_finite), transform=axes.transAxes, ha="center", va="center", color=GRAY)


def draw_bars(axes: Axes, curves: Sequence[Curve], axis: Axis, over: str = "epoch") -> None:
    """Draws the values of a single epoch as bars that begin at 0: lines over one epoch would show nothing."""
    heights = [axis.factor * next(iter(curve.values.values())) for curve in curves]
    finite = [height for height in heights if math.isfinite(height)]
    for place, (curve, height) in enumerate(zip(curves, heights, strict=True)):
        if math.isfinite(height):
            axes.barh(place, height, BAR, color=curve.color, alpha=0.85)
        axes.annotate(
            _literal(label_of(curve, axis)), (0, place - 0.6 * BAR), (3, 1), xycoords=axes.get_yaxis_transform(),
            textcoords="offset points", size=9, color=curve.color, va="bottom",
        )  # fmt: skip
    low, high = min([0.0, *finite]), max([0.0, *finite])
    plain_axes(axes, grid=False)
    axes.axvline(0, color="black", linewidth=0.8)
    if axis.factor == 100 and low >= 0 and high <= 100:
        axes.set_xlim(0, 100)
    else:
        axes.set_xlim(1.05 * low, 1.05 * high if low < high else 1.0)
    axes.set_ylim(max(len(curves), 3) - 0.5, -0.7)
    axes.set_yticks(())
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5) if finite else FixedLocator(()))
    axes.xaxis.set_major_formatter(tick_label)
    (epoch,) = {epoch for curve in curves for epoch in curve.values}
    head, _, remark = axis.label.partition("\n")
    axes.set_xlabel(_literal(f"{head}, {over} {epoch} {remark}".strip()), loc="left", size=9)


def label_of(curve: Curve, axis: Axis) -> str:
    """Name and last value of a curve, also where that is NaN and has no point in the plot."""
    return f"{curve.name} {axis.text.format(axis.factor * curve.values[max(curve.values)])}".strip()


def tick_label(value: float, _: Any = None) -> str:
    """As short as possible.

    >>> [tick_label(value) for value in (0.5, 2e9, 1.5e-7)]
    ['0.5', '2e9', '1.5e-7']
    """
    return re.sub(r"e([+-])0*", lambda sign: "e" + sign[1].strip("+"), f"{value:g}")


def _literal(text: str) -> str:
    """Text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


def _set_label(axes: Axes, label: str, scale: str) -> None:
    """Labels the vertical axis; a second line of the label, a remark, follows the scale."""
    head, line_break, remark = label.partition("\n")
    axes.set_ylabel(_literal(f"{head}{scale}{line_break}{remark}"))


def _set_scale(axes: Axes, axis: Axis) -> str:
    """Chooses a scale on which neither noise nor the first epochs hide the rest; returns what to add to the label."""
    low, high = axes.dataLim.intervaly
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    if high - low < 0.02 * high:  # noise must not look like progress
        axes.update_datalim([(1, 0.99 * low), (1, 1.01 * high)], updatex=False)
    suffix = ""
    if axis.better == "min" and 0 < 10 * low < high:  # else the first epochs would press all others flat
        suffix = ", log scale"
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    elif axis.better == "max" and axis.factor == 100 and 0 < 10 * (100 - high) < 100 - low:  # the same, of the errors
        suffix = ", log scale of the errors"
        axes.set_yscale("function", functions=(lambda y: -np.log10(100 - y), lambda y: 100 - 10.0**-y))
        axes.yaxis.set_major_locator(FixedLocator(PERCENT_TICKS))
    if suffix:
        axes.yaxis.set_major_formatter(tick_label)  # a scale brings its own
        axes.minorticks_off()
    return suffix


def _label_ends(axes: Axes, curves: Sequence[Curve], axis: Axis) -> None:
    """Writes name and last value next to each line's end; where ends nearly meet, the labels move apart."""
    points = axes.bbox.height / axes.figure.dpi * 72
    ends = []
    for curve in curves:
        if finite := [epoch for epoch, value in curve.values.items() if math.isfinite(value)]:
            ends.append(((max(finite), axis.factor * curve.values[max(finite)]), curve))
    ends.sort(key=lambda end: end[0][1])
    to_axes = axes.transScale + axes.transLimits
    heights = [to_axes.transform(point)[1] * points for point, _ in ends]
    for _ in range(100):
        for i in range(len(heights) - 1):
            push = max(0.0, LABEL_GAP - (heights[i + 1] - heights[i])) / 2
            heights[i], heights[i + 1] = heights[i] - push, heights[i + 1] + push
    for (point, curve), height in zip(ends, heights, strict=True):
        axes.annotate(
            _literal(label_of(curve, axis)), point, (1.05, height / points), textcoords="axes fraction",
            color=curve.color, va="center", size=9,
            arrowprops={"arrowstyle": "-", "color": curve.color, "linewidth": 0.6, "relpos": (0, 0.5), "shrinkB": 3},
        )  # fmt: skip
