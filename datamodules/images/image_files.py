"""Image files with labels as a data set, and what their headers say. H height, W width, C channels."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import albumentations as A
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from datamodules.augment.albumentations import transformed, try_out
from datamodules.batches import Labelled
from datamodules.io import read_image

Samples = list[tuple[Path, int]]  # image files with their labels
LOOKED_AT = 200  # images
AREA = {"area_for_downscale": "image"}  # of albumentations' resizes: else pixels between those used would be lost
GRAY_MODES = ("1", "L", "I", "F")  # PIL's, with or without transparency


class ImageFiles(Dataset):
    """Image files with their labels, passed through an albumentations pipeline.

    The pipeline is seeded for every sample from (seed, epoch, index): samples, epochs and ranks draw independently,
    and the result depends neither on the number of workers nor on where a run resumed.

    Args:
        samples: paths and labels.
        transform: albumentations pipeline, uint8 (H, W, C) in and out.
        image_shape: (C, H, W) of the samples, C 1 or 3.
        seed: of the augmentation.
        at_least: (width, height) that is enough: a large JPEG may be decoded smaller, see `read_image`.
    """

    def __init__(
        self,
        samples: Samples,
        transform: A.Compose,
        image_shape: tuple[int, int, int],
        seed: int = 0,
        at_least: tuple[int, int] | None = None,
    ) -> None:
        self.paths, self.labels = [path for path, _ in samples], [label for _, label in samples]
        self.transform, self.seed, self.epoch = transform, seed, 0
        self.mode, self.at_least = {1: "L", 3: "RGB"}[image_shape[0]], at_least
        self.shape = (*image_shape[1:], image_shape[0])

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.paths)

    def check(self) -> None:
        """Tries the pipeline on the first image, with the errors of `try_out`."""
        if self.paths:
            try_out(self.transform, self._pixels(0), self.shape)

    def _pixels(self, index: int) -> np.ndarray:
        """An image (H, W, C) as it is in its file."""
        with without_remarks():
            image = read_image(self.paths[index], self.mode, at_least=self.at_least)
        pixels = np.array(image)  # a copy, which can be written to: torch warns of what cannot
        return pixels.reshape(*pixels.shape[:2], -1)

    def sample(self, index: int, turn: int) -> Labelled:
        """A sample as augmented in a pass over the files."""
        key = np.random.SeedSequence((self.seed, turn, int(index)))
        self.transform.set_random_seed(int(key.generate_state(1)[0]))
        pixels = np.ascontiguousarray(transformed(self.transform, self._pixels(index), self.shape))
        return Labelled(torch.from_numpy(pixels).permute(2, 0, 1), torch.tensor(self.labels[index]))

    def __getitem__(self, index: int) -> Labelled:
        return self.sample(index, self.epoch)


def collate_images(samples: list[Labelled]) -> Labelled:
    """Samples -> a batch."""
    return Labelled(*map(torch.stack, zip(*samples, strict=True)))


class Look(NamedTuple):
    """What the headers of some images say.

    size: median of the shorter sides, in pixels.
    channels: 1 if all are gray, else 3.
    """

    size: int
    channels: int


@contextmanager
def without_remarks() -> Iterator[None]:
    """Inside, PIL does not warn of damaged metadata and the like: workers, new in each epoch, would do it each time."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


def look_at(paths: Sequence[Path]) -> Look:
    """Reads the headers of about `LOOKED_AT` images, evenly spaced, and decodes none of them.

    Raises:
        ValueError: if none of them is an image.
    """
    sides, modes = [], set()
    for path in paths[:: max(1, len(paths) // LOOKED_AT)]:
        # What cannot be read is told where it is used.
        broken = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
        with suppress(*broken), without_remarks(), Image.open(path) as file:
            sides.append(min(file.size))
            modes.add(file.mode)
    if not sides:
        raise ValueError(f"{paths[0]} and others cannot be read as images: expected complete JPEG or PNG files")
    return Look(int(np.median(sides)), 1 if all(mode.startswith(GRAY_MODES) for mode in modes) else 3)
