"""The gallery of what a detector finds.

C channels, H height, W width, N objects, M detections. Boxes are xyxy in pixels of the image.
"""

from collections.abc import Callable, Iterator
from itertools import chain
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
from callbacks.figures.grids import GAP, HEAD, draw_image
from callbacks.figures.style import add_axes, heading, shorten, to_uint8
from callbacks.galleries.base import Gallery
from callbacks.galleries.items import Choice, Entry, data_uri, file_name, full_names

WIDTH = 13.0  # inches of the figure
PAIRS_PER_ROW = 2  # of images
MISTAKES, RIGHT = 18, 6  # images that are written down for `zoo report`
LARGEST = 480  # pixels of the longer side of these


class Detected(NamedTuple):
    """An image with its objects and what a detector found.

    image: (C, H, W) as the net saw it (normalized).
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
        """Number of objects missed and of false detections."""
        return int((~self.right).sum() + (~self.found).sum())


def match(detections: dict[str, Tensor], boxes: Tensor, labels: Tensor, iou: float = 0.5) -> tuple[Tensor, Tensor]:
    """Matches detections with objects, all on the CPU.

    Detections choose in the order of their scores: each takes, of the objects of its class that are still free, the one
    with which it overlaps most, if their intersection over union is at least `iou`.

    Returns:
        (M,) bool, which detections are of an object, and (N,) bool, which objects were found.
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

    Further images, and some without a mistake, go to `items/boxes_<split>.json`, for `zoo report`.

    Args:
        n: images to draw.
        order: "worst" (most objects missed and false detections first) or "first".
        every_n_epochs: see `Gallery`.
        min_score: detections with a lower score neither count nor are drawn.

    Raises:
        ValueError: for an unknown order, or steps that return no detections.

    >>> DetectionGallery(6, order="first").shown
    []
    """

    orders = ("worst", "first")

    def __init__(self, n: int = 6, order: str = "worst", every_n_epochs: int = 0, min_score: float = 0.4) -> None:
        super().__init__(n, order, every_n_epochs)
        self.min_score = min_score

    def further_choices(self) -> dict[str, Choice]:
        return {
            "mistakes": Choice(MISTAKES, "worst", lambda entry: entry.wrong),
            "right": Choice(RIGHT, "first", lambda entry: not entry.wrong),
        }

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
        subtitle = (
            f"{self.mistakes} of {self.seen} images have an object missed or a false detection "
            f"(score ≥ {self.min_score:g}, IoU ≥ 0.5). Dashed: missed, or false."
        )
        heading(figure, title, subtitle)
        for (left, right), entry in zip(pairs, self.shown, strict=True):
            item: Detected = entry.item
            found = item.detections
            names = [name(label) for label in found["labels"].tolist()]
            texts = [f"{word} {score:.2f}" for word, score in zip(names, found["scores"].tolist(), strict=True)]
            for axes in (left, right):
                draw_image(axes, rgb(trainer, item.image))
            draw_boxes(left, item.boxes, item.labels, [name(i) for i in item.labels.tolist()], ~item.found)
            draw_boxes(right, found["boxes"], found["labels"], texts, ~item.right)
            missed, false = int((~item.found).sum()), int((~item.right).sum())
            objects = f"{len(item.boxes)} object{'s' * (len(item.boxes) != 1)}"
            known = file_name(trainer, self.split, entry.index).get("name", f"image {entry.index}")
            left.set_title(f"{shorten(known, 32)}: {objects}".replace("$", r"\$"), size=9, loc="left", pad=3)
            right.set_title(f"{len(texts)} detected, {missed} missed, {false} false", size=9, loc="left", pad=3)
        key = f"boxes_{self.split}"
        self.publish(trainer, key, figure)
        entries = chain(self.shown, self.choices["mistakes"].held, self.choices["right"].held)
        items = [_as_item(trainer, entry, self.split) for entry in {entry.index: entry for entry in entries}.values()]
        self.record(key, "detected", items, min_score=self.min_score)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and self.shown:  # its page can switch each class and score on and off
                images = [to_uint8(rgb(trainer, entry.item.image)) for entry in self.shown]
                boxes = [_wandb_boxes(entry.item, name) for entry in self.shown]
                logger.log_image(key=f"{key}_images", images=images, boxes=boxes)


def _layout(shown: list[Detected]) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """A figure with a pair of axes for each image, as high as the highest image; captions have room above them."""
    caption = 0.25
    side = (WIDTH - GAP) / PAIRS_PER_ROW / 2 - GAP
    tall = side * max((item.image.shape[1] / item.image.shape[2] for item in shown), default=0.0)
    rows = -(-len(shown) // PAIRS_PER_ROW)
    height = HEAD + rows * (tall + caption + GAP) + GAP
    figure, pairs = Figure((WIDTH, height), facecolor="white"), []
    for i in range(len(shown)):
        row, column = divmod(i, PAIRS_PER_ROW)
        x, y = GAP + 2 * column * (side + GAP), height - HEAD - row * (tall + caption + GAP) - caption - tall
        pairs.append((add_axes(figure, x, y, side, tall), add_axes(figure, x + side + GAP, y, side, tall)))
    return figure, pairs


def _as_item(trainer: Trainer, entry: Entry, split: str) -> dict[str, Any]:
    """A `Detected` entry as `items.write_items` takes it; boxes are xyxy in pixels of the image as the net saw it."""
    item, name = entry.item, full_names(trainer)
    objects = zip(item.boxes.tolist(), item.labels.tolist(), item.found.tolist(), strict=True)
    found = (item.detections[key].tolist() for key in ("boxes", "labels", "scores"))
    return {
        "index": entry.index,
        **file_name(trainer, split, entry.index),
        "image": data_uri(rgb(trainer, item.image), LARGEST),
        "width": item.image.shape[-1],
        "height": item.image.shape[-2],
        "objects": [{"box": box, "class": name(label), "found": hit} for box, label, hit in objects],
        "detections": [
            {"box": box, "class": name(label), "score": score, "right": hit}
            for box, label, score, hit in zip(*found, item.right.tolist(), strict=True)
        ],
    }


def _wandb_boxes(item: Detected, name: Callable[[int], str]) -> dict[str, dict]:
    """Boxes as W&B takes them, in plain Python numbers."""

    def group(boxes: Tensor, labels: Tensor, scores: list[float] | None = None) -> dict:
        edges, data = ("minX", "minY", "maxX", "maxY"), []
        for i, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
            position = dict(zip(edges, box, strict=True))
            entry = {"position": position, "domain": "pixel", "class_id": label, "box_caption": name(label)}
            data.append(entry | ({"scores": {"score": scores[i]}} if scores else {}))
        return {"box_data": data, "class_labels": {i: name(i) for i in {*labels.tolist()}}}

    found = item.detections
    return {
        "ground_truth": group(item.boxes, item.labels),
        "predictions": group(found["boxes"], found["labels"], found["scores"].tolist()),
    }
