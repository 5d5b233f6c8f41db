"""Progress of a training: a bar at a terminal, otherwise a line for each epoch."""

import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar


class EpochLines(ProgressBar):
    """Prints a line for each epoch with its metrics and seconds, for log files and pipes."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self._epoch_start = 0.0  # seconds

    def disable(self) -> None:
        self.enabled = False  # Lightning calls this on all ranks but zero

    def enable(self) -> None:
        self.enabled = True

    def print_line(self, text: str) -> None:
        if self.enabled:
            print(text, file=sys.stderr, flush=True)

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self._epoch_start = time.monotonic()  # a training that is resumed within an epoch does not start that epoch

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        self._epoch_start = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seconds = time.monotonic() - self._epoch_start
        values = trainer.callback_metrics
        metrics = "  ".join(f"{name} {float(values[name]):.4f}" for name in sorted(values))
        self.print_line(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {metrics}  {seconds:.1f} s")


def progress_callback() -> ProgressBar:
    """A bar with the metrics in it if the output is a terminal, else `EpochLines`."""
    return TQDMProgressBar() if sys.stdout.isatty() else EpochLines()
