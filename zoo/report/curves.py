"""The curves and figures of runs as a page shows them: plots, and tables of the same values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from callbacks.figures.axis import Axis
from callbacks.figures.curves import LINES, Curve, best_epoch, by_metric, split_of, without_parts
from callbacks.figures.style import BLACK, BLUE, GRAY, GREEN, ORANGE, PURPLE, SKY, VERMILION
from zoo.report.metrics import Metrics
from zoo.report.run import Run
from zoo.report.svg import panel, parts_panel, variable

SPLITS = {"train": "training", "val": "validation", "test": "test"}
RUN_COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, GRAY)  # of the runs of a comparison
MOST_WITH_ALL_SPLITS = 2  # runs of a comparison that share a plot with all their splits
MAX_ROWS = 400  # of a table of steps, of which there may be many more


class Line(NamedTuple):
    """The key of a plot: a line, its color and dashes, and its last and best value as text."""

    name: str
    color: str
    dashed: bool
    last: str
    best: str


class Plot(NamedTuple):
    """A plot with its title and key."""

    title: str
    label: str
    svg: Markup
    lines: list[Line]


def axis_of(name: str, axes: Mapping[str, Axis]) -> Axis:
    """How a metric, named with its split, is plotted."""
    metric = name.removeprefix(f"{split_of(name)}/")
    return axes.get(metric) or Axis(metric, metric)


def value_text(name: str, value: float, axes: Mapping[str, Axis]) -> str:
    """A value as the axis of its metric tells it."""
    axis = axis_of(name, axes)
    return axis.text.format(axis.factor * value)


def plots_of(run: Run) -> list[Plot]:
    """A plot for each metric of a training, over the epochs; over the steps where an epoch has several values.

    Parts of a metric share a plot of their last values.
    """
    found = []
    panels, parts = without_parts(by_metric(run.metrics.steps, run.axes), run.axes)
    for number, (metric, (axis, curves)) in enumerate(panels.items()):
        names = [f"{split}/{metric}" if split else metric for split in LINES]
        names = [name for name in names if name in run.metrics.steps]
        over = "epoch" if all(name in run.metrics.history for name in names) else "step"
        if over == "epoch":
            curves = [c._replace(values=run.metrics.history[name]) for c, name in zip(curves, names, strict=True)]
        found.append(_plot(axis, over, curves, f"plot{number}"))
    for number, one in enumerate(parts):
        svg, label, _ = parts_panel(one, f"parts{number}")
        found.append(Plot(one.axis.title, label, svg, []))
    return found


class Overlay(NamedTuple):
    """The curves of a metric of several runs.

    axis: how they are plotted.
    over: what the values are over, "epoch" or "step".
    """

    axis: Axis
    over: str
    curves: list[Curve]


def overlaid(runs: Sequence[Run], labels: Sequence[str], axes: Mapping[str, Axis]) -> list[Overlay]:
    """The curves of each metric, validation and test as lines, training dashed.

    Those of two runs share a plot; of more, in which they could not be told apart, each split has a plot of its own.

    Args:
        runs, labels: the runs, and what they are called.
        axes: the metrics, without their split, and how they are plotted.
    """
    if len(runs) <= MOST_WITH_ALL_SPLITS:
        found = [(axis, metric, tuple(LINES)) for metric, axis in axes.items()]
    else:
        splits = {**SPLITS, "": ""}
        found = [
            (axis._replace(title=f"{axis.title}, {splits[split]}".removesuffix(", ")), metric, (split,))
            for split in sorted(splits, key=lambda split: split != "val")
            for metric, axis in axes.items()
        ]
    overlays = [Overlay(axis, *_curves_of(runs, labels, metric, splits)) for axis, metric, splits in found]
    return [overlay for overlay in overlays if overlay.curves]


def _curves_of(
    runs: Sequence[Run], labels: Sequence[str], metric: str, splits: Sequence[str]
) -> tuple[str, list[Curve]]:
    """What the values of a metric are over, and its curves, one for each run and split."""
    names = [f"{split}/{metric}" if split else metric for split in splits]
    logged = [(run, name) for run in runs for name in names if name in run.metrics.steps]
    over = "epoch" if all(name in run.metrics.history for run, name in logged) else "step"
    curves = []
    for place, (run, label) in enumerate(zip(runs, labels, strict=True)):
        for name in names:
            if name in run.metrics.steps:
                split = SPLITS.get(split_of(name), "") if len(splits) > 1 else ""
                values = run.metrics.history[name] if over == "epoch" else run.metrics.steps[name]
                style = LINES[split_of(name)].style | {"linewidth": 1.3 if split == "training" else 2.0}
                color = RUN_COLORS[place]
                curves.append(Curve(f"{label}, {split}".removesuffix(", "), color, style, values))
    return over, curves


def plots_of_overlays(overlays: Sequence[Overlay]) -> list[Plot]:
    return [_plot(*overlay, f"plot{number}") for number, overlay in enumerate(overlays)]


def _plot(axis: Axis, over: str, curves: Sequence[Curve], key: str) -> Plot:
    svg, label, _ = panel(axis, curves, over, key)
    lines = []
    for curve in curves:
        best = best_epoch(curve, axis)
        best_text = "" if best is None else axis.text.format(axis.factor * curve.values[best])
        lines.append(
            Line(
                name=curve.name or axis.title,
                color=variable(curve.color),
                dashed=curve.style.get("linestyle", "-") != "-",
                last=axis.text.format(axis.factor * curve.values[max(curve.values)]),
                best=best_text and f"best {best_text}, {over} {best}",
            )
        )
    return Plot(axis.title, label, svg, lines)


def figures_of(run: Run) -> list[dict[str, Any]]:
    """What each metric has come to: its title and, by split, the last value and the best one."""
    metrics, axes = run.metrics, run.axes
    rows = []
    for metric, (axis, _) in by_metric({name: {} for name in metrics.names}, axes).items():
        row: dict[str, Any] = {"title": axis.title, "name": metric, "splits": {}, "is_part": bool(axis.part_of)}
        for split in LINES:
            name = f"{split}/{metric}" if split else metric
            if (value := metrics.last(name)) is None:
                continue
            finite = [v for v in metrics.steps.get(name, {}).values() if math.isfinite(v)]
            has_best = LINES[split].marked and axis.better and finite
            best = (max if axis.better == "max" else min)(finite) if has_best else None
            row["splits"][split] = {
                "last": value_text(name, value, axes),
                "best": "" if best is None else value_text(name, best, axes),
            }
        rows.append(row)
    return rows


def tables_of(metrics: Metrics) -> list[dict[str, Any]]:
    """All values that were logged: a table of the epochs, and one of the steps for what an epoch has several of."""
    tables, splits = [], list(LINES)
    stepwise = {name: values for name, values in metrics.steps.items() if name not in metrics.history}
    for over, found in (("epoch", metrics.history), ("step", stepwise)):
        places = sorted({place for values in found.values() for place in values})
        every = -(-len(places) // MAX_ROWS) or 1
        kept = sorted({*places[::every], *places[-1:]})
        names = sorted(found, key=lambda name: (name.removeprefix(f"{split_of(name)}/"), splits.index(split_of(name))))
        rows = [[str(place), *(f"{found[n][place]:.6g}" if place in found[n] else "" for n in names)] for place in kept]
        if rows:
            left_out = len(places) - len(kept)
            tables.append({"over": over, "names": names, "rows": rows, "left_out": left_out})
    return tables
