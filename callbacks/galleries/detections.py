"""Boxes drawn on images: the gallery of what a detector finds, and the drawing, which `zoo predict` uses too.

C channels, H height, W width, N objects, M detections. Boxes are xyxy in pixels of the image.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.ops import box_iou

from callbacks.figures.boxes import draw_boxes
from callbacks.figures.callback import class_names, rgb
from callbacks.figures.grids import draw_image
from callbacks.figures.style import heading, to_uint8
from callbacks.galleries.base import Entry, Gallery


class Detected(NamedTuple):
    """An image with its objects and what a detector found.

    image: (C, H, W) as the net saw it (normalised), on the CPU.
    boxes, labels: (N, 4) and (N,), the objects.
    found: (N,) bool, which of them were detected.
    detections: `boxes` (M, 4), `scores` and `labels` (M,).
    right: (M,) bool, which of the detections are of an object.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    found: Tensor
    detections: dict[str, Tensor]
    right: Tensor

    @property
    def errors(self) -> int:
        """Objects missed, and false detections."""
        return int((~self.right).sum() + (~self.found).sum())


def match(detections: dict[str, Tensor], boxes: Tensor, labels: Tensor, iou: float = 0.5) -> tuple[Tensor, Tensor]:
    """Which detections (M,) are of an object, and which objects (N,) were found; all on the CPU.

    The surest detection takes first: of the objects of its class that are left the one it overlaps most, if by `iou`.
    """
    overlap = box_iou(detections["boxes"], boxes) * (detections["labels"][:, None] == labels)
    right, found = torch.zeros(len(overlap), dtype=torch.bool), torch.zeros(len(boxes), dtype=torch.bool)
    for i in detections["scores"].argsort(descending=True) if len(boxes) else ():
        best, j = overlap[i].masked_fill(found, 0.0).max(0)
        if best >= iou:
            right[i] = found[j] = True
    return right, found


class DetectionGallery(Gallery):
    """Draws images with their objects and what was detected, side by side, to `pictures/boxes_<split>.png`.

    Args:
        n: how many.
        order: "worst" (most objects missed and false detections first) or "first".
        every_n_epochs: see `Gallery`.
        min_score: of the detections that count and are drawn.

    Raises:
        ValueError: for an unknown order, or steps that return no detections.

    >>> DetectionGallery(6, order="first").shown
    []
    """

    orders = ("worst", "first")

    def __init__(self, n: int = 6, order: str = "worst", every_n_epochs: int = 0, min_score: float = 0.4) -> None:
        super().__init__(n, order, every_n_epochs)
        self.min_score = min_score

    def entries(self, outputs: Any, batch: Any, indices: Iterator[int]) -> list[Entry]:
        what = 'for each image {"boxes", "scores", "labels"}'
        entries = []
        rows = zip(*batch, self.output(outputs, "detections", what), indices, strict=False)
        for image, *truth, detections, index in rows:
            boxes, labels = (values.detach().cpu() for values in truth)
            sure = detections["scores"] >= self.min_score
            detections = {name: values[sure].detach().cpu() for name, values in detections.items()}
            right, found = match(detections, boxes, labels)
            item = Detected(image, boxes, labels, found, detections, right)
            entries.append(Entry(item, item.errors, index, wrong=item.errors > 0))
        return entries

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        split, name = self.split_name, class_names(trainer)
        figure, pairs = _layout([entry.item for entry in self.shown])
        titles = {"worst": f"The worst detections on the {split} set", "first": f"Detections on the {split} set"}
        title = titles[self.order] if self.shown else f"No mistakes among {self.seen} {split} images"
        said = (
            f"{self.mistakes} of {self.seen} images have an object missed or a false detection "
            f"(score ≥ {self.min_score:g}, IoU ≥ 0.5). Dashed: missed, or false."
        )
        heading(figure, title, said)
        for (left, right), entry in zip(pairs, self.shown, strict=True):
            sample = entry.item
            found = sample.detections
            names = [name(label) for label in found["labels"].tolist()]
            texts = [f"{word} {score:.2f}" for word, score in zip(names, found["scores"].tolist(), strict=True)]
            for axes in (left, right):
                draw_image(axes, rgb(trainer, sample.image))
            draw_boxes(left, sample.boxes, sample.labels, [name(i) for i in sample.labels.tolist()], ~sample.found)
            draw_boxes(right, found["boxes"], found["labels"], texts, ~sample.right)
            missed, false = int((~sample.found).sum()), int((~sample.right).sum())
            objects = f"{len(sample.boxes)} object{'s' * (len(sample.boxes) != 1)}"
            left.set_title(f"image {entry.index}: {objects}", size=9, loc="left", pad=3)
            right.set_title(f"{len(texts)} detected, {missed} missed, {false} false", size=9, loc="left", pad=3)
        key = f"boxes_{self.split}"
        self.publish(trainer, key, figure)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and self.shown:  # there each class and score can be switched on and off
                images = [to_uint8(rgb(trainer, sample.image)) for sample in (entry.item for entry in self.shown)]
                boxes = [_wandb_boxes(sample, name) for sample in (entry.item for entry in self.shown)]
                logger.log_image(key=f"{key}_images", images=images, boxes=boxes)


WIDTH, COLUMNS = 13.0, 2  # inches, and pairs of images in a row


def _layout(shown: list[Detected]) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """A figure of pairs of axes, each as high as the images are; in inches, under room for the headings."""
    gap, head, caption = 0.1, 0.62, 0.25
    side = (WIDTH - gap) / COLUMNS / 2 - gap
    tall = side * max((sample.image.shape[1] / sample.image.shape[2] for sample in shown), default=0.0)
    rows = -(-len(shown) // COLUMNS)
    height = head + rows * (tall + caption + gap) + gap
    figure, pairs = Figure((WIDTH, height), facecolor="white"), []
    for i in range(len(shown)):
        row, column = divmod(i, COLUMNS)
        y = height - head - row * (tall + caption + gap) - caption - tall
        xs = [gap + (2 * column + k) * (side + gap) for k in range(2)]
        pairs.append(tuple(figure.add_axes((x / WIDTH, y / height, side / WIDTH, tall / height)) for x in xs))
    return figure, pairs


def _wandb_boxes(sample: Detected, name: Any) -> dict[str, dict]:
    """In W&B's terms, with plain Python numbers."""

    def group(boxes: Tensor, labels: Tensor, scores: list[float] | None = None) -> dict:
        edges, data = ("minX", "minY", "maxX", "maxY"), []
        for i, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
            entry = {"position": dict(zip(edges, box, strict=True)), "domain": "pixel", "class_id": label}
            entry["box_caption"] = name(label)
            data.append(entry | ({"scores": {"score": scores[i]}} if scores else {}))
        return {"box_data": data, "class_labels": {i: name(i) for i in {*labels.tolist()}}}

    found = sample.detections
    return {
        "ground_truth": group(sample.boxes, sample.labels),
        "predictions": group(found["boxes"], found["labels"], found["scores"].tolist()),
    }
