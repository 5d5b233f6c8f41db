"""Corruptions of images, for test sets that show how robust a net is. B batch, C channels, H height, W width.

Nine kinds at five severities, after Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", section 3. The strengths are our own, for images of 32 pixels: errors on them do not
compare with those on the CIFAR-10-C files. Lengths grow with the image, to look alike in images of any size.

| kind | what its strength is | at severity 1, 2, 3, 4, 5 |
| --- | --- | --- |
| gaussian_noise | standard deviation, of values in 0..1 | 0.04, 0.06, 0.08, 0.10, 0.13 |
| shot_noise | photons of a white pixel | 400, 200, 100, 60, 40 |
| impulse_noise | share of values that become 0 or 1 | 0.01, 0.02, 0.04, 0.07, 0.10 |
| defocus_blur | radius of the disk in 1/32 of the shorter side | 0.6, 0.9, 1.2, 1.6, 2.0 |
| motion_blur | length of the motion in 1/32 of the shorter side | 2, 3, 4, 6, 8 |
| contrast | factor of the distances to the mean | 0.70, 0.50, 0.35, 0.25, 0.15 |
| brightness | what is added | 0.08, 0.14, 0.20, 0.27, 0.35 |
| jpeg | quality of the compression | 70, 50, 35, 22, 12 |
| pixelate | factor by which the image is made smaller | 0.90, 0.75, 0.60, 0.45, 0.35 |
"""

import io
import math
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SEVERITIES = (1, 2, 3, 4, 5)


def gaussian_noise(x: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    return x + deviation * torch.randn(x.shape, generator=generator)


def shot_noise(x: Tensor, photons: float, generator: torch.Generator) -> Tensor:
    return torch.poisson(x * photons, generator=generator) / photons


def impulse_noise(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    draw = torch.rand(x.shape, generator=generator)
    return torch.where(draw < share, (draw < share / 2).float(), x)


def defocus_blur(x: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """The mean over a disk; a pixel at its edge counts by the part of it that is inside, measured at 25 x 25 points."""
    radius *= _scale(x)
    reach = math.ceil(radius)
    points = torch.arange(-25 * reach - 12, 25 * reach + 13) / 25.0
    inside = (points[:, None].square() + points.square() <= radius**2).float()
    disk = F.avg_pool2d(inside[None, None], 25)
    padded = F.pad(x, (reach,) * 4, mode="reflect").flatten(0, 1)[:, None]
    return F.conv2d(padded, disk / disk.sum()).view_as(x)


def motion_blur(x: Tensor, length: float, generator: torch.Generator) -> Tensor:
    """The mean over a straight motion about each pixel, in a direction drawn for each image; borders are repeated."""
    angle = math.pi * torch.rand(len(x), generator=generator)
    direction = torch.stack([angle.cos(), angle.sin()], 1) * length * _scale(x)  # in pixels, x before y
    direction = direction * 2 / torch.tensor(x.shape[:1:-1])  # grid_sample's coordinates go from -1 to 1
    still = F.affine_grid(torch.eye(2, 3).expand(len(x), -1, -1), list(x.shape), align_corners=False)
    times = torch.linspace(-0.5, 0.5, 2 * math.ceil(length * _scale(x)) + 1)
    moved = [
        F.grid_sample(x, still + time * direction[:, None, None], padding_mode="border", align_corners=False)
        for time in times
    ]
    return torch.stack(moved).mean(0)


def contrast(x: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return mean + factor * (x - mean)


def brightness(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    return x + amount


def jpeg(x: Tensor, quality: float, generator: torch.Generator) -> Tensor:
    """Images of neither 1 nor 3 channels are compressed channel by channel."""

    def compressed(pixels: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="JPEG", quality=int(quality))
        return np.asarray(Image.open(file))

    channels = x if x.shape[1] == 3 else x.flatten(0, 1)[:, None]
    images = to_uint8(channels).permute(0, 2, 3, 1).squeeze(3).numpy()  # PIL has gray images without an axis for them
    result = torch.from_numpy(np.stack([compressed(pixels) for pixels in images])).view(*images.shape[:3], -1)
    return result.permute(0, 3, 1, 2).reshape(x.shape) / 255


def pixelate(x: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    """Each large pixel is the mean of the area that it covers."""
    size = x.shape[2:]
    rows, columns = (_areas(side, max(1, round(factor * side))) for side in size)
    return F.interpolate(rows @ x @ columns.T, size, mode="nearest-exact")


def _areas(length: int, count: int) -> Tensor:
    """(count, length): the parts of `length` pixels that each of `count` equal pieces consists of; rows sum to 1."""
    edge, pixel = torch.linspace(0, length, count + 1), torch.arange(float(length))
    overlap = torch.minimum(edge[1:, None], pixel + 1) - torch.maximum(edge[:-1, None], pixel)
    return overlap.clamp(min=0) * count / length


class Kind(NamedTuple):
    """function: (images, strength, generator) -> images, float32; strengths: one for each severity."""

    function: Callable[[Tensor, float, torch.Generator], Tensor]
    strengths: tuple[float, ...]


KINDS = {
    "gaussian_noise": Kind(gaussian_noise, (0.04, 0.06, 0.08, 0.10, 0.13)),
    "shot_noise": Kind(shot_noise, (400, 200, 100, 60, 40)),
    "impulse_noise": Kind(impulse_noise, (0.01, 0.02, 0.04, 0.07, 0.10)),
    "defocus_blur": Kind(defocus_blur, (0.6, 0.9, 1.2, 1.6, 2.0)),
    "motion_blur": Kind(motion_blur, (2, 3, 4, 6, 8)),
    "contrast": Kind(contrast, (0.70, 0.50, 0.35, 0.25, 0.15)),
    "brightness": Kind(brightness, (0.08, 0.14, 0.20, 0.27, 0.35)),
    "jpeg": Kind(jpeg, (70, 50, 35, 22, 12)),
    "pixelate": Kind(pixelate, (0.90, 0.75, 0.60, 0.45, 0.35)),
}


def corrupt(image: Tensor, kind: str, severity: int, seed: int = 0) -> Tensor:
    """Images (B, C, H, W) uint8 on the host, corrupted and rounded to 8 bits, as files of them would be.

    Args:
        kind: one of `KINDS`.
        severity: 1 to 5.
        seed: the random numbers are a function of it, the kind and the severity.

    Raises:
        ValueError: if there is no such kind or severity.

    >>> corrupt(torch.full((1, 1, 2, 2), 100, dtype=torch.uint8), "brightness", 1).unique()
    tensor([120], dtype=torch.uint8)
    """
    if kind not in KINDS or severity not in SEVERITIES:
        raise ValueError(
            f"corruption is {kind!r} at severity {severity}: expected one of {', '.join(KINDS)}, at severity 1 to 5"
        )
    key = np.random.SeedSequence((seed, severity, zlib.crc32(kind.encode()))).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(key) >> 1)
    function, strengths = KINDS[kind]
    return to_uint8(function(image.float() / 255, strengths[severity - 1], generator))


def to_uint8(x: Tensor) -> Tensor:
    """Values in 0..1 -> 0..255; what is outside is clipped."""
    return (255 * x).round().clamp(0, 255).to(torch.uint8)


def _scale(x: Tensor) -> float:
    """By how much lengths are larger than in images of 32 pixels."""
    return min(x.shape[2:]) / 32
