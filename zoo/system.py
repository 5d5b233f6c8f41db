"""What every system shares: its optimiser and schedule, and checkpoints that say what they hold."""

import math
from collections.abc import Callable
from typing import Any

from lightning import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

ScheduleCallable = Callable[[Optimizer, int], LRScheduler]


class System(LightningModule):
    """Base of the systems of all shelves. A subclass sets `self.net`, which owns all layers, and defines the steps.

    Args:
        optimizer: called with the named parameters of the net that are trained.
        schedule: called with (optimizer, number of optimiser steps in the whole training); stepped after each.

    Raises:
        ValueError: if the training has no end, or a checkpoint belongs to another class of module or a net of other
            sizes.
    """

    cam_reshape = None  # tokens (B, T, D) -> maps (B, D, H, W), for systems that have tokens
    loss_label = "loss"  # what stands at the axis of the loss curve, with its unit
    initialised = False  # its weights come from a checkpoint, or a callback has initialised them: leave them alone

    def __init__(self, optimizer: OptimizerCallable, schedule: ScheduleCallable) -> None:
        super().__init__()
        self.optimizer, self.schedule = optimizer, schedule

    def configure_optimizers(self) -> dict:
        optimizer = self.optimizer([(name, p) for name, p in self.net.named_parameters() if p.requires_grad])
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise ValueError(
                f"max_epochs is {self.trainer.max_epochs}, so the schedule can't know the length of the training: "
                "expected max_epochs or max_steps; give --trainer.max_epochs N"
            )
        schedule = self.schedule(optimizer, int(steps))
        when = {"interval": "step"}
        if isinstance(schedule, ReduceLROnPlateau):
            when = {"interval": "epoch", "monitor": schedule.monitor}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, **when}}

    def log_metric(self, name: str, *values: Any, prog_bar: bool = True) -> None:
        """Updates `self.metrics[name]`, a torchmetrics metric, with `values`, and has it logged as the epoch ends.

        Lightning keeps the metric itself and reads it then, so one `log` an epoch is enough; each costs a millisecond.
        """
        self.metrics[name].update(*values)
        if self.metrics[name].update_count == 1:
            options = {"on_step": False, "on_epoch": True, "add_dataloader_idx": False}
            self.log(name, self.metrics[name], prog_bar=prog_bar, **options)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Adds what is needed to use the checkpoint on other data: the class of this module, the datamodule's card."""
        # What Python code passed in as a class or function can't be read back safely; from a recipe it is plain data.
        plain = {name: value for name, value in checkpoint.get("hyper_parameters", {}).items() if not callable(value)}
        checkpoint["hyper_parameters"] = plain
        checkpoint["module"] = _dotted(self)
        data = getattr(self.trainer, "datamodule", None)
        checkpoint["data"] = data.card() if hasattr(data, "card") else {}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.initialised = True
        here, there = _dotted(self), checkpoint.get("module", _dotted(self))
        saved = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
        own = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        if there != here or saved != own:
            first = next((name for name in own | saved if saved.get(name) != own.get(name)), None)
            detail = f"; {first} is {saved.get(first)} there and {own.get(first)} here" if first else ""
            raise ValueError(
                f"the checkpoint holds a {there}, expected a {here}{detail}; "
                "use the recipe and options that it was trained with"
            )


def _dotted(module: System) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
