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
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor
from torchvision.ops import box_iou

from callbacks.pictures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
    class_names,
    draw_image,
    rgb,
    to_uint8,
)  # fmt: skip
from callbacks.samples import SPLITS, SampleGallery

COLOURS = (ORANGE, SKY, YELLOW, PURPLE, GREEN, VERMILION, BLUE)  # of the classes, in turn; black text stands on them


class BoxedSample(NamedTuple):
    """One image that was evaluated.

    image: (C, H, W) as the net saw it (normalised), on the CPU.
    boxes, labels: (N, 4) and (N,), the objects.
    found: (N,) bool, which of them were detected.
    detections: `boxes` (M, 4), `scores` and `labels` (M,).
    right: (M,) bool, which of the detections are of an object.
    loss: objects missed and false detections.
    index: place in the evaluated data set.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    found: Tensor
    detections: dict[str, Tensor]
    right: Tensor
    loss: int
    index: int

    @property
    def wrong(self) -> bool:
        return self.loss > 0


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


def draw_boxes(axes: Axes, boxes: Tensor, labels: Tensor, texts: list[str], dashed: Tensor, width: float = 1.4) -> None:
    """Draws boxes, each in the colour of its class with a text at its upper left corner; `width` of lines in points."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()  # of the image
    for box, label, text, broken in zip(boxes.tolist(), labels.tolist(), texts, dashed.tolist(), strict=True):
        colour, (x0, y0, x1, y1) = COLOURS[label % len(COLOURS)], (edge - 0.5 for edge in box)  # pixel 0 is 0 ± 0.5
        style = (0, (2.5, 1.5)) if broken else "-"
        outline = [withStroke(linewidth=1.8 * width, foreground=BLACK, alpha=0.6)]
        frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=width, linestyle=style)
        frame.set_path_effects(outline)
        axes.add_patch(frame)
        # Texts stay within the image: those of boxes at its right end at their right corners, those at its top below.
        last, first = x0 > right - 0.15 * (right - left), y0 < top + 0.06 * (bottom - top)
        if text:
            axes.text(
                min(x1, right) if last else max(x0, left), max(y0, top), text, size=4.2 * width, color=BLACK,
                ha="right" if last else "left", va="top" if first else "bottom", clip_on=True,
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.5 * width, "alpha": 0.9},
            )  # fmt: skip


class BoxesGallery(SampleGallery):
    """Draws images with their objects and what was detected, side by side, to `pictures/boxes_<split>.png`.

    Args:
        n: how many.
        order: "worst" (most objects missed and false detections first) or "first".
        every_n_epochs: see `SampleGallery`.
        min_score: of the detections that count and are drawn.

    Raises:
        ValueError: for an unknown order, or steps that return no detections.

    >>> BoxesGallery(6, order="first").shown
    []
    """

    orders = ("worst", "first")

    def __init__(self, n: int = 6, order: str = "worst", every_n_epochs: int = 0, min_score: float = 0.4) -> None:
        super().__init__(n, order, every_n_epochs)
        self.min_score = min_score

    def samples(self, outputs: Any, batch: Any, places: Iterator[int]) -> list[BoxedSample]:
        if not isinstance(outputs, dict) or "detections" not in outputs:
            raise ValueError(
                f"{type(self).__name__} found no detections in what the {self.split} step returns: "
                'expected a dict with "detections", for each image {"boxes", "scores", "labels"}; return that'
            )
        samples = []
        for image, *truth, detections, place in zip(*batch, outputs["detections"], places, strict=False):
            boxes, labels = (values.detach().cpu() for values in truth)
            sure = detections["scores"] >= self.min_score
            detections = {name: values[sure].detach().cpu() for name, values in detections.items()}
            right, found = match(detections, boxes, labels)
            loss = int((~right).sum() + (~found).sum())
            samples.append(BoxedSample(image, boxes, labels, found, detections, right, loss, place))
        return samples

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        split, name = SPLITS.get(self.split, self.split), class_names(trainer)
        figure, pairs = _layout(self.shown)
        title = {"worst": f"The worst detections on the {split} set", "first": f"Detections on the {split} set"}
        heading = title[self.order] if self.shown else f"No mistakes among {self.seen} {split} images"
        inches = figure.get_figheight()
        figure.text(0.1 / WIDTH, 1 - 0.12 / inches, heading, size=13, weight="bold", va="top")
        said = (
            f"{self.mistakes} of {self.seen} images have an object missed or a false detection "
            f"(score ≥ {self.min_score:g}, IoU ≥ 0.5). Dashed: missed, or false."
        )
        figure.text(0.1 / WIDTH, 1 - 0.38 / inches, said, size=10, color=GREY, va="top")
        for (left, right), sample in zip(pairs, self.shown, strict=True):
            found = sample.detections
            names = [name(label) for label in found["labels"].tolist()]
            texts = [f"{word} {score:.2f}" for word, score in zip(names, found["scores"].tolist(), strict=True)]
            for axes in (left, right):
                draw_image(axes, rgb(trainer, sample.image))
            draw_boxes(left, sample.boxes, sample.labels, [name(i) for i in sample.labels.tolist()], ~sample.found)
            draw_boxes(right, found["boxes"], found["labels"], texts, ~sample.right)
            missed, false = int((~sample.found).sum()), int((~sample.right).sum())
            objects = f"{len(sample.boxes)} object{'s' * (len(sample.boxes) != 1)}"
            left.set_title(f"image {sample.index}: {objects}", size=9, loc="left", pad=3)
            right.set_title(f"{len(texts)} detected, {missed} missed, {false} false", size=9, loc="left", pad=3)
        key = f"boxes_{self.split}"
        self.publish(trainer, key, figure)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and self.shown:  # there each class and score can be switched on and off
                images = [to_uint8(rgb(trainer, sample.image)) for sample in self.shown]
                boxes = [_wandb_boxes(sample, name) for sample in self.shown]
                logger.log_image(key=f"{key}_images", images=images, boxes=boxes)


WIDTH, COLUMNS = 13.0, 2  # inches, and pairs of images in a row


def _layout(shown: list[BoxedSample]) -> tuple[Figure, list[tuple[Axes, Axes]]]:
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


def _wandb_boxes(sample: BoxedSample, name: Any) -> dict[str, dict]:
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
