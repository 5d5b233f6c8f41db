"""Says what a batch is when several processes train together, and what batch norm sees of it."""

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from callbacks.runtime.out_of_memory import batch_size


class EffectiveBatch(Callback):
    """A line at the start of a training on several processes: samples in an optimizer step, statistics of batch norm.

    Each process has a batch of its own, and the gradients are averaged: with N processes a step takes N times as many
    samples, at a learning rate that stays as it is. Batch norm takes its statistics from the samples of one process.

    Args:
        command: write the remedies as options of the `zoo` command, rather than as arguments in Python.

    Raises:
        ValueError: see `check_sync_batchnorm`.
    """

    def __init__(self, command: bool = False) -> None:
        self.command = command

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            check_sync_batchnorm(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        size = batch_size(trainer)[1]
        if trainer.world_size == 1 or size is None:
            return
        steps = trainer.accumulate_grad_batches
        factors = f"{trainer.world_size} processes x batch_size {size}"
        if steps > 1:
            factors += f" x accumulate_grad_batches {steps}"
        line = f"{factors} = {trainer.world_size * size * steps} samples in an optimizer step"
        line += "; the learning rate stays as it is"
        if has_batch_norm(pl_module):
            line += f"; batch norm takes its statistics from {self._seen(trainer, size)}"
        rank_zero_info(line)

    def _seen(self, trainer: Trainer, size: int) -> str:
        if is_synchronized(trainer):
            return f"the {trainer.world_size * size} samples of all processes"
        option = "--trainer.sync_batchnorm true" if self.command else "Trainer(sync_batchnorm=True)"
        return f"the {size} of each process, on GPUs with {option} from those of all"


def check_sync_batchnorm(trainer: Trainer, module: nn.Module) -> None:
    """Raises ValueError if batch norm is to be synchronized on a device for which torch has no such operation."""
    if is_synchronized(trainer) and trainer.strategy.root_device.type == "cpu" and has_batch_norm(module):
        raise ValueError(
            f"sync_batchnorm is true, and the training runs in {trainer.world_size} processes on a CPU: expected GPUs, "
            "as torch synchronizes batch norm only there; leave it out, or take a norm without statistics of the batch"
        )


def is_synchronized(trainer: Trainer) -> bool:
    """Whether Lightning replaces batch norm by one whose statistics are those of all processes."""
    return getattr(trainer.strategy, "_layer_sync", None) is not None


def has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())
