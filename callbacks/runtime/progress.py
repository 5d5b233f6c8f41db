"""Progress of a training: a bar at a terminal, otherwise a line for each epoch. Both say how long it still takes."""

import logging
import sys
import time
from collections.abc import Iterable
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm, convert_inf
from lightning.pytorch.utilities.model_summary.model_summary import _format_summary_table

from callbacks.runtime.duration import duration
from datamodules.messages import measured


class Clock:
    """Estimates how long a training still takes, from the share of it that is done and the time that this share took.

    Validation counts in, and what a resumed training did before does not. A training without a known end has no
    estimate.
    """

    def __init__(self) -> None:
        self.began: float | None = None  # seconds
        self.before = 0.0  # the share that was done

    def reset(self) -> None:
        self.began = None

    def start(self, trainer: Trainer) -> None:
        """To be called before each batch: the first one of a training, also of a resumed one, starts the clock."""
        if self.began is None:
            self.began, self.before = time.monotonic(), share_done(trainer, begun=1)

    def left(self, trainer: Trainer) -> float | None:
        """Seconds until the end of the training; None if that cannot be known yet."""
        done = share_done(trainer)
        if self.began is None or done <= self.before:
            return None
        return (time.monotonic() - self.began) / (done - self.before) * (1 - done)


def share_done(trainer: Trainer, begun: int = 0) -> float:
    """How much of its training a Trainer has done, 0 to 1, by epochs or by steps, whichever end is nearer.

    Args:
        trainer: that trains.
        begun: how many of the batches of this epoch that it has begun do not count.
    """
    share = 0.0
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready - begun
        share = (trainer.current_epoch + min(batches / max(trainer.num_training_batches, 1), 1.0)) / trainer.max_epochs
    if trainer.max_steps > 0:
        share = max(share, trainer.global_step / trainer.max_steps)
    return min(share, 1.0)


def epoch_name(trainer: Trainer) -> str:
    """The epoch, counted from 1, and of how many; epochs without a known number are only counted."""
    last = trainer.max_epochs
    return f"{trainer.current_epoch + 1}/{last}" if last is not None and last > 0 else f"{trainer.current_epoch + 1}"


def main_metrics(names: Iterable[str], axes: Iterable[str]) -> list[str]:
    """The names of the metrics that tell most: of each split the loss and the first other one that is evaluated.

    Args:
        names: as logged, with their splits.
        axes: metrics without their split, in the order of their importance; if none of them is logged, all names count.

    >>> main_metrics(["val/map_50", "val/box", "val/loss", "train/box", "train/loss"], ["loss", "map_50", "box"])
    ['train/loss', 'val/loss', 'val/map_50']
    """
    place = {name: number for number, name in enumerate(axes)}
    known = {name: metric for name in names if (metric := name.partition("/")[2]) in place}
    others = {name: metric for name, metric in known.items() if metric != "loss"}
    evaluated = [metric for name, metric in others.items() if not name.startswith("train/")]
    main = min(evaluated or others.values(), key=place.__getitem__, default="loss")
    return sorted(name for name, metric in known.items() if metric in ("loss", main)) or sorted(names)


class ModelTable(ModelSummary):
    """Lightning's table of the layers, without their operations, of which it knows none; `FlopCounter` counts them."""

    @staticmethod
    def summarize(summary_data: list[tuple[str, list[str]]], *totals: Any, **options: Any) -> None:
        columns = [column for column in summary_data if column[0] != "FLOPs"]
        table = _format_summary_table(*totals, options["total_flops"], *columns).rpartition("\n")[0]
        logging.getLogger(ModelSummary.__module__).info(f"\n{table}")


class EpochLines(ProgressBar):
    """Prints a line for each epoch with its main metrics, its time and the time left, for log files and pipes."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self.clock = Clock()
        self._epoch_start = 0.0  # seconds

    def disable(self) -> None:
        self.enabled = False  # Lightning calls this on all ranks but zero

    def enable(self) -> None:
        self.enabled = True

    def print_line(self, text: str) -> None:
        if self.enabled:
            print(text, file=sys.stderr, flush=True)

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self.clock.reset()
        self._epoch_start = time.monotonic()  # a training that is resumed within an epoch does not start that epoch

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        self._epoch_start = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.clock.start(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seconds = time.monotonic() - self._epoch_start
        values = trainer.callback_metrics
        names = main_metrics(values, getattr(pl_module, "axes", {}))
        metrics = "  ".join(f"{name} {measured(float(values[name]))}" for name in names)
        took = f"{seconds:.1f} s" if seconds < 10 else duration(seconds)
        left = self.clock.left(trainer)
        rest = f", {duration(left)} left" if left else ""
        self.print_line(f"epoch {epoch_name(trainer)}  {metrics}  {took}{rest}")


class EpochBar(TQDMProgressBar):
    """Lightning's bar, which counts epochs from 1 and says how long the complete training still takes."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.clock.reset()

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.clock.start(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As in Lightning, whose own method would first show the number counted from 0."""
        if self._leave:
            self.train_progress_bar = self.init_train_tqdm()
        self.train_progress_bar.reset(convert_inf(self.total_train_batches))
        self.train_progress_bar.initial = 0
        self.train_progress_bar.set_description(f"Epoch {epoch_name(trainer)}")

    def init_train_tqdm(self) -> Tqdm:
        bar = super().init_train_tqdm()
        # The time left of an epoch would be taken for that of the training.
        bar.bar_format = "{desc}{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_noinv_fmt}{postfix}]"
        return bar

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # of a logger: the run folder has no version
        left = self.clock.left(trainer)
        return metrics if left is None else {**metrics, "left": duration(left)}


def progress_callback() -> ProgressBar:
    """A bar with the metrics in it if the output is a terminal, else `EpochLines`."""
    return EpochBar() if sys.stdout.isatty() else EpochLines()
