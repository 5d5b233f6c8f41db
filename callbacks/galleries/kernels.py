"""The gallery of a convolution: its filters, and what they find in some images. B, C, H, W as usual, O filters."""

from typing import Any

import matplotlib
import numpy as np
import torch
from lightning import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from callbacks.figures.callback import FigureCallback, rgb
from callbacks.figures.grids import draw_image
from callbacks.figures.style import GRAY, add_axes, heading
from callbacks.galleries.base import SPLIT_NAMES

SIGNED = matplotlib.colormaps["RdBu_r"]  # white at 0: for any color vision, and in print by the text beside it
CELL, GAP, LEFT, HEAD = 0.8, 0.08, 1.05, 0.75  # inches: of a cell, between cells, of the names of the rows, on top


class KernelGallery(FigureCallback):
    """Draws the filters of a convolution and their maps of some images, to `pictures/kernels_<split>.png`.

    A column is a filter: on top the filter itself, below it what it gives for each image, before any norm or
    activation. That is after `test` and `validate`, and at the end of `fit` for the first images of the last
    validation. Filters on one channel and all maps are drawn in red (positive) and blue (negative), each scaled by its
    own largest value; filters on three channels in color; filters on other numbers of channels as their mean. For a net
    without a convolution a line says so, and nothing is drawn.

    Args:
        n: images.
        kernels: filters at most; of more, those with the largest norm.
        layer: full name of the convolution in the net; None for the first.

    Attributes:
        unavailable: why nothing can be drawn; None if it can.

    Raises:
        ValueError: for an n or a number of kernels below 1.

    >>> KernelGallery(3).images
    []
    """

    def __init__(self, n: int = 3, kernels: int = 16, layer: str | None = None) -> None:
        if n < 1 or kernels < 1:
            raise ValueError(f"n is {n} and kernels {kernels}: expected 1 or more of each")
        self.n, self.kernels, self.layer = n, kernels, layer
        self.split = "val"
        self.images: list[Tensor] = []  # (C, H, W) each
        self._maps: list[Tensor] = []  # (O, h, w) each, of the images
        self._latest: Tensor | None = None  # of the batch: its first call, as further views of an image may follow
        self._hook: RemovableHandle | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self.unavailable = None
        convolutions = convolutions_of(getattr(pl_module, "net", pl_module))
        self._name = self.layer or next(iter(convolutions), "")
        self._convolution = convolutions.get(self._name)
        if self._convolution is None:
            asked = "no convolution" if self.layer is None else f"no convolution {self.layer!r}"
            known = f"one of {', '.join(convolutions)}" if convolutions else "a torch.nn.Conv2d"
            self.unavailable = f"{type(pl_module).__name__} has {asked}: expected {known}; leave KernelGallery out"
            self.say_why()

    def _start(self, trainer: Trainer, split: str) -> None:
        self._remove()
        self.split, self.images, self._maps, self._latest = split, [], [], None
        if self._convolution is not None and not trainer.sanity_checking:
            self._hook = self._convolution.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        if self._latest is None:
            self._latest = output.detach()

    def _remove(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loaders = trainer.val_dataloaders
        self._start(trainer, next(iter(loaders)) if isinstance(loaders, dict) else "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(trainer, "test")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        found, self._latest = self._latest, None
        if dataloader_idx or found is None or self._hook is None:
            return
        missing = self.n - len(self.images)
        self.images += [image.detach().to("cpu", copy=True) for image in batch[0][:missing]]
        self._maps += [maps.float().to("cpu", copy=True) for maps in found[:missing]]
        if len(self.images) == self.n:
            self._remove()

    on_test_batch_end = on_validation_batch_end

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._remove()
        if trainer.is_global_zero and self.images:
            self._draw(trainer)
        self.images, self._maps = [], []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._remove()
        if trainer.state.fn != "fit":
            self._finish(trainer, pl_module)

    on_test_end = on_train_end = _finish

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._remove()

    def _draw(self, trainer: Trainer) -> None:
        assert self._convolution is not None
        weight = self._convolution.weight.detach().float().cpu()
        chosen = weight.flatten(1).norm(dim=1).topk(min(self.kernels, len(weight))).indices.sort().values
        images, maps = [rgb(trainer, image) for image in self.images], torch.stack(self._maps)
        height, width = weight.shape[2:]
        split = SPLIT_NAMES.get(self.split, self.split)
        title = f"Filters of {self._name}, {height}x{width}, and their maps of the first images of the {split} set"
        some = f"{len(chosen)} of {len(weight)} filters, those with the largest norm; "
        about = some if len(chosen) < len(weight) else ""
        figure = kernel_figure(weight[chosen].numpy(), maps[:, chosen].numpy(), images, title, about)
        self.publish(trainer, f"kernels_{self.split}", figure)


def convolutions_of(net: nn.Module) -> dict[str, nn.Conv2d]:
    """The two-dimensional convolutions of a net, by name."""
    return {name: module for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}


def kernel_figure(
    kernels: np.ndarray, maps: np.ndarray, images: list[np.ndarray], title: str, about: str = ""
) -> Figure:
    """Filters in a row, and below it for each image a row with the image and its maps.

    Args:
        kernels: (O, C, h, w).
        maps: (B, O, H, W).
        images: B of (H, W, 3) in 0..1.
        title: above all.
        about: beginning of the line below it.
    """
    rows, columns = 1 + len(images), 1 + len(kernels)
    width, height = max(LEFT + columns * (CELL + GAP), 7.6) + GAP, HEAD + rows * (CELL + GAP) + GAP
    figure = Figure((width, height), facecolor="white")
    colors = "filters in color" if kernels.shape[1] == 3 else "the mean over channels" if kernels.shape[1] > 3 else ""
    heading(figure, title, about + "; ".join(filter(None, ("red: positive, blue: negative", colors))))

    def axes(row: int, column: int) -> Any:
        x, top = LEFT + column * (CELL + GAP), height - HEAD - row * (CELL + GAP)
        return add_axes(figure, x, top - CELL, CELL, CELL)

    for column, kernel in enumerate(kernels, 1):
        draw_image(axes(0, column), kernel_image(kernel))
        figure.text(
            (LEFT + column * (CELL + GAP) + CELL / 2) / width, (height - HEAD + 0.03) / height, str(column), size=8,
            color=GRAY, ha="center",
        )  # fmt: skip
    for row, (image, found) in enumerate(zip(images, maps, strict=True), 1):
        draw_image(axes(row, 0), image)
        for column, one in enumerate(found, 1):
            draw_image(axes(row, column), signed(one))
    for row, name in enumerate(("filter", *(f"image {i}" for i in range(1, rows)))):
        y = height - HEAD - row * (CELL + GAP) - CELL / 2
        figure.text((LEFT - 0.15) / width, y / height, name, size=10, ha="right", va="center")
    return figure


def kernel_image(kernel: np.ndarray) -> np.ndarray:
    """A filter (C, h, w) as an image (h, w, 3): in color if C is 3, else its mean over channels by sign."""
    if len(kernel) != 3:
        return signed(kernel.mean(0))
    return 0.5 + 0.5 * kernel.transpose(1, 2, 0) / max(float(np.abs(kernel).max()), 1e-12)


def signed(values: np.ndarray) -> np.ndarray:
    """(h, w) -> (h, w, 3): red above 0, blue below, white at 0, scaled by the largest absolute value."""
    return SIGNED(0.5 + 0.5 * values / max(float(np.abs(values).max()), 1e-12))[..., :3]
