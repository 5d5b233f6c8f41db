"""The learning-rate range test: which rates a training could use."""

import math
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from matplotlib.figure import Figure
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from callbacks.figures.callback import FigureCallback
from callbacks.figures.style import BLUE, GRAY, VERMILION, plain_axes

BETA = 0.98  # of Lightning's average


class LRRangeTest(FigureCallback, LearningRateFinder):
    """Trains for some steps at higher and higher learning rates, draws the loss over them, and restores everything.

    Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3. The test is Lightning's, which
    saves and restores net, optimizer, loops, data and random numbers: the training after it is the same as without it.
    It goes over the data as often as its steps need. The loss drawn is an average over about the last fifty steps.
    Differs from Lightning in two ways. It suggests the rate of the steepest fall by the logarithm of the rate;
    Lightning's is by the rate itself, and so always small. And groups of parameters keep the ratio of their rates;
    drawn and suggested is the first group's.

    Writes `pictures/lr_range_test.png`.

    Args:
        start: first learning rate.
        end: last one.
        gamma: factor from one step to the next; from 1e-5 to 10 it takes 145 steps of 1.1, 53 of 1.3.
        early_stop_threshold: stop when the loss is so many times the lowest; None never stops early.

    Attributes:
        suggestion: the rate at which the loss falls most steeply by the logarithm of the rate, before it is lowest;
            None before the test, or if the loss never fell.

    Raises:
        ValueError: if `end` is not above `start`, or `gamma` not above 1.

    >>> LRRangeTest(start=1e-4, end=1.0, gamma=1.1).steps
    97
    """

    def __init__(
        self, start: float = 1e-5, end: float = 10.0, gamma: float = 1.1, early_stop_threshold: float | None = 4.0
    ) -> None:
        if not 0 < start < end or gamma <= 1:
            raise ValueError(f"start={start}, end={end}, gamma={gamma}: expected 0 < start < end and a gamma above 1")
        self.steps = math.ceil(math.log(end / start) / math.log(gamma))
        self.suggestion: float | None = None
        super().__init__(start, end, self.steps, early_stop_threshold=early_stop_threshold, update_attr=False)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        is_initialized = getattr(pl_module, "is_initialized", None)
        hooks = [hook for optimizer in trainer.optimizers for hook in keep_ratios(optimizer)]
        max_epochs = trainer.fit_loop.max_epochs
        trainer.fit_loop.max_epochs = -1  # the test may take more steps than the training: it goes over the data again
        try:
            super().on_fit_start(trainer, pl_module)
        finally:
            trainer.fit_loop.max_epochs = max_epochs
            for hook in hooks:
                hook.remove()
        if is_initialized is not None:  # restoring set it, but these weights were not loaded by a user
            pl_module.is_initialized = is_initialized
        if self.optimal_lr is None:  # a `fast_dev_run` has no test
            return
        rates, losses = (self.optimal_lr.results[name] for name in ("lr", "loss"))
        if trainer.global_step == 0:
            # Lightning corrects the bias of its average as if it were a step older, which halves the first loss.
            losses = [loss * (1 - BETA ** (i + 2)) / (1 - BETA ** (i + 1)) for i, loss in enumerate(losses)]
        self.suggestion = steepest(rates, losses)
        if trainer.is_global_zero:
            self.publish(trainer, "lr_range_test", draw(rates, losses, self.suggestion))


def keep_ratios(optimizer: Optimizer) -> tuple[RemovableHandle, RemovableHandle]:
    """Multiplies each parameter group's rate in every step by the present ratio of its rate to the first group's.

    Between steps the rates are as they were set. The ratio to a rate of 0 counts as 1.

    Returns:
        The handles that remove this.
    """
    groups = optimizer.param_groups
    rates = [group.get("initial_lr", group["lr"]) for group in groups]
    ratios = [rate / rates[0] if rates[0] else 1.0 for rate in rates]
    as_set: list[float] = []

    def scale(*_: Any) -> None:
        as_set[:] = (group["lr"] for group in groups)
        for group, ratio in zip(groups, ratios, strict=True):
            group["lr"] *= ratio

    def restore(*_: Any) -> None:
        for group, rate in zip(groups, as_set, strict=True):
            group["lr"] = rate

    return optimizer.register_step_pre_hook(scale), optimizer.register_step_post_hook(restore)


def steepest(rates: list[float], losses: list[float]) -> float | None:
    """The rate at which the loss falls fastest by the logarithm of the rate, up to where it is lowest; else None.

    >>> steepest([0.001, 0.01, 0.1, 1.0, 10.0], [2.3, 2.2, 1.2, 1.0, 9.0])
    0.1
    """
    end = lowest(losses)
    slopes = {(losses[i] - losses[i - 1]) / math.log(rates[i] / rates[i - 1]): rates[i] for i in range(1, end + 1)}
    return slopes[min(slopes)] if slopes and min(slopes) < 0 else None


def lowest(losses: list[float]) -> int:
    """Index of the lowest loss; NaN losses are ignored."""
    return min(range(len(losses)), key=lambda i: losses[i] if math.isfinite(losses[i]) else math.inf)


def draw(rates: list[float], losses: list[float], suggestion: float | None) -> Figure:
    """The loss over the learning rate, with the steepest and the lowest point marked."""
    figure = Figure((7, 4), facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color=BLUE, linewidth=2.2)
    axes.set_xscale("log")
    plain_axes(axes)
    axes.set_title("Learning-rate range test", loc="left", weight="bold")
    axes.set(xlabel="learning rate, log scale", ylabel="training loss, averaged")
    if suggestion is not None:
        point = (suggestion, losses[rates.index(suggestion)])
        axes.plot(*point, "o", color=VERMILION, markersize=8)
        axes.annotate(
            f"steepest: {suggestion:.2g}", point, (10, 10), textcoords="offset points", color=VERMILION, size=10
        )
    low = lowest(losses)
    axes.annotate(
        f"lowest: {rates[low]:.2g}", (rates[low], losses[low]), (0, -14), textcoords="offset points",
        color=GRAY, size=9, ha="center",
    )  # fmt: skip
    axes.margins(y=0.12)
    return figure
