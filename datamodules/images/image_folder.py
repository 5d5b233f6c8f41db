"""The user's own pictures: one folder a class, read and augmented with albumentations in worker processes."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from datamodules.base import TEST_SHARE, VAL_SHARE
from datamodules.io import IMAGE_SUFFIXES, read_image

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for news at import
import albumentations as A

from datamodules.batches import Labelled
from datamodules.image import ImageData


class ImageFiles(Dataset):
    """Image files with their labels, through an albumentations pipeline.

    The pipeline is seeded anew for every sample from (seed, epoch, index): no two samples, epochs or
    ranks share draws, and the result depends neither on the number of workers nor on where a run resumed.

    Args:
        paths, labels: of the samples.
        transform: albumentations pipeline, uint8 (H, W, C) in and out.
        seed: of the augmentation.
    """

    def __init__(self, paths: list[Path], labels: list[int], transform: A.Compose, seed: int = 0) -> None:
        self.paths, self.labels, self.transform, self.seed, self.epoch = paths, labels, transform, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Labelled:
        key = np.random.SeedSequence((self.seed, self.epoch, int(index)))
        self.transform.set_random_seed(int(key.generate_state(1)[0]))
        pixels = self.transform(image=np.asarray(read_image(self.paths[index])))["image"]
        return Labelled(torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1), self.labels[index])


def collate_images(samples: list[Labelled]) -> Labelled:
    """Samples -> a batch."""
    images, labels = zip(*samples, strict=True)
    return Labelled(torch.stack(images), torch.tensor(labels))


class ImageFolder(ImageData):
    """Images of your own, in one of two layouts.

    `folder/train/CLASS/*.jpg` with `folder/val/CLASS/*.jpg` and, if there is one, `folder/test/CLASS/*.jpg`
    (without it, val serves as test too); or `folder/CLASS/*.jpg`, of which 15 % become validation and
    15 % test, class by class and always the same ones.

    Args:
        folder: as above.
        image_size: side of the square that the net sees, in pixels.
        batch_size, eval_batch_size: per device.
        transform: albumentations transforms for training, in order; they must end at `image_size` squared.
            By default a random resized crop, a horizontal flip and a slight change of colour.
        augment: batched augmentation on the device, after it.
        mean, std: per channel, of pixels in 0..1; by default ImageNet's.
        num_workers: processes that read files.
        watch_test, seed: as in `ImageData`.

    Raises:
        FileNotFoundError: if the folder is not there.
        ValueError: if there are fewer than two classes, a class with no picture, or splits with other classes.
    """

    def __init__(
        self,
        folder: str,
        image_size: int = 64,
        batch_size: int = 64,
        eval_batch_size: int = 64,
        transform: list[A.BasicTransform] | None = None,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        num_workers: int = 2,
        **options: Any,
    ) -> None:
        sizes = {"batch_size": batch_size, "eval_batch_size": eval_batch_size}
        super().__init__(val_size=0, mean=mean, std=std, **sizes, **options)
        self.folder, self.num_workers = Path(folder), num_workers
        self.image_shape = (3, image_size, image_size)
        self.transform = transform or [
            A.RandomResizedCrop(size=(image_size, image_size), scale=(0.5, 1.0)),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02, p=0.8),
        ]
        self.samples = self._scan()

    def _scan(self) -> dict[str, list[tuple[Path, int]]]:
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder} is not there: expected a folder with one subfolder a class")
        found = {split: self.folder / split for split in ("train", "val", "test") if (self.folder / split).is_dir()}
        if "train" not in found:
            self.classes = self._classes(self.folder)
            return self._divide(self._files(self.folder))
        self.classes = self._classes(found["train"])
        for folder in found.values():
            if other := set(self._classes(folder)) ^ set(self.classes):
                raise ValueError(
                    f"{folder} and {found['train']} differ in the class {min(other)!r}: "
                    "expected the same subfolders in each split; add or remove it"
                )
        samples = {split: self._files(folder) for split, folder in found.items()}
        if len(samples) == 1:
            return self._divide(samples["train"])
        samples.setdefault("test", samples.get("val", []))
        return samples

    def _classes(self, folder: Path) -> tuple[str, ...]:
        classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."))
        if len(classes) < 2:
            raise ValueError(
                f"{folder} holds {len(classes)} class folder(s) {list(classes)}: expected two or more; "
                "put the pictures of each class into a subfolder of its own"
            )
        return classes

    def _files(self, folder: Path) -> list[tuple[Path, int]]:
        samples = []
        for label, name in enumerate(self.classes):
            paths = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
            if not paths:
                raise ValueError(
                    f"{folder / name} holds no picture: expected files like {sorted(IMAGE_SUFFIXES)[:4]}; add some"
                )
            samples += [(path, label) for path in paths]
        return samples

    def _divide(self, samples: list[tuple[Path, int]]) -> dict[str, list[tuple[Path, int]]]:
        splits = {"train": [], "val": [], "test": []}
        order = torch.Generator().manual_seed(0)
        for label, name in enumerate(self.classes):
            of_class = [sample for sample in samples if sample[1] == label]
            if len(of_class) < 3:
                raise ValueError(
                    f"class {name!r} has {len(of_class)} picture(s): expected 3 or more to divide into train, "
                    "val and test; add some, or make the folders train/, val/ and test/ yourself"
                )
            mixed = [of_class[i] for i in torch.randperm(len(of_class), generator=order)]
            val, test = (max(1, round(share * len(mixed))) for share in (VAL_SHARE, TEST_SHARE))
            splits["val"] += mixed[:val]
            splits["test"] += mixed[val : val + test]
            splits["train"] += mixed[val + test :]
        return splits

    def make_datasets(self) -> dict[str, Dataset]:
        _, height, width = self.image_shape
        plain = A.Compose([A.Resize(height, width)])
        pipelines = {"train": A.Compose(self.transform)}
        seed = self.resolved_seed()
        return {
            name: ImageFiles(*map(list, zip(*samples, strict=True)), pipelines.get(name, plain), seed)
            for name, samples in self.samples.items()
        }

    def loader_options(self) -> dict:
        return {"collate": collate_images, "num_workers": self.num_workers, "pin_memory": torch.cuda.is_available()}
