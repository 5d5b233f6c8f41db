"""What the callbacks that draw share: files and loggers, colours, cells of images, and leaving a module untouched.

B batch, C channels, H height, W width. Figures are made with matplotlib's objects, never with pyplot, so that
neither its global state nor its backend matters. Colours: Okabe and Ito 2008, "Color Universal Design", which people
with any kind of colour vision tell apart.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from callbacks.images import GREY, save_figure, to_uint8

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"

Table = tuple[list[str], list[list]]  # columns and rows; a cell that is an array (H, W, 3) in 0..1 is an image


class Pictures(Callback):
    """Base of the callbacks that draw: `publish` writes a figure to the run's folder and to its loggers."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Here, because asking for `log_dir` is a collective call: all ranks must make it.
        self.folder = Path(trainer.log_dir or trainer.default_root_dir) / "pictures"

    def publish(self, trainer: Trainer, name: str, figure: Figure, table: Table | None = None) -> Path:
        """Writes `pictures/<name>.png` into the run's folder and hands it to the loggers; call it on rank zero only.

        W&B gets the picture as `<name>` and the table as `<name>_table`, TensorBoard the figure.
        """
        path = self.folder / f"{name}.png"
        save_figure(figure, path)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(key=name, images=[str(path)])
                if table is not None:
                    import wandb  # only those who log to it need it

                    rows = [
                        [wandb.Image(to_uint8(v)) if isinstance(v, np.ndarray) else v for v in row] for row in table[1]
                    ]
                    logger.log_table(key=f"{name}_table", columns=table[0], data=rows)
            elif hasattr(getattr(logger, "experiment", None), "add_figure"):
                logger.experiment.add_figure(name, figure, trainer.global_step)
        return path


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Whatever is computed inside leaves modes, gradients, `requires_grad` and the global random states as they were.

    Inside, every `.grad` is None, so that a backward pass can't add to the ones put aside.
    """
    modes = [(child, child.training) for child in module.modules()]
    parameters = [(p, p.requires_grad, p.grad) for p in module.parameters()]
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global state is what others draw from)
    devices = {p.device for p in module.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices):
        try:
            for parameter, _, _ in parameters:
                parameter.grad = None
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            for child, mode in modes:
                child.training = mode
            for parameter, requires_grad, grad in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = grad


def class_names(trainer: Trainer) -> Callable[[int], str]:
    """Label -> name, at most 24 letters, as the datamodule has them; else the number."""
    classes = getattr(trainer.datamodule, "classes", None)
    return lambda label: shorten(str(classes[label])) if classes is not None else str(label)


def shorten(name: str, letters: int = 24) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def rgb(trainer: Trainer, image: Tensor) -> np.ndarray:
    """A normalised image (C, H, W) -> (H, W, 3) in 0..1, by the datamodule's `denormalise`, else by its own range."""
    image = image.float()
    if hasattr(trainer.datamodule, "denormalise"):
        image = trainer.datamodule.denormalise(image)
    else:
        image = (image - image.min()) / (image.max() - image.min()).clamp_min(1e-6)
    if len(image) != 3:
        image = image.mean(0, keepdim=True).expand(3, -1, -1)
    return image.permute(1, 2, 0).numpy()


def cells(count: int, panels: int, title: str, subtitle: str, foot: float = 0.1) -> tuple[Figure, list[list[Axes]]]:
    """A figure of `count` cells in rows of five, each of `panels` square axes side by side under room for a caption.

    Placed by hand, in inches: layout engines move axes about to make room for long captions. `foot` is left free below.
    """
    columns, cell, gap, head, caption = min(5, max(count, 1)), 2.0, 0.1, 0.62, 0.66
    side = (cell - gap) / panels
    rows = -(-count // columns)
    width, height = max(columns * cell, 6.0) + gap, head + rows * (side + caption) + foot
    figure = Figure((width, height), facecolor="white")
    figure.text(gap / width, 1 - 0.12 / height, title, size=13, weight="bold", va="top")
    figure.text(gap / width, 1 - 0.38 / height, subtitle, size=10, color=GREY, va="top")
    axes = []
    for i in range(count):
        x, y = gap + i % columns * cell, height - head - (i // columns + 1) * (side + caption)
        boxes = [((x + p * side) / width, y / height, 0.97 * side / width, 0.97 * side / height) for p in range(panels)]
        axes.append([figure.add_axes(box) for box in boxes])
    return figure, axes


def draw_image(axes: Axes, image: np.ndarray) -> None:
    """(H, W, 3) in 0..1, every pixel a sharp square, at the top of the axes."""
    axes.imshow(image, interpolation="nearest")
    axes.set_anchor("N")
    axes.set_axis_off()


def caption(axes: Axes, truth: str, prediction: str, detail: str) -> None:
    """Three lines above the axes. The arrow says which is which, the colours only help."""
    lines = ((31, truth, BLUE, "bold"), (18, f"→ {prediction}", VERMILION, "bold"), (5, detail, GREY, "normal"))
    for points, text, colour, weight in lines:
        axes.annotate(
            text, (0, 1), (0, points), xycoords="axes fraction", textcoords="offset points",
            color=colour, size=9, weight=weight,
        )  # fmt: skip
