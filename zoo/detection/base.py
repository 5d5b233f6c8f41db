"""The base of all detectors. B batch, C channels, H height, W width, K classes; P boxes are predicted for an image, of
which M remain as detections. Boxes are xyxy in pixels of the net's input.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import batched_nms, clip_boxes_to_image

from callbacks.figures.axis import percent_axis
from datamodules.batches import Boxed
from zoo.parts.optim.muon import Muon
from zoo.parts.optim.schedules import OneCycle
from zoo.system import ScheduleCallable, System

Detections = dict[str, Tensor]  # of one image: boxes (M, 4), scores (M,), labels (M,), highest score first


class MAP50(MeanAveragePrecision):
    """Mean average precision at an IoU of 0.5, a scalar; -1 if there are no objects."""

    def __init__(self) -> None:
        super().__init__(iou_thresholds=[0.5], backend="faster_coco_eval")
        self.warn_on_many_detections = False

    def compute(self) -> Tensor:  # type: ignore[override]
        return super().compute()["map_50"]


class Detector(System):
    """Trains any net that predicts boxes in one pass. A subclass defines `forward`, `losses` and `scored_boxes`.

    Args:
        net: plain module with the children `stem`, `stages`, `head`.
        num_classes: K.
        optimizer, schedule: see `System`.
        min_score: detections below it are dropped; low, as average precision also counts those with low scores.
        nms_iou: of two boxes of one class that overlap by more, the one with the lower score is dropped.
        max_detections: of an image.

    Raises:
        ValueError: see `System`.
    """

    axes = System.axes | {"map_50": percent_axis("Mean average precision", "mAP at IoU 0.5")}

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: OptimizerCallable = Muon,
        schedule: ScheduleCallable = OneCycle,
        min_score: float = 0.005,
        nms_iou: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.save_hyperparameters(ignore=["net", "optimizer", "schedule"])
        self.net = net.to(memory_format=torch.channels_last)  # up to 1.4 times faster on CPUs, more on tensor cores
        self.num_classes = num_classes
        self.min_score, self.nms_iou, self.max_detections = min_score, nms_iou, max_detections
        self.add_metric("map_50", MAP50, splits=("val", "test"))

    @abstractmethod
    def losses(self, predictions: Any, batch: Boxed) -> dict[str, Tensor]:
        """The loss (scalar, "loss") and its terms, of what `forward` returned."""

    @abstractmethod
    def scored_boxes(self, predictions: Any) -> tuple[Tensor, Tensor]:
        """Boxes (B, P, 4) and the score 0..1 of each class (B, P, K)."""

    def detect(self, image: Tensor, min_score: float | None = None) -> list[Detections]:
        """Finds objects in images (B, C, H, W), normalized; `min_score` replaces the module's."""
        with torch.no_grad():
            return self._select(self(image), image.shape[-2:], self.min_score if min_score is None else min_score)

    def _select(self, predictions: Any, size: Sequence[int], min_score: float) -> list[Detections]:
        """The detections of each image (of `size`, H and W), after non-maximum suppression."""
        (height, width), selected = size, []
        for boxes, scores in zip(*self.scored_boxes(predictions), strict=True):
            predictor, label = (scores > min_score).nonzero(as_tuple=True)  # a box may be of several classes
            boxes, score = clip_boxes_to_image(boxes[predictor], (height, width)), scores[predictor, label]
            kept = batched_nms(boxes, score, label, self.nms_iou)[: self.max_detections]
            selected.append({"boxes": boxes[kept], "scores": score[kept], "labels": label[kept]})
        return selected

    def step(self, batch: Boxed, split: str) -> dict[str, Any]:
        predictions = self(batch.image)
        losses = self.losses(predictions, batch)
        for name, value in losses.items():
            self.log_metric(f"{split}/{name}", value, prog_bar=name == "loss", batch_size=len(batch.image))
        if split == "train":
            return losses
        detections = self._select(predictions, batch.image.shape[-2:], self.min_score)
        truth = [{"boxes": boxes, "labels": label} for boxes, label in zip(batch.boxes, batch.labels, strict=True)]
        self.log_metric(f"{split}/map_50", detections, truth)
        return {**losses, "detections": detections}

    def predict_step(self, batch: Boxed, batch_idx: int) -> list[Detections]:
        return self.detect(batch.image)
