"""What `zoo schedule` does, see `zoo.command.verbs.schedule`."""

import argparse
import math
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from callbacks.figures.style import BLUE, GREEN, ORANGE, PURPLE, heading, plain_axes, save_figure
from zoo.command import recipes
from zoo.command.lightning_cli import ZooCLI

# A training that takes no step writes no files.
NO_TRAINING_OPTIONS = [
    *("--trainer.logger=false", "--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false"),
    *("--trainer.num_sanity_val_steps=0", "--trainer.min_epochs=null", "--trainer.min_steps=null"),
]
LINES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PURPLE, ":"))  # of the parameter groups, in turn

Curves = dict[str, list[float]]  # parameter group -> a value for each optimizer step


def run(args: argparse.Namespace, rest: list[str]) -> int:
    print(schedule(args.recipe, rest, out=args.out))
    return 0


class ScheduleProbe(Callback):
    """Steps the schedules to the end of the training before its first step, records what they set, and stops there.

    Optimizer and schedule are those that would train, as the trainer has set them up.

    Attributes:
        rates, momenta: parameter group -> a value for each optimizer step.
        epochs: length of the training; None if it is given in steps.
    """

    def __init__(self) -> None:
        self.rates: Curves = {}
        self.momenta: Curves = {}
        self.epochs: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = int(trainer.estimated_stepping_batches)
        per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        self.epochs = steps / per_epoch if trainer.max_steps < 0 else None
        schedules: dict[int, tuple[LRScheduler, int]] = {}  # of each optimizer, and after how many steps it is stepped
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau):
                raise ValueError(
                    f"the schedule {type(config.scheduler).__name__} waits for {config.monitor}: "
                    "expected one that is known before training; train, with the callback LearningRateMonitor"
                )
            every = config.frequency * (per_epoch if config.interval == "epoch" else 1)
            schedules[id(config.scheduler.optimizer)] = config.scheduler, every
        for number, optimizer in enumerate(trainer.optimizers, 1):
            prefix = f"optimizer {number}, " if len(trainer.optimizers) > 1 else ""
            names = [f"{prefix}{describe_group(i, group)}" for i, group in enumerate(optimizer.param_groups, 1)]
            scheduler, every = schedules.get(id(optimizer), (None, 1))
            for step in range(1, steps + 1):
                self._record(optimizer, names)
                optimizer.step()  # without gradients nothing moves; torch expects it before the schedule's step
                if scheduler and step % every == 0:
                    scheduler.step()
        trainer.should_stop = True

    def _record(self, optimizer: Optimizer, names: list[str]) -> None:
        for name, group in zip(names, optimizer.param_groups, strict=True):
            self.rates.setdefault(name, []).append(float(group["lr"]))
            momentum = group["betas"][0] if "betas" in group else group.get("momentum")
            if momentum:
                self.momenta.setdefault(name, []).append(float(momentum))


def describe_group(number: int, group: dict[str, Any]) -> str:
    """What a parameter group holds, in a few words."""
    kind = ("Muon" if group["muon"] else "AdamW") + ", " if "muon" in group else ""
    return f"group {number} ({kind}{sum(parameter.numel() for parameter in group['params'])} parameters)"


def schedule(recipe: str, options: list[str], out: str | Path = ".") -> Path:
    """Draws learning rate and momentum over a recipe's training; returns the path of the figure.

    Args:
        recipe: name or YAML file.
        options: of the recipe, as for `zoo fit`.
        out: folder.

    Raises:
        ValueError: if the training has no end, or its schedule depends on results of the training.
    """
    cli = ZooCLI(recipe, [*options, *NO_TRAINING_OPTIONS], folder=Path(out))
    probe = ScheduleProbe()
    cli.trainer.callbacks = [probe]
    cli.trainer.fit(cli.model, cli.datamodule)
    name = recipes.name_of(cli.recipe)
    path = Path(out, f"{name.replace('/', '-')}-schedule.png")
    save_figure(draw(probe.rates, probe.momenta, epochs=probe.epochs, title=name), path)
    return path


def draw(rates: Curves, momenta: Curves, epochs: float | None, title: str) -> Figure:
    """The learning rates, and below them the momenta where the optimizer has any."""
    steps = len(next(iter(rates.values())))
    groups = distinct({name: [*values, *momenta.get(name, [])] for name, values in rates.items()})
    panels = [("learning rate", {name: values[:steps] for name, values in groups.items()})]
    if momenta:
        panels += [("momentum", {name: values[steps:] for name, values in groups.items() if values[steps:]})]
    height = 1 + 2.4 * len(panels) + (0.22 * len(groups) if len(groups) > 1 else 0)
    styles = dict(zip(groups, LINES * len(groups), strict=False))
    figure = Figure((8, height), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - 0.45 / height)))
    heading(figure, f"{title}: {steps} steps")
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (label, curves) in zip(rows, panels, strict=True):
        scale = (epochs or steps) / steps
        for name, values in curves.items():
            color, style = styles[name]
            draw_line(axes, [i * scale for i in range(steps)], values, label=name, color=color, linestyle=style)
        plain_axes(axes)
        axes.set_ylabel(label)
        axes.margins(x=0.02, y=0.12)
    if len(groups) > 1:
        lines = rows[0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside lower left", frameon=False, fontsize=9, handlelength=3.5)
    rows[0].set_ylim(bottom=0)
    rows[-1].set_xlabel("epoch" if epochs else "step")
    return figure


def draw_line(axes: Axes, x: list[float], values: list[float], color: str, **options: Any) -> None:
    """A line with its highest value written at the top; `options` are those of `Axes.plot`."""
    axes.plot(x, values, color=color, linewidth=2.2, **options)
    top = max(range(len(values)), key=values.__getitem__)
    axes.annotate(
        written(values[top]),
        (x[top], values[top]),
        (0, 5),
        textcoords="offset points",
        ha="left" if top < len(x) / 20 else "center",
        size=9,
        color=color,
    )


def written(value: float) -> str:
    """A value with few digits: the steps of a schedule may pass by its peak without meeting it.

    >>> written(0.04987), written(0.0123)
    ('0.05', '0.0123')
    """
    short = f"{value:.2g}"
    return short if math.isclose(float(short), value, rel_tol=0.005) else f"{value:.3g}"


def distinct(curves: Curves) -> Curves:
    """Groups with the same values become one curve, named after all of them."""
    merged: dict[tuple, list[str]] = {}
    for name, values in curves.items():
        merged.setdefault(tuple(values), []).append(name)
    return {" and ".join(names): list(values) for values, names in merged.items()}
