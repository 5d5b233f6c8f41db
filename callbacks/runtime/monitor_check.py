"""Finds a misspelt metric before a training instead of after its first epoch."""

from lightning import Callback, LightningModule, Trainer
from torch import nn

from datamodules.messages import nearest_names

OWN = ("zoo", "callbacks", "lightning")  # packages of which it is known what they log


class MonitorCheck(Callback):
    """Refuses callbacks and schedules that wait for a metric under a name like `val_loss` or `val/los`.

    A name that is only like that of a metric is refused where module and callbacks are those of the zoo or Lightning's:
    others may log what they like. Metrics that a module computes without registering them, by `System.add_metric`, are
    known only if it has an axis for them.

    Raises:
        ValueError: names the callback, its metric and those that there are.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = getattr(pl_module, "metrics", None)
        registered = list(metrics) if isinstance(metrics, nn.ModuleDict) else []
        splits, axes = {name.partition("/")[0] for name in registered}, getattr(pl_module, "axes", {})
        existing = {*registered, *(f"{split}/{name}" for split in splits for name in axes)}
        known = [name for name in registered if not name.startswith("test/")]
        spelled = {name.replace("/", "_").lower() for name in known}
        callbacks = list(getattr(trainer, "callbacks", []))
        is_own = all(type(one).__module__.partition(".")[0] in OWN for one in (pl_module, *callbacks))
        schedules = [config for config in trainer.lr_scheduler_configs if config.reduce_on_plateau]
        waiting = {config.scheduler: config.monitor for config in schedules}
        waiting |= {callback: getattr(callback, "monitor", None) for callback in callbacks}
        for one, monitor in waiting.items():
            if not isinstance(monitor, str) or monitor in existing:
                continue
            nearest = nearest_names(monitor, known)
            if monitor.replace("/", "_").lower() in spelled or (is_own and nearest):
                raise ValueError(
                    f"{type(one).__name__} waits for the metric {monitor!r}: expected one of {', '.join(known)}; "
                    f"{nearest}"
                )
