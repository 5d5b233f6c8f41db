"""An image that is optimized until it equals another: the simplest system there is. It shows that pixels can be
trained as weights are, on which style transfer is built.

Source: fast.ai, "From Deep Learning Foundations to Stable Diffusion", lesson 17A: what style transfer is built upon.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from callbacks.figures.axis import Axis, loss_axis
from datamodules.batches import ContentStyle
from zoo.generation.base import ImageOptimizer


class ImageOptimization(ImageOptimizer):
    """Minimizes the mean squared error between pixels; also logs PSNR in dB (of the range 0..1).

    The arguments are those of `ImageOptimizer`.

    >>> ImageOptimization().start
    'noise'
    """

    axes = ImageOptimizer.axes | {
        "loss": loss_axis("mean squared error"),
        "psnr": Axis("Likeness", "PSNR in dB", "{:.1f} dB", better="max"),
    }

    def __init__(self, start: str = "noise", **task_options: Any) -> None:
        super().__init__(start, **task_options)
        self.save_hyperparameters(ignore=["optimizer", "schedule"])

    def losses(self, batch: ContentStyle, split: str) -> dict[str, Tensor]:
        image = self.net()
        with torch.no_grad():
            psnr = peak_signal_noise_ratio(image.clamp(0, 1).float(), batch.content.float(), data_range=1.0)
        return {"loss": F.mse_loss(image.float(), batch.content.float()), "psnr": psnr}
