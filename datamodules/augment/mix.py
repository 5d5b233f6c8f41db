"""Augmentation that mixes samples: labels become shares of the classes. B batch, C, H, W as usual, K classes.

After one of these the labels are (B, K) float32 instead of (B,) int64.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.augment.images import Augmentation
from datamodules.batches import Labelled


class MixAugmentation(Augmentation):
    """Base class: mixes each sample with a random sample of the same batch.

    Args:
        num_classes: K.
        alpha: parameter of the distribution Beta(alpha, alpha) of the first sample's share; 1 is uniform, a small
            value makes most shares almost 0 or 1.
        p: probability that a batch is mixed. The labels of the others become shares too.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, num_classes: int, alpha: float = 1.0, p: float = 1.0) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}: expected 1 or more")
        if not (0 < alpha < float("inf") and 0 <= p <= 1):
            raise ValueError(f"alpha is {alpha} and p {p}: expected alpha above 0 and finite, and p in 0..1")
        self.num_classes, self.alpha, self.p = num_classes, alpha, p

    @abstractmethod
    def mix(self, image: Tensor, partner: Tensor, share: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mixes images (B, C, H, W) with their partners.

        Args:
            share: (B,) in 0..1, the intended share of the first image.

        Returns:
            The mixed images, and the actual share (B,) of the first image.
        """

    def __call__(self, batch: Labelled, generator: torch.Generator) -> Labelled:
        image, label, device = batch.image, self.shares(batch.label), batch.image.device
        partner = torch.randperm(len(image), generator=generator, device=device)
        share = beta(self.alpha, len(image), generator, device)
        is_mixed = torch.rand((), generator=generator, device=device) < self.p
        mixed, share = self.mix(image, image[partner], share, generator)
        share = torch.where(is_mixed, share, 1.0)[:, None]
        return batch._replace(
            image=torch.where(is_mixed, mixed, image),
            label=torch.lerp(label[partner], label, share),
        )

    def shares(self, label: Tensor) -> Tensor:
        """Labels (B,) int64 or (B, K) of any floating type -> (B, K) float32.

        Raises:
            ValueError: if they do not fit `num_classes`.
        """
        if label.ndim == 2 and label.shape[1] == self.num_classes:
            return label.float()
        if label.ndim != 1:
            raise ValueError(
                f"labels have the shape {tuple(label.shape)} and num_classes is {self.num_classes}: expected (B,) or "
                f"(B, {self.num_classes}); set num_classes to the number of classes of the data"
            )
        # Checked here, as `one_hot` on an accelerator would stop the process with a failed assertion.
        if not ((label >= 0) & (label < self.num_classes)).all():
            raise ValueError(
                f"labels are {label.min()} to {label.max()} and num_classes is {self.num_classes}: expected labels of "
                f"0 to {self.num_classes - 1}; set num_classes to the number of classes of the data"
            )
        return F.one_hot(label, self.num_classes).float()


class Mixup(MixAugmentation):
    """Weighted means of two images and of their labels: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization".

    Differs from the paper's code, and from torchvision's `MixUp`, in a separate share for each sample.
    """

    def mix(self, image: Tensor, partner: Tensor, share: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.lerp(partner, image, share.to(image.dtype)[:, None, None, None]), share


class CutMix(MixAugmentation):
    """A rectangle of one image pasted into another, labels by area: Yun et al. 2019, "CutMix", section 3.1.

    The center of the rectangle is uniform over the image, and the part outside the image is clipped, so that the
    actual share of the first image is at least the intended one, up to the rounding to pixels.

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

        pasted = inside(H, center[0])[:, :, None] & inside(W, center[1])[:, None, :]  # (B, H, W)
        return torch.where(pasted[:, None], partner, image), 1 - pasted.float().mean((1, 2))


def beta(alpha: float, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Numbers (count,) from the distribution Beta(alpha, alpha), drawn from the given generator.

    `torch.distributions` takes no generator, but the function that it draws gamma variables with does. A beta variable
    is X / (X + Y) with gamma variables X and Y. As these underflow for a small alpha, their logarithms are drawn:
    Gamma(alpha) is distributed as Gamma(alpha + 1) U^(1 / alpha) (Marsaglia and Tsang 2000, section 6).
    """
    gamma = torch._standard_gamma(torch.full((2, count), alpha + 1.0, device=device), generator=generator)
    exponential = torch.empty(2, count, device=device).exponential_(generator=generator)  # -log U
    log_x, log_y = gamma.log() - exponential / alpha
    return torch.sigmoid(log_x - log_y)
