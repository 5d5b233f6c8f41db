"""The last epochs of a training without augmentation."""

from typing import Any

from lightning import Callback, LightningModule, Trainer


class NoAugmentation(Callback):
    """Switches off the datamodule's augmentation for the last epochs of training.

    A net that is small, or trained for long, then fits images like those of the test: He et al. 2019, "Data
    Augmentation Revisited: Rethinking the Distribution Gap between Clean and Augmented Data", section 4.

    Args:
        last_epochs: how many; a training of no more epochs has no augmentation at all.

    Raises:
        ValueError: if that is less than 1, the datamodule has no `augment`, or the Trainer no `max_epochs`.

    >>> NoAugmentation(3).last_epochs
    3
    """

    def __init__(self, last_epochs: int = 3) -> None:
        if last_epochs < 1:
            raise ValueError(f"last_epochs is {last_epochs}: expected 1 or more; leave out NoAugmentation")
        self.last_epochs = last_epochs
        self._data: Any = None
        self._augment: list | None = None  # the datamodule's, while it is switched off

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._data = getattr(trainer, "datamodule", None)
        if not hasattr(self._data, "augment"):
            raise ValueError(
                f"{type(self._data).__name__} has no `augment` to switch off: expected a datamodule that augments on "
                "the device; leave out NoAugmentation"
            )
        if (trainer.max_epochs or -1) < 0:
            raise ValueError(
                f"max_epochs is {trainer.max_epochs}: which epochs are the last? Give the Trainer max_epochs"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._augment is None and trainer.current_epoch >= (trainer.max_epochs or 0) - self.last_epochs:
            self._augment, self._data.augment = self._data.augment, []

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore()

    def _restore(self) -> None:
        if self._augment is not None:
            self._data.augment, self._augment = self._augment, None
