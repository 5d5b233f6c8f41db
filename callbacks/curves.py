"""Loss, accuracy and other measures over the epochs, in one annotated picture."""

import math
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator

from callbacks.pictures import BLUE, GREY, VERMILION, Pictures

LINES = {  # by split: name, colour and style; told apart without colour too
    "train": ("train", VERMILION, {"linestyle": "--", "linewidth": 1.6, "zorder": 2.5}),
    "val": ("validation", BLUE, {"linewidth": 2.2, "zorder": 3}),
    "test": ("test (only watched)", GREY, {"linestyle": ":", "linewidth": 1.2, "zorder": 2.2}),
}
AXES = {  # by metric: what stands over the axes, the label, value -> text, factor, the best of many
    "loss": ("Loss", "loss", "{:.3f}", 1, min),
    "acc": ("Accuracy", "accuracy in %", "{:.2f} %", 100, max),
    "mask_acc": ("Masked tokens", "accuracy in %", "{:.2f} %", 100, max),
    "next_acc": ("Is next", "accuracy in %", "{:.2f} %", 100, max),
    "map_50": ("Mean average precision", "mAP at IoU 0.5 in %", "{:.1f} %", 100, max),
    "psnr": ("Likeness", "PSNR in dB", "{:.1f} dB", 1, max),
}
PERCENT = (0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99)  # ticks, about equally far apart
GAP = 13  # points between the labels at the ends of lines


class Curves(Pictures):
    """Draws `train/loss`, `val/acc` and the like, as far as they are logged, to `pictures/curves.png`.

    That is at the end of training, also when it ends by an exception or Ctrl-C. The history is saved in
    checkpoints, so a resumed run draws the whole curve.

    Args:
        every_n_epochs: draw during training too; 0 for only at its end.

    Attributes:
        history: metric -> {epoch, counted from 1: value}.

    >>> Curves().history
    {}
    """

    def __init__(self, every_n_epochs: int = 0) -> None:
        self.every_n_epochs, self.history = every_n_epochs, {}

    def _record(self, trainer: Trainer, splits: tuple[str, ...]) -> None:
        for name, value in trainer.callback_metrics.items():  # a collective call: they are reduced here
            split, _, metric = name.partition("/")
            if split in splits and metric in AXES:
                self.history.setdefault(name, {})[trainer.current_epoch + 1] = float(value)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets what is to come: that was another training."""
        kept = {
            name: {e: v for e, v in values.items() if e <= trainer.current_epoch}
            for name, values in self.history.items()
        }
        self.history = {name: values for name, values in kept.items() if values}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._record(trainer, ("val", "test"))  # only here: later epochs without validation still show these

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._record(trainer, ("train",))
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.state.fn == "fit":
            self._draw(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = state["history"]

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self.history:
            self.publish(trainer, "curves", draw(self.history, getattr(pl_module, "loss_label", "loss")))


def draw(history: dict[str, dict[int, float]], loss_label: str = "loss") -> Figure:
    """Draws a history as `Curves` keeps it: one axes for each metric in it, side by side."""
    metrics = [metric for metric in AXES if any(name.endswith(f"/{metric}") for name in history)]
    each, left, right = 5.3, 0.75, 2.0 if any(name.startswith("test/") for name in history) else 1.5
    width = each * len(metrics)
    figure = Figure((width, 4.0), facecolor="white")
    for i, metric in enumerate(metrics):
        # Placed by hand: room at the right for the labels at the lines' ends.
        axes = figure.add_axes(((left + i * each) / width, 0.13, (each - left - right) / width, 0.77))
        curves = {s: history[f"{s}/{metric}"] for s in LINES if f"{s}/{metric}" in history}
        _draw_metric(axes, metric, curves, loss_label)
    return figure


def _draw_metric(axes: Axes, metric: str, curves: dict[str, dict[int, float]], loss_label: str) -> None:
    title, label, form, factor, best_of = AXES[metric]
    label = loss_label if metric == "loss" else label
    ends = []
    for split, values in curves.items():
        name, colour, style = LINES[split]
        points = [(epoch, factor * value) for epoch, value in sorted(values.items()) if math.isfinite(value)]
        if not points:
            continue
        axes.plot(
            *zip(*points, strict=True), color=colour, marker="o" if len(points) < 25 else None, markersize=3, **style
        )
        ends.append((points[-1], f"{name} {form.format(factor * values[max(values)])}", colour))  # a nan is told too
        if split == "val" and len(points) > 1:
            best = best_of(points, key=lambda point: point[1])
            if best[0] < points[-1][0]:  # else the label at the end says it
                _mark_best(axes, best, points[-1][0], form, below=best_of is max)
    axes.set_title(title, loc="left", weight="bold")
    axes.tick_params(labelsize=9)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    axes.yaxis.set_major_formatter("{x:g}")
    low, high = axes.dataLim.intervaly
    if high - low < 0.02 * high:  # noise is not to look like progress
        axes.update_datalim([(1, 0.99 * low), (1, 1.01 * high)])
    if metric == "loss" and 0 < 10 * low < high:  # or the first epochs would press all others flat
        label = f"{label}, log scale"
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    elif label == "accuracy in %" and 0 < 10 * (100 - high) < 100 - low:  # the same, of the errors
        label = f"{label}, log scale of the errors"
        axes.set_yscale("function", functions=(lambda y: -np.log10(100 - y), lambda y: 100 - 10.0**-y))
        axes.yaxis.set_major_locator(FixedLocator(PERCENT))
    if axes.get_yscale() != "linear":
        axes.yaxis.set_major_formatter("{x:g}")  # a scale brings its own
        axes.minorticks_off()
    axes.set_ylabel(label)
    axes.margins(x=0.03, y=0.08)
    axes.autoscale_view()  # now, as the labels need the limits
    _label_ends(axes, ends)


def _mark_best(axes: Axes, best: tuple[int, float], last: int, form: str, below: bool) -> None:
    side = "right" if 2 * best[0] > last else "left"  # on which the text ends above or below the point
    axes.plot(*best, "o", markersize=9, markerfacecolor="none", markeredgecolor=BLUE, markeredgewidth=1.5)
    axes.annotate(
        f"best: epoch {best[0]}, {form.format(best[1])}", best, (0, -38 if below else 38), textcoords="offset points",
        ha=side, va="center", size=9, color=BLUE, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        arrowprops={"arrowstyle": "-", "color": BLUE, "relpos": (side == "right", below), "shrinkA": 1, "shrinkB": 5},
    )  # fmt: skip


def _label_ends(axes: Axes, ends: list[tuple[tuple[int, float], str, str]]) -> None:
    """Writes name and last value beside each line's end; where ends nearly meet, the labels move apart."""
    points = axes.get_position().height * axes.figure.get_figheight() * 72
    ends = sorted(ends, key=lambda end: end[0][1])
    to_axes = axes.transScale + axes.transLimits
    heights = [to_axes.transform(point)[1] * points for point, _, _ in ends]
    for _ in range(100):
        for i in range(len(heights) - 1):
            push = max(0.0, GAP - (heights[i + 1] - heights[i])) / 2
            heights[i], heights[i + 1] = heights[i] - push, heights[i + 1] + push
    for (point, text, colour), height in zip(ends, heights, strict=True):
        axes.annotate(
            text, point, (1.05, height / points), textcoords="axes fraction", color=colour, va="center", size=9,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "relpos": (0, 0.5), "shrinkB": 3},
        )  # fmt: skip
