"""Batches that grow in training instead of a learning rate that falls."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor


class BatchGrowth(GradientAccumulationScheduler):
    """Multiplies the batch size at each of the `milestones`, where a schedule would divide the learning rate.

    Smith, Kindermans, Ying and Le 2018, "Don't Decay the Learning Rate, Increase the Batch Size", section 5.1: the
    noise of the gradients falls in the same way, with fewer updates of the weights.

    A batch grows by adding up the gradients of several of the loader's batches. So memory stays what it was, and batch
    norm keeps the statistics of the loader's batches, as in the paper, which has "ghost" batches of 128 for that. The
    last batch of an epoch may be smaller; each of its samples has the same weight as any other.

    Lightning's own callback, from which this one inherits, forgets the size until the next epoch when a training is
    resumed inside one, and does not know the schedule. Here a batch whose gradients were being added up is saved and
    resumed, and a schedule advances by the loader's batches, of which it knows the number, not by updates: it stays a
    function of the share of the training that is done.

    Args:
        milestones: shares of the training, 0 to 1, that are rounded to whole epochs: 0.6 of 5 epochs is the end of the
            third.
        factor: by which the batch size is multiplied at each.

    Raises:
        ValueError: for shares outside 0..1 or not in order, a factor below 2, or a Trainer without `max_epochs`.

    >>> BatchGrowth(milestones=(0.3, 0.6, 0.8), factor=5).sizes(10)
    {0: 1, 3: 5, 6: 25, 8: 125}
    """

    def __init__(self, milestones: tuple[float, ...] = (0.3, 0.6, 0.8), factor: int = 5) -> None:
        super().__init__({0: 1})
        if not all(0 < share < 1 for share in milestones) or sorted(milestones) != list(milestones):
            raise ValueError(f"milestones is {milestones}: expected shares of the training between 0 and 1, in order")
        if factor < 2:
            raise ValueError(f"factor is {factor}: expected 2 or more; leave out BatchGrowth")
        self.milestones, self.factor = milestones, factor
        self._gradients: dict[str, Tensor] | None = None  # of a batch that is not complete, from a checkpoint

    def sizes(self, epochs: int) -> dict[int, int]:
        """Epoch, counted from 0 -> from then on, the batch size as a multiple of the loader's."""
        starts = [0, *(max(1, round(share * epochs)) for share in self.milestones)]
        return {epoch: self.factor**i for i, epoch in enumerate(starts)}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if (trainer.max_epochs or -1) < 0:
            raise ValueError(
                f"max_epochs is {trainer.max_epochs}, so the milestones of BatchGrowth are unknown: "
                "expected a number of epochs; give --trainer.max_epochs N"
            )
        self.scheduling = self.sizes(trainer.max_epochs or 0)
        self.epochs = sorted(self.scheduling)
        self.on_train_epoch_start(trainer, pl_module)  # Lightning does not call it when it resumes inside an epoch
        gradients, self._gradients = self._gradients, None
        if gradients is not None and trainer.world_size == 1:  # of several processes, only the first's were saved
            for name, parameter in pl_module.named_parameters():
                parameter.grad = gradients[name].to(parameter) if name in gradients else None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.fit_loop._should_accumulate():  # else Lightning advances the schedules, after the update
            for config in trainer.lr_scheduler_configs:
                if config.interval == "step" and not config.reduce_on_plateau:
                    config.scheduler.step()  # type: ignore[call-arg]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.training and trainer.fit_loop._should_accumulate():
            gradients = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
            checkpoint["accumulated_gradients"] = gradients

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._gradients = checkpoint.get("accumulated_gradients")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.accumulate_grad_batches = 1  # which Lightning asks for when a training starts

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        trainer.accumulate_grad_batches = 1
