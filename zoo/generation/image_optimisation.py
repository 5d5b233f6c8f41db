"""A picture that is optimised until it equals another: the simplest system there is.

Source: fast.ai, "From Deep Learning Foundations to Stable Diffusion", lesson 17A: what style transfer is built upon.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from datamodules.batches import ContentStyle
from zoo.generation.generator import Painter


class ImageOptimisation(Painter):
    """Mean squared error between pixels; logs PSNR in dB (of the range 0..1) besides. Arguments are `Painter`'s.

    >>> ImageOptimisation().start
    'noise'
    """

    loss_label = "mean squared error"

    def __init__(self, start: str = "noise", **recipe) -> None:
        super().__init__(start, **recipe)
        self.save_hyperparameters(ignore=["optimizer", "schedule"])

    def losses(self, batch: ContentStyle, stage: str) -> dict[str, Tensor]:
        image = self.net()
        with torch.no_grad():
            psnr = peak_signal_noise_ratio(image.clamp(0, 1).float(), batch.content.float(), data_range=1.0)
        return {"loss": F.mse_loss(image.float(), batch.content.float()), "psnr": psnr}
