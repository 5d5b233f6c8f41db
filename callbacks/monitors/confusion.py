"""Which classes a classifier confuses: the confusion matrix, and precision, recall and F1 of each class. K classes."""

import json
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from callbacks.figures.callback import FigureCallback
from callbacks.figures.confusion import draw_confusion
from callbacks.galleries.base import SPLIT_NAMES
from callbacks.galleries.items import FOLDER, full_names
from datamodules.io import atomic_write

COLUMNS = ["class", "precision", "recall", "f1", "count"]


class Confusion(FigureCallback):
    """Draws the confusion matrix of an evaluation to `pictures/confusion_<split>.png`, over all processes.

    Beside it `items/confusion_<split>.json` has the matrix (rows: truth, columns: prediction) and for each class its
    precision, recall, F1 and number of images; W&B gets these as a table. That is after `test` and `validate`, and at
    the end of `fit` for the last validation, of its first loader if it has several.

    Steps return "logits" (B, K), and the second part of a batch are the labels: class indices (B,) int64 or, of mixed
    samples, the share of each class (B, K), of which the largest is the truth. K is the `num_classes` of the module,
    else that of the data. A class without images has a recall of 0, one that is never predicted a precision of 0.

    Args:
        every_n_epochs: draw during `fit` too, after validation; 0 for only at its end.

    Raises:
        ValueError: if neither module nor data have `num_classes`, or steps return no logits.

    >>> Confusion(every_n_epochs=5).split
    'val'
    """

    def __init__(self, every_n_epochs: int = 0) -> None:
        self.every_n_epochs = every_n_epochs
        self.split, self._due = "val", False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        sources = (pl_module, getattr(trainer, "datamodule", None))
        number = next((n for source in sources if (n := getattr(source, "num_classes", None)) is not None), None)
        if number is None:
            raise ValueError(
                f"Confusion needs to know the number of classes: {type(pl_module).__name__} and its data have no "
                "`num_classes`; expected it in one of them; add it, or leave Confusion out"
            )
        each: dict[str, Any] = {"num_classes": int(number), "average": None}
        self.metrics = MetricCollection(
            {
                "matrix": MulticlassConfusionMatrix(int(number)),
                "precision": MulticlassPrecision(**each),
                "recall": MulticlassRecall(**each),
                "f1": MulticlassF1Score(**each),
            }
        )

    def _start(self, pl_module: LightningModule, split: str) -> None:
        self.split, self._due = split, False
        self.metrics.to(pl_module.device)
        self.metrics.reset()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loaders = trainer.val_dataloaders
        self._start(pl_module, next(iter(loaders)) if isinstance(loaders, dict) else "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(pl_module, "test")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx:
            return
        if not isinstance(outputs, dict) or "logits" not in outputs:
            raise ValueError(
                f'Confusion found no logits in what the {self.split} step returns: expected a dict with "logits", '
                '(B, K), next to "loss"; return that'
            )
        label = batch[1]
        self.metrics.update(outputs["logits"].detach().argmax(1), label if label.ndim == 1 else label.argmax(1))
        self._due = not trainer.sanity_checking

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        fitting = trainer.state.fn == "fit"
        if not fitting or (self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0):
            self._finish(trainer, pl_module)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._due:
            return
        self._due = False
        found = {name: value.cpu() for name, value in self.metrics.compute().items()}  # a collective call
        if trainer.is_global_zero:
            self._publish(trainer, found)

    on_test_end = on_train_end = _finish

    def _publish(self, trainer: Trainer, found: dict[str, torch.Tensor]) -> None:
        name, matrix, key = full_names(trainer), found["matrix"].numpy(), f"confusion_{self.split}"
        names, counts = [name(label) for label in range(len(matrix))], matrix.sum(1).tolist()
        values = (found[column].tolist() for column in COLUMNS[1:-1])
        rows = [list(row) for row in zip(names, *values, counts, strict=True)]
        with atomic_write(self.folder.parent / FOLDER / f"{key}.json") as temporary:
            content = {"kind": "confusion", "split": self.split, "matrix": matrix.tolist()}
            classes = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
            temporary.write_text(json.dumps(content | {"classes": classes}), encoding="utf-8")
        accuracy = matrix.trace() / max(matrix.sum(), 1)
        number = f"{matrix.sum():,}".replace(",", "\u202f")
        subtitle = f"{number} images, accuracy {100 * accuracy:.2f} %; color: root of the share of the true class"
        title = f"Confusion matrix of the {SPLIT_NAMES.get(self.split, self.split)} set"
        self.publish(trainer, key, draw_confusion(matrix, names, title, subtitle), (COLUMNS, rows))
