"""MNIST with a second input: each image comes with a random digit that is to be added to it. N images, B batch."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.base import SPLIT_SEED
from datamodules.images.mnist import MNIST
from datamodules.loader import InMemory


class DigitPair(NamedTuple):
    """Images of digits, and digits to be added to them.

    image: (B, 1, H, W); uint8 in the loader, float32 and normalized on the device.
    label: (B,) int64, the digit in the image, 0 to 9.
    addend: (B,) int64, the other digit, 0 to 9.
    total: (B,) int64, the sum of both, 0 to 18.
    """

    image: Tensor
    label: Tensor
    addend: Tensor
    total: Tensor


class PairedDigits(InMemory):
    """Images in memory, each with a digit that is uniform in 0..9 and independent of the image.

    Args:
        images: (N, 1, H, W) uint8.
        labels: (N,) int64.
        seed: of the digits; equal ones give equal digits.
        renew: whether there are others in each epoch, as is good for training.
    """

    def __init__(self, images: Tensor, labels: Tensor, seed: int = 0, renew: bool = False) -> None:
        super().__init__(images, labels)
        self.seed, self.renew = seed, renew
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        key = np.random.SeedSequence((self.seed, epoch if self.renew else 0)).generate_state(1)[0]
        drawn = torch.randint(10, (len(self),), generator=torch.Generator().manual_seed(int(key)))
        self.addends = drawn.to(self.device)

    def to(self, device: torch.device) -> "PairedDigits":
        return PairedDigits(self.images.to(device), self.labels.to(device), self.seed, self.renew)

    def subset(self, indices: Tensor) -> InMemory:
        raise ValueError("take the subset of the images first: which digit an image gets depends on its place")

    def __getitem__(self, index: int) -> DigitPair:  # type: ignore[override]
        return DigitPair(*(values[0] for values in self.__getitems__(torch.tensor([index]))))

    def __getitems__(self, indices: Tensor) -> DigitPair:  # type: ignore[override]
        label, addend = self.labels[indices], self.addends[indices]
        return DigitPair(self.images[indices], label, addend, label + addend)


class DigitPairs(MNIST):
    """MNIST in memory, with a random digit for each image, and their sum; batches are `DigitPair`.

    In training the digits are drawn anew in each epoch, from the seed of the run and the number of the epoch. Those of
    validation and test are the same in all runs, so that results can be compared.

    Args:
        options: see `ImageData`.

    Raises:
        ValueError: with `alternating_flip`, which mirrors digits.

    >>> DigitPairs().num_sums
    19
    """

    num_sums = 19  # 0 + 0 to 9 + 9

    def __init__(self, **options: Any) -> None:
        if options.get("alternating_flip"):
            raise ValueError(
                "alternating_flip is true: expected false, as a digit is not one in a mirror; leave it out"
            )
        super().__init__(**options)

    def make_datasets(self) -> dict[str, Dataset]:
        return {
            split: PairedDigits(
                dataset.images,
                dataset.labels,
                seed=self.resolved_seed() if split == "train" else SPLIT_SEED + number,
                renew=split == "train",
            )
            for number, (split, dataset) in enumerate(super().make_datasets().items())
            if isinstance(dataset, InMemory)
        }
