"""A misspelt metric is found before the training, and a metric that somebody's own code may log is not refused."""

from types import SimpleNamespace

import pytest
from lightning import Callback
from lightning.pytorch.callbacks import EarlyStopping

from callback_runs import model
from callbacks.runtime.monitor_check import MonitorCheck


class Own(Callback):
    """May log anything."""


def check(monitor: str, *callbacks: Callback, module=None, schedules=()) -> None:
    trainer = SimpleNamespace(callbacks=[EarlyStopping(monitor), *callbacks], lr_scheduler_configs=list(schedules))
    MonitorCheck().on_fit_start(trainer, model() if module is None else module)


@pytest.mark.parametrize("monitor", ["val/los", "val_loss", "Val/Loss", "val/lossy"])
def test_a_misspelt_metric_is_refused_with_the_names_that_there_are(monitor):
    with pytest.raises(
        ValueError, match=rf"EarlyStopping waits for the metric '{monitor}'.*val/acc.*nearest: val/loss"
    ):
        check(monitor)


def test_a_schedule_is_checked_as_well():
    schedule = SimpleNamespace(scheduler=model(), monitor="val/los", reduce_on_plateau=True)
    with pytest.raises(ValueError, match="'val/los'"):
        check("val/loss", schedules=[schedule])


def test_what_may_be_logged_is_accepted():
    for monitor in ("val/loss", "val/acc", "test/acc", "something/else"):
        check(monitor)
    check("val/loss_ema", Own())
    axes = SimpleNamespace(metrics=model().metrics, axes={"loss": None, "acc_5": None})
    check("val/acc_5", module=axes)
