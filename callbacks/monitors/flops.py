"""Counting the floating-point operations of a training."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch.utils.flop_counter import FlopCounterMode


class FlopCounter(Callback):
    """Counts the floating-point operations of a training: those of the first step, times the number of steps.

    A step consists of forward pass, backward pass and optimizer step. Matrix products and convolutions are counted, a
    multiply-add as two operations; element-wise operations are not, as is usual.

    Attributes:
        tflop: operations of all batches so far, over all processes, in 10^12.
        samples: how many samples these batches had, over all processes: the length of the first tensor of each.
    """

    def __init__(self) -> None:
        self.counter: FlopCounterMode | None = None
        self.per_batch, self.batches, self.samples, self.world_size = 0, 0, 0, 1

    @property
    def tflop(self) -> float:
        return self.per_batch * self.batches * self.world_size / 1e12

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batches += 1
        self.world_size = trainer.world_size
        first = batch[0] if isinstance(batch, Sequence) else batch
        self.samples += trainer.world_size * (len(first) if isinstance(first, torch.Tensor) and first.ndim else 1)
        if not self.per_batch:
            self.counter = FlopCounterMode(display=False, custom_mapping=BACKWARD)
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
        return {"per_batch": self.per_batch, "batches": self.batches, "samples": self.samples}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.per_batch, self.batches, self.samples = state["per_batch"], state["batches"], state.get("samples", 0)


def convolution_backward(
    gradient: Sequence[int],
    inputs: Sequence[int],
    weight: Sequence[int],
    bias: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    """The operations of a convolution's backward pass, from the shapes of its tensors.

    Each of the gradients of inputs and of weights costs as much as the forward pass. torch's own formula counts a
    grouped convolution as if it were dense.
    """
    positions = inputs[2:] if transposed else gradient[2:]  # how often the kernel is laid over the images
    forward = 2 * gradient[0] * math.prod(positions) * math.prod(weight)
    return forward * sum(output_mask[:2])


BACKWARD = {torch.ops.aten.convolution_backward: convolution_backward}
