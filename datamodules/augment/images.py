"""Augmentation of batches of images on the device, with separate random numbers for every sample.

B batch, C channels, H height, W width. Every class here is called with a batch whose images are float32 in 0..1 and
with a generator to draw from, and returns a new batch; a datamodule applies them in the order of its `augment` list.
Your own subclasses of `Augmentation` are named by their dotted path.
"""

import math
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor


class Augmentation(ABC):
    """Base class of all augmentations: `augmentation(batch, generator) -> batch`."""

    @abstractmethod
    def __call__(self, batch: Any, generator: torch.Generator) -> Any:
        """Returns a new batch; all random numbers come from the generator."""

    def check(self, batch: Any, num_classes: int | None) -> None:  # noqa: B027 (by default it takes all)
        """Learns what it is used on, and says if that does not suit it: a datamodule calls this once, before training.

        Args:
            batch: some samples, as the loader yields them.
            num_classes: of the data, if they have classes.

        Raises:
            ValueError: if it is not made for them.
        """


class ImageAugmentation(Augmentation):
    """Base class of the augmentations that only change images. A subclass defines `image`.

    Attributes:
        moves_pixels: whether an object may be at another place afterwards, where a box around it would not follow.
    """

    moves_pixels: ClassVar[bool] = False

    def __call__(self, batch: Any, generator: torch.Generator) -> Any:
        return batch._replace(image=self.image(batch.image, generator))

    def check(self, batch: Any, num_classes: int | None) -> None:
        if self.moves_pixels and hasattr(batch, "boxes"):
            raise ValueError(
                f"{type(self).__name__} moves the pixels but not the boxes of {type(batch).__name__} batches: expected "
                "an augmentation that moves both; take one of datamodules.augment.boxes"
            )

    @abstractmethod
    def image(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """(B, C, H, W) in 0..1 -> the same shape and range."""


def _integers(low: int, high: int, shape: tuple[int, ...], x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(low, high, shape, generator=generator, device=x.device)


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Numbers as a tensor (len(values),) of the device and type of another, which is made only once.

    An accelerator would wait in each step for numbers that come from the host.
    """
    return _constant(values, like.dtype, like.device)


@lru_cache(maxsize=256)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # one that was made in evaluation could not be used in training
        return torch.tensor(values, dtype=dtype, device=device)


def host_seed(generator: torch.Generator) -> int:
    """A seed that is a function of the state of a generator, which moves on as if a number had been drawn.

    For draws that the host must know. The state lies on the host, also that of a generator on an accelerator, where a
    drawn number would have to be waited for.
    """
    state = generator.get_state()
    torch.rand(1, generator=generator, device=generator.device)
    return int.from_bytes(state.numpy().tobytes(), "little")


class Flip(ImageAugmentation):
    """Horizontal flip with probability `p`."""

    moves_pixels = True

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

    moves_pixels = True

    def __init__(self, padding: int = 4, mode: str = "constant") -> None:
        self.padding, self.mode = padding, mode

    def image(self, x: Tensor, generator: torch.Generator) -> Tensor:
        B, _, H, W = x.shape
        top, left = _integers(0, 2 * self.padding + 1, (2, B), x, generator)
        windows = F.pad(x, (self.padding,) * 4, mode=self.mode).unfold(2, H, 1).unfold(3, W, 1)
        return windows[torch.arange(B, device=x.device), :, top, left]


def square(size: int, x: Tensor, generator: torch.Generator) -> Tensor:
    """For each image of (B, C, H, W) the mask (B, 1, H, W) of a square whose center is uniform over the image."""

    def covered(length: int) -> Tensor:
        start = _integers(0, length, (len(x), 1), x, generator) - size // 2
        offset = torch.arange(length, device=x.device) - start
        return (offset >= 0) & (offset < size)

    H, W = x.shape[2:]
    return covered(H)[:, None, :, None] & covered(W)[:, None, None, :]


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
        hole = square(self.size, x, generator)
        return torch.where(hole, x.mean((0, 2, 3), keepdim=True) if self.fill is None else self.fill, x)


class PatchGaussian(ImageAugmentation):
    """Gaussian noise in a square whose center is uniform over the image; the part outside the image is clipped.

    Lopes et al. 2019, "Improving Robustness Without Sacrificing Accuracy with Patch Gaussian Augmentation", section 3.

    Args:
        size: side of the square in pixels; from twice the image's on, the noise is everywhere.
        scale: the standard deviation of the noise is uniform in 0..scale; the result is clipped to 0..1.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, size: int = 25, scale: float = 0.1) -> None:
        if size < 1 or not 0 <= scale < math.inf:
            raise ValueError(f"size is {size} and scale {scale}: expected a size of 1 or more and a scale of 0 or more")
        self.size, self.scale = size, scale

    def image(self, x: Tensor, generator: torch.Generator) -> Tensor:
        patch = square(self.size, x, generator)
        deviation = self.scale * torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device)
        noise = torch.randn(x.shape, generator=generator, device=x.device) * deviation
        return torch.where(patch, (x + noise.to(x.dtype)).clamp(0, 1), x)


class Affine(ImageAugmentation):
    """Rotates and scales about the center, then shifts, with bilinear interpolation; new areas are black.

    Args:
        degrees: the angle is uniform in -degrees..degrees.
        translate: the shift is uniform in -translate..translate of the image's size, on both axes.
        scale: the factor is uniform in 1 - scale..1 + scale.
    """

    moves_pixels = True

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


class Elastic(ImageAugmentation):
    """Moves each pixel by a smooth random field, with bilinear interpolation; new areas are black.

    Simard, Steinkraus and Platt 2003, "Best Practices for Convolutional Neural Networks Applied to Visual Document
    Analysis", section 2: fields that are uniform in -1..1 at each pixel, smoothed by a Gaussian and scaled by `alpha`.

    Args:
        alpha: scale of the displacement in pixels; torchvision's counts half pixels.
        sigma: standard deviation of the Gaussian in pixels. The paper's 4 and an alpha of 34 move a pixel of MNIST by 2
            on average.

    Raises:
        ValueError: if an argument is out of range.
    """

    moves_pixels = True

    def __init__(self, alpha: float = 34.0, sigma: float = 4.0) -> None:
        if not (0 <= alpha < math.inf and 0 < sigma < math.inf):
            raise ValueError(f"alpha is {alpha} and sigma {sigma}: expected an alpha of 0 or more, and a sigma above 0")
        self.alpha, self.sigma = alpha, sigma

    def image(self, x: Tensor, generator: torch.Generator) -> Tensor:
        B, _, H, W = x.shape
        field = 2 * torch.rand(2, B, H, W, generator=generator, device=x.device) - 1
        rows, columns = (_smoothing(length, self.sigma, x.device) for length in (H, W))
        right, down = self.alpha * (rows.T @ field @ columns)  # in pixels
        # grid_sample's coordinates go from -1 to 1, so a pixel is 2 / W wide.
        return self.displaced(x, torch.stack([right * 2 / W, down * 2 / H], -1))

    def displaced(self, x: Tensor, displacement: Tensor) -> Tensor:
        """(B, C, H, W), displaced by (B, H, W, 2), x before y, in halves of the image's size."""
        still = constant((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), x).view(1, 2, 3).expand(len(x), -1, -1)
        grid = F.affine_grid(still, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid + displacement.to(x.dtype), align_corners=False)


@lru_cache(maxsize=16)
def _smoothing(length: int, sigma: float, device: torch.device) -> Tensor:
    """A matrix (length, length) that smooths a row of pixels by a Gaussian, with the row reflected at its ends.

    The Gaussian is cut off at four standard deviations, or where no pixel is left to reflect.
    """
    with torch.inference_mode(False):
        reach = min(int(4 * sigma + 0.5), length - 1)
        weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1.0, device=device) / sigma) ** 2)
        each = F.pad(torch.eye(length, device=device)[None], (reach, reach), mode="reflect")[0]
        return each.unfold(1, len(weight), 1) @ (weight / weight.sum())


class Color(ImageAugmentation):
    """Changes brightness, contrast and saturation, each by a factor uniform in 1 - x..1 + x, in this order.

    Contrast is relative to the mean luma of the image, saturation to the luma of the pixel (ITU-R BT.601).
    """

    def __init__(self, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2) -> None:
        self.strengths = (brightness, contrast, saturation)

    def image(self, x: Tensor, generator: torch.Generator) -> Tensor:
        draw = 2 * torch.rand(3, len(x), 1, 1, 1, generator=generator, device=x.device) - 1
        bright, contrast, saturation = 1 + draw.to(x.dtype) * constant(self.strengths, x)[:, None, None, None, None]
        x = (x * bright).clamp(0, 1)
        mean = _luma(x).mean((2, 3), keepdim=True)
        x = (mean + (x - mean) * contrast).clamp(0, 1)
        luma = _luma(x)
        return (luma + (x - luma) * saturation).clamp(0, 1)


def _luma(x: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W); images with another number of channels stay as they are."""
    return (x * constant((0.299, 0.587, 0.114), x)[:, None, None]).sum(1, keepdim=True) if x.shape[1] == 3 else x
