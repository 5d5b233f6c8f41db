"""Images with boxes: the data sets and datamodules that detection shares, whatever format the boxes are stored in.

H, W height and width of the images that the net sees.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batches import Boxed
from datamodules.boxes.annotations import Annotation
from datamodules.image import ImageData
from datamodules.io import image_size, read_image
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

    def sizes(self) -> np.ndarray:
        """Width and height of all boxes (M, 2), as shares of the image."""
        height, width = self.images.shape[-2:]
        edges = torch.cat(self.boxes).double().numpy()
        return (edges[:, 2:] - edges[:, :2]) / (width, height)


def collate_boxes(samples: list[BoxedSample]) -> Boxed:
    """Samples -> a batch."""
    images, boxes, labels = zip(*samples, strict=True)
    return Boxed(torch.stack(images), list(boxes), list(labels))


TURNED = {True: "when turned as its EXIF tag says", False: "as it is stored"}


def check_size(annotation: Annotation, size: tuple[int, int], upright: bool) -> None:
    """Checks that an image has the size on which its boxes were drawn.

    Args:
        annotation: of the image.
        size: width and height of the image.
        upright: whether that is the size after turning it as its EXIF tag says.

    Raises:
        ValueError: if it has another size.
    """
    annotated = annotation.width, annotation.height
    if size == annotated:
        return
    found = f"{annotation.path} has {size[0]} x {size[1]} pixels"
    drawn = f"but its boxes were drawn on {annotated[0]} x {annotated[1]}"
    if image_size(annotation.path, not upright) == annotated:
        raise ValueError(
            f"{found} {TURNED[upright]}, {drawn}, {TURNED[not upright]}: expected boxes for the former; set upright to "
            f"{str(not upright).lower()}"
        )
    raise ValueError(f"{found}, {drawn}: expected the image that was annotated; replace it")


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
        check_size(annotation, image.size, self.upright)
        pixels = np.array(image.resize((W, H), Image.Resampling.BILINEAR))
        boxes = torch.as_tensor(annotation.boxes) * torch.tensor([W / annotation.width, H / annotation.height] * 2)
        labels = torch.tensor([self.classes.index(name) for name in annotation.names], dtype=torch.int64)
        return BoxedSample(torch.from_numpy(pixels).permute(2, 0, 1), boxes, labels)

    def sizes(self) -> np.ndarray:
        """Width and height of all boxes (M, 2), as shares of the image."""
        edges = [np.asarray(annotation.boxes, float).reshape(-1, 4) for annotation in self.annotations]
        shapes = [np.full((len(rows), 2), a[1:3], float) for a, rows in zip(self.annotations, edges, strict=True)]
        corners = np.concatenate(edges)
        return (corners[:, 2:] - corners[:, :2]) / np.concatenate(shapes)

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

    def anchors(self, k: int) -> list[list[float]]:
        """The `k` sizes [width, height], as shares of the image, that fit the boxes of the training images best.

        Where the boxes have fewer different sizes, the others are smaller copies of these. One line says what was
        found. See `datamodules.boxes.anchors.fit_anchors`.
        """
        from datamodules.boxes.anchors import found_anchors  # here, as scikit-learn takes seconds to import

        dataset: Any = self.datasets["train"]
        sizes = getattr(dataset, "dataset", dataset).sizes()
        anchors, score = found_anchors(sizes, k)
        shown = "  ".join(f"{width:.3f} x {height:.3f}" for width, height in anchors)
        report(f"anchors of {len(sizes)} boxes, in shares of the image: {shown}; mean IoU {score:.0%}")
        return anchors

    def loader_options(self) -> dict[str, Any]:
        if self.in_memory:
            return super().loader_options()
        return {"collate": collate_boxes, "num_workers": self.num_workers, "pin_memory": torch.cuda.is_available()}
