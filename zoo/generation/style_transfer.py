"""Style transfer: an image with the content of one image and the style of another. It paints a photograph as a given
painter would have, and shows what the layers of a classifier know.

H, W and h, w are heights and widths.

Gatys, Ecker and Bethge 2016, "Image Style Transfer Using Convolutional Neural Networks": an image is optimized until
its features in a trained network are those of the content, and their Gram matrices those of the style. C channels.

Differs from the paper in one thing: each layer's distance is divided by the mean square of its target. So the loss is
a relative error, 1 for features that are all zero, and weights mean the same at each layer, of each backbone.
"""

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from callbacks.figures.axis import loss_axis
from datamodules.batches import ContentStyle
from zoo.generation.base import ADAM, ImageOptimizer
from zoo.parts.features import Features
from zoo.parts.losses import gram, gram_distance, mean_square
from zoo.parts.optim.schedules import Constant
from zoo.system import ScheduleCallable

STYLE = {"relu1_1": 1.0, "relu2_1": 1.0, "relu3_1": 1.0, "relu4_1": 1.0}
CONTENT = {"relu3_1": 1.0}


class StyleTransfer(ImageOptimizer):
    """Renders the content in the style. Works with L-BFGS too: one training step is then one call of its `step`.

    Args:
        backbone, weights: see `zoo.parts.features.Features`.
        content_layers, style_layers: layer -> weight; without style layers no style is needed.
        balance: weight of the style relative to the content.
        start, optimizer, schedule: see `ImageOptimizer`.

    Raises:
        ValueError: if there are style layers but the data have no style; see also `Features`.
        FileNotFoundError: see `Features`.

    >>> StyleTransfer("squeezenet1_0", None, content_layers={"fire2": 1.0}, style_layers={"relu1": 1.0}).layers
    ['fire2', 'relu1']
    """

    axes = ImageOptimizer.axes | {
        "loss": loss_axis("relative error of features"),
        "content": loss_axis("relative error of features", "Content"),
        "style": loss_axis("relative error of Gram matrices", "Style"),
    }

    def __init__(
        self,
        backbone: str = "vgg16",
        weights: str | None = "DEFAULT",
        content_layers: dict[str, float] = CONTENT,
        style_layers: dict[str, float] = STYLE,
        balance: float = 10.0,
        start: str = "content",
        optimizer: OptimizerCallable = ADAM,
        schedule: ScheduleCallable = Constant,
    ) -> None:
        super().__init__(start, optimizer, schedule)
        self.save_hyperparameters(ignore=["optimizer", "schedule"])
        self.content_layers, self.style_layers, self.balance = dict(content_layers), dict(style_layers), balance
        self.layers = list(self.content_layers | self.style_layers)
        self.features = Features(backbone, self.layers, weights)
        self.targets: tuple[dict[str, Tensor], dict[str, Tensor]] | None = None

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.targets = None
        if self.style_layers and self.images.style is None:
            raise ValueError("the data have no style: expected two images; add data.style, or set style_layers to {}")

    def losses(self, batch: ContentStyle, split: str) -> dict[str, Tensor]:
        if self.targets is None:  # they never change
            self.targets = self._targets(batch)
        maps, (contents, styles) = self.features(self.net()), self.targets
        content = style = self.net.image.new_zeros(())
        for layer, weight in self.content_layers.items():
            target = contents[layer]
            content = content + weight * F.mse_loss(maps[layer].float(), target) / mean_square(target)
        for layer, weight in self.style_layers.items():
            target = styles[layer]
            style = style + weight * gram_distance(maps[layer], target).mean() / mean_square(target)
        terms = {"content": content, "style": style} if self.style_layers else {"content": content}
        return {"loss": content + self.balance * style} | terms

    @torch.no_grad()
    def _targets(self, batch: ContentStyle) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """By layer, in float32: the content's features (1, C, h, w), and the style's Gram matrices (1, C, C)."""
        content = self.features(batch.content)
        style = self.features(batch.style) if self.style_layers else {}
        return (
            {layer: content[layer].float() for layer in self.content_layers},
            {layer: gram(style[layer]) for layer in self.style_layers},
        )


class ContentReconstruction(StyleTransfer):
    """Style transfer without the style, which shows what a layer's features keep of an image (the paper's figure 1).

    Args:
        content_layers: layer -> weight.
        backbone, weights, start, optimizer, schedule: see `StyleTransfer`.
    """

    def __init__(
        self,
        backbone: str = "vgg16",
        weights: str | None = "DEFAULT",
        content_layers: dict[str, float] = CONTENT,
        start: str = "noise",
        optimizer: OptimizerCallable = ADAM,
        schedule: ScheduleCallable = Constant,
    ) -> None:
        super().__init__(
            backbone=backbone,
            weights=weights,
            content_layers=content_layers,
            style_layers={},
            balance=0.0,
            start=start,
            optimizer=optimizer,
            schedule=schedule,
        )
