"""The base of the datamodules that read images and annotations from files. H, W height and width that the net sees."""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from datamodules.base import TEST_SHARE, VAL_SHARE, hold_out
from datamodules.boxes.annotations import Annotation
from datamodules.boxes.base import BoxedData, BoxedFiles, check_size
from datamodules.boxes.image_search import GIVE_IMAGES
from datamodules.duplicates import check_splits, originals
from datamodules.io import IMAGE_SUFFIXES, find_file, image_header, user_files
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
            if an image is both in training and in test, or has another size than its annotation states.
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
        self._check_images(everything)
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

    def _check_images(self, everything: list[Annotation]) -> None:
        """Each image exists, has one annotation, of its size, and is in one split."""
        for annotation in everything:
            if not annotation.path.is_file():
                raise FileNotFoundError(
                    f"{annotation.path} is annotated but does not exist: expected the image; add it, remove its boxes, "
                    f"or {GIVE_IMAGES}"
                )
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
        turned = []
        for annotation in everything:
            (width, height), orientation = image_header(annotation.path)
            is_turned = self.upright and orientation >= 5
            check_size(annotation, (height, width) if is_turned else (width, height), self.upright)
            turned += [annotation.path] * (self.upright and orientation > 1)
        if turned:
            report(
                f"images turned as their EXIF tags say: {len(turned)}, such as {turned[0]}; their boxes are taken as "
                "drawn on the turned images; if they were drawn on the images as stored, set upright to false"
            )
        used = {annotation.path for annotation in everything}
        folders = sorted({path.parent for path in used})
        images = [path for folder in folders for path in user_files(folder, IMAGE_SUFFIXES, deep=False)]
        if unused := [path for path in images if path not in used]:
            report(
                f"images without an annotation, or in none of the lists: {len(unused)} of {len(images)}, such as "
                f"{unused[0]}; they are not used"
            )

    @abstractmethod
    def annotations(self) -> dict[str, list[Annotation]]:
        """The annotations of "train", and those of "val" and "test" if they come apart."""

    def read_files(
        self, files: dict[str, tuple[str | None, str | None]], kind: str, read: Callable[..., list[Annotation]]
    ) -> dict[str, list[Annotation]]:
        """Reads each split's file with `read(file, images=folder, upright=...)`; both are found as by `find_file`.

        Args:
            files: by split, the annotation file and the folder of its images; None for those that are not given.
            kind: what an annotation file is, for the error that says that it does not exist.
        """
        return {
            split: read(
                find_file(file, kind, self.data_dir),
                images=find_file(images, "a folder of images", self.data_dir) if images else None,
                upright=self.upright,
            )
            for split, (file, images) in files.items()
            if file
        }

    def make_datasets(self) -> dict[str, Dataset]:
        found = dict(self.found)
        if "val" in found:
            found.setdefault("test", found["val"])
        parts = {"test": (TEST_SHARE, 0), "val": (self.val_share, self.val_size)}
        if missing := [split for split, sizes in parts.items() if split not in found and any(sizes)]:
            first_of = originals(annotation.path for annotation in found["train"])
            for split in missing:  # a fixed part of the images is set aside
                found["train"], found[split] = _divide(found["train"], first_of, *parts[split])
        self.file_names = {split: [one.path.name for one in annotations] for split, annotations in found.items()}
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


def _divide(
    annotations: list[Annotation], first_of: dict[Path, Path], share: float | None, size: int
) -> tuple[list[Annotation], list[Annotation]]:
    """Training annotations, and `size` or that share that are held out, with the copies of their images."""
    firsts = [annotation.path for annotation in annotations if first_of[annotation.path] == annotation.path]
    _, held_out = hold_out(len(firsts), max(1, round(share * len(firsts))) if share else size)
    paths = {firsts[i] for i in held_out}
    parts: tuple[list[Annotation], list[Annotation]] = ([], [])
    for annotation in annotations:
        parts[first_of[annotation.path] in paths].append(annotation)
    return parts
