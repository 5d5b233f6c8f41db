"""The gallery of a net with two inputs: images with the digit that was added, and what the net made of both."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.figures.callback import rgb
from callbacks.figures.grids import caption, cells, draw_image
from callbacks.galleries.base import Gallery
from callbacks.galleries.items import Entry, data_uri


class Sum(NamedTuple):
    """An image of a digit, the digit that was added, and what a net made of them.

    image: (C, H, W) as the net saw it (normalized).
    truth: (digit in the image, digit added, sum).
    prediction: (digit, sum).
    confidence: the product of both softmaxes, 0 to 1.
    loss: cross-entropy of both in nats.
    """

    image: Tensor
    truth: tuple[int, int, int]
    prediction: tuple[int, int]
    confidence: float
    loss: float

    @property
    def sentence(self) -> str:
        return "{} + {} = {}".format(*self.truth)

    @property
    def answer(self) -> str:
        return "{}, sum {}".format(*self.prediction)


class TwoInputsGallery(Gallery):
    """Draws images whose digit or sum is wrong, each with the digit that was added, to `pictures/sums_<split>.png`.

    Steps return "logits" of the digit (B, K) and "sum_logits" (B, 2 K - 1); batches have `image`, `label`, `addend` and
    `total`.

    Args:
        n: images to draw.
        order, every_n_epochs: see `Gallery`.

    >>> TwoInputsGallery(10).shown
    []
    """

    def entries(self, outputs: Any, batch: Any, indices: Iterator[int]) -> list[Entry]:
        digit = self.output(outputs, "logits", "(B, K)").detach().float()
        total = self.output(outputs, "sum_logits", "(B, 2 K - 1)").detach().float()
        losses = F.cross_entropy(digit, batch.label, reduction="none")
        losses += F.cross_entropy(total, batch.total, reduction="none")
        (sure, digits), (sum_sure, sums) = (logits.softmax(1).max(1) for logits in (digit, total))
        truths = zip(*(values.tolist() for values in (batch.label, batch.addend, batch.total)), strict=True)
        answers = zip(digits.tolist(), sums.tolist(), strict=True)
        items = map(Sum, batch.image, truths, answers, (sure * sum_sure).tolist(), losses.tolist())
        return [
            Entry(item, item.loss, index, (item.truth[0], item.truth[2]) != item.prediction, item.truth[0])
            for item, index in zip(items, indices, strict=False)
        ]

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        wrong = f"{self.mistakes:,} of {self.seen:,} pairs with a wrong digit or sum".replace(",", "\u202f")
        title = "The first pairs" if self.order == "first" else "The worst mistakes"
        title, subtitle = f"{title} on the {self.split_name} set", f"{wrong}; truth → digit and sum as predicted"
        if not self.shown:
            title, subtitle = f"No mistakes among {self.seen} {self.split_name} pairs", "Nothing to show."
        figure, axes = cells(len(self.shown), 1, title, subtitle)
        rows = []
        for (panel,), entry in zip(axes, self.shown, strict=True):
            item = entry.item
            image = rgb(trainer, item.image)
            draw_image(panel, image)
            told = f"{100 * item.confidence:.0f} % sure, loss {item.loss:.2f}"
            caption(panel, item.sentence, item.answer, told, right=not entry.wrong)
            rows.append([image, item.sentence, item.answer, item.confidence, item.loss])
        columns = ["image", "truth", "prediction", "confidence", "loss"]
        self.publish(trainer, f"sums_{self.split}", figure, (columns, rows))
        items = [
            {
                "index": entry.index,
                "image": data_uri(rgb(trainer, entry.item.image)),
                "truth": entry.item.sentence,
                "prediction": entry.item.answer,
                "confidence": entry.item.confidence,
                "loss": entry.item.loss,
                "right": not entry.wrong,
            }
            for entry in self.shown
        ]
        self.record(f"sums_{self.split}", "classified", items)
