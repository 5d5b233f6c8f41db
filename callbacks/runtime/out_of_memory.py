"""Advice for a run that is out of memory: which batch size to try."""

import re
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.memory import is_oom_error

PHASES = {"train": "training", "val": "validation", "test": "test", "predict": "prediction"}  # prefix -> in words


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on whatever device."""
    # Lightning recognizes the messages of CUDA, cuDNN and torch on a CPU, not Python's error nor other devices'.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or is_oom_error(error)


class OutOfMemory(Callback):
    """Adds a note to an out-of-memory error: the batch size that caused it, and which one to try.

    The error itself is raised unchanged. Where the process goes on, as in a notebook,
    `zoo.analysis.memory.free_memory` frees the memory that the error still holds.

    Args:
        command: write the remedies as options of the `zoo` command, rather than as arguments in Python.

    >>> from lightning import Trainer
    >>> trainer = Trainer(callbacks=[OutOfMemory()], logger=False, enable_checkpointing=False)
    """

    def __init__(self, command: bool = False) -> None:
        self.command = command

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if is_out_of_memory(exception):
            cause, remedy = self._cause(trainer, str(exception)), self._remedy(trainer, pl_module)
            exception.add_note(f"out of memory {cause}: {remedy}")

    def _cause(self, trainer: Trainer, message: str) -> str:
        name, size = batch_size(trainer)
        phase = PHASES[prefix(trainer)]
        cause = f"before the first batch of {phase}" if loaders(trainer) is None else f"in {phase}"
        if size is not None:
            cause += f" with {name} {size} per device"
        if wanted := re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", message):
            cause += f", asking for {wanted[1]}"
        return cause

    def _remedy(self, trainer: Trainer, pl_module: LightningModule) -> str:
        name, size = batch_size(trainer)
        if loaders(trainer) is None:
            remedy = "net or data are too large as they are; take smaller ones"
        elif size is None:
            remedy = "take a smaller batch"
        elif size == 1:
            remedy = "it cannot be halved; take smaller inputs or a smaller net"
        elif trainer.training and pl_module.automatic_optimization:
            remedy = self._accumulate(name, size, trainer.accumulate_grad_batches)
        else:
            remedy = f"try {self._set('data', name, size // 2)}"
        if trainer.precision in ("32-true", "64-true") and trainer.strategy.root_device.type != "cpu":
            remedy += f"; or {self._set('trainer', 'precision', 'bf16-mixed')}"
        return remedy

    def _accumulate(self, name: str, size: int, steps: int) -> str:
        """Half the batch, and gradients accumulated over more batches."""
        half = size // 2
        more = steps * round(size / half)
        both = self._set("data", name, half), self._set("trainer", "accumulate_grad_batches", more)
        old, new = size * steps, half * more
        kept = f"keeps the effective batch of {old}" if new == old else f"makes an effective batch of {new}, now {old}"
        return f"try {(' ' if self.command else ' and ').join(both)}, which {kept}"

    def _set(self, owner: str, name: str, value: Any) -> str:
        """How an argument of the Trainer or the datamodule is set."""
        if self.command:
            return f"--{owner}.{name} {value}"
        return f"Trainer({name}={value!r})" if owner == "trainer" else f"{name}={value!r}"


def prefix(trainer: Trainer) -> str:
    """Lightning's prefix of the phase that a Trainer is in: "train", "val", "test" or "predict"."""
    return (trainer.state.stage and trainer.state.stage.dataloader_prefix) or "train"


def loaders(trainer: Trainer) -> Any:
    """The loaders of the phase that a Trainer is in, as they were given to it; None if it has none yet."""
    phase = prefix(trainer)
    return trainer.train_dataloader if phase == "train" else getattr(trainer, f"{phase}_dataloaders")


def batch_size(trainer: Trainer) -> tuple[str, int | None]:
    """Name and value of the batch size in this phase: the datamodule's, else that of the loaders; None if unknown."""
    given, data = loaders(trainer), getattr(trainer, "datamodule", None)
    if given is None:
        return "batch_size", None
    for name in ("batch_size",) if trainer.training else ("eval_batch_size", "batch_size"):
        if isinstance(size := getattr(data, name, None), int):
            return name, size
    each = given.values() if isinstance(given, dict) else given if isinstance(given, list) else [given]
    return "batch_size", max((getattr(one, "batch_size", None) or 0 for one in each), default=0) or None
