"""Progress: a bar at a terminal, a line an epoch elsewhere."""

import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar


class EpochLines(ProgressBar):
    """One line an epoch with its metrics and seconds, for logs and pipes."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.enabled = 0.0, True

    def disable(self) -> None:
        self.enabled = False  # other ranks

    def enable(self) -> None:
        self.enabled = True

    def print_line(self, text: str) -> None:
        if self.enabled:
            print(text, file=sys.stderr, flush=True)

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seconds = time.monotonic() - self.started
        values = trainer.callback_metrics
        shown = "  ".join(f"{name} {float(values[name]):.4f}" for name in sorted(values))
        self.print_line(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}  {seconds:.1f} s")


def progress_callback() -> ProgressBar:
    """A bar with the metrics in it if somebody watches, else lines."""
    return TQDMProgressBar() if sys.stdout.isatty() else EpochLines()
