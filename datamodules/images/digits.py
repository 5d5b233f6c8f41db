"""scikit-learn's digits: 1 797 handwritten digits, 8 x 8, that come with the library and need no download."""

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset

from datamodules.base import hold_out
from datamodules.image import ImageData
from datamodules.loader import InMemory

TEST_SIZE = 360  # a fifth, the last ones: written by other people than the first


class Digits(ImageData):
    """scikit-learn's digits in memory, gray levels 0..16 scaled to 0..255.

    The data are in the order in which they were collected, and the last 360 are the test set. Therefore at most one
    writer, at the border, has digits in both parts.

    >>> data = Digits(); data.setup("fit"); len(data.datasets["test"])
    360
    """

    mean, std = (0.3054,), (0.3753,)
    license = "CC BY 4.0: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI"
    classes = tuple("0123456789")
    image_shape = (1, 8, 8)

    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int = 500,
        val_size: int = 150,
        **options: Any,
    ) -> None:
        super().__init__(val_size=val_size, batch_size=batch_size, eval_batch_size=eval_batch_size, **options)

    def make_datasets(self) -> dict[str, Dataset]:
        source = load_digits()
        images = torch.from_numpy(source.images / 16 * 255).round().to(torch.uint8)[:, None]
        data = InMemory(images, torch.from_numpy(source.target).long())
        count = len(data) - TEST_SIZE
        train, val = hold_out(count, self.val_size)
        return {
            "train": data.subset(train),
            "val": data.subset(val),
            "test": data.subset(torch.arange(count, len(data))),
        }
