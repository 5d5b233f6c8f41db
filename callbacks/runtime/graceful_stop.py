"""Ctrl-C and other signals end a training after the current batch, with a checkpoint that continues exactly there."""

import logging
import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
WARNING = getattr(signal, "SIGUSR1", None)  # of a cluster, some time before it ends a job
REMARKS = logging.getLogger("lightning.pytorch.utilities.rank_zero")  # Lightning's
KEY = "zoo/stop"  # in the store of torch.distributed: after which step all ranks stop, and why


class Stopped(KeyboardInterrupt):
    """A training that a signal ended.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = number


class GracefulStop(Callback):
    """Saves `checkpoints/interrupted.ckpt` on a signal, such as Ctrl-C's, and prints how to continue.

    The signals are SIGINT (Ctrl-C), SIGTERM, SIGHUP (a closed terminal) and SIGUSR1, by which a cluster announces the
    end of a job; in a job of Slurm the training then has the job put back into the queue.

    A signal is only remembered: the checkpoint is written between two batches, never within an optimizer step. Of
    several processes it is enough that one gets the signal: it tells the others after which step to stop, one later
    than its own, since none of them can be further. At the end of an epoch validation still runs, and a training in its
    last batch ends as usual. A second signal, other than SIGHUP, ends the run at once, unless the checkpoint is being
    written.

    Args:
        command: what to run to go on, for the message; "" for the name of the checkpoint.
    """

    def __init__(self, command: str = "") -> None:
        self.command = command
        self.received: int | None = None  # the signal
        self.at: tuple[int, int] | None = None  # after which optimizer step all stop, and the signal
        self.saving = False
        self.process = os.getpid()
        self._replaced: dict[signal.Signals, Any] = {}  # signal -> the handler that was set before
        self._mask: set[Any] | None = None  # of the signals that were held back before

    # Not earlier, as Lightning sets its own handlers after `on_fit_start`: that of SIGTERM would end the run elsewhere,
    # and that of SIGUSR1 would save a checkpoint in the middle of a step, without waiting for the other processes.
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.received = self.at = None
        self.saving, self.process = False, os.getpid()
        if trainer.world_size > 1 and trainer.is_global_zero:  # none has agreed yet, as the first step needs this rank
            default_store().delete_key(KEY)
        if threading.current_thread() is threading.main_thread():
            self._replaced = {number: signal.signal(number, self._handle) for number in SIGNALS}
            if hasattr(signal, "pthread_sigmask"):  # the command holds back what comes before there is a handler
                self._mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _handle(self, number: int, frame: Any) -> None:
        if self.saving or os.getpid() != self.process:
            return  # what the first signal saves must not be lost; workers of the loader end with their process
        if self.received is not None:
            if signal.Signals(number).name == "SIGHUP":
                return  # a terminal that closes sends it, and then its shell does
            raise Stopped(number)
        self.received = number
        with suppress(OSError, RuntimeError):  # its reader may be gone; or the signal came while a line was printed
            rank_zero_only(print)("\nStopping after this batch; once more to stop immediately.", flush=True)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._agree(trainer)
        if self.at is not None and trainer.global_step >= self.at[0] and not trainer.is_last_batch:
            self._stop(trainer, *self.at)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        goes_on = trainer.current_epoch + 1 != trainer.max_epochs and trainer.global_step != trainer.max_steps
        if self.at is not None and trainer.global_step >= self.at[0] and goes_on:
            self._stop(trainer, *self.at)

    def _agree(self, trainer: Trainer) -> None:
        """Sets `at` if this process or another one got a signal."""
        if self.at is not None:
            return
        if trainer.world_size == 1:
            if self.received is not None:
                self.at = trainer.global_step, self.received
            return
        store = default_store()  # reading it does not wait for the device
        if self.received is not None:
            store.compare_set(KEY, "", f"{trainer.global_step + 1} {self.received}")
        if store.check([KEY]):
            step, number = store.get(KEY).decode().split()
            self.at = int(step), int(number)

    def _stop(self, trainer: Trainer, step: int, number: int) -> None:
        path = Path(trainer.default_root_dir, "checkpoints", "interrupted.ckpt")
        self.saving = True  # to the end, as further signals follow when a job is put back into the queue
        trainer.save_checkpoint(path, weights_only=False)
        for logger in trainer.loggers:
            logger.save()
        if trainer.is_global_zero:
            more = f"to go on from here: {self.command}" if self.command else f"its state is in {path}"
            if number == WARNING and (job := os.environ.get("SLURM_JOB_ID")):
                refusal = requeue(job)
                more = f"job {job} could not be requeued ({refusal}); {more}" if refusal else f"job {job} is requeued"
            place = f"epoch {trainer.current_epoch + 1}, after step {trainer.global_step}"
            with suppress(OSError):
                print(f"Interrupted in {place}; {more}", flush=True)
        REMARKS.addFilter(_is_not_of_interrupt)
        raise Stopped(number)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore_handlers()
        REMARKS.removeFilter(_is_not_of_interrupt)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        if self._mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            self._mask = None
        while self._replaced:
            signal.signal(*self._replaced.popitem())


def _is_not_of_interrupt(record: logging.LogRecord) -> bool:
    """Whether it is not Lightning's remark on an interrupt, of which `GracefulStop` has said more."""
    return "Detected KeyboardInterrupt" not in record.getMessage()


def default_store() -> Any:
    """The store that the processes have in common."""
    return torch.distributed.distributed_c10d._get_default_store()


def requeue(job: str) -> str:
    """Has Slurm end a job and start it again later; returns why it does not, "" if it does."""
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return "" if done.returncode == 0 else " ".join(done.stderr.split()) or f"exit status {done.returncode}"
