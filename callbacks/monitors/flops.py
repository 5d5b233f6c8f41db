"""Counting the floating-point operations of a training."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch.utils.flop_counter import FlopCounterMode


class FlopCounter(Callback):
    """Counts the floating-point operations of a training: those of the first step, times the number of steps.

    A step consists of forward pass, backward pass and optimizer step. Matrix products and convolutions are counted, a
    multiply-add as two operations; element-wise operations are not, as is usual. torch counts the backward pass of
    grouped convolutions as if they were dense, so for nets that have them the number is an upper bound.

    Attributes:
        tflop: operations of all batches so far, over all processes, in 10^12.
    """

    def __init__(self) -> None:
        self.counter: FlopCounterMode | None = None
        self.per_batch, self.batches, self.world_size = 0, 0, 1

    @property
    def tflop(self) -> float:
        return self.per_batch * self.batches * self.world_size / 1e12

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.batches += 1
        self.world_size = trainer.world_size
        if not self.per_batch:
            self.counter = FlopCounterMode(display=False)
            self.counter.__enter__()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.counter is not None:
            self.counter.__exit__(None, None, None)
            self.per_batch, self.counter = self.counter.get_total_flops(), None

    def state_dict(self) -> dict[str, int]:
        return {"per_batch": self.per_batch, "batches": self.batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.per_batch, self.batches = state["per_batch"], state["batches"]
