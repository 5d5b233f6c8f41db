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
from matplotlib.figure import Figure
from torch import Tensor, nn

from callbacks.figures.style import save_figure, shorten, to_uint8

Table = tuple[list[str], list[list]]  # columns and rows; a cell that is an array (H, W, 3) in 0..1 is an image


class FigureCallback(Callback):
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


def rgb(trainer: Trainer, image: Tensor) -> np.ndarray:
    """A normalised image (C, H, W) -> (H, W, 3) in 0..1, by the datamodule's `denormalize`, else by its own range."""
    image = image.float()
    if hasattr(trainer.datamodule, "denormalize"):
        image = trainer.datamodule.denormalize(image)
    else:
        image = (image - image.min()) / (image.max() - image.min()).clamp_min(1e-6)
    if len(image) != 3:
        image = image.mean(0, keepdim=True).expand(3, -1, -1)
    return image.permute(1, 2, 0).numpy()
