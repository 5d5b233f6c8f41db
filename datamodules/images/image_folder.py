"""The user's own images: one folder for each class, read and augmented with albumentations in worker processes."""

import re
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import torch
from torch.utils.data import Dataset

from datamodules.base import SPLIT_SEED, TEST_SHARE, VAL_SHARE
from datamodules.batches import Labelled
from datamodules.duplicates import check_splits, same_images
from datamodules.image import ImageData
from datamodules.io import IMAGE_SUFFIXES, find_file, is_users, read_image, user_files
from datamodules.messages import report

SPLIT_NAMES = {  # in lower case, without what separates words, and without "set", "images" or "data" at the end
    "train": ("train", "training", "trn", "tr"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
Samples = list[tuple[Path, int]]  # image files with their labels


class ImageFiles(Dataset):
    """Image files with their labels, passed through an albumentations pipeline.

    The pipeline is seeded for every sample from (seed, epoch, index): samples, epochs and ranks draw independently,
    and the result depends neither on the number of workers nor on where a run resumed.

    Args:
        samples: paths and labels.
        transform: albumentations pipeline, uint8 (H, W, C) in and out.
        seed: of the augmentation.
    """

    def __init__(self, samples: Samples, transform: A.Compose, seed: int = 0) -> None:
        self.paths, self.labels = [path for path, _ in samples], [label for _, label in samples]
        self.transform, self.seed, self.epoch = transform, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.paths)

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Tries the pipeline on the first image.

        Raises:
            ValueError: unless it gives uint8 (H, W, C) of the given size: what is normalized here would be normalized
                again.
        """
        found = self.transformed(0) if self.paths else None
        shape = (*image_shape[1:], image_shape[0])
        if found is None or (isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.shape == shape):
            return
        last = type(self.transform.transforms[-1]).__name__
        kind = f"{found.dtype} {tuple(found.shape)}" if hasattr(found, "dtype") else type(found).__name__
        raise ValueError(
            f"the transform, which ends in {last}, gives {kind}: expected uint8 {shape}; leave out Normalize, ToFloat "
            "and ToTensorV2, since batches are normalized later, and end at the size of the images"
        )

    def transformed(self, index: int) -> Any:
        """What the pipeline makes of an image."""
        key = np.random.SeedSequence((self.seed, self.epoch, int(index)))
        self.transform.set_random_seed(int(key.generate_state(1)[0]))
        return self.transform(image=np.asarray(read_image(self.paths[index])))["image"]

    def __getitem__(self, index: int) -> Labelled:
        pixels = self.transformed(index)
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        return Labelled(image, torch.tensor(self.labels[index]))


def collate_images(samples: list[Labelled]) -> Labelled:
    """Samples -> a batch."""
    return Labelled(*map(torch.stack, zip(*samples, strict=True)))


def splits_of(folder: Path) -> dict[str, Path]:
    """The subfolders that are splits, "train", "val" and "test", under the names that are in use for them.

    Raises:
        ValueError: if two subfolders have names of one split, or there are splits and none of them is for training.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = re.sub(r"[\W_]|set$|images$|data$", "", path.name.lower())
        split = next((split for split, names in SPLIT_NAMES.items() if name in names), None)
        if split is None or not path.is_dir() or not is_users(path.name):
            continue
        if split in found:
            raise ValueError(
                f"{folder} contains {found[split].name} and {path.name}, which both are names for {split}: expected "
                "one; remove the other, or join them"
            )
        found[split] = path
    if len(found) > 1 and "train" not in found:
        names = [path.name for path in found.values()]
        raise ValueError(f"{folder} contains the splits {names} and none for training: expected train; add it")
    return found if "train" in found else {}  # a single folder called "test" may be a class


def keep_copies_together(splits: dict[str, Samples]) -> None:
    """Moves all copies of an image to the training images, where not all images of the class are copies of one.

    Without that, a net would be tested on images that it was trained on. One line says how many there are.
    """
    split_of = {path: split for split, samples in splits.items() for path, _ in samples}
    labels = {path: label for samples in splits.values() for path, label in samples}
    groups = same_images(labels)
    for group in groups:
        moving = {path for path in group if split_of[path] != "train"}
        rest = {split: [one for one in splits[split] if one[0] not in moving] for split in ("val", "test")}
        left = [{label for _, label in samples} for samples in rest.values()]
        if all(labels[path] in some for path in moving for some in left):  # else nothing would be left to test on
            splits["train"] += [(path, labels[path]) for path in sorted(moving)]
            splits |= rest
    if groups:
        first, other = groups[0][:2]
        classes = "" if labels[first] == labels[other] else ", in different classes"
        report(f"{len(groups)} images occur more than once, such as {first} and {other}{classes}")


class ImageFolder(ImageData):
    """Images of your own, in one of two layouts.

    `folder/train/CLASS/*.jpg` with `folder/val/CLASS/*.jpg` and optionally `folder/test/CLASS/*.jpg` (without it, val
    serves as test too), also under the other names in use for these splits, such as `training` and `valid`; or
    `folder/CLASS/*.jpg`, of which a fixed 15 % of each class become validation and 15 % test.

    Args:
        folder: as above; see `datamodules.io.find_file`.
        image_size: side of the square that the net sees, in pixels.
        batch_size, eval_batch_size: per device.
        transform: albumentations transforms for training, in order; they must end at `image_size` squared. By default
            a random resized crop, a horizontal flip and a slight change of color.
        mean, std: per channel, of pixels in 0..1; by default ImageNet's.
        num_workers: processes that read files.
        options: see `ImageData`; `augment` is applied after `transform`, to batches on the device.

    Raises:
        FileNotFoundError: if the folder does not exist.
        ValueError: if there are fewer than two classes, a class without images, or splits with different classes.
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
        super().__init__(
            val_size=0, mean=mean, std=std, batch_size=batch_size, eval_batch_size=eval_batch_size, **options
        )
        self.folder = find_file(folder, "a folder with one subfolder for each class", self.data_dir)
        self.num_workers = num_workers
        self.image_shape = (3, image_size, image_size)
        self.transform = transform or [
            A.RandomResizedCrop(size=(image_size, image_size), scale=(0.5, 1.0)),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02, p=0.8),
        ]
        self.samples = self._scan()

    def _scan(self) -> dict[str, Samples]:
        """Sets `classes`, and returns the samples of each split."""
        if not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file: expected a folder with one subfolder for each class")
        found = splits_of(self.folder)
        if not found:
            self.classes = self._classes(self.folder)
            return self._divide(self._files(self.folder))
        self.classes = self._classes(found["train"])
        for folder in found.values():
            if other := set(self._classes(folder)) ^ set(self.classes):
                raise ValueError(
                    f"{folder} and {found['train']} differ in the class {min(other)!r}: "
                    "expected the same subfolders in each split; add it or remove it"
                )
        samples = {split: self._files(folder) for split, folder in found.items()}
        if len(samples) == 1:
            return self._divide(samples["train"])
        check_splits({split: [path for path, _ in pairs] for split, pairs in samples.items()})
        samples.setdefault("test", samples.get("val", []))
        return samples

    def _classes(self, folder: Path) -> tuple[str, ...]:
        classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and is_users(path.name)))
        if len(classes) < 2:
            raise ValueError(
                f"{folder} contains {len(classes)} class folder(s) {list(classes)}: expected two or more; "
                "put the images of each class into its own subfolder"
            )
        return classes

    def _files(self, folder: Path) -> Samples:
        samples = []
        for label, name in enumerate(self.classes):
            paths = user_files(folder / name, IMAGE_SUFFIXES)
            if not paths:
                raise ValueError(
                    f"{folder / name} contains no image: expected files like {sorted(IMAGE_SUFFIXES)[:4]}; add some"
                )
            samples += [(path, label) for path in paths]
        return samples

    def _divide(self, samples: Samples) -> dict[str, Samples]:
        splits: dict[str, Samples] = {"train": [], "val": [], "test": []}
        generator = torch.Generator().manual_seed(SPLIT_SEED)
        for label, name in enumerate(self.classes):
            of_class = [sample for sample in samples if sample[1] == label]
            if len(of_class) < 3:
                raise ValueError(
                    f"class {name!r} has {len(of_class)} image(s): expected 3 or more to divide into train, "
                    "val and test; add some, or make the folders train/, val/ and test/ yourself"
                )
            shuffled = [of_class[i] for i in torch.randperm(len(of_class), generator=generator)]
            val, test = (max(1, round(share * len(shuffled))) for share in (VAL_SHARE, TEST_SHARE))
            splits["val"] += shuffled[:val]
            splits["test"] += shuffled[val : val + test]
            splits["train"] += shuffled[val + test :]
        keep_copies_together(splits)
        return splits

    def make_datasets(self) -> dict[str, Dataset]:
        _, height, width = self.image_shape
        augmented, resized = A.Compose(self.transform), A.Compose([A.Resize(height, width)])
        seed = self.resolved_seed()
        datasets = {
            split: ImageFiles(samples, augmented if split == "train" else resized, seed)
            for split, samples in self.samples.items()
        }
        datasets["train"].check(self.image_shape)
        return dict(datasets)

    def loader_options(self) -> dict[str, Any]:
        return {"collate": collate_images, "num_workers": self.num_workers, "pin_memory": torch.cuda.is_available()}
