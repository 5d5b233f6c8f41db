"""Augmentation that mixes samples: labels become shares of the classes. B batch, C, H, W as usual, K classes.

After one of these the labels are (B, K) float32 instead of (B,) int64.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from datamodules.augment.images import Augmentation
from datamodules.batches import Labelled


class MixAugmentation(Augmentation):
    """Base class: mixes the images of a batch with each other, and their labels in the same shares.

    Args:
        num_classes: K; by default that of the datamodule, which says it in `check`.
        alpha: parameter of the distribution Beta(alpha, alpha) of the shares; 1 is uniform, a small value makes most
            shares almost 0 or 1.
        p: probability that a batch is mixed. The labels of the others become shares too.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, num_classes: int | None = None, alpha: float = 1.0, p: float = 1.0) -> None:
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}: expected 1 or more")
        if not (0 < alpha < float("inf") and 0 <= p <= 1):
            raise ValueError(f"alpha is {alpha} and p {p}: expected alpha above 0 and finite, and p in 0..1")
        self.num_classes, self.alpha, self.p = num_classes, alpha, p

    @abstractmethod
    def mix(self, image: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mixes images (B, C, H, W), and their labels (B, K) in the same shares."""

    def __call__(self, batch: Labelled, generator: torch.Generator) -> Labelled:
        image, label = batch.image, self.shares(batch.label)
        mixed_image, mixed_label = self.mix(image, label, generator)
        is_mixed = torch.rand((), generator=generator, device=image.device) < self.p
        return batch._replace(
            image=torch.where(is_mixed, mixed_image, image), label=torch.where(is_mixed, mixed_label, label)
        )

    def check(self, batch: Any, num_classes: int | None) -> None:
        name = type(self).__name__
        if not isinstance(batch, Labelled):
            raise ValueError(
                f"{name} mixes images and their classes, but the batches are {type(batch).__name__}: expected "
                f"Labelled; leave {name} out of `augment`"
            )
        if self.num_classes is None:
            self.num_classes = num_classes
        if num_classes not in (None, self.num_classes):
            raise ValueError(
                f"num_classes of {name} is {self.num_classes}, but the data have {num_classes} classes: "
                "expected the same number; leave it out, and it is taken from the data"
            )
        self.shares(batch.label)

    def shares(self, label: Tensor) -> Tensor:
        """Labels (B,) int64 or (B, K) of any floating type -> (B, K) float32.

        Raises:
            ValueError: if they do not fit `num_classes`, or it is not known.
        """
        if self.num_classes is None:
            raise ValueError(
                f"{type(self).__name__} does not know the number of classes: expected num_classes, as there is no "
                "datamodule to take it from; give it"
            )
        if label.ndim == 2 and label.shape[1] == self.num_classes:
            return label.float()
        if label.ndim != 1:
            raise ValueError(
                f"labels have the shape {tuple(label.shape)} and num_classes is {self.num_classes}: expected (B,) or "
                f"(B, {self.num_classes}); set num_classes to the number of classes of the data"
            )
        # Not on an accelerator, which would have to be waited for in each step: there the datamodule has checked them.
        if label.device.type == "cpu" and not ((label >= 0) & (label < self.num_classes)).all():
            raise ValueError(
                f"labels are {label.min()} to {label.max()} and num_classes is {self.num_classes}: expected labels of "
                f"0 to {self.num_classes - 1}; set num_classes to the number of classes of the data"
            )
        return (label[:, None] == torch.arange(self.num_classes, device=label.device)).float()


class MixOfTwo(MixAugmentation):
    """Base class: mixes each sample with a random sample of the same batch; see `MixAugmentation`."""

    @abstractmethod
    def pair(self, image: Tensor, partner: Tensor, share: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mixes images (B, C, H, W) with their partners.

        Args:
            share: (B,) in 0..1, the intended share of the first image.

        Returns:
            The mixed images, and the actual share (B,) of the first image.
        """

    def mix(self, image: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        partner = torch.randperm(len(image), generator=generator, device=image.device)
        share = beta(self.alpha, len(image), generator, image.device)
        mixed, share = self.pair(image, image[partner], share, generator)
        return mixed, torch.lerp(label[partner], label, share[:, None])


class Mixup(MixOfTwo):
    """Weighted means of two images and of their labels: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization".

    Differs from the paper's code, and from torchvision's `MixUp`, in a separate share for each sample.
    """

    def pair(self, image: Tensor, partner: Tensor, share: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.lerp(partner, image, share.to(image.dtype)[:, None, None, None]), share


class CutMix(MixOfTwo):
    """A rectangle of one image pasted into another, labels by area: Yun et al. 2019, "CutMix", section 3.1.

    The center of the rectangle is uniform over the image, and the part outside the image is clipped, so that the
    actual share of the first image is at least the intended one, up to the rounding to pixels.

    Differs from the paper's code, and from torchvision's `CutMix`, in a separate rectangle for each sample.
    """

    def pair(self, image: Tensor, partner: Tensor, share: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
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


class RICAP(MixAugmentation):
    """Parts of four images patched together, labels by area: Takahashi, Matsubara and Uehara 2018, "RICAP".

    "Data Augmentation using Random Image Cropping and Patching for Deep CNNs", section 3: the point where the four
    parts meet is drawn from Beta(alpha, alpha) on each axis, and each part is cut out of its image at any place.

    Differs from the paper's code in a separate point and separate places for each sample.

    Args:
        num_classes, p: see `MixAugmentation`.
        alpha: of the distribution; the paper's beta, which was best at 0.3 (section 4.1).
    """

    def __init__(self, num_classes: int | None = None, alpha: float = 0.3, p: float = 1.0) -> None:
        super().__init__(num_classes, alpha=alpha, p=p)

    def mix(self, image: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        (B, C, H, W), device = image.shape, image.device
        others = [torch.randperm(B, generator=generator, device=device) for _ in range(3)]
        source = torch.stack([torch.arange(B, device=device), *others], 1)  # (B, 4), the images of the parts
        lower, tall, down = self._axis(H, (0, 0, 1, 1), B, generator, device)
        right, wide, along = self._axis(W, (0, 1, 0, 1), B, generator, device)
        part = 2 * lower[:, :, None] + right[:, None, :]  # (B, H, W): 0 upper left, 1 upper right, 2 and 3 below

        def of_part(values: Tensor) -> Tensor:
            return values.gather(1, part.flatten(1)).view_as(part)[:, None]  # (B, 4) -> (B, 1, H, W)

        row = torch.arange(H, device=device)[:, None] + of_part(down)
        column = torch.arange(W, device=device) + of_part(along)
        channel = torch.arange(C, device=device)[:, None, None]
        shares = (tall * wide).float() / (H * W)
        return image[of_part(source), channel, row, column], (shares[:, :, None] * label[source]).sum(1)

    def _axis(
        self, length: int, halves: tuple[int, ...], B: int, generator: torch.Generator, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Divides one axis in two.

        Args:
            length: in pixels.
            halves: which of the two each of the four parts is in.

        Returns:
            (B, length) 1 from the border on, else 0; and of the four parts (B, 4) their lengths, and how many pixels
            further on in its image lies what is shown at a pixel.
        """
        border = (beta(self.alpha, B, generator, device) * length).round().long()[:, None]
        behind = (torch.arange(length, device=device) >= border).long()
        starts, sizes = torch.cat([0 * border, border], 1), torch.cat([border, length - border], 1)
        start, size = (torch.stack([each[:, half] for half in halves], 1) for each in (starts, sizes))
        room = length - size
        draw = torch.rand(B, 4, generator=generator, device=device) * (room + 1)
        return behind, size, torch.minimum(draw.long(), room) - start


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
