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
from callbacks.figures.style import BLUE, GRAY, PURPLE, VERMILION, add_axes, plain_axes, shorten

MARKERS: dict[str, dict[str, Any]] = {  # of points, by the dashes of their line
    "-": {"marker": "o"},
    "--": {"marker": "o", "markerfacecolor": "white"},
    ":": {"marker": "x"},
}
PERCENT_TICKS = (0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99)  # about equally far apart
LABEL_GAP = 13  # points between the labels at the ends of lines
PANELS_PER_ROW = 3
BAR, ROW = 0.36, 0.46  # height of the bars of a single epoch, of a row; of a row with its text, in inches
LINES_HEIGHT = 3.08  # inches of a panel of lines
MOST_PARTS = 20  # of a metric in a panel; of more, those with the lowest values
PART_ROW, PARTS_LEFT = 0.19, 2.0  # inches of a bar; of the names of the parts


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


class Parts(NamedTuple):
    """The parts of a metric, such as the terms of a loss, which share a panel.

    axis: of the panel.
    rows: name of each part, its axis, and the curves of its splits.
    """

    axis: Axis
    rows: list[tuple[str, Axis, list[Curve]]]

    @property
    def height(self) -> float:
        """Inches that the bars take."""
        return max(1.0, PART_ROW * sum(len(curves) + 0.5 for _, _, curves in self.rows[:MOST_PARTS]))


def without_parts(
    panels: Mapping[str, tuple[Axis, list[Curve]]], axes_of: Mapping[str, Axis] | None = None
) -> tuple[dict[str, tuple[Axis, list[Curve]]], list[Parts]]:
    """The panels of complete metrics, and the parts of metrics, together for each of these.

    Args:
        panels: see `by_metric`.
        axes_of: of all metrics, also of those without a panel.
    """
    found: dict[str, list[tuple[str, Axis, list[Curve]]]] = {}
    for name, (axis, curves) in panels.items():
        if axis.part_of:
            found.setdefault(axis.part_of, []).append((name.partition("/")[2] or axis.title, axis, curves))
    parts = []
    for whole, rows in found.items():
        labels = {axis.label for _, axis, _ in rows}
        axis = ({name: axis for name, (axis, _) in panels.items()} | dict(axes_of or {})).get(whole, Axis(whole, whole))
        label = labels.pop() if len(labels) == 1 else axis.label
        parts.append(Parts(rows[0][1]._replace(title=f"{axis.title}: its parts", label=label.partition("\n")[0]), rows))
    return {name: panel for name, panel in panels.items() if not panel[0].part_of}, parts


def draw(history: Mapping[str, Mapping[int, float]], axes_of: Mapping[str, Axis] | None = None) -> Figure:
    """Draws a history: one panel for each metric, with a name and the last value at the end of each line.

    Parts of a metric, such as the terms of a loss, share a panel, in which bars show their last values.

    Args:
        history, axes_of: see `by_metric`.
    """
    panels, parts = without_parts(by_metric(history, axes_of), axes_of)
    panel, left, right = 5.3, 0.95, 2.0 if any(name.startswith("test/") for name in history) else 1.5
    heights = [bars_height(curves) if epochs_of(curves) < 2 else LINES_HEIGHT for _, curves in panels.values()]
    heights += [one.height for one in parts]
    columns = min(PANELS_PER_ROW, len(heights))
    rows = [0.92 + max(heights[i : i + columns]) for i in range(0, len(heights), columns)]
    figure = Figure((panel * columns, sum(rows)), facecolor="white")

    def place(i: int, left: float, right: float, title: str) -> Axes:
        row, column = divmod(i, columns)  # by hand: room on the right for the labels at the lines' ends
        bottom = sum(rows[row:]) - 0.4 - heights[i]
        axes = add_axes(figure, left + column * panel, bottom, panel - left - right, heights[i])
        axes.set_title(_literal(title), loc="left", weight="bold")
        return axes

    for i, one in enumerate(parts, len(panels)):
        draw_parts(place(i, PARTS_LEFT, 1.1, one.axis.title), one)
    for i, (axis, curves) in enumerate(panels.values()):
        if epochs_of(curves) < 2:
            draw_bars(place(i, left, 0.25, axis.title), curves, axis)
            continue
        axes = place(i, left, right, axis.title)
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
        # Lines cannot be told apart by their dashes where they are single points.
        marker = MARKERS[curve.style.get("linestyle", "-")] if len(values) < 25 else {}
        size = 3 if len(values) > 1 else 6
        axes.plot([*values], [*values.values()], color=curve.color, markersize=size, **marker, **curve.style)
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


def bars_height(curves: Sequence[Curve]) -> float:
    """Inches that the bars of a single epoch take."""
    return ROW * len(curves)


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
    axes.set_ylim(len(curves) - 1 + 0.6 * BAR, -0.8)
    axes.set_yticks(())
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5) if finite else FixedLocator(()))
    axes.xaxis.set_major_formatter(tick_label)
    (epoch,) = {epoch for curve in curves for epoch in curve.values}
    head, _, remark = axis.label.partition("\n")
    axes.set_xlabel(_literal(f"{head}, {over} {epoch} {remark}".strip()), loc="left", size=9)


def draw_parts(axes: Axes, parts: Parts) -> None:
    """Draws the last values of the parts of a metric as bars, a row for each part, of many those with the lowest."""

    def last(curve: Curve, axis: Axis) -> float:
        return axis.factor * curve.values[max(curve.values)]

    rows = parts.rows
    if parts.axis.better == "max":  # the terms of a loss keep the order in which they are defined
        rows = sorted(rows, key=lambda row: (math.isnan(value := last(row[2][-1], row[1])), value))[:MOST_PARTS]
    splits = {curve.name for _, _, curves in rows for curve in curves}
    place, heights, ticks = 0.0, [0.0], []
    for name, axis, curves in rows:
        ticks.append((place + (len(curves) - 1) / 2, _literal(shorten(name))))
        for curve in curves:
            value = last(curve, axis)
            heights.append(value if math.isfinite(value) else 0.0)
            axes.barh(place, heights[-1], 0.8, color=curve.color, alpha=0.85)
            text = axis.text.format(value) if len(splits) == 1 else label_of(curve, axis)
            axes.annotate(
                _literal(text), (max(heights[-1], 0), place), (3, 0), textcoords="offset points", size=9,
                color=curve.color, va="center",
            )  # fmt: skip
            place += 1
        place += 0.5
    plain_axes(axes, grid=False)
    axes.axvline(0, color="black", linewidth=0.8)
    percent = parts.axis.factor == 100 and min(heights) >= 0 and max(heights) <= 100
    axes.set_xlim((0, 100) if percent else (1.05 * min(heights), 1.05 * max(heights) or 1.0))
    axes.set_ylim(place - 1, -0.7)
    axes.set_yticks([middle for middle, _ in ticks], [name for _, name in ticks])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(tick_label)
    split = f", {next(iter(splits))}" if len(splits) == 1 else ""
    left_out = f", the lowest {len(rows)} of {len(parts.rows)}" if len(parts.rows) > len(rows) else ""
    axes.set_xlabel(_literal(f"{parts.axis.label}{split}{left_out}"), loc="left", size=9)


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
