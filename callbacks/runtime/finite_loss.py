"""Ends a training at the first loss that is not a number, before it reaches a checkpoint."""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

EVERY = 20  # steps between two looks at the losses: each waits for the device
SHOWN = 8  # samples of the batch that are named


class Step(NamedTuple):
    """What is remembered of a training step: its place, its learning rates, its loss."""

    epoch: int
    batch_idx: int
    step: int
    rates: tuple[float, ...]
    loss: Tensor


class FiniteLoss(Callback):
    """Raises an error once the loss of a training step is infinite or not a number (NaN).

    The losses are looked at every few steps, before a validation and before a checkpoint is written, in the order of
    the steps, so that the error names the first one, and no checkpoint holds weights that came after it. A checkpoint
    whose weights are not finite is refused as well.

    Args:
        command: write the remedies as options of the `zoo` command, rather than as arguments in Python.

    Raises:
        ValueError: with the epoch, the step, its learning rate and the samples of its batch.
    """

    def __init__(self, command: bool = False) -> None:
        self.command = command
        self.steps: deque[Step] = deque()
        self.rates: tuple[float, ...] = ()  # of the step that is being done: when it ends, they are those of the next

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.steps.clear()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.rates = tuple(group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            place = trainer.current_epoch, batch_idx, trainer.global_step
            self.steps.append(Step(*place, self.rates, loss.detach()))
        if len(self.steps) >= EVERY:
            self.look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.look(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.look(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.look(trainer)
        for name, tensor in checkpoint["state_dict"].items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise ValueError(
                    f"{name} is not finite after step {trainer.global_step}: expected finite weights; "
                    f"{self._remedy()}{self._last_checkpoint(trainer)}"
                )

    def look(self, trainer: Trainer) -> None:
        """Raises the error if one of the losses since the last look is not finite."""
        if not self.steps:
            return
        finite = torch.stack([step.loss.float().mean() for step in self.steps]).isfinite().tolist()
        steps, self.steps = self.steps, deque()
        if all(finite):
            return
        first = steps[finite.index(False)]
        rates = " and ".join(dict.fromkeys(f"{rate:.3g}" for rate in first.rates))
        raise ValueError(
            f"the loss is {float(first.loss.float().mean())} in epoch {first.epoch + 1}, step {first.step}, at "
            f"learning rate {rates}{self._samples(trainer, first)}: expected a finite loss; "
            f"{self._remedy()}{self._last_checkpoint(trainer)}"
        )

    def _remedy(self) -> str:
        anomaly = "--trainer.detect_anomaly true" if self.command else "Trainer(detect_anomaly=True)"
        return f"lower the learning rate, clip gradients, or look for the operation with {anomaly}"

    def _samples(self, trainer: Trainer, step: Step) -> str:
        """The indices of the batch in the training set, where the loader knows them."""
        loader = getattr(getattr(trainer, "datamodule", None), "train_loader", None)
        if loader is None or loader.epoch != step.epoch:
            return ""
        indices = loader.batches()[step.batch_idx].tolist()
        return f", samples {', '.join(map(str, indices[:SHOWN]))}{', ...' if len(indices) > SHOWN else ''}"

    def _last_checkpoint(self, trainer: Trainer) -> str:
        paths = [
            path
            for callback in trainer.checkpoint_callbacks
            if isinstance(callback, Checkpoint)
            for name in ("last_model_path", "best_model_path")
            if (path := getattr(callback, name, "")) and Path(path).is_file()
        ]
        return f"; the last finite checkpoint is {paths[0]}" if paths else ""
