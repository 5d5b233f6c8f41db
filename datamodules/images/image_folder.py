"""The user's own images: one folder for each class, read and augmented with albumentations in worker processes."""

from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

import albumentations as A
import torch
from torch.utils.data import Dataset

from datamodules.base import SPLIT_SEED, TEST_SHARE, VAL_SHARE
from datamodules.duplicates import check_splits, same_images
from datamodules.image import ImageData
from datamodules.images.image_files import ImageFiles, Samples, collate_images, look_at
from datamodules.io import IMAGE_SUFFIXES, find_file, is_users, user_files
from datamodules.messages import report
from datamodules.passes import Drawn
from datamodules.splits import splits_of

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation
IMAGENET_GRAY = (0.459,), (0.225,)
MIN_SIZE, MAX_SIZE = 16, 96  # pixels, of a size taken from the images; larger ones take long to train on a CPU


def keep_copies_together(splits: dict[str, Samples]) -> None:
    """Moves all copies of an image to the training images, where not all images of the class are copies of one.

    Without that, a net would be tested on images that it was trained on. One line says how many there are.
    """
    split_of = {path: split for split, samples in splits.items() for path, _ in samples}
    labels = {path: label for samples in splits.values() for path, label in samples}
    left = Counter((split, label) for split, samples in splits.items() for _, label in samples)
    groups, moved = same_images(labels), set()
    for group in groups:
        moving = [path for path in group if split_of[path] != "train"]
        gone = Counter((split_of[path], labels[path]) for path in moving)
        places = [(split, labels[path]) for path in moving for split in ("val", "test")]
        if all(left[place] > gone[place] for place in places):  # else nothing would be left to test on
            left -= gone
            moved.update(moving)
            splits["train"] += [(path, labels[path]) for path in sorted(moving)]
    for split in ("val", "test"):
        splits[split] = [sample for sample in splits[split] if sample[0] not in moved]
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
        image_size: side of the square that the net sees, in pixels; by default the median of the images' shorter
            sides, as a multiple of 8 from 16 to 96.
        channels: 1 or 3; by default 1 if all images are gray. Others are converted.
        batch_size, eval_batch_size: per device.
        val_size: images for validation, in the same share of each class; by default 15 %. 0 validates on none. It is
            not needed where validation has its own folder.
        epoch_images: images of an epoch, which then is a part of a pass over the images or several passes: the length
            of a training does not depend on how many there are. None for one pass.
        transform: albumentations transforms for training, in order; they must end at `image_size` squared. By default
            a random resized crop, a horizontal flip and a slight change of color, of images that need not be decoded in
            their full size.
        mean, std: per channel, of pixels in 0..1; by default ImageNet's.
        num_workers: processes that read files.
        options: see `ImageData`; `augment` is applied after `transform`, to batches on the device.

    Raises:
        FileNotFoundError: if the folder does not exist.
        ValueError: if there are fewer than two classes, a class without images, or splits with different classes; or an
            argument is out of range.
    """

    def __init__(
        self,
        folder: str,
        image_size: int | None = None,
        channels: int | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 64,
        val_size: int | None = None,
        epoch_images: int | None = None,
        transform: list[A.BasicTransform] | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        num_workers: int = 2,
        **options: Any,
    ) -> None:
        for name, value in (("image_size", image_size), ("epoch_images", epoch_images)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: expected 1 or more")
        if channels not in (None, 1, 3):
            raise ValueError(f"channels is {channels}: expected 1 for gray or 3 for RGB")
        self.validates, val_size = val_size != 0, val_size or 0
        super().__init__(val_size=val_size, batch_size=batch_size, eval_batch_size=eval_batch_size, **options)
        self.folder = find_file(folder, "a folder with one subfolder for each class", self.data_dir)
        self.num_workers, self.epoch_images = num_workers, epoch_images
        self.samples = self._scan()
        if image_size is None or channels is None:
            look = look_at([path for path, _ in self.samples["train"]])
            image_size = image_size or min(max(8 * round(look.size / 8), MIN_SIZE), MAX_SIZE)
            channels = channels or look.channels
        self.image_shape = (channels, image_size, image_size)
        default = IMAGENET if self.in_channels == 3 else IMAGENET_GRAY
        self.mean, self.std = (tuple(given or other) for given, other in zip((mean, std), default, strict=True))
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) != self.in_channels:
                raise ValueError(
                    f"{name} is {list(numbers)}, but the images have {self.in_channels} channel(s): expected as many "
                    "numbers; give them, or set channels"
                )
        self.transform = transform
        counts = ", ".join(f"{len(samples)} {split}" for split, samples in self.samples.items())
        names = ", ".join(self.classes[:5]) + ", ..." * (len(self.classes) > 5)
        color = "gray" if channels == 1 else "RGB"
        report(
            f"{self.folder}: images of {len(self.classes)} classes ({names}): {counts}; seen in {color} "
            f"and {image_size} x {image_size} pixels"
        )

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
        val_share = self.val_size / len(samples) if self.val_size else VAL_SHARE * self.validates
        for label, same in groupby(samples, key=lambda sample: sample[1]):
            of_class = list(same)
            if len(of_class) < 3:
                raise ValueError(
                    f"class {self.classes[label]!r} has {len(of_class)} image(s): expected 3 or more to divide into "
                    "train, val and test; add some, or make the folders train/, val/ and test/ yourself"
                )
            shuffled = [of_class[i] for i in torch.randperm(len(of_class), generator=generator)]
            val, test = (max(int(share > 0), round(share * len(shuffled))) for share in (val_share, TEST_SHARE))
            if val + test >= len(shuffled):
                raise ValueError(
                    f"val_size is {self.val_size}: of the {len(shuffled)} images of class {self.classes[label]!r} that "
                    f"takes {val}, and {test} are for testing: expected some to be left for training; lower it"
                )
            splits["val"] += shuffled[:val]
            splits["test"] += shuffled[val : val + test]
            splits["train"] += shuffled[val + test :]
        keep_copies_together(splits)
        return splits

    def make_datasets(self) -> dict[str, Dataset]:
        channels, height, width = self.image_shape
        size, area = (height, width), {"area_for_downscale": "image"}  # else pixels between those used would be lost
        augmented = self.transform or [
            A.RandomResizedCrop(size=size, scale=(0.5, 1.0), **area),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02, p=0.8),
        ]
        resized = [A.Resize(height, width, **area)]
        enough = (2 * width, 2 * height) if self.transform is None else None  # a crop is at least 0.6 times as wide
        seed = self.resolved_seed()
        files = {
            split: ImageFiles(
                samples, A.Compose(augmented if split == "train" else resized), seed, channels=channels, at_least=enough
            )
            for split, samples in self.samples.items()
        }
        files["train"].check(self.image_shape)
        datasets: dict[str, Dataset] = dict(files)
        if self.epoch_images is not None:
            datasets["train"] = Drawn(files["train"], self.epoch_images, seed)
        return datasets

    def loader_options(self) -> dict[str, Any]:
        return {"collate": collate_images, "num_workers": self.num_workers, "pin_memory": torch.cuda.is_available()}
