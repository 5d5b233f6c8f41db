"""MNIST rotated, scaled and moved on a larger canvas, among fragments of other digits. N images, B batch, S side."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.base import SPLIT_SEED
from datamodules.batches import Labelled
from datamodules.images.mnist import MNIST
from datamodules.loader import InMemory

MEASURED = 2000  # training images that mean and standard deviation are taken from
INK = (4, 24)  # rows and columns of MNIST's images that hold ink: digits were fitted into 20x20 pixels


class DistortedDigits(Dataset):
    """Digits on a canvas, each rotated, scaled and moved by random amounts, with fragments of others around it.

    Args:
        images: (N, 1, 28, 28) uint8.
        labels: (N,) int64.
        canvas: S, its side in pixels.
        degrees: the angle is uniform in -degrees..degrees.
        scale: the factor is uniform between the two.
        shift: how far the digit's center may be from that of the canvas, in pixels, uniform on both axes.
        clutter: number of fragments, each a random square of another digit at a random place.
        clutter_size: side of the squares.
        seed: equal ones give equal images.
        renew: whether all is drawn anew in each epoch, as is good for training.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        canvas: int = 28,
        degrees: float = 0.0,
        scale: tuple[float, float] = (1.0, 1.0),
        shift: float = 0.0,
        clutter: int = 0,
        clutter_size: int = 6,
        seed: int = 0,
        renew: bool = False,
    ) -> None:
        self.images, self.labels, self.canvas, self.degrees, self.scale, self.shift = (
            images, labels, canvas, degrees, scale, shift,
        )  # fmt: skip
        self.clutter, self.clutter_size, self.seed, self.renew = clutter, clutter_size, seed, renew
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draws for all images at once, so that each gets the same whatever the batches."""
        key = np.random.SeedSequence((self.seed, epoch if self.renew else 0)).generate_state(1)[0]
        draw = torch.Generator().manual_seed(int(key))
        angle, zoom, right, down = torch.rand(4, len(self), generator=draw)
        low, high = self.scale
        self.angles = math.radians(self.degrees) * (2 * angle - 1)
        self.zooms = low + (high - low) * zoom
        self.shifts = self.shift * (2 * torch.stack([right, down], 1) - 1)

        def integers(low: int, high: int) -> Tensor:
            shape = (len(self), self.clutter)
            return torch.randint(low, high, shape, generator=draw, dtype=torch.int32)

        self.sources = integers(0, max(1, len(self)))
        self.cuts = torch.stack([integers(INK[0], INK[1] - self.clutter_size + 1) for _ in range(2)])
        self.places = torch.stack([integers(0, self.canvas - self.clutter_size + 1) for _ in range(2)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Labelled:
        return Labelled(*(values[0] for values in self.__getitems__(torch.tensor([index]))))

    def __getitems__(self, indices: Tensor) -> Labelled:
        image = self._placed(indices)
        for k in range(self.clutter):
            self._add_fragment(image, indices, k)
        return Labelled(image, self.labels[indices])

    def _placed(self, indices: Tensor) -> Tensor:
        """The digits on their canvases, (B, 1, S, S) uint8, by bilinear interpolation."""
        images = self.images[indices].float()
        angle, zoom, shift = self.angles[indices], self.zooms[indices], self.shifts[indices]
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        linear = torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)  # from the canvas to the image, both in pixels
        steps = torch.arange(self.canvas) - (self.canvas - 1) / 2  # pixels from the middle of the canvas
        places = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).flatten(0, 1)  # (S * S, 2), x before y
        found = (places - shift[:, None]) @ linear.mT
        grid = (2 / images.shape[-1] * found).view(-1, self.canvas, self.canvas, 2)  # the image reaches from -1 to 1
        return F.grid_sample(images, grid, align_corners=False).round().clamp(0, 255).to(torch.uint8)

    def _add_fragment(self, image: Tensor, indices: Tensor, k: int) -> None:
        """Puts fragment k of each image (B, 1, S, S) into it, in place; where ink is upon ink, the brighter stays."""
        window = torch.arange(self.clutter_size)
        batch, source = torch.arange(len(indices))[:, None, None], self.sources[indices, k][:, None, None].long()
        (cut_y, cut_x), (y, x) = (
            (corner[:, indices, k][:, :, None] + window).long() for corner in (self.cuts, self.places)
        )
        fragment = self.images[source, 0, cut_y[:, :, None], cut_x[:, None, :]]
        where = batch, torch.tensor(0), y[:, :, None], x[:, None, :]
        image[where] = torch.maximum(image[where], fragment)


class DistortedMNIST(MNIST):
    """MNIST whose digits are rotated, scaled and moved, on a canvas that may be larger, with clutter around them.

    The data of Jaderberg et al. 2015, "Spatial Transformer Networks", section 4.1 and appendix A.2: canvas 42, degrees
    45, scale (0.7, 1.2), shift 7 for their RTS; canvas 60, shift 16, clutter 16 for their translated cluttered digits.
    Fragments are cut where digits have ink. In training all is drawn anew in each epoch, from the seed of the run and
    the number of the epoch; validation and test are the same in all runs. `mean` and `std` are measured on training
    images, unless they are given.

    Args:
        canvas, degrees, scale, shift, clutter, clutter_size: see `DistortedDigits`.
        options: see `ImageData`.

    Raises:
        ValueError: if an argument is out of range, or with `alternating_flip`, which mirrors digits.

    >>> DistortedMNIST(canvas=60, shift=16, clutter=16).image_shape
    (1, 60, 60)
    """

    def __init__(
        self,
        *,
        canvas: int = 28,
        degrees: float = 0.0,
        scale: tuple[float, float] = (1.0, 1.0),
        shift: float = 0.0,
        clutter: int = 0,
        clutter_size: int = 6,
        **options: Any,
    ) -> None:
        if options.get("alternating_flip"):
            raise ValueError(
                "alternating_flip is true: expected false, as a digit is not one in a mirror; leave it out"
            )
        if canvas < 1 or not 0 <= shift <= canvas or clutter < 0 or not 0 <= degrees <= 180:
            raise ValueError(
                f"canvas is {canvas}, shift {shift}, clutter {clutter} and degrees {degrees}: expected a canvas of "
                "1 or more pixels, a shift of 0 to canvas, 0 or more fragments, and 0 to 180 degrees"
            )
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(
                f"scale is {tuple(scale)}: expected a lowest and a highest factor above 0, such as (0.7, 1.2)"
            )
        if not 1 <= clutter_size <= min(canvas, INK[1] - INK[0]):
            raise ValueError(f"clutter_size is {clutter_size}: expected 1 to {min(canvas, INK[1] - INK[0])} pixels")
        super().__init__(**options)
        self.distortion: dict[str, Any] = {
            "canvas": canvas, "degrees": degrees, "scale": tuple(scale), "shift": shift, "clutter": clutter,
            "clutter_size": clutter_size,
        }  # fmt: skip
        self.image_shape = (1, canvas, canvas)
        self._measures = [name for name in ("mean", "std") if options.get(name) is None]

    def make_datasets(self) -> dict[str, Dataset]:
        made: dict[str, Dataset] = {}
        for number, (split, dataset) in enumerate(super().make_datasets().items()):
            assert isinstance(dataset, InMemory)
            training = split == "train"
            seed = self.resolved_seed() if training else SPLIT_SEED + number
            made[split] = DistortedDigits(dataset.images, dataset.labels, **self.distortion, seed=seed, renew=training)
            if training:
                self._measure(DistortedDigits(dataset.images[:MEASURED], dataset.labels[:MEASURED], **self.distortion))
        return made

    def _measure(self, digits: DistortedDigits) -> None:
        """Sets mean and std, which are to be the same whatever the seed of the run."""
        images = digits.__getitems__(torch.arange(len(digits))).image.float() / 255
        for name in self._measures:
            setattr(self, name, (round(getattr(images, name)().item(), 4),))
