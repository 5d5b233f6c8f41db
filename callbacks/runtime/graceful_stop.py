"""Ctrl-C and SIGTERM end a training after the batch in hand, with a checkpoint that continues exactly there."""

import signal
import threading
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer


class GracefulStop(Callback):
    """Saves `checkpoints/interrupted.ckpt` on Ctrl-C or SIGTERM and says how to go on; a second Ctrl-C ends at once.

    The signal only leaves a note; the checkpoint is written between two batches, never within an optimiser step.
    Where many processes train together they would stop at different batches, so there Lightning's own handling
    stays (Slurm's signal saves and requeues).

    Args:
        recipe: named in the message.
    """

    def __init__(self, recipe: str = "RECIPE") -> None:
        self.recipe, self.received, self.previous = recipe, None, {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.received = None
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self.previous = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}

    def _note(self, number: int, frame: Any) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number
        print("\nStopping after this batch; once more to stop at once.", flush=True)

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
        self._restore()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore()

    def _restore(self) -> None:
        while self.previous:
            signal.signal(*self.previous.popitem())
