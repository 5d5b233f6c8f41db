"""The last epochs on training images as they are."""

from lightning import Callback, LightningModule, Trainer


class NoAugmentation(Callback):
    """Takes the datamodule's augmentation away for the last epochs of training.

    A net that is small, or trained for long, then fits the images that it will be tested on: He et al. 2019, "Data
    Augmentation Revisited: Rethinking the Distribution Gap between Clean and Augmented Data", section 4.

    Args:
        last_epochs: how many; a shorter training has none with augmentation.

    Raises:
        ValueError: if that is less than 1, the datamodule has no `augment`, or the Trainer no `max_epochs`.

    >>> NoAugmentation(3).last_epochs
    3
    """

    def __init__(self, last_epochs: int = 3) -> None:
        if last_epochs < 1:
            raise ValueError(f"last_epochs is {last_epochs}: expected 1 or more; leave out NoAugmentation")
        self.last_epochs, self.kept = last_epochs, None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not hasattr(trainer.datamodule, "augment"):
            raise ValueError(
                f"{type(trainer.datamodule).__name__} has no `augment` to take away: expected a datamodule that "
                "augments on the device; leave out NoAugmentation"
            )

        if (trainer.max_epochs or -1) < 0:
            raise ValueError(
                f"max_epochs is {trainer.max_epochs}: which epochs are the last? Give the Trainer max_epochs"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.kept is None and trainer.current_epoch >= trainer.max_epochs - self.last_epochs:
            self.kept, trainer.datamodule.augment = trainer.datamodule.augment, []

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._put_back(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._put_back(trainer)

    def _put_back(self, trainer: Trainer) -> None:
        if self.kept is not None:
            trainer.datamodule.augment, self.kept = self.kept, None
