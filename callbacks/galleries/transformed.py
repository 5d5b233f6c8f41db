"""The gallery of a spatial transformer: where it looks in an image, and what it passes on. C, H, W as usual."""

from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from matplotlib.axes import Axes
from torch import Tensor, nn

from callbacks.figures.callback import class_names, rgb, untouched
from callbacks.figures.grids import caption, cells, draw_image
from callbacks.figures.style import ORANGE
from callbacks.galleries.classified import ClassifierGallery

CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0))  # clockwise, x before y


class TransformedGallery(ClassifierGallery):
    """Draws each image next to what a spatial transformer makes of it, to `pictures/transformed_<split>.png`.

    The transformer is the module `layer` in `pl_module.net`, which maps images to images. If it has a method `theta`
    that gives affine maps (B, 2, 3) from what is passed on to the image, both in -1..1, the place where it looks is
    outlined; a dot marks the upper left corner. Without such a module a line says so, and nothing is drawn.

    Args:
        n: images to draw.
        order, every_n_epochs: see `Gallery`.
        layer: name of the module.

    Attributes:
        unavailable: why nothing can be drawn; None if it can.

    >>> TransformedGallery(10).order
    'first'
    """

    def __init__(self, n: int = 10, order: str = "first", every_n_epochs: int = 0, layer: str = "transformer") -> None:
        super().__init__(n, order, every_n_epochs)
        self.layer = layer

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        known = dict(getattr(pl_module, "net", pl_module).named_children())
        found = known.get(self.layer)
        self.unavailable = None
        if found is None or isinstance(found, nn.Identity):
            what = "passes images on as they are" if found is not None else "does not exist"
            self.unavailable = (
                f"{self.layer} of {type(pl_module).__name__} {what}: expected a module that transforms images, among "
                f"{', '.join(known)}; give its name as `layer`, or leave TransformedGallery out"
            )
            self.say_why()

    def _collect(self, trainer: Trainer, outputs: Any, batch: Any) -> None:
        if not self.unavailable:
            super()._collect(trainer, outputs, batch)

    @torch.no_grad()
    def passed_on(self, pl_module: LightningModule, images: Tensor) -> tuple[Tensor, np.ndarray | None]:
        """What the transformer makes of images (B, C, H, W), and the corners (B, 5, 2) of where it looks, in -1..1."""
        net: Any = getattr(pl_module, "net", pl_module)
        layer = net.get_submodule(self.layer)
        with untouched(net):
            net.eval()
            images = images.to(next(net.parameters()))
            result = layer(images).float().cpu()
            if not hasattr(layer, "theta"):
                return result, None
            theta = layer.theta(images).float().cpu()
        corners = torch.tensor([(*corner, 1.0) for corner in CORNERS])
        return result, (corners @ theta.mT).numpy()

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        name, items = class_names(trainer), [entry.item for entry in self.shown]
        what = "first images" if self.order == "first" else "mistakes"
        title = f"What the spatial transformer passes on, {what} of the {self.split_name} set"
        figure, axes = cells(
            len(items), 2, title, "Left: the image, and where it looks. Right: what the next layer sees."
        )
        if not items:
            self.publish(trainer, f"transformed_{self.split}", figure)
            return
        results, corners = self.passed_on(pl_module, torch.stack([item.image for item in items]))
        rows = []
        for i, (pair, item) in enumerate(zip(axes, items, strict=True)):
            image, result = rgb(trainer, item.image), rgb(trainer, results[i])
            draw_image(pair[0], image)
            draw_image(pair[1], result)
            if corners is not None:
                _outline(pair[0], corners[i], image.shape[:2])
            truth, prediction = name(item.truth), name(item.prediction)
            caption(pair[0], truth, prediction, f"{100 * item.confidence:.0f} % sure", item.truth == item.prediction)
            rows.append([image, result, truth, prediction, item.confidence])
        columns = ["image", "passed on", "truth", "prediction", "confidence"]
        self.publish(trainer, f"transformed_{self.split}", figure, (columns, rows))


def _outline(axes: Axes, corners: np.ndarray, size: tuple[int, ...]) -> None:
    """Draws a closed line through corners (5, 2) in -1..1, x before y, over an image (H, W)."""
    limits = axes.get_xlim(), axes.get_ylim()
    half = np.array(size[::-1]) / 2
    points = (corners + 1) * half - 0.5  # in the axes, pixel 0 reaches from -0.5 to 0.5
    axes.plot(*points.T, color=ORANGE, linewidth=1.4, clip_on=True)
    axes.plot(*points[0], "o", color=ORANGE, markersize=3.5, clip_on=True)
    axes.set(xlim=limits[0], ylim=limits[1])
