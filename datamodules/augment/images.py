"""Augmentation of batches of images on the device, with separate random numbers for every sample.

B batch, C channels, H height, W width. Every class here is called with a batch whose images are float32 in 0..1 and
with a generator to draw from, and returns a new batch; a datamodule applies them in the order of its `augment` list.
Your own subclasses of `Augmentation` are named by their dotted path.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Augmentation(ABC):
    """Base class of all augmentations: `augmentation(batch, generator) -> batch`."""

    @abstractmethod
    def __call__(self, batch: Any, generator: torch.Generator) -> Any:
        """Returns a new batch; all random numbers come from the generator."""


class ImageAugmentation(Augmentation):
    """Base class of the augmentations that only change images. A subclass defines `image`."""

    def __call__(self, batch: Any, generator: torch.Generator) -> Any:
        return batch._replace(image=self.image(batch.image, generator))

    @abstractmethod
    def image(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """(B, C, H, W) in 0..1 -> the same shape and range."""


def _integers(low: int, high: int, shape: tuple[int, ...], x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(low, high, shape, generator=generator, device=x.device)


class Flip(ImageAugmentation):
    """Horizontal flip with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def image(self, x: Tensor, generator: torch.Generator) -> Tensor:
        mirrored = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < self.p
        return torch.where(mirrored, x.flip(-1), x)


class Crop(ImageAugmentation):
    """Random crop: pads by `padding` pixels on each side and cuts out a random window of the original size.

    Args:
        padding: pixels; the shift is uniform in -padding..padding on both axes.
        mode: "constant" (black, as torchvision's RandomCrop), "reflect" or "replicate".
    """

    def __init__(self, padding: int = 4, mode: str = "constant") -> None:
        self.padding, self.mode = padding, mode

    def image(self, x: Tensor, generator: torch.Generator) -> Tensor:
        B, _, H, W = x.shape
        top, left = _integers(0, 2 * self.padding + 1, (2, B), x, generator)
        windows = F.pad(x, (self.padding,) * 4, mode=self.mode).unfold(2, H, 1).unfold(3, W, 1)
        return windows[torch.arange(B, device=x.device), :, top, left]


class Cutout(ImageAugmentation):
    """Covers a square whose center is uniform over the image; the part outside the image is clipped.

    DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout", section 3.2.

    Args:
        size: side of the square in pixels.
        fill: gray value in 0..1; by default each channel's mean over the batch.
    """

    def __init__(self, size: int = 8, fill: float | None = None) -> None:
        self.size, self.fill = size, fill

    def image(self, x: Tensor, generator: torch.Generator) -> Tensor:
        B, _, H, W = x.shape

        def covered(length: int) -> Tensor:
            start = _integers(0, length, (B, 1), x, generator) - self.size // 2
            offset = torch.arange(length, device=x.device) - start
            return (offset >= 0) & (offset < self.size)

        hole = covered(H)[:, None, :, None] & covered(W)[:, None, None, :]
        fill = x.mean((0, 2, 3), keepdim=True) if self.fill is None else x.new_tensor(self.fill)
        return torch.where(hole, fill, x)


class Affine(ImageAugmentation):
    """Rotates and scales about the center, then shifts, with bilinear interpolation; new areas are black.

    Args:
        degrees: the angle is uniform in -degrees..degrees.
        translate: the shift is uniform in -translate..translate of the image's size, on both axes.
        scale: the factor is uniform in 1 - scale..1 + scale.
    """

    def __init__(self, degrees: float = 0.0, translate: float = 0.0, scale: float = 0.0) -> None:
        self.degrees, self.translate, self.scale = degrees, translate, scale

    def image(self, x: Tensor, generator: torch.Generator) -> Tensor:
        B, _, H, W = x.shape
        rotation, right, down, zoom = torch.rand(4, B, generator=generator, device=x.device) * 2 - 1
        angle, zoom = rotation * math.radians(self.degrees), 1 + zoom * self.scale
        # affine_grid maps output to input coordinates, each axis in -1..1: hence H / W off the diagonal.
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        linear = torch.stack([cos, -sin * H / W, sin * W / H, cos], 1).view(B, 2, 2)
        shift = 2 * self.translate * torch.stack([right, down], 1)[:, :, None]
        grid = F.affine_grid(torch.cat([linear, -linear @ shift], 2).to(x.dtype), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)


class Rotate(Affine):
    """Rotates by an angle uniform in -degrees..degrees."""

    def __init__(self, degrees: float = 7.0) -> None:
        super().__init__(degrees=degrees)


class Color(ImageAugmentation):
    """Changes brightness, contrast and saturation, each by a factor uniform in 1 - x..1 + x, in this order.

    Contrast is relative to the mean luma of the image, saturation to the luma of the pixel (ITU-R BT.601).
    """

    def __init__(self, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2) -> None:
        self.strengths = (brightness, contrast, saturation)

    def image(self, x: Tensor, generator: torch.Generator) -> Tensor:
        draw = 2 * torch.rand(3, len(x), 1, 1, 1, generator=generator, device=x.device) - 1
        bright, contrast, saturation = 1 + draw.to(x.dtype) * x.new_tensor(self.strengths)[:, None, None, None, None]
        x = (x * bright).clamp(0, 1)
        mean = _luma(x).mean((2, 3), keepdim=True)
        x = (mean + (x - mean) * contrast).clamp(0, 1)
        luma = _luma(x)
        return (luma + (x - luma) * saturation).clamp(0, 1)


def _luma(x: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W); images with another number of channels stay as they are."""
    return (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True) if x.shape[1] == 3 else x
