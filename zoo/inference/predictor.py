"""A trained classifier or detector applied to image files, in batches, as they come. C channels, H height, W width."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from datamodules.io import image_size
from zoo.classification.base import Classifier
from zoo.inference.preprocess import Images

VALUES = 2**22  # of the images that are taken at a time, at most
MAX_BATCH, MAX_KEPT = 64, 8  # images at a time; of those that are kept, which are large
THREADS = min(4, os.cpu_count() or 1)  # that decode files
DARK, BRIGHT = 0.35, 0.6  # mean of training images on a dark ground; mean at the border of an image on a bright ground


class Found(NamedTuple):
    """What came out for a file.

    result: plain data, as `zoo predict` prints it.
    image: if it is kept; no larger than asked for.
    boxes: (N, 4) in its pixels; None from a classifier.
    labels: (N,) int64.
    """

    result: dict[str, Any]
    image: Image.Image | None = None
    boxes: Tensor | None = None
    labels: Tensor | None = None


class Read(NamedTuple):
    """An image file: its pixels (C, H, W) uint8 as the net takes them, its size (width, height), the image if kept."""

    file: str
    pixels: Tensor | None = None
    size: tuple[int, int] = (0, 0)
    image: Image.Image | None = None
    error: str = ""


class Predictor:
    """A trained classifier or detector that is applied to image files.

    Args:
        module: in evaluation mode.
        data: what its checkpoint says of its data.
        name: of the model, for messages.
        min_score: a detector reports boxes above it.
        invert: swap black and white.
        keep: pixels of the longer side of the images that come with the results; 0 for none.

    Raises:
        ValueError: if the module is neither a classifier nor a detector, or `min_score` is out of range.
    """

    def __init__(
        self, module: Any, data: dict[str, Any], name: str, min_score: float, invert: bool = False, keep: int = 0
    ) -> None:
        if not 0 <= min_score < 1:
            raise ValueError(f"min_score is {min_score:g}: expected 0 or more and below 1")
        self.detects = hasattr(module, "detect")
        if not {"image_shape", "mean", "std"} <= data.keys() or not (self.detects or isinstance(module, Classifier)):
            raise ValueError(
                f"{name} holds a {type(module).__name__}, which neither classifies nor detects: expected a model that "
                "does; see `zoo list`, and zoo generate, fill, find and grow for others"
            )
        self.module, self.min_score, self.invert, self.keep = module, min_score, invert, keep
        self.classes = [str(one) for one in data["classes"]]
        self.images = Images(data["image_shape"], data["mean"], data["std"])
        self.batch_size = min(
            MAX_KEPT if keep else MAX_BATCH, max(1, VALUES // torch.Size(data["image_shape"]).numel())
        )
        self.seen = self.bright = 0

    @property
    def is_inverted_perhaps(self) -> bool:
        """Whether most images so far have a bright ground, where the training images have a dark one."""
        return len(self.images.mean) == 1 and self.images.mean[0] < DARK and 2 * self.bright > self.seen

    def read(self, file: str) -> Read:
        """A file as the net takes it.

        Raises:
            ValueError, FileNotFoundError: if it cannot be read as an image.
        """
        _, height, width = self.images.image_shape
        image = self.images.open(file, at_least=(max(2 * width, self.keep), max(2 * height, self.keep)))
        size = image_size(file) if self.detects else image.size
        pixels = self.images.pixels(image)
        kept = image if self.keep else None
        if kept is not None and max(kept.size) > self.keep:
            kept.thumbnail((self.keep, self.keep), Image.Resampling.BOX)
        return Read(file, 255 - pixels if self.invert else pixels, size, kept)

    def read_if_possible(self, file: str) -> Read:
        """The same, with the error as a part of the result."""
        try:
            return self.read(file)
        except (ValueError, OSError) as error:
            return Read(file, error=" ".join(str(error).split()))

    def predict(self, readings: Iterable[Read]) -> Iterator[Found]:
        """The results for images, which are taken a batch at a time."""
        rest = iter(readings)
        while batch := list(islice(rest, self.batch_size)):
            outputs = iter(self._apply([one.pixels for one in batch if one.pixels is not None]))
            for one in batch:
                if one.pixels is None:
                    yield Found({"file": one.file, "error": one.error})
                elif self.detects:
                    yield self._located(one, next(outputs))
                else:
                    yield Found({"file": one.file, **most_likely(next(outputs), self.classes)}, one.image)

    def _apply(self, pixels: list[Tensor]) -> Any:
        """What the net says of images (C, H, W) uint8: logits (B, K), or the detections of each."""
        if not pixels:
            return []
        stacked = torch.stack(pixels)
        self.seen, self.bright = self.seen + len(pixels), self.bright + int((border(stacked) > 255 * BRIGHT).sum())
        images = self.images.normalize(stacked)
        with torch.inference_mode():
            if self.detects:  # those below min_score tell how far the best one is from it
                return self.module.detect(images, min_score=min(self.min_score, self.module.min_score))
            return self.module(images).float()

    def _located(self, one: Read, detections: dict[str, Tensor]) -> Found:
        """The result for an image in which a detector found objects, or none."""
        scores = detections["scores"]
        kept = scores > self.min_score
        boxes, labels = detections["boxes"][kept], detections["labels"][kept]
        _, height, width = self.images.image_shape
        shares = boxes / torch.tensor([width, height] * 2)
        rows = ((shares * torch.tensor([*one.size] * 2)).tolist(), scores[kept].tolist(), labels.tolist())
        result: dict[str, Any] = {
            "file": one.file,
            "boxes": [
                {"class": self.classes[label], "score": round(score, 4), "xyxy": [round(edge, 1) for edge in box]}
                for box, score, label in zip(*rows, strict=True)
            ],
        }
        if not result["boxes"]:
            best = f"{scores[0]:.2g}" if len(scores) else f"below {self.module.min_score:g}"
            result["note"] = f"nothing above {self.min_score:g} (best {best})"
        size = one.image.size if one.image is not None else one.size
        return Found(result, one.image, shares * torch.tensor([*size] * 2), labels)


def border(pixels: Tensor) -> Tensor:
    """The mean of the pixels at the border of each of some images (B, C, H, W): (B,)."""
    edges = (pixels[..., 0, :], pixels[..., -1, :], pixels[..., 0], pixels[..., -1])
    return torch.cat([edge.flatten(1) for edge in edges], 1).float().mean(1)


def most_likely(logits: Tensor, classes: list[str]) -> dict[str, Any]:
    """Logits (K,) -> the most likely class with its confidence, and the three most likely ones."""
    probability = logits.float().softmax(0)
    top = probability.topk(min(3, len(probability)))
    top3 = [
        {"class": classes[label], "confidence": round(p, 4)}
        for p, label in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]
    return {**top3[0], "top3": top3}
