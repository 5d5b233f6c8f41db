"""The samples that galleries show, collected in an evaluation. B batch, C channels, H height, W width, K classes."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, count
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.pictures import Pictures

SPLITS = {"val": "validation"}  # said in full


class Sample(NamedTuple):
    """One image that was evaluated.

    image: (C, H, W) as the net saw it (normalised), on the CPU.
    truth, prediction: class indices.
    confidence: the softmax of the prediction, 0 to 1.
    loss: cross-entropy in nats.
    index: place in the evaluated data set.
    """

    image: Tensor
    truth: int
    prediction: int
    confidence: float
    loss: float
    index: int

    @property
    def wrong(self) -> bool:
        return self.truth != self.prediction


class SampleGallery(Pictures):
    """Base of the galleries: collects up to `n` samples of an evaluation, and has them drawn when it is over.

    That is after `test` and `validate`, and at the end of `fit` those of the last validation, of its first loader if
    it has several. Samples come from `outputs["logits"]` (B, K) and from the first two parts of the batch, image
    (B, C, H, W) and label (B,), unless a subclass takes others (`samples`). Never more than `n` are held, on the CPU;
    rank zero draws the first `n` of all ranks.

    Args:
        n: samples to draw.
        order: "worst" (mistakes, highest loss first), "spread" (the worst mistake of each true class, then the second
            worst of each ...) or "first" (right or wrong, as they come).
        every_n_epochs: draw during `fit` too, after validation; 0 for only at its end.

    Attributes:
        shown: the `Sample`s drawn, in order.
        seen, mistakes: images evaluated, and how many of them were wrong.

    Raises:
        ValueError: for an unknown order, or steps that return no logits.
    """

    orders = ("worst", "spread", "first")

    def __init__(self, n: int = 10, order: str = "worst", every_n_epochs: int = 0) -> None:
        if n < 1 or order not in self.orders:
            raise ValueError(f"n is {n} and order {order!r}: expected 1 or more, and one of {', '.join(self.orders)}")
        self.n, self.order, self.every_n_epochs = n, order, every_n_epochs
        self._start("val")

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws `self.shown`; called on rank zero only."""
        raise TypeError(f"{type(self).__name__} must define `draw`")

    def gather(self, trainer: Trainer) -> None:
        """Fills `shown`, from all ranks, which all must call it. Calling it again does nothing."""
        if not self._open:
            return
        parts = [(self._held, self.seen, self.mistakes)]
        if trainer.world_size > 1:
            parts *= trainer.world_size
            torch.distributed.all_gather_object(parts, parts[0])
        held, seen, mistakes = zip(*parts, strict=True)
        self.shown, self.seen, self.mistakes = self._best(chain(*held)), sum(seen), sum(mistakes)
        self._held, self._open = [], False

    def _start(self, split: str) -> None:
        self.split, self.seen, self.mistakes, self.shown = split, 0, 0, []
        self._held, self._open, self._due = [], True, False

    def _best(self, samples: Any) -> list[Sample]:
        """The first `n` in the order asked for; what falls out of a part would fall out of the whole too."""
        samples = sorted(samples, key=lambda s: (0 if self.order == "first" else -s.loss, s.index))
        if self.order == "spread":
            turn = defaultdict(count)
            samples.sort(key=lambda s: next(turn[s.truth]))
        return samples[: self.n]

    def samples(self, outputs: Any, batch: Any, places: Iterator[int]) -> list[Sample]:
        """The samples of a batch, each at its place. Galleries of other things make tuples of their own, with the
        fields `image`, `loss` and `index` and the property `wrong`; all but `image` must hold memory of their own.
        """
        if not isinstance(outputs, dict) or "logits" not in outputs:
            raise ValueError(
                f"{type(self).__name__} found no logits in what the {self.split} step returns: "
                'expected a dict with "logits" (B, K) beside "loss"; return that'
            )
        image, label = batch[0], batch[1]
        logits = outputs["logits"].detach().float()
        loss = F.cross_entropy(logits, label, reduction="none").tolist()
        confidence, prediction = (values.tolist() for values in logits.softmax(1).max(1))
        rows = zip(image, label.tolist(), prediction, confidence, loss, places, strict=False)
        return [Sample(*row) for row in rows]

    def _collect(self, trainer: Trainer, outputs: Any, batch: Any) -> None:
        first = self.seen * trainer.world_size
        samples = self.samples(outputs, batch, count(first + trainer.global_rank, trainer.world_size))
        if trainer.sanity_checking:
            return
        wrong = [sample for sample in samples if sample.wrong]
        new = samples if self.order == "first" else wrong
        # The new ones that stay get memory of their own, or they would keep their whole batch alive.
        self._held = [
            s._replace(image=s.image.detach().to("cpu", copy=True)) if s.index >= first else s
            for s in self._best(self._held + new)
        ]
        self.seen, self.mistakes, self._due = self.seen + len(samples), self.mistakes + len(wrong), True

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.gather(trainer)
        if trainer.is_global_zero and self._due:
            self.draw(trainer, pl_module)
        self._due = False

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loaders = trainer.val_dataloaders
        self._start(next(iter(loaders)) if isinstance(loaders, dict) else "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start("test")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx == 0:
            self._collect(trainer, outputs, batch)

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        fitting = trainer.state.fn == "fit"
        if not fitting or (self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0):
            self._finish(trainer, pl_module)

    on_test_end = on_train_end = _finish  # not on_fit_end: by then the strategy has been torn down
