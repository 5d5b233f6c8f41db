"""A function of the batch, applied after whatever the datamodule does to it."""

from collections.abc import Callable
from typing import Any

from lightning import Callback, LightningModule, Trainer


class BatchTransform(Callback):
    """Applies `transform(batch) -> batch` to every batch on the device, after everything else.

    Lightning gives callbacks no way to replace a batch, so this one wraps the `on_after_batch_transfer` of the
    datamodule, or of the module if there is none, and unwraps it when the run ends.

    Args:
        transform: gets the batch that the step would get, and returns the one that it gets.
        training, evaluation: whether to apply it there.

    Raises:
        ValueError: if it would be applied nowhere.
    """

    def __init__(self, transform: Callable[[Any], Any], training: bool = True, evaluation: bool = False) -> None:
        if not training and not evaluation:
            raise ValueError("training and evaluation are both false: expected at least one; or leave out the callback")
        self.transform, self.training, self.evaluation = transform, training, evaluation
        self._owner: Any = None  # whose method is wrapped

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._unwrap()
        self._owner = getattr(trainer, "datamodule", None) or pl_module
        wrapped = self._owner.on_after_batch_transfer

        def on_after_batch_transfer(batch: Any, dataloader_idx: int) -> Any:
            batch = wrapped(batch, dataloader_idx)
            return self.transform(batch) if (self.training if trainer.training else self.evaluation) else batch

        self._owner.on_after_batch_transfer = on_after_batch_transfer

    def _unwrap(self) -> None:
        if self._owner is not None:
            vars(self._owner).pop("on_after_batch_transfer", None)
            self._owner = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._unwrap()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._unwrap()
