"""Ctrl-C and SIGTERM end a training after the current batch, with a checkpoint that continues exactly there."""

import signal
import threading
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer


class GracefulStop(Callback):
    """Saves `checkpoints/interrupted.ckpt` on Ctrl-C or SIGTERM and prints how to continue; a second one ends the run.

    A signal is only remembered; the checkpoint is written between two batches, never within an optimizer step. Several
    processes would stop at different batches, so with them Lightning's own handlers stay (under Slurm its signal saves
    and requeues).

    Args:
        recipe: its name, for the printed command.
    """

    def __init__(self, recipe: str = "RECIPE") -> None:
        self.recipe = recipe
        self.received: int | None = None  # the signal
        self._replaced: dict[signal.Signals, Any] = {}  # signal -> the handler that was set before

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.received = None
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self._replaced = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}

    def _handle(self, number: int, frame: Any) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number
        print("\nStopping after this batch; once more to stop immediately.", flush=True)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self.received is None:
            return
        path = Path(trainer.default_root_dir, "checkpoints", "interrupted.ckpt")
        trainer.save_checkpoint(path)
        print(
            f"Interrupted in epoch {trainer.current_epoch + 1}. "
            f"To go on from here: zoo fit {self.recipe} --ckpt_path {path}",
            flush=True,
        )
        raise KeyboardInterrupt

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore_handlers()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        while self._replaced:
            signal.signal(*self._replaced.popitem())
