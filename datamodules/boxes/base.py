"""Images with boxes: the data sets and datamodules that detection shares, whatever format the boxes were written in."""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.base import TEST_SHARE, hold_out
from datamodules.batches import Boxed
from datamodules.boxes.annotations import Annotation
from datamodules.image import ImageData
from datamodules.io import read_image


class BoxedInMemory(Dataset):
    """A data set held in memory; a batch is one indexing operation.

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

    def __getitem__(self, index: int) -> Boxed:
        return Boxed(self.images[index], self.boxes[index], self.labels[index])


def collate_boxes(samples: list[Boxed]) -> Boxed:
    """Samples -> a batch."""
    images, boxes, labels = zip(*samples, strict=True)
    return Boxed(torch.stack(images), list(boxes), list(labels))


class BoxedFiles(Dataset):
    """Picture files with their boxes, scaled to one size.

    Args:
        annotations: of the pictures.
        classes: names in the order of the labels.
        image_size: (H, W) to which picture and boxes are scaled, whatever the shape of the picture.
    """

    def __init__(self, annotations: list[Annotation], classes: tuple[str, ...], image_size: tuple[int, int]) -> None:
        self.annotations, self.classes, self.image_size = annotations, classes, image_size

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Boxed:
        """Raises ValueError if the picture is not of the size that its annotation is about."""
        note, (H, W) = self.annotations[index], self.image_size
        image = read_image(note.path)
        if image.size != (note.width, note.height):
            raise ValueError(
                f"{note.path} has {image.width} x {image.height} pixels, but its boxes were drawn on "
                f"{note.width} x {note.height}: expected the picture that was annotated"
            )
        pixels = np.array(image.resize((W, H), Image.Resampling.BILINEAR))
        boxes = torch.from_numpy(note.boxes) * torch.tensor([W / note.width, H / note.height] * 2)
        labels = torch.tensor([self.classes.index(name) for name in note.names], dtype=torch.int64)
        return Boxed(torch.from_numpy(pixels).permute(2, 0, 1), boxes, labels)

    def in_memory(self) -> BoxedInMemory:
        return BoxedInMemory(*collate_boxes([self[i] for i in range(len(self))]))


class BoxedData(ImageData):
    """Base of the datamodules for detection: batches are `Boxed`. Subclasses give `make_datasets`, and `classes` in `__init__`.

    The arguments are those of `ImageData`; `augment` takes the classes of `datamodules.augment.boxes`, which move the
    boxes with the pixels, and of `datamodules.augment.images` those that move nothing.

    Attributes:
        in_memory: whether the data sets give whole batches; else samples, read by `num_workers` processes.
    """

    in_memory = True
    num_workers = 0

    def loader_options(self) -> dict:
        if self.in_memory:
            return super().loader_options()
        return {"collate": collate_boxes, "num_workers": self.num_workers, "pin_memory": torch.cuda.is_available()}


class AnnotatedData(BoxedData):
    """Base of the datamodules that read pictures and annotations from files. Subclasses define `annotations`.

    Args:
        image_size: (H, W) that the net sees; pictures of another shape are stretched to it.
        classes: names in the order of the labels; default those that occur, in the order of the alphabet.
        val_size: pictures taken out of train for validation; 0 trains on all and validates on none.
        in_memory: decode all pictures once and keep them as uint8; else they are read anew in each epoch.
        mean, std: per channel, of pixels in 0..1; by default ImageNet's.
        num_workers: processes that read files, if they are not kept in memory.
        options: see `ImageData`.

    Raises:
        FileNotFoundError: if a picture or annotation is not there.
        ValueError: if an annotation can't be read, has a class that is not among `classes`, or there are none.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (416, 416),
        classes: list[str] | None = None,
        val_size: int = 0,
        in_memory: bool = True,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        num_workers: int = 2,
        batch_size: int = 16,
        eval_batch_size: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(val_size=val_size, batch_size=batch_size, eval_batch_size=eval_batch_size, **options)
        self.in_memory, self.num_workers = in_memory, num_workers
        self.mean, self.std = tuple(mean), tuple(std)
        self.image_shape = (3, *image_size)
        self.found = self.annotations()
        everything = [note for notes in self.found.values() for note in notes]
        self.classes = tuple(classes or sorted({name for note in everything for name in note.names}))
        if not self.classes:
            raise ValueError(f"the {len(everything)} annotations of {type(self).__name__} hold no box at all")
        for note in everything:
            if unknown := set(note.names) - set(self.classes):
                raise ValueError(
                    f"{note.path.name} has a box of class {min(unknown)!r}: expected one of {list(self.classes)}; "
                    "mend the annotation, or add it to `classes`"
                )
            if not note.path.is_file():
                raise FileNotFoundError(
                    f"{note.path} is annotated but not there: add the picture or take out its boxes"
                )

    @abstractmethod
    def annotations(self) -> dict[str, list[Annotation]]:
        """The annotations of "train" and "test"; without a test set, of "train" only."""

    def make_datasets(self) -> dict[str, Dataset]:
        found = dict(self.found)
        if "test" not in found:  # then the same pictures are always set aside
            found["train"], found["test"] = _divide(found["train"], max(1, round(TEST_SHARE * len(found["train"]))))
        found["train"], found["val"] = _divide(found["train"], self.val_size)
        files = {name: BoxedFiles(notes, self.classes, self.image_shape[1:]) for name, notes in found.items() if notes}
        return {name: data.in_memory() for name, data in files.items()} if self.in_memory else files


def _divide(notes: list[Annotation], count: int) -> tuple[list[Annotation], list[Annotation]]:
    return tuple([notes[i] for i in part] for part in hold_out(len(notes), count))
