"""The base of the datamodules that read images and annotations from files. H, W height and width that the net sees."""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from datamodules.base import TEST_SHARE, VAL_SHARE, hold_out
from datamodules.boxes.annotations import Annotation
from datamodules.boxes.base import BoxedData, BoxedFiles
from datamodules.duplicates import check_splits, same_images
from datamodules.io import find_file
from datamodules.messages import report
from datamodules.passes import Drawn, DrawnBatches

STRIDE, MAX_AREA = 32, 320 * 256  # pixels, of a size taken from the images; larger ones take long to train on a CPU
IN_MEMORY = 2**30  # bytes


class AnnotatedData(BoxedData):
    """Base class of the datamodules that read images and annotations from files. A subclass defines `annotations`.

    Args:
        image_size: (H, W) that the net sees; images with another aspect ratio are stretched. None for multiples of 32
            of about the shape of the images, with at most about `MAX_AREA` pixels.
        classes: names in the order of the labels; default those that occur, in alphabetical order.
        val_size: images taken out of train for validation, if it does not come apart; 0 trains on all and validates on
            none, None takes 15 %.
        upright: turn images as their EXIF tags say, as most annotation tools do.
        in_memory: decode all images once and keep them as uint8; otherwise they are read in each epoch. None keeps them
            if they take no more than `IN_MEMORY` bytes.
        epoch_images: images of an epoch, which then is a part of a pass over the images or several passes: the length
            of a training does not depend on how many there are. None for one pass.
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
        image_size: tuple[int, int] | None = (416, 416),
        classes: list[str] | None = None,
        val_size: int | None = 0,
        upright: bool = True,
        in_memory: bool | None = True,
        epoch_images: int | None = None,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        num_workers: int = 2,
        batch_size: int = 16,
        eval_batch_size: int = 32,
        **options: Any,
    ) -> None:
        self.val_share, val_size = (VAL_SHARE if val_size is None else None), val_size or 0
        super().__init__(
            val_size=val_size, mean=mean, std=std, batch_size=batch_size, eval_batch_size=eval_batch_size, **options
        )
        if epoch_images is not None and epoch_images < 1:
            raise ValueError(f"epoch_images is {epoch_images}: expected 1 or more")
        self.num_workers, self.upright, self.epoch_images = num_workers, upright, epoch_images
        self.found = self.annotations()
        everything = [annotation for annotations in self.found.values() for annotation in annotations]
        self.image_shape = (3, *(image_size or size_for(everything)))
        needed = len(everything) * int(np.prod(self.image_shape))
        self.in_memory = needed <= IN_MEMORY if in_memory is None else in_memory
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
                    f"{annotation.path} is annotated but does not exist: expected the image; add it, remove its boxes, "
                    "or give the folder of the images"
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
        if len(self.found) > 1:
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
        """The annotations of "train", and those of "val" and "test" if they come apart."""

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
        if "val" in found:
            found.setdefault("test", found["val"])
        if "test" not in found:  # then a fixed part of the images is set aside
            found["train"], found["test"] = _divide(found["train"], max(1, round(TEST_SHARE * len(found["train"]))))
        if "val" not in found:
            val_size = max(1, round(self.val_share * len(found["train"]))) if self.val_share else self.val_size
            found["train"], found["val"] = _divide(found["train"], val_size)
        datasets: dict[str, Dataset] = {}
        for split, annotations in found.items():
            if annotations:
                files = BoxedFiles(annotations, self.classes, self.image_shape[1:], self.upright)
                datasets[split] = files.in_memory() if self.in_memory else files
        if self.epoch_images is not None and "train" in datasets:
            drawn = DrawnBatches if self.in_memory else Drawn
            datasets["train"] = drawn(datasets["train"], self.epoch_images, self.resolved_seed())
        return datasets


def size_for(annotations: list[Annotation]) -> tuple[int, int]:
    """(H, W) for images like the annotated ones: about their shape, not larger than they or `MAX_AREA`.

    Both are multiples of `STRIDE`.
    """
    width, height = np.median([(a.width, a.height) for a in annotations] or [(STRIDE, STRIDE)], axis=0)
    scale = min(1.0, (MAX_AREA / (width * height)) ** 0.5)
    rows, columns = (max(2, round(side * scale / STRIDE)) for side in (height, width))
    return STRIDE * rows, STRIDE * columns


def _divide(annotations: list[Annotation], count: int) -> tuple[list[Annotation], list[Annotation]]:
    """Training annotations, and `count` that are held out."""
    train, held_out = hold_out(len(annotations), count)
    return [annotations[i] for i in train], [annotations[i] for i in held_out]
