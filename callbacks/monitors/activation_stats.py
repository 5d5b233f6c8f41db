"""What happens to activations while a net trains: their means, spreads, distribution, and how many are dead.

The three figures are those of fast.ai, "From Deep Learning Foundations to Stable Diffusion", lesson 16.
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
from callbacks.figures.style import BLUE, GRAY, VERMILION, add_axes, heading, plain_axes
from callbacks.monitors.hooks import Hooks

MAX_SNAPSHOTS = 256  # measurements that are kept; when there are more, every second one is dropped
BINS = 50  # of the histogram, from 0 to `limit`
MAX_VALUES = 1 << 14  # that are measured of a layer's output: enough for a histogram, and cheap
GOLDEN_RATIO = 0.6180339887498949  # of which any number of steps, modulo 1, are spread evenly
PANELS_PER_ROW = 4


class ActivationStats(FigureCallback):
    """Draws each layer's activations over the training, in three figures in `pictures/`.

    `activations.png` shows the mean and standard deviation of each layer's output, `activation_histogram.png` how the
    absolute values are distributed, and `dead_activations.png` the share of them near zero. Every `every_n_steps`
    batches the outputs of the chosen layers are measured in training mode, into buffers of fixed size on the device,
    which are saved in checkpoints. Rank zero draws its own measurements.

    Args:
        every_n_steps: batches from one measurement to the next.
        layers: class or module names, see `hooks.chosen`; by default the activation functions.
        limit: the histogram reaches from 0 to this absolute value; larger ones are counted at its top.
        dead_below: the absolute value below which an activation counts as dead.

    Attributes:
        names: of the layers.
        steps: batch number of each measurement.
        mean, std, dead: (layers, measurements); counts: (layers, measurements, bins), shares of the values.

    Raises:
        ValueError: if `every_n_steps` or `limit` is not above 0.

    >>> ActivationStats(every_n_steps=10).steps
    []
    """

    mean: Tensor
    std: Tensor
    dead: Tensor
    counts: Tensor

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
        self._snapshot: int | None = None  # the measurement that this batch fills in; None if it is not measured
        self._saved: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._hooks.setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.names, device = list(self._hooks.modules), pl_module.device
        shapes: dict[str, tuple[int, ...]] = {"mean": (), "std": (), "dead": (), "counts": (BINS,)}
        for name, shape in shapes.items():
            buffer = torch.zeros(len(self.names), MAX_SNAPSHOTS, *shape, device=device)
            saved = self._saved.get(name)
            if saved is not None and saved.shape == buffer.shape:
                buffer.copy_(saved)
            setattr(self, name, buffer)
        if not self._saved:
            self.steps, self.batches, self.spacing = [], 0, self.every_n_steps
        self._saved = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self.batches % self.spacing == 0:
            if len(self.steps) == MAX_SNAPSHOTS:
                self._thin_out()
            if self.batches % self.spacing == 0:
                self._snapshot = len(self.steps)
                self.steps.append(self.batches)
        self.batches += 1

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._snapshot = None

    def _thin_out(self) -> None:
        """Drops every second measurement, so that the buffers last for a training of any length."""
        for name in ("mean", "std", "dead", "counts"):
            buffer = getattr(self, name)
            buffer[:, : MAX_SNAPSHOTS // 2] = buffer[:, ::2].clone()
        self.steps, self.spacing = self.steps[::2], 2 * self.spacing

    @torch.no_grad()
    def _measure(self, name: str, module: nn.Module, inputs: tuple, output: Any) -> None:
        if self._snapshot is None or not isinstance(output, Tensor):
            return
        at = self.names.index(name), self._snapshot
        values = output.detach().flatten()
        if values.numel() > MAX_VALUES:  # even steps would take the same pixels of each map
            steps = torch.arange(MAX_VALUES, dtype=torch.float64, device=values.device) * GOLDEN_RATIO % 1
            values = values[(steps * values.numel()).long()]
        values = values.float()
        absolute = values.abs()
        self.std[at], self.mean[at] = torch.std_mean(values, correction=0)
        self.dead[at] = (absolute < self.dead_below).float().mean()
        bins = (absolute * (BINS / self.limit)).nan_to_num(BINS).clamp(max=BINS - 1).long()
        self.counts[at] = torch.bincount(bins, minlength=BINS).float() / len(bins)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self.steps and self.names:
            for name, figure in self.figures().items():
                self.publish(trainer, name, figure)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._hooks.remove()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._hooks.remove()
        self._snapshot = None

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
        """The three figures, by file name."""
        kept = len(self.steps)
        mean, std, dead, counts = (getattr(self, n)[:, :kept].cpu().numpy() for n in ("mean", "std", "dead", "counts"))
        return {
            "activations": self._mean_figure(mean, std),
            "activation_histogram": self._histogram_figure(counts),
            "dead_activations": self._dead_figure(dead),
        }

    def _panels(self, title: str, subtitle: str, lines: bool = False) -> tuple[Figure, list[Axes]]:
        """A figure with axes for each layer, in rows of four, all on the same scale so that layers can be compared.

        Args:
            title, subtitle: of the figure.
            lines: whether the axes have horizontal grid lines.
        """
        height, columns = 1.5, min(PANELS_PER_ROW, len(self.names))
        rows, pitch = -(-len(self.names) // columns), max(2.5, 7.4 / columns)
        total_height = 0.8 + (height + 0.65) * rows
        figure = Figure((pitch * columns + 0.6, total_height), facecolor="white")
        heading(figure, title, subtitle, size=9)
        panels: list[Axes] = []
        for i, name in enumerate(self.names):
            row, column = divmod(i, columns)
            x, y = 0.55 + pitch * column, total_height - 0.95 - (row + 1) * height - row * 0.65
            shared = {"sharex": panels[0], "sharey": panels[0]} if panels else {}
            axes = add_axes(figure, x, y, pitch - 0.25, height, **shared)
            plain_axes(axes, grid=lines)
            axes.set_title(name if len(name) <= 24 else f"…{name[-23:]}", size=9, loc="left")
            axes.tick_params(labelsize=8, labelleft=column == 0)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if i + columns >= len(self.names):
                axes.set_xlabel("batch", size=8, color=GRAY)
            panels.append(axes)
        return figure, panels

    def _mean_figure(self, mean: np.ndarray, std: np.ndarray) -> Figure:
        text = "of each layer's output, by batch; at 0 and 1 (dotted) signals neither fade nor explode"
        figure, panels = self._panels("Mean and spread of activations", text)
        for axes, means, stds in zip(panels, mean, std, strict=True):
            for ideal in (0, 1):
                axes.axhline(ideal, color="#999999", linestyle=":", linewidth=0.9, zorder=1)
            (low,) = axes.plot(self.steps, means, color=VERMILION, linestyle="--", linewidth=1.3, label="mean")
            (high,) = axes.plot(self.steps, stds, color=BLUE, linewidth=1.6, label="standard deviation")
            axes.margins(x=0)
        figure.legend(handles=[high, low], loc="upper right", ncols=2, frameon=False, fontsize=9)
        return figure

    def _histogram_figure(self, counts: np.ndarray) -> Figure:
        text = f"how large the outputs of each layer are, by batch; those above {self.limit:g} count in the top row"
        figure, panels = self._panels("Sizes of activations", text)
        extent = (self.steps[0], self.steps[-1] + self.spacing, 0, self.limit)
        for axes, layer in zip(panels, np.log10(np.maximum(counts, 1e-4)), strict=True):
            axes.imshow(layer.T, origin="lower", aspect="auto", extent=extent, cmap="inferno", vmin=-4, vmax=0)
        for axes in panels[:: min(PANELS_PER_ROW, len(panels))]:
            axes.set_ylabel("size", size=8, color=GRAY)
        width, height = figure.get_size_inches()
        bar = add_axes(figure, width - 1.75, height - 0.38, 1.4, 0.1)
        colors = ScalarMappable(Normalize(-4, 0), "inferno")
        figure.colorbar(colors, cax=bar, orientation="horizontal", ticks=[-4, -2, 0])
        bar.set_xticklabels(["≤ 0.01 %", "1 %", "100 %"], size=8)
        bar.set_title("share of the values", size=9, color=GRAY, pad=3)
        return figure

    def _dead_figure(self, dead: np.ndarray) -> Figure:
        text = f"share of each layer's outputs nearer to 0 than {self.dead_below:g}, by batch; in bold: at the end"
        figure, panels = self._panels("Dead activations", text, lines=True)
        for axes, shares in zip(panels, dead, strict=True):
            axes.fill_between(self.steps, 100 * shares, color=VERMILION, alpha=0.3, linewidth=0)
            axes.plot(self.steps, 100 * shares, color=VERMILION, linewidth=1.4, clip_on=False)
            axes.annotate(
                f"{100 * shares[-1]:.0f} %", (1, 1), (-2, 3), xycoords="axes fraction", textcoords="offset points",
                ha="right", va="bottom", size=9, color=VERMILION, weight="bold",
            )  # fmt: skip
            axes.margins(x=0)
        panels[0].set(ylim=(0, 100), yticks=(0, 50, 100))
        panels[0].yaxis.set_major_formatter("{x:g} %")
        return figure
