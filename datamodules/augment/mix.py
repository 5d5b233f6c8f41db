"""Augmentation that mixes samples: labels become shares of the classes. B batch, C, H, W as usual, K classes.

These come last in a datamodule's `augment` list, as they turn labels (B,) int64 into (B, K) float32.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.augment.images import Augmentation
from datamodules.batches import Labelled


class MixAugmentation(Augmentation):
    """Base class: mixes each sample of a batch with another one of it.

    Args:
        num_classes: K.
        alpha: of the distribution Beta(alpha, alpha) of the first sample's share; 1 is uniform, a small one is near
            0 or 1 most of the time.
        p: probability that a batch is mixed at all; its labels become shares in any case.

    Raises:
        ValueError: if alpha is not positive, or `p` lies outside 0..1.
    """

    def __init__(self, num_classes: int, alpha: float = 1.0, p: float = 1.0) -> None:
        if not (alpha > 0 and 0 <= p <= 1):
            raise ValueError(f"alpha is {alpha} and p {p}: expected alpha above 0, and p in 0..1")
        self.num_classes, self.alpha, self.p = num_classes, alpha, p

    @abstractmethod
    def mix(self, image: Tensor, partner: Tensor, share: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mixes images (B, C, H, W) with their partners.

        Args:
            share: (B,) in 0..1, wanted of the first image.

        Returns:
            The mixed images, and the share (B,) that the first one really has.
        """

    def __call__(self, batch: Labelled, generator: torch.Generator) -> Labelled:
        image, label = batch.image, batch.label
        if label.ndim == 1:
            label = F.one_hot(label, self.num_classes).float()
        draw = {"generator": generator, "device": image.device}
        partner = torch.randperm(len(image), **draw)
        share = beta(self.alpha, len(image), generator, image.device)
        mixed_at_all = torch.rand((), **draw) < self.p
        mixed, share = self.mix(image, image[partner], share, generator)
        image = torch.where(mixed_at_all, mixed, image)
        share = torch.where(mixed_at_all, share, 1.0)[:, None]
        return batch._replace(image=image, label=share * label + (1 - share) * label[partner])


class Mixup(MixAugmentation):
    """Weighted means of two images and of their labels: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization".

    Differs from the paper's code, and from torchvision's `MixUp`, in a separate share for each sample.
    """

    def mix(self, image: Tensor, partner: Tensor, share: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        weight = share[:, None, None, None]
        return weight * image + (1 - weight) * partner, share


class CutMix(MixAugmentation):
    """A rectangle of one image pasted into another, labels by area: Yun et al. 2019, "CutMix", section 3.1.

    Differs from the paper's code, and from torchvision's `CutMix`, in a separate rectangle for each sample.
    """

    def mix(self, image: Tensor, partner: Tensor, share: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        B, _, H, W = image.shape
        center = torch.rand(2, B, generator=generator, device=image.device)
        half = (1 - share).sqrt() / 2

        def inside(length: int, middle: Tensor) -> Tensor:
            low = ((middle - half) * length).round().clamp(0, length)
            high = ((middle + half) * length).round().clamp(0, length)
            pixel = torch.arange(length, device=image.device)
            return (pixel >= low[:, None]) & (pixel < high[:, None])

        hole = inside(H, center[0])[:, :, None] & inside(W, center[1])[:, None, :]  # (B, H, W)
        return torch.where(hole[:, None], partner, image), 1 - hole.float().mean((1, 2))


def beta(alpha: float, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Numbers (count,) from the distribution Beta(alpha, alpha), drawn from the generator given.

    As a ratio of gamma variables, by the function that `torch.distributions` uses, whose classes take no generator.
    """
    gammas = torch._standard_gamma(torch.full((2, count), alpha, device=device), generator=generator)
    return gammas[0] / gammas.sum(0).clamp_min(torch.finfo(gammas.dtype).tiny)
