"""The user's own images: one folder for each class, read and augmented with albumentations in worker processes."""

from collections import Counter
from pathlib import Path
from typing import Any

import albumentations as A
import torch
from torch.utils.data import Dataset

from datamodules.base import SPLIT_SEED, TEST_SHARE, VAL_SHARE
from datamodules.duplicates import check_splits, originals
from datamodules.image import ImageData
from datamodules.images.image_files import AREA, ImageFiles, Samples, collate_images, look_at
from datamodules.io import IMAGE_SUFFIXES, find_file, user_files, user_folders, user_images
from datamodules.messages import report
from datamodules.passes import Drawn
from datamodules.splits import split_in, split_named, splits_of

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation
IMAGENET_GRAY = (0.459,), (0.225,)
MIN_SIZE, MAX_SIZE = 16, 96  # pixels, of a size taken from the images; larger ones take long to train on a CPU


def _counts(suffixes: Counter[str]) -> str:
    return ", ".join(f"{count} {suffix}" for suffix, count in sorted(suffixes.items()))


class ImageFolder(ImageData):
    """Images of your own, in one of two layouts.

    `folder/train/CLASS/*.jpg` with `folder/val/CLASS/*.jpg` and optionally `folder/test/CLASS/*.jpg` (without it, val
    serves as test too), also under the other names in use for these splits, see `datamodules.splits.splits_of`; or
    `folder/CLASS/*.jpg`, of which a fixed 15 % of each class become validation and 15 % test. There, copies of a file
    are always in the same split.

    Args:
        folder: as above; see `datamodules.io.find_file`.
        image_size: side of the square that the net sees, in pixels, to which images of other shapes are stretched; by
            default the median of the images' shorter sides, as a multiple of 8 from 16 to 96.
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
        ValueError: if there are fewer than two classes, a class without images, or splits with different classes or
            with images in common; or an argument is out of range.
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
        self.left_out: Counter[str] = Counter()  # suffixes of the files that are not read
        self.samples = self._scan()
        if self.left_out:
            report(f"{self.folder}: not read are {_counts(self.left_out)}; convert those that are images")
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
            f"and {image_size} x {image_size} pixels, to which other shapes are stretched"
        )

    def _scan(self) -> dict[str, Samples]:
        """Sets `classes`, and returns the samples of each split."""
        if not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file: expected a folder with one subfolder for each class")
        found = {} if self._are_classes() else splits_of(self.folder)
        if not found:
            self.classes = self._classes(self.folder)
            for name in self.classes:
                inner = [path.name for path in user_folders(self.folder / name) if split_named(path.name)]
                if {"train"} < {split_named(split) for split in inner}:
                    raise ValueError(
                        f"{self.folder / name} contains the splits {inner}: expected the classes within the "
                        "splits, as in train/CLASS and test/CLASS; move them"
                    )
            if named := [name for name in self.classes if split_in(name)]:
                report(f"{self.folder}: {named} are taken as classes, not as splits")
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

    def _are_classes(self) -> bool:
        """Whether folders named like splits, such as `train` among vehicles, hold images as more other folders do."""
        named = [path for path in user_folders(self.folder) if split_named(path.name)]
        if not named or any(user_folders(path) for path in named):
            return False
        others = [path for path in user_folders(self.folder) if path not in named and user_images(path)[0]]
        return len(others) > len(named)

    def _classes(self, folder: Path) -> tuple[str, ...]:
        classes = tuple(sorted(path.name for path in user_folders(folder)))
        if len(classes) < 2:
            images = len(user_files(folder, IMAGE_SUFFIXES, deep=False))
            remedy = "put the images of each class into its own subfolder"
            if images and folder == self.folder:
                remedy += ", or name the folder above if this one is a class"
            elif images:
                remedy += ", move them elsewhere, or rename the folder if it is a class and no split"
            beside = f" and {images} image(s)" * (images > 0)
            found = f"{len(classes)} class folder(s) {list(classes)}{beside}"
            raise ValueError(f"{folder} contains {found}: expected two or more; {remedy}")
        return classes

    def _files(self, folder: Path) -> Samples:
        samples = []
        for label, name in enumerate(self.classes):
            paths, others = user_images(folder / name)
            if not paths:
                found = f", only {_counts(others)}" * bool(others)
                raise ValueError(
                    f"{folder / name} contains no image{found}: expected files such as .jpg and .png; add some"
                )
            self.left_out += others
            samples += [(path, label) for path in paths]
        return samples

    def _divide(self, samples: Samples) -> dict[str, Samples]:
        splits: dict[str, Samples] = {"train": [], "val": [], "test": []}
        generator = torch.Generator().manual_seed(SPLIT_SEED)
        first_of, label_of = originals(path for path, _ in samples), dict(samples)
        if mislabeled := [path for path, first in first_of.items() if label_of[path] != label_of[first]]:
            path = mislabeled[0]
            report(f"of these in different classes: {len(mislabeled)}, such as {path} and {first_of[path]}")
        firsts = [(path, label) for path, label in samples if first_of[path] == path]
        val_share = self.val_size / len(firsts) if self.val_size else VAL_SHARE * self.validates
        for label, name in enumerate(self.classes):
            of_class = [sample for sample in firsts if sample[1] == label]
            if len(of_class) < 3:
                copies = ", not counting copies" * (len(firsts) < len(samples))
                raise ValueError(
                    f"class {name!r} has {len(of_class)} image(s){copies}: expected 3 or more to divide into train, "
                    "val and test; add some, or make the folders train/, val/ and test/ yourself"
                )
            shuffled = [of_class[i] for i in torch.randperm(len(of_class), generator=generator)]
            val, test = (max(int(share > 0), round(share * len(shuffled))) for share in (val_share, TEST_SHARE))
            if val + test >= len(shuffled):
                raise ValueError(
                    f"val_size is {self.val_size}: of the {len(shuffled)} images of class {name!r} that takes {val}, "
                    f"and {test} are for testing: expected some to be left for training; lower it"
                )
            splits["val"] += shuffled[:val]
            splits["test"] += shuffled[val : val + test]
            splits["train"] += shuffled[val + test :]
        split_of = {path: split for split, divided in splits.items() for path, _ in divided}
        for path, first in first_of.items():
            if path != first:
                splits[split_of[first]].append((path, label_of[path]))
        return splits

    def make_datasets(self) -> dict[str, Dataset]:
        _, height, width = self.image_shape
        augmented = self.transform or [
            A.RandomResizedCrop(size=(height, width), scale=(0.5, 1.0), **AREA),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02, p=0.8),
        ]
        resized = [A.Resize(height, width, **AREA)]
        enough = (2 * width, 2 * height) if self.transform is None else None  # a crop is at least 0.6 times as wide
        seed = self.resolved_seed()
        self.file_names = {
            split: [f"{path.parent.name}/{path.name}" for path, _ in samples] for split, samples in self.samples.items()
        }
        files = {
            split: ImageFiles(
                samples, A.Compose(augmented if split == "train" else resized), self.image_shape, seed, enough
            )
            for split, samples in self.samples.items()
        }
        files["train"].check()
        datasets: dict[str, Dataset] = dict(files)
        if self.epoch_images is not None:
            datasets["train"] = Drawn(files["train"], self.epoch_images, seed)
        return datasets

    def loader_options(self) -> dict[str, Any]:
        return {"collate": collate_images, "num_workers": self.num_workers, "pin_memory": torch.cuda.is_available()}
