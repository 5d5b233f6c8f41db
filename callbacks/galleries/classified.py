"""What the galleries of classifiers share. B batch, C channels, H height, W width, K classes."""

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import torch.nn.functional as F
from lightning import Trainer
from torch import Tensor

from callbacks.figures.callback import rgb
from callbacks.galleries.base import Gallery
from callbacks.galleries.items import Choice, Entry, data_uri, file_name, full_names

MISTAKES, RIGHT = 36, 12  # that are written down for `zoo report`, of all classes in turn


class Classified(NamedTuple):
    """An image and what a classifier made of it.

    image: (C, H, W) as the net saw it (normalized).
    truth, prediction: class indices; of mixed labels the class of the largest share is the truth.
    confidence: the softmax of the prediction, 0 to 1.
    loss: cross-entropy in nats.
    """

    image: Tensor
    truth: int
    prediction: int
    confidence: float
    loss: float


class ClassifierGallery(Gallery):
    """Base class of the galleries whose entries are `Classified` images, ranked by their loss, in groups by class.

    Steps return "logits" (B, K), and the first two parts of a batch are the images (B, C, H, W) and the labels: class
    indices (B,) int64 or, of mixed samples, the share of each class (B, K). Beside what is drawn, the worst mistakes of
    each class are held for `zoo report`, and in contrast the first right ones of each.
    """

    def further_choices(self) -> dict[str, Choice]:
        return {
            "mistakes": Choice(MISTAKES, "spread", lambda entry: entry.wrong),
            "right": Choice(RIGHT, "spread first", lambda entry: not entry.wrong),
        }

    def entries(self, outputs: Any, batch: Any, indices: Iterator[int]) -> list[Entry]:
        image, label = batch[0], batch[1]
        logits = self.output(outputs, "logits", "(B, K)").detach().float()
        losses = F.cross_entropy(logits, label, reduction="none").tolist()
        truths = (label if label.ndim == 1 else label.argmax(1)).tolist()
        confidences, predictions = (values.tolist() for values in logits.softmax(1).max(1))
        items = map(Classified, image, truths, predictions, confidences, losses)
        return [
            Entry(item, item.loss, index, wrong=item.truth != item.prediction, group=item.truth)
            for item, index in zip(items, indices, strict=False)
        ]

    def recorded(self) -> list[Entry]:
        """The entries that are written down: those shown, then those of the choices, each once."""
        entries = chain(self.shown, self.choices["mistakes"].held, self.choices["right"].held)
        return list({entry.index: entry for entry in entries}.values())


def as_items(trainer: Trainer, entries: list[Entry], split: str) -> list[dict[str, Any]]:
    """Classified entries of a split as `items.write_items` takes them."""
    name = full_names(trainer)
    return [
        {
            "index": entry.index,
            **file_name(trainer, split, entry.index),
            "image": data_uri(rgb(trainer, entry.item.image)),
            "truth": name(entry.item.truth),
            "prediction": name(entry.item.prediction),
            "confidence": entry.item.confidence,
            "loss": entry.item.loss,
            "right": entry.item.truth == entry.item.prediction,
        }
        for entry in entries
    ]
