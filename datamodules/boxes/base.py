"""Images with boxes: the data sets and datamodules that detection shares, whatever format the boxes are stored in.

H, W height and width of the images that the net sees.
"""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.base import TEST_SHARE, hold_out
from datamodules.batches import Boxed
from datamodules.boxes.annotations import Annotation
from datamodules.duplicates import check_splits, same_images
from datamodules.image import ImageData
from datamodules.io import find_file, read_image
from datamodules.messages import report


class BoxedSample(NamedTuple):
    """One image and its n boxes, before they are collated into `Boxed`.

    image: (C, H, W) uint8.
    boxes: (n, 4) float32, xyxy in pixels.
    labels: (n,) int64.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor


class BoxedInMemory(Dataset):
    """A data set of images with boxes, held in memory; a batch is one indexing operation.

    Args:
        images: (N, C, H, W) uint8.
        boxes: for each image (n, 4) float32, xyxy in pixels.
        labels: for each image (n,) int64.
    """

    def __init__(self, images: Tensor, boxes: list[Tensor], labels: list[Tensor]) -> None:
        self.images, self.boxes, self.labels = images, boxes, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Tensor) -> Boxed:
        boxes, labels = ([rows[int(i)] for i in indices] for rows in (self.boxes, self.labels))
        return Boxed(self.images[torch.as_tensor(indices)], boxes, labels)

    def __getitem__(self, index: int) -> BoxedSample:
        return BoxedSample(self.images[index], self.boxes[index], self.labels[index])


def collate_boxes(samples: list[BoxedSample]) -> Boxed:
    """Samples -> a batch."""
    images, boxes, labels = zip(*samples, strict=True)
    return Boxed(torch.stack(images), list(boxes), list(labels))


TURNED = {True: "when turned as its EXIF tag says", False: "as it is stored"}


class BoxedFiles(Dataset):
    """Image files with their boxes, scaled to one size.

    Args:
        annotations: of the images.
        classes: names in the order of the labels.
        image_size: (H, W) to which image and boxes are scaled, whatever the aspect ratio of the image.
        upright: turn images as their EXIF tags say; False if the boxes were drawn on them as they are stored.
    """

    def __init__(
        self,
        annotations: list[Annotation],
        classes: tuple[str, ...],
        image_size: tuple[int, int],
        upright: bool = True,
    ) -> None:
        self.annotations, self.classes, self.image_size, self.upright = annotations, classes, image_size, upright

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> BoxedSample:
        """Raises ValueError if the image has another size than its annotation states."""
        annotation, (H, W) = self.annotations[index], self.image_size
        image = read_image(annotation.path, upright=self.upright)
        annotated = annotation.width, annotation.height
        if image.size != annotated and read_image(annotation.path, upright=not self.upright).size == annotated:
            raise ValueError(
                f"{annotation.path} has {image.width} x {image.height} pixels {TURNED[self.upright]}, but its boxes "
                f"were drawn on {annotation.width} x {annotation.height}, {TURNED[not self.upright]}: expected boxes "
                f"for the former; set upright to {str(not self.upright).lower()}"
            )
        if image.size != annotated:
            raise ValueError(
                f"{annotation.path} has {image.width} x {image.height} pixels, but its boxes were drawn on "
                f"{annotation.width} x {annotation.height}: expected the image that was annotated; replace it"
            )
        pixels = np.array(image.resize((W, H), Image.Resampling.BILINEAR))
        boxes = torch.as_tensor(annotation.boxes) * torch.tensor([W / annotation.width, H / annotation.height] * 2)
        labels = torch.tensor([self.classes.index(name) for name in annotation.names], dtype=torch.int64)
        return BoxedSample(torch.from_numpy(pixels).permute(2, 0, 1), boxes, labels)

    def in_memory(self) -> BoxedInMemory:
        """The same data set with all files read."""
        return BoxedInMemory(*collate_boxes([self[i] for i in range(len(self))]))


class BoxedData(ImageData):
    """Base class of the datamodules for detection: batches are `Boxed`.

    A subclass defines `make_datasets`, and sets `classes` in `__init__`. The arguments are those of `ImageData`;
    `augment` takes the classes of `datamodules.augment.boxes`, which move the boxes with the pixels, and those of
    `datamodules.augment.images` that move no pixel.

    Attributes:
        in_memory: whether the data sets return complete batches; otherwise they return samples, read by `num_workers`
            processes.
    """

    in_memory = True
    num_workers = 0

    def loader_options(self) -> dict[str, Any]:
        if self.in_memory:
            return super().loader_options()
        return {"collate": collate_boxes, "num_workers": self.num_workers, "pin_memory": torch.cuda.is_available()}


class AnnotatedData(BoxedData):
    """Base class of the datamodules that read images and annotations from files. A subclass defines `annotations`.

    Args:
        image_size: (H, W) that the net sees; images with another aspect ratio are stretched.
        classes: names in the order of the labels; default those that occur, in alphabetical order.
        val_size: images taken out of train for validation; 0 trains on all and validates on none.
        upright: turn images as their EXIF tags say, as most annotation tools do.
        in_memory: decode all images once and keep them as uint8; otherwise they are read in each epoch.
        mean, std: per channel, of pixels in 0..1; by default ImageNet's.
        num_workers: processes that read files, if they are not kept in memory.
        options: see `ImageData`.

    Raises:
        FileNotFoundError: if an image or annotation does not exist.
        ValueError: if an annotation cannot be read or has a class that is not among `classes`, if there is no box, or
            if an image is both in training and in test.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (416, 416),
        classes: list[str] | None = None,
        val_size: int = 0,
        upright: bool = True,
        in_memory: bool = True,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        num_workers: int = 2,
        batch_size: int = 16,
        eval_batch_size: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(
            val_size=val_size, mean=mean, std=std, batch_size=batch_size, eval_batch_size=eval_batch_size, **options
        )
        self.in_memory, self.num_workers, self.upright = in_memory, num_workers, upright
        self.image_shape = (3, *image_size)
        self.found = self.annotations()
        everything = [annotation for annotations in self.found.values() for annotation in annotations]
        self.classes = tuple(classes or sorted({name for annotation in everything for name in annotation.names}))
        if not self.classes:
            raise ValueError(
                f"the {len(everything)} annotations of {type(self).__name__} contain no box: expected at least one; "
                "annotate some images"
            )
        for annotation in everything:
            if unknown := set(annotation.names) - set(self.classes):
                raise ValueError(
                    f"{annotation.path.name} has a box of class {min(unknown)!r}: expected one of "
                    f"{list(self.classes)}; correct the annotation, or add the class to `classes`"
                )
            if not annotation.path.is_file():
                raise FileNotFoundError(
                    f"{annotation.path} is annotated but does not exist: expected the image; add it or remove its boxes"
                )

        self._check_images()

    def _check_images(self) -> None:
        """Each image has one annotation, and is in one split; of the same image under two names one is left out."""
        for annotations in self.found.values():
            of_path: dict[Path, Annotation] = {}
            for annotation in annotations:
                if of_path.setdefault(annotation.path, annotation) is not annotation:
                    raise ValueError(
                        f"{annotation.path} is annotated twice: expected one annotation for each image; join the "
                        "boxes, or correct the name"
                    )
        if "test" in self.found:
            check_splits({split: [a.path for a in annotations] for split, annotations in self.found.items()})
            return
        groups = same_images(annotation.path for annotation in self.found["train"])
        if groups and 4 * sum(map(len, groups)) < len(self.found["train"]):
            copies = {path for group in groups for path in group[1:]}
            report(f"{len(copies)} images are left out as copies of others, such as {groups[0][1]} of {groups[0][0]}")
            self.found["train"] = [annotation for annotation in self.found["train"] if annotation.path not in copies]
        elif groups:
            first, other = groups[0][:2]
            report(f"many images are copies of others, such as {other} of {first}, also in the test set")

    @abstractmethod
    def annotations(self) -> dict[str, list[Annotation]]:
        """The annotations of "train" and "test", or only of "train" if there is no test set."""

    def read_files(
        self, files: dict[str, tuple[str | None, str | None]], kind: str, read: Callable[..., list[Annotation]]
    ) -> dict[str, list[Annotation]]:
        """Reads each split's annotation file with `read(file, images=folder)`; both are found as by `find_file`.

        Args:
            files: by split, the annotation file and the folder of its images; None for those that are not given.
            kind: what an annotation file is, for the error that says that it does not exist.
        """
        return {
            split: read(
                find_file(file, kind, self.data_dir),
                images=find_file(images, "a folder of images", self.data_dir) if images else None,
            )
            for split, (file, images) in files.items()
            if file
        }

    def make_datasets(self) -> dict[str, Dataset]:
        found = dict(self.found)
        if "test" not in found:  # then a fixed part of the images is set aside
            found["train"], found["test"] = _divide(found["train"], max(1, round(TEST_SHARE * len(found["train"]))))
        found["train"], found["val"] = _divide(found["train"], self.val_size)
        datasets: dict[str, Dataset] = {}
        for split, annotations in found.items():
            if annotations:
                files = BoxedFiles(annotations, self.classes, self.image_shape[1:], self.upright)
                datasets[split] = files.in_memory() if self.in_memory else files
        return datasets


def _divide(annotations: list[Annotation], count: int) -> tuple[list[Annotation], list[Annotation]]:
    """Training annotations, and `count` that are held out."""
    train, held_out = hold_out(len(annotations), count)
    return [annotations[i] for i in train], [annotations[i] for i in held_out]
