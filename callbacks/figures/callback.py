"""The base of the callbacks that draw, and what they read from a Trainer. C channels, H height, W width."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info
from matplotlib.figure import Figure
from torch import Tensor, nn

from callbacks.figures.style import save_figure, shorten, to_uint8

Table = tuple[list[str], list[list]]  # columns and rows; a cell that is an array (H, W, 3) in 0..1 is an image


class FigureCallback(Callback):
    """Base class of the callbacks that draw: `publish` writes a figure into the run folder and to the loggers."""

    unavailable: str | None = None  # why nothing can be drawn

    def say_why(self) -> None:
        """Tells the user in a line why nothing is drawn."""
        rank_zero_info(f"{type(self).__name__} draws nothing: {self.unavailable}")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Here, because reading `log_dir` is a collective call: all ranks must make it.
        self.folder = Path(trainer.log_dir or trainer.default_root_dir) / "pictures"

    def publish(self, trainer: Trainer, name: str, figure: Figure, table: Table | None = None) -> Path:
        """Writes `pictures/<name>.png` into the run folder and passes the figure to the loggers; on rank zero only.

        W&B gets the figure as `<name>` and the table as `<name>_table`, TensorBoard the figure.
        """
        path = self.folder / f"{name}.png"
        save_figure(figure, path)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(key=name, images=[str(path)])
                if table is not None:
                    import wandb  # here, as it is needed only where a run logs to it

                    rows = [
                        [wandb.Image(to_uint8(v)) if isinstance(v, np.ndarray) else v for v in row] for row in table[1]
                    ]
                    logger.log_table(key=f"{name}_table", columns=table[0], data=rows)
            elif add_figure := getattr(getattr(logger, "experiment", None), "add_figure", None):
                add_figure(name, figure, trainer.global_step)
        return path


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Restores modes, gradients, `requires_grad` and the global random states, whatever is computed inside.

    Inside, every `.grad` is None, so that a backward pass cannot add to the gradients that were set aside.
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
    """Label -> the datamodule's name of that class, at most 24 letters; without names, the number."""
    classes = getattr(getattr(trainer, "datamodule", None), "classes", None)
    return lambda label: shorten(str(classes[label])) if classes is not None else str(label)


def rgb(trainer: Trainer, image: Tensor) -> np.ndarray:
    """A normalized image (C, H, W) -> (H, W, 3) in 0..1, by the datamodule's `denormalize`, else by its own range."""
    image = image.float()
    denormalize = getattr(getattr(trainer, "datamodule", None), "denormalize", None)
    if denormalize is not None:
        image = denormalize(image)
    else:
        image = (image - image.min()) / (image.max() - image.min()).clamp_min(1e-6)
    if len(image) != 3:
        image = image.mean(0, keepdim=True).expand(3, -1, -1)
    return image.permute(1, 2, 0).numpy()
