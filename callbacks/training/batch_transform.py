"""A function of the batch, put behind whatever the datamodule does to it."""

from collections.abc import Callable
from typing import Any

from lightning import Callback, LightningModule, Trainer


class BatchTransform(Callback):
    """Applies `transform(batch) -> batch` to every batch on the device, last of all, in training and/or evaluation.

    Lightning gives callbacks no way to exchange a batch, so this one puts itself behind the `on_after_batch_transfer`
    of datamodule or module, and takes itself away when the run is over.

    Args:
        transform: gets the batch as the step would, and returns what the step gets.
        training, evaluation: where.

    Raises:
        ValueError: if it is to be applied nowhere.
    """

    def __init__(self, transform: Callable[[Any], Any], training: bool = True, evaluation: bool = False) -> None:
        if not training and not evaluation:
            raise ValueError("training and evaluation are both false: expected at least one; or leave out the callback")
        self.transform, self.training, self.evaluation = transform, training, evaluation
        self._owner: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._take_away()
        self._owner = trainer.datamodule or pl_module
        before = self._owner.on_after_batch_transfer

        def on_after_batch_transfer(batch: Any, dataloader_idx: int) -> Any:
            batch = before(batch, dataloader_idx)
            return self.transform(batch) if (self.training if trainer.training else self.evaluation) else batch

        self._owner.on_after_batch_transfer = on_after_batch_transfer

    def _take_away(self) -> None:
        if self._owner is not None:
            vars(self._owner).pop("on_after_batch_transfer", None)
            self._owner = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._take_away()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._take_away()
