"""What happens to activations while a net trains: their means, spreads, distribution, and how many are dead.

fast.ai, "From Deep Learning Foundations to Stable Diffusion", lesson 16, has these three pictures.
"""

from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from callbacks.figures.callback import FigureCallback
from callbacks.figures.style import BLUE, GREY, VERMILION
from callbacks.monitors.hooks import Hooks

COLUMNS = 256  # moments in time that are kept; when they are full, every second one goes
BINS = 50  # of the histogram, from 0 to `limit`
VALUES = 1 << 14  # of a layer's output that are counted: enough for a histogram, and cheap
GOLDEN = 0.6180339887498949


class ActivationStats(FigureCallback):
    """Draws `activations.png` (mean and standard deviation of each layer's output over the training),
    `activation_histogram.png` (how the sizes are distributed) and `dead_activations.png` (share near zero).

    Every `n` steps the outputs of the chosen layers are measured, into buffers of fixed size on the device; rank zero
    draws what it has seen itself. Hooks measure only in training, and are removed behind it. Buffers are saved in
    checkpoints.

    Args:
        every_n_steps: optimiser or not, batches are counted.
        layers: class or module names, see `hooks.chosen`; by default the activation functions.
        limit: sizes from 0 to this are told apart in the histogram; larger ones are counted at its top.
        dead_below: a size below which an activation counts as dead.

    Attributes:
        names: of the layers.
        steps: batch number of each measurement.

    >>> ActivationStats(every_n_steps=10).steps
    []
    """

    def __init__(
        self,
        every_n_steps: int = 10,
        layers: str | list[str] | None = None,
        limit: float = 5.0,
        dead_below: float = 1e-3,
    ) -> None:
        for name, value in (("every_n_steps", every_n_steps), ("limit", limit)):
            if value <= 0:
                raise ValueError(f"{name} is {value}: expected more than 0")
        self.every_n_steps, self.limit, self.dead_below = every_n_steps, limit, dead_below
        self.names: list[str] = []
        self.steps: list[int] = []
        self.spacing, self.batches = every_n_steps, 0
        self._hooks = Hooks(self._measure, layers)
        self._column: int | None = None  # that is being written
        self._saved: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._hooks.setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.names, device = list(self._hooks.modules), pl_module.device
        shapes = {"mean": (), "std": (), "dead": (), "counts": (BINS,)}
        for name, shape in shapes.items():
            buffer = torch.zeros(len(self.names), COLUMNS, *shape, device=device)
            saved = self._saved.get(name)
            if saved is not None and saved.shape == buffer.shape:
                buffer.copy_(saved)
            setattr(self, name, buffer)
        if not self._saved:
            self.steps, self.batches, self.spacing = [], 0, self.every_n_steps
        self._saved = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self.batches % self.spacing == 0:
            if len(self.steps) == COLUMNS:
                self._thin()
            if self.batches % self.spacing == 0:
                self._column = len(self.steps)
                self.steps.append(self.batches)
        self.batches += 1

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._column = None

    def _thin(self) -> None:
        """Every second column goes, so that the buffers last for any length of training."""
        for name in ("mean", "std", "dead", "counts"):
            buffer = getattr(self, name)
            buffer[:, : COLUMNS // 2] = buffer[:, ::2].clone()
        self.steps, self.spacing = self.steps[::2], 2 * self.spacing

    @torch.no_grad()
    def _measure(self, name: str, module: nn.Module, inputs: tuple, output: Any) -> None:
        if self._column is None or not isinstance(output, Tensor):
            return
        at = self.names.index(name), self._column
        values = output.detach().flatten()
        if values.numel() > VALUES:  # at steps of the golden ratio: even steps would meet the same pixels in each map
            steps = torch.arange(VALUES, dtype=torch.float64, device=values.device) * GOLDEN % 1
            values = values[(steps * values.numel()).long()]
        values = values.float()
        size = values.abs()
        self.std[at], self.mean[at] = torch.std_mean(values, correction=0)
        self.dead[at] = (size < self.dead_below).float().mean()
        places = (size * (BINS / self.limit)).nan_to_num(BINS).clamp(max=BINS - 1).long()
        self.counts[at] = torch.bincount(places, minlength=BINS).float() / len(places)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self.steps and self.names:
            for name, figure in self.figures().items():
                self.publish(trainer, name, figure)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._hooks.remove()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._hooks.remove()
        self._column = None

    def state_dict(self) -> dict[str, Any]:
        if not self.names:
            return {}
        buffers = {name: getattr(self, name).cpu() for name in ("mean", "std", "dead", "counts")}
        return {"buffers": buffers, "steps": self.steps, "batches": self.batches, "spacing": self.spacing}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            self._saved = state["buffers"]
            self.steps, self.batches, self.spacing = list(state["steps"]), state["batches"], state["spacing"]

    def figures(self) -> dict[str, Figure]:
        """The three pictures, by file name."""
        kept = len(self.steps)
        mean, std, dead, counts = (getattr(self, n)[:, :kept].cpu().numpy() for n in ("mean", "std", "dead", "counts"))
        return {
            "activations": self._curves(mean, std),
            "activation_histogram": self._histograms(counts),
            "dead_activations": self._dead(dead),
        }

    def _grid(self, title: str, subtitle: str, height: float = 1.5) -> tuple[Figure, list[Axes]]:
        """One axes for each layer, in rows of four, all with the same scale: layers are to be compared."""
        columns = min(4, len(self.names))
        rows, pitch = -(-len(self.names) // columns), max(2.5, 7.4 / columns)
        figure = Figure((pitch * columns + 0.6, 0.8 + (height + 0.65) * rows), facecolor="white")
        width, tall = figure.get_size_inches()
        figure.text(0.1 / width, 1 - 0.1 / tall, title, size=13, weight="bold", va="top")
        figure.text(0.1 / width, 1 - 0.36 / tall, subtitle, size=9, color=GREY, va="top")
        grid: list[Axes] = []
        for i, name in enumerate(self.names):
            row, column = divmod(i, columns)
            left, bottom = 0.55 + pitch * column, tall - 0.95 - (row + 1) * height - row * 0.65
            box = (left / width, bottom / tall, (pitch - 0.25) / width, height / tall)
            axes = figure.add_axes(box, **dict.fromkeys(("sharex", "sharey"), grid[0]) if grid else {})
            axes.set_title(name if len(name) <= 24 else f"…{name[-23:]}", size=9, loc="left")
            axes.tick_params(labelsize=8, labelleft=column == 0)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if i + columns >= len(self.names):
                axes.set_xlabel("batch", size=8, color=GREY)
            grid.append(axes)
        return figure, grid

    def _curves(self, mean: np.ndarray, std: np.ndarray) -> Figure:
        text = "of each layer's output, by batch; at 0 and 1 (dotted) signals neither fade nor explode"
        figure, grid = self._grid("Mean and spread of activations", text)
        for axes, means, stds in zip(grid, mean, std, strict=True):
            for ideal in (0, 1):
                axes.axhline(ideal, color="#999999", linestyle=":", linewidth=0.9, zorder=1)
            (low,) = axes.plot(self.steps, means, color=VERMILION, linestyle="--", linewidth=1.3, label="mean")
            (high,) = axes.plot(self.steps, stds, color=BLUE, linewidth=1.6, label="standard deviation")
            axes.spines[["top", "right"]].set_visible(False)
            axes.margins(x=0)
        figure.legend(handles=[high, low], loc="upper right", ncols=2, frameon=False, fontsize=9)
        return figure

    def _histograms(self, counts: np.ndarray) -> Figure:
        text = f"how large the outputs of each layer are, by batch; what is above {self.limit:g} counts in the top row"
        figure, grid = self._grid("Sizes of activations", text)
        extent = (self.steps[0], self.steps[-1] + self.spacing, 0, self.limit)
        for axes, layer in zip(grid, np.log10(np.maximum(counts, 1e-4)), strict=True):
            axes.imshow(layer.T, origin="lower", aspect="auto", extent=extent, cmap="inferno", vmin=-4, vmax=0)
        for axes in grid[:: min(4, len(grid))]:
            axes.set_ylabel("size", size=8, color=GREY)
        self._bar(figure, "share of the values", ScalarMappable(Normalize(-4, 0), "inferno"))
        return figure

    def _bar(self, figure: Figure, label: str, colors: ScalarMappable) -> None:
        width, height = figure.get_size_inches()
        bar = figure.add_axes(((width - 1.75) / width, 1 - 0.38 / height, 1.4 / width, 0.1 / height))
        figure.colorbar(colors, cax=bar, orientation="horizontal", ticks=[-4, -2, 0])
        bar.set_xticklabels(["≤ 0.01 %", "1 %", "100 %"], size=8)
        bar.set_title(label, size=9, color=GREY, pad=3)

    def _dead(self, dead: np.ndarray) -> Figure:
        text = f"share of each layer's outputs nearer to 0 than {self.dead_below:g}, by batch; in bold: at the end"
        figure, grid = self._grid("Dead activations", text)
        for axes, shares in zip(grid, dead, strict=True):
            axes.fill_between(self.steps, 100 * shares, color=VERMILION, alpha=0.3, linewidth=0)
            axes.plot(self.steps, 100 * shares, color=VERMILION, linewidth=1.4, clip_on=False)
            axes.annotate(
                f"{100 * shares[-1]:.0f} %", (1, 1), (-2, 3), xycoords="axes fraction", textcoords="offset points",
                ha="right", va="bottom", size=9, color=VERMILION, weight="bold",
            )  # fmt: skip
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
            axes.margins(x=0)
        grid[0].set(ylim=(0, 100), yticks=(0, 50, 100))
        grid[0].yaxis.set_major_formatter("{x:g} %")
        return figure
