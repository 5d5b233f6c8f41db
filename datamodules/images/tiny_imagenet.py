"""Tiny-ImageNet: 100 000 + 10 000 color photographs, 64 x 64, of 200 of ImageNet's classes.

Le and Yang 2015, "Tiny ImageNet Visual Recognition Challenge". The labels of its test images were never published, so
the validation images serve as test set, as everywhere.
"""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.base import SPLIT_SEED, hold_out
from datamodules.image import ImageData
from datamodules.io import IMAGE_SUFFIXES, atomic_write, find_file, read_image, read_text, user_files
from datamodules.loader import InMemory

SOURCE = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
SIZE = 64
TRAIN_SHARE = 0.7  # of the split "70/30"

Samples = list[tuple[Path, int]]  # image files with their labels


class TinyImageNet(ImageData):
    """Tiny-ImageNet in memory, in its original layout, with all its 200 classes or some of them.

    `folder` holds `wnids.txt` (the classes' numbers in WordNet), `words.txt` (their names), `train/WNID/images/*.JPEG`
    (or `train/WNID/*.JPEG`), `val/images/*.JPEG` and `val/val_annotations.txt`. The boxes are not read. The decoded
    images are kept in the folder, as `decoded-*.npy`, if it is writable; without that they are decoded at each start.

    Args:
        folder: as above; see `datamodules.io.find_file`.
        split: "official" trains on the training images and tests on the validation images; "70/30" divides both
            together, 70 % of each class to train and 30 % to test, always in the same way.
        val_size: images taken out of train for validation.
        options: see `ImageData`.

    Raises:
        FileNotFoundError: if the folder or one of its parts does not exist.
        ValueError: if the split is unknown, a class has no name or no images, or an image is broken or of another size.
    """

    mean, std = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)
    image_shape = (3, SIZE, SIZE)

    def __init__(
        self,
        folder: str = "tiny-imagenet-200",
        split: Literal["official", "70/30"] = "official",
        val_size: int = 5000,
        **options: Any,
    ) -> None:
        super().__init__(val_size=val_size, **options)
        if split not in ("official", "70/30"):
            raise ValueError(f"split is {split!r}: expected 'official' or '70/30'")
        self.split = split
        self.folder = find_file(folder, f"Tiny-ImageNet, which {SOURCE} contains", self.data_dir)
        self.wnids = sorted(self._text("wnids.txt").split())
        names = dict(line.split("\t", 1) for line in self._text("words.txt").splitlines() if "\t" in line)
        if unnamed := [wnid for wnid in self.wnids if wnid not in names]:
            raise ValueError(
                f"{self.folder / 'words.txt'} has no name for {unnamed[0]}: expected a line for each class in "
                "wnids.txt; add it"
            )
        self.classes = tuple(names[wnid].split(",")[0].strip() for wnid in self.wnids)

    def _part(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist: expected Tiny-ImageNet in its original layout; unpack {SOURCE} again"
            )
        return path

    def _text(self, name: str) -> str:
        return read_text(self._part(name))

    def make_datasets(self) -> dict[str, Dataset]:
        train, test = self._train_samples(), self._val_samples()
        samples = train + test
        images = self._images([path for path, _ in samples])
        everything = InMemory(images, torch.tensor([label for _, label in samples]))
        if self.split == "official":
            for_train, for_test = torch.arange(len(train)), torch.arange(len(train), len(samples))
        else:
            for_train, for_test = self._divide(everything.labels)
        rest, for_val = hold_out(len(for_train), self.val_size)
        return {
            "train": everything.subset(for_train[rest]),
            "val": everything.subset(for_train[for_val]),
            "test": everything.subset(for_test),
        }

    def _train_samples(self) -> Samples:
        samples = []
        for label, wnid in enumerate(self.wnids):
            folder = self._part(f"train/{wnid}")
            inner = folder / "images"
            found = user_files(inner if inner.is_dir() else folder, IMAGE_SUFFIXES, deep=False)
            if not found:
                raise ValueError(f"{folder} contains no image: expected {wnid}_0.JPEG and so on; unpack {SOURCE} again")
            samples += [(path, label) for path in found]
        return samples

    def _val_samples(self) -> Samples:
        """The validation images of the classes in `wnids.txt`."""
        folder = self._part("val/images")
        rows = [line.split("\t") for line in self._text("val/val_annotations.txt").splitlines()]
        labels = {wnid: label for label, wnid in enumerate(self.wnids)}
        samples = [(folder / row[0], labels[row[1]]) for row in rows if len(row) > 1 and row[1] in labels]
        if not samples:
            raise ValueError(
                f"{self.folder / 'val/val_annotations.txt'} names no image of the {len(labels)} classes in wnids.txt: "
                f"expected lines of a file, a tab and a class; unpack {SOURCE} again"
            )
        return samples

    def _divide(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of training and test images, divided class by class."""
        generator = torch.Generator().manual_seed(SPLIT_SEED)
        is_train = torch.zeros(len(labels), dtype=torch.bool)
        for label in range(len(self.wnids)):
            of_class = (labels == label).nonzero()[:, 0]
            shuffled = of_class[torch.randperm(len(of_class), generator=generator)]
            is_train[shuffled[: round(TRAIN_SHARE * len(shuffled))]] = True
        return is_train.nonzero()[:, 0], (~is_train).nonzero()[:, 0]

    def _images(self, paths: list[Path]) -> Tensor:
        """(N, 3, H, W) uint8, decoded now or at an earlier start."""
        missing = next((path for path in paths if not path.is_file()), None)
        if missing is not None:
            self._part(str(missing.relative_to(self.folder)))
        listed = "".join(f"{path.relative_to(self.folder)} {path.stat().st_size}\n" for path in paths)
        kept = self.folder / f"decoded-{hashlib.sha256(listed.encode()).hexdigest()[:12]}.npy"
        with suppress(OSError, ValueError):  # it does not exist, or is broken
            return torch.from_numpy(np.load(kept))
        images = np.stack([_decode(path) for path in paths])
        # By its permissions, which do not bind an administrator: who write-protects a folder wants it to stay as it is.
        if self.folder.stat().st_mode & 0o222:
            with suppress(OSError), atomic_write(kept) as temporary, open(temporary, "wb") as file:
                np.save(file, images)
        return torch.from_numpy(images)


def _decode(path: Path) -> np.ndarray:
    """(3, H, W) uint8; a gray image becomes RGB."""
    image = read_image(path)
    if image.size != (SIZE, SIZE):
        raise ValueError(
            f"{path} has {image.width} x {image.height} pixels: expected {SIZE} x {SIZE}; unpack {SOURCE} again"
        )
    return np.asarray(image).transpose(2, 0, 1)
