"""Draw learning rate and momentum over a recipe's training, without training.

    zoo schedule fashion_mnist/flagship --trainer.max_epochs 30

Options of the recipe may follow.
"""

import argparse
import math
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import LRSchedulerConfig
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from callbacks.figures.style import BLUE, GREEN, ORANGE, PURPLE, save_figure
from zoo.command import recipes
from zoo.command.lightning_cli import ZooCLI

# Nothing is to be left behind by a training that takes no step.
NO_TRAINING_OPTIONS = [
    *("--trainer.logger=false", "--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false"),
    *("--trainer.num_sanity_val_steps=0", "--trainer.min_epochs=null", "--trainer.min_steps=null"),
]
LOOKS = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PURPLE, ":"))

TAKES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="name, or path of a YAML file")
    parser.add_argument("--out", default=".", help="folder of the figure")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    print(schedule(args.recipe, rest, args.out))
    return 0


Lines = dict[str, list[float]]  # by parameter group, a value for each optimiser step


class ScheduleProbe(Callback):
    """Steps the schedules to the end of training before its first step, notes what they set, and stops there.

    The optimiser and the schedule are those that would train, as the trainer has set them up.

    Attributes:
        rates, momenta: by parameter group, a value for each optimiser step.
        epochs: length of the training; None if it is counted in steps.
    """

    def __init__(self) -> None:
        self.rates: Lines = {}
        self.momenta: Lines = {}
        self.epochs: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = int(trainer.estimated_stepping_batches)
        per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        self.epochs = steps / per_epoch if trainer.max_steps < 0 else None
        configs = {id(config.scheduler.optimizer): config for config in trainer.lr_scheduler_configs}
        for number, optimizer in enumerate(trainer.optimizers):
            prefix = f"optimiser {number + 1}, " if len(trainer.optimizers) > 1 else ""
            self._rehearse(optimizer, configs.get(id(optimizer)), steps, per_epoch, prefix)
        trainer.should_stop = True

    def _rehearse(
        self, optimizer: Optimizer, config: LRSchedulerConfig | None, steps: int, per_epoch: int, prefix: str
    ) -> None:
        if config is not None and isinstance(config.scheduler, ReduceLROnPlateau):
            raise ValueError(
                f"the schedule {type(config.scheduler).__name__} waits for {config.monitor}: "
                "expected one that is known before training; train, with the callback LearningRateMonitor"
            )
        every = 0 if config is None else config.frequency * (per_epoch if config.interval == "epoch" else 1)
        names = [prefix + name_of_group(i, group) for i, group in enumerate(optimizer.param_groups)]
        for step in range(1, steps + 1):
            for name, group in zip(names, optimizer.param_groups, strict=True):
                self.rates.setdefault(name, []).append(float(group["lr"]))
                momentum = group["betas"][0] if "betas" in group else group.get("momentum")
                if momentum:
                    self.momenta.setdefault(name, []).append(float(momentum))
            optimizer.step()  # no parameter has a gradient: nothing moves, and torch expects it before the schedule's
            if every and step % every == 0:
                config.scheduler.step()


def name_of_group(index: int, group: dict) -> str:
    """What a parameter group holds, in a few words."""
    kind = ("Muon" if group["muon"] else "AdamW") + ", " if "muon" in group else ""
    count = sum(parameter.numel() for parameter in group["params"])
    return f"group {index + 1} ({kind}{count} parameters)"


def schedule(recipe: str, options: list[str], out: str | Path = ".") -> Path:
    """Draws learning rate and momentum over a recipe's training; returns the picture's path.

    Args:
        recipe: name or YAML file.
        options: of the recipe, as for `zoo fit`.
        out: folder.

    Raises:
        ValueError: if the training has no end, or its schedule depends on what training brings.
    """
    cli = ZooCLI(recipe, [*options, *NO_TRAINING_OPTIONS])
    rehearsal = ScheduleProbe()
    cli.trainer.callbacks = [rehearsal]
    cli.trainer.fit(cli.model, cli.datamodule)
    name = recipes.name_of(cli.recipe)
    path = Path(out, f"{name.replace('/', '-')}-schedule.png")
    save_figure(draw(rehearsal.rates, rehearsal.momenta, rehearsal.epochs, name), path)
    return path


def draw(rates: Lines, momenta: Lines, epochs: float | None, title: str) -> Figure:
    """The learning rates, and under them the momenta where the optimiser has any."""
    panels = [("learning rate", distinct(rates))] + ([("momentum", distinct(momenta))] if momenta else [])
    steps = len(next(iter(rates.values())))
    figure = Figure((8, 1 + 2.4 * len(panels)), facecolor="white", layout="constrained")
    figure.suptitle(f"{title}: {steps} steps", x=0.01, ha="left", size=13, weight="bold")
    stack = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (label, lines) in zip(stack, panels, strict=True):
        scale = (epochs or steps) / steps
        for (name, values), (colour, style) in zip(lines.items(), LOOKS * len(lines), strict=False):
            draw_line(axes, [i * scale for i in range(steps)], values, name, colour, style)
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        axes.margins(x=0.02, y=0.12)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=9)
    stack[0].set_ylim(bottom=0)
    stack[-1].set_xlabel("epoch" if epochs else "step")
    return figure


def draw_line(axes: Axes, x: list[float], values: list[float], name: str, colour: str, style: str) -> None:
    axes.plot(x, values, color=colour, linestyle=style, linewidth=2.2, label=name)
    top = max(range(len(values)), key=values.__getitem__)
    side = "left" if top < len(x) / 20 else "center"
    axes.annotate(
        f"{values[top]:.3g}", (x[top], values[top]), (0, 5), textcoords="offset points", ha=side, size=9, color=colour
    )


def distinct(lines: Lines) -> Lines:
    """Groups that go the same way are one line, named after all of them."""
    merged: dict[tuple, list[str]] = {}
    for name, values in lines.items():
        merged.setdefault(tuple(values), []).append(name)
    return {" and ".join(names): list(values) for values, names in merged.items()}
