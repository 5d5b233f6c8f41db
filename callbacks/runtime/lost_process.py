"""Ends a training within seconds, by one line, when another of its processes or a worker of its loader has died."""

import os
import re
import signal
import sys
import threading

import torch
from lightning import Callback, LightningModule, Trainer

from callbacks.runtime.graceful_stop import default_store
from callbacks.runtime.status import TRY_AGAIN
from callbacks.runtime.watch import BROKEN, DIED, DONE, FAILED, Watch

LOST = "process lost"  # begins the note on an error that says which process is missing
STATUS = {DIED: TRY_AGAIN, BROKEN: TRY_AGAIN, FAILED: 2}  # of the processes that end for that reason
WAIT = 2.0  # seconds by which the news of a death may come later than the error of a collective call
WORKER = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([\w -]+)|exited unexpectedly)"
)


class LostProcess(Callback):
    """Ends the processes of a training when one of them has died, and says which; likewise for workers of the loader.

    The error of a collective call, or of the loader, gets a note that names the process. A process that waits in a
    collective call, where nothing reaches it, is ended after a few seconds. SIGTERM is ignored from then on: what
    started the processes, such as srun, sends it to those that are left, whose exit status would no longer say why.

    Args:
        command: what to run to go on, for the message; "" for none.
    """

    def __init__(self, command: str = "") -> None:
        self.command = command
        self.watch: Watch | None = None
        self.local_rank = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.world_size == 1 or self.watch is not None or not torch.distributed.is_initialized():
            return
        self.local_rank = trainer.local_rank
        address = trainer.strategy.cluster_environment.main_address  # type: ignore[attr-defined]
        self.watch = Watch(trainer.global_rank, trainer.world_size, address, default_store(), self._end)
        for thread in threading.enumerate():
            if thread.name == "child-process-observer":  # Lightning's, which would kill this process without a word
                thread._child_processes = []  # type: ignore[attr-defined]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close(DONE)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self.watch is not None and is_of_communication(exception):
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if self.watch.noticed.wait(WAIT):
                exception.add_note(self._note())
        line = worker_line(exception)
        if line is not None:
            owner = f"rank {self.watch.rank} of {self.watch.size} ({self.watch.where}) has lost " if self.watch else ""
            exception.add_note(f"{LOST}, {STATUS[BROKEN]}: {owner}{line}{self._remedy()}")
        self._close(FAILED if line is None else BROKEN)

    def _close(self, how: str) -> None:
        watch, self.watch = self.watch, None
        if watch is not None:
            watch.close(how)

    def _end(self) -> None:
        line, status = read_note(self._note())
        if line:
            print(f"zoo: {line}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(status)

    def _note(self) -> str:
        """What is noted on the error: the status, and the line where this process is the one that has to say it."""
        assert self.watch is not None
        assert self.watch.loss is not None
        loss, rank, size = self.watch.loss, self.watch.rank, self.watch.size
        note = f"{LOST}, {STATUS[loss.how]}: "
        # Without rank 0, the second on its machine and the first on each of the others say it.
        is_speaker = rank == 0 or (loss.rank == 0 and (rank == 1 or self.local_rank == 0))
        if loss.how == DIED and is_speaker:  # one that has ended by an error has said so itself
            which = f"rank {loss.rank} of {size} ({loss.where})"
            note += f"{which} has died: expected it to run to the end{self._remedy()}"
        return note

    def _remedy(self) -> str:
        return f"; to go on from the newest checkpoint: {self.command}" if self.command else ""


def is_of_communication(error: BaseException) -> bool:
    """Whether an error is that of a collective call, as it fails where another process is missing."""
    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def worker_line(error: BaseException) -> str | None:
    """What to tell of the error of a loader that has lost a worker; None for another error."""
    found = WORKER.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is None:
        return None
    how = f", killed by a signal ({found[2].strip()})" if found[2] else ", which has died"
    return (
        f"worker {found[1]} of the data loader{how}: expected it to run to the end; "
        "if memory has run out, lower --data.num_workers or --data.batch_size"
    )


def read_note(note: str) -> tuple[str, int]:
    """The line, which may be empty, and the exit status of a note."""
    start, _, line = note.partition(": ")
    return line, int(start.rpartition(", ")[2])


def lost_process(error: BaseException) -> tuple[str, int] | None:
    """What to print of an error that a lost process has caused, and the exit status; None for another error.

    The text is empty if another process prints it.
    """
    for note in getattr(error, "__notes__", []):
        if note.startswith(LOST):
            return read_note(note)
    line = worker_line(error)
    return None if line is None else (line, STATUS[DIED])
