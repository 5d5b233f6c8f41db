"""Finds a misspelt metric before a training instead of after its first epoch."""

from lightning import Callback, LightningModule, Trainer
from torch import nn

from datamodules.messages import nearest_names


class MonitorCheck(Callback):
    """Refuses callbacks that wait for a metric under a name like `val_loss`, where the module logs `val/loss`.

    Metrics that a module computes without registering them, by `System.add_metric`, are not known before.

    Raises:
        ValueError: names the callback, its metric and those that there are.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = getattr(pl_module, "metrics", None)
        known = [name for name in metrics if not name.startswith("test/")] if isinstance(metrics, nn.ModuleDict) else []
        spelled = {name.replace("/", "_").lower() for name in known}
        for callback in getattr(trainer, "callbacks", []):
            monitor = getattr(callback, "monitor", None)
            if isinstance(monitor, str) and monitor not in known and monitor.replace("/", "_").lower() in spelled:
                raise ValueError(
                    f"{type(callback).__name__} waits for the metric {monitor!r}: expected one of {', '.join(known)}; "
                    f"{nearest_names(monitor, known)}"
                )
