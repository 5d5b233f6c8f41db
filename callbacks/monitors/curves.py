"""Loss, accuracy and all other logged metrics over the epochs, in one annotated figure."""

from typing import Any

from lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.figures.axis import Axis
from callbacks.figures.callback import FigureCallback
from callbacks.figures.curves import draw, split_of


class Curves(FigureCallback):
    """Draws every metric that is logged once an epoch, such as `train/loss` and `val/acc`, to `pictures/curves.png`.

    That is at the end of training, also when it ends by an exception or Ctrl-C. The module says what a metric means:
    `pl_module.axes` maps its name, without the split, to an `Axis`; a metric that is not in it gets a plain axis with
    its name. Where labels are smoothed in training only, the axis says so, as the losses then differ by more than the
    data. The history is saved in checkpoints, so a resumed run draws the complete curve.

    Args:
        every_n_epochs: draw during training too; 0 for only at its end.

    Attributes:
        history: metric -> {epoch, counted from 1: value}.

    >>> Curves().history
    {}
    """

    def __init__(self, every_n_epochs: int = 0) -> None:
        self.every_n_epochs = every_n_epochs
        self.history: dict[str, dict[int, float]] = {}
        self._recorded: dict[str, Tensor] = {}  # the last value of each metric of training, to recognize new ones

    def _record_evaluation(self, trainer: Trainer) -> None:
        for name, value in epoch_metrics(trainer).items():
            if split_of(name) in ("val", "test"):
                self.history.setdefault(name, {})[trainer.current_epoch + 1] = float(value)

    def _record_training(self, trainer: Trainer, epoch: int) -> None:
        """Records what was logged in an epoch, once. The Trainer still holds the values of earlier epochs, too."""
        for name, value in epoch_metrics(trainer).items():
            last = self._recorded.get(name)
            is_new = last is None or last.data_ptr() != value.data_ptr()
            if split_of(name) in ("train", "") and is_new and epoch not in self.history.get(name, {}):
                self.history.setdefault(name, {})[epoch] = float(value)
                self._recorded[name] = value

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets later epochs, which belong to another training, and completes the one before."""
        kept = {
            name: {e: v for e, v in values.items() if e <= trainer.current_epoch}
            for name, values in self.history.items()
        }
        self.history = {name: values for name, values in kept.items() if values}
        self._complete(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._record_evaluation(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._record_training(trainer, trainer.current_epoch + 1)
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._complete(trainer)
        self._draw(trainer, pl_module)

    def _complete(self, trainer: Trainer) -> None:
        """Records what modules and later callbacks logged at the end of the last epoch, after `on_train_epoch_end`."""
        if trainer.current_epoch:
            self._record_training(trainer, trainer.current_epoch)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.state.fn == "fit":
            self._draw(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = state["history"]

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self.history:
            self.publish(trainer, "curves", draw(self.history, axes_of(pl_module)))


def axes_of(pl_module: LightningModule) -> dict[str, Axis]:
    """The axes of a module's metrics; a second line of a label tells what differs between training and evaluation."""
    axes: dict[str, Axis] = dict(getattr(pl_module, "axes", {}))
    smoothing = getattr(pl_module, "label_smoothing", 0.0)
    if smoothing and "loss" in axes:
        remark = f"(training: label smoothing {smoothing:g})"
        axes["loss"] = axes["loss"]._replace(label=f"{axes['loss'].label}\n{remark}")
    return axes


def epoch_metrics(trainer: Trainer) -> dict[str, Tensor]:
    """The metrics that a Trainer holds, each once; a collective call, as they are reduced here.

    One that is logged both in each step and in each epoch has three names, such as `train/loss`, `train/loss_step` and
    `train/loss_epoch`, of which the first remains.
    """
    metrics = trainer.callback_metrics
    duplicates = {f"{name}_{when}" for name in metrics for when in ("step", "epoch")}
    return {name: value for name, value in metrics.items() if name not in duplicates}
