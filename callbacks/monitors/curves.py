"""Loss, accuracy and all other logged metrics over the epochs, in one annotated figure."""

import math
import re
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator
from torch import Tensor

from callbacks.figures.axis import Axis
from callbacks.figures.callback import FigureCallback
from callbacks.figures.style import BLUE, GRAY, PURPLE, VERMILION, add_axes, plain_axes

Line = tuple[str, str, dict[str, Any]]  # name, color and style

LINES: dict[str, Line] = {  # by split; they can be told apart without color, too
    "train": ("train", VERMILION, {"linestyle": "--", "linewidth": 1.6, "zorder": 2.5}),
    "val": ("validation", BLUE, {"linewidth": 2.2, "zorder": 3}),
    "test": ("test (only watched)", GRAY, {"linestyle": ":", "linewidth": 1.2, "zorder": 2.2}),
    "": ("", PURPLE, {"linewidth": 1.6, "zorder": 2.5}),  # of a metric without a split, such as a callback's
}
PERCENT_TICKS = (0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99)  # about equally far apart
LABEL_GAP = 13  # points between the labels at the ends of lines
PANELS_PER_ROW = 3


class Curves(FigureCallback):
    """Draws every metric that is logged once an epoch, such as `train/loss` and `val/acc`, to `pictures/curves.png`.

    That is at the end of training, also when it ends by an exception or Ctrl-C. The module says what a metric means:
    `pl_module.axes` maps its name, without the split, to an `Axis`; a metric that is not in it gets a plain axis with
    its name. The history is saved in checkpoints, so a resumed run draws the complete curve.

    Args:
        every_n_epochs: draw during training too; 0 for only at its end.

    Attributes:
        history: metric -> {epoch, counted from 1: value}.

    >>> Curves().history
    {}
    """

    def __init__(self, every_n_epochs: int = 0) -> None:
        self.every_n_epochs = every_n_epochs
        self.history: dict[str, dict[int, float]] = {}
        self._recorded: dict[str, Tensor] = {}  # the last value of each metric of training, to recognize new ones

    def _record_evaluation(self, trainer: Trainer) -> None:
        for name, value in epoch_metrics(trainer).items():
            if split_of(name) in ("val", "test"):
                self.history.setdefault(name, {})[trainer.current_epoch + 1] = float(value)

    def _record_training(self, trainer: Trainer, epoch: int) -> None:
        """Records what was logged in an epoch, once. The Trainer still holds the values of earlier epochs, too."""
        for name, value in epoch_metrics(trainer).items():
            last = self._recorded.get(name)
            is_new = last is None or last.data_ptr() != value.data_ptr()
            if split_of(name) in ("train", "") and is_new and epoch not in self.history.get(name, {}):
                self.history.setdefault(name, {})[epoch] = float(value)
                self._recorded[name] = value

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets later epochs, which belong to another training, and completes the one before."""
        kept = {
            name: {e: v for e, v in values.items() if e <= trainer.current_epoch}
            for name, values in self.history.items()
        }
        self.history = {name: values for name, values in kept.items() if values}
        self._complete(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._record_evaluation(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._record_training(trainer, trainer.current_epoch + 1)
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._complete(trainer)
        self._draw(trainer, pl_module)

    def _complete(self, trainer: Trainer) -> None:
        """Records what modules and later callbacks logged at the end of the last epoch, after `on_train_epoch_end`."""
        if trainer.current_epoch:
            self._record_training(trainer, trainer.current_epoch)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.state.fn == "fit":
            self._draw(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = state["history"]

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self.history:
            self.publish(trainer, "curves", draw(self.history, getattr(pl_module, "axes", {})))


def epoch_metrics(trainer: Trainer) -> dict[str, Tensor]:
    """The metrics that a Trainer holds, each once; a collective call, as they are reduced here.

    One that is logged both in each step and in each epoch has three names, such as `train/loss`, `train/loss_step` and
    `train/loss_epoch`, of which the first remains.
    """
    metrics = trainer.callback_metrics
    duplicates = {f"{name}_{when}" for name in metrics for when in ("step", "epoch")}
    return {name: value for name, value in metrics.items() if name not in duplicates}


def split_of(name: str) -> str:
    """The split that a logged name begins with, "" if it begins with none.

    >>> [split_of(name) for name in ("val/acc", "sparsity", "layer/0")]
    ['val', '', '']
    """
    head, slash, _ = name.partition("/")
    return head if slash and head in LINES else ""


def draw(history: dict[str, dict[int, float]], axes_of: dict[str, Axis] | None = None) -> Figure:
    """Draws a history as `Curves` keeps it: one panel for each metric.

    Args:
        history: metric -> {epoch: value}.
        axes_of: name of a metric, without its split -> how it is plotted.
    """
    axes_of = axes_of or {}
    found = {name.removeprefix(f"{split_of(name)}/") for name in history}
    metrics = [name for name in axes_of if name in found] + sorted(name for name in found if name not in axes_of)
    panel, tall, left, right = 5.3, 4.0, 0.85, 2.0 if any(name.startswith("test/") for name in history) else 1.5
    columns = min(PANELS_PER_ROW, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure((panel * columns, tall * rows), facecolor="white")
    for i, metric in enumerate(metrics):
        row, column = divmod(i, columns)
        # Placed by hand: room on the right for the labels at the lines' ends.
        x, y = left + column * panel, (rows - 1 - row) * tall + 0.52
        axes = add_axes(figure, x, y, panel - left - right, tall - 0.92)
        names = {split: f"{split}/{metric}" if split else metric for split in LINES}
        curves = {split: history[name] for split, name in names.items() if name in history}
        _draw_metric(axes, curves, axes_of.get(metric) or Axis(metric, metric))
    return figure


def _draw_metric(axes: Axes, curves: dict[str, dict[int, float]], axis: Axis) -> None:
    ends, never_finite = [], []
    for split, values in curves.items():
        name, color, style = LINES[split]
        points = [(epoch, axis.factor * value) for epoch, value in sorted(values.items()) if math.isfinite(value)]
        # The last value even where it is NaN, which has no point in the plot.
        label = f"{name} {axis.text.format(axis.factor * values[max(values)])}".strip()
        if not points:
            never_finite.append(label)
            continue
        epochs, heights = zip(*points, strict=True)
        axes.plot(epochs, heights, color=color, marker="o" if len(points) < 25 else None, markersize=3, **style)
        ends.append((points[-1], label, color))
        if split == "val" and len(points) > 1 and axis.better:
            best = (max if axis.better == "max" else min)(points, key=lambda point: point[1])
            if best[0] < points[-1][0]:  # otherwise the label at the end shows it
                _mark_best(axes, best, points[-1][0], axis.text, below=axis.better == "max")
    plain_axes(axes)
    axes.set_title(axis.title, loc="left", weight="bold")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(_tick_label)
    axes.set_ylabel(axis.label + _set_scale(axes, axis))
    axes.margins(x=0.03, y=0.08)
    axes.autoscale_view()  # now, as the labels need the limits
    _label_ends(axes, ends)
    if not ends:
        axes.set(xticks=(), yticks=())
    if never_finite:
        axes.text(0.5, 0.5, "\n".join(never_finite), transform=axes.transAxes, ha="center", va="center", color=GRAY)


def _tick_label(value: float, _: Any = None) -> str:
    """As short as possible.

    >>> [_tick_label(value) for value in (0.5, 2e9, 1.5e-7)]
    ['0.5', '2e9', '1.5e-7']
    """
    return re.sub(r"e([+-])0*", lambda sign: "e" + sign[1].strip("+"), f"{value:g}")


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
        axes.yaxis.set_major_formatter(_tick_label)  # a scale brings its own
        axes.minorticks_off()
    return suffix


def _mark_best(axes: Axes, best: tuple[int, float], last: int, form: str, below: bool) -> None:
    side = "right" if 2 * best[0] > last else "left"  # on which the text ends above or below the point
    axes.plot(*best, "o", markersize=9, markerfacecolor="none", markeredgecolor=BLUE, markeredgewidth=1.5)
    axes.annotate(
        f"best: epoch {best[0]}, {form.format(best[1])}", best, (0, -38 if below else 38), textcoords="offset points",
        ha=side, va="center", size=9, color=BLUE, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        arrowprops={"arrowstyle": "-", "color": BLUE, "relpos": (side == "right", below), "shrinkA": 1, "shrinkB": 5},
    )  # fmt: skip


def _label_ends(axes: Axes, ends: list[tuple[tuple[int, float], str, str]]) -> None:
    """Writes name and last value next to each line's end; where ends nearly meet, the labels move apart."""
    points = axes.bbox.height / axes.figure.dpi * 72
    ends = sorted(ends, key=lambda end: end[0][1])
    to_axes = axes.transScale + axes.transLimits
    heights = [to_axes.transform(point)[1] * points for point, _, _ in ends]
    for _ in range(100):
        for i in range(len(heights) - 1):
            push = max(0.0, LABEL_GAP - (heights[i + 1] - heights[i])) / 2
            heights[i], heights[i + 1] = heights[i] - push, heights[i + 1] + push
    for (point, text, color), height in zip(ends, heights, strict=True):
        axes.annotate(
            text, point, (1.05, height / points), textcoords="axes fraction", color=color, va="center", size=9,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "relpos": (0, 0.5), "shrinkB": 3},
        )  # fmt: skip
