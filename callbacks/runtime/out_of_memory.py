"""Which batch size to try when a run ends for want of memory."""

import re
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.memory import is_oom_error

PHASES = {"train": "training", "val": "validation", "test": "test", "predict": "prediction"}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    # Lightning knows the messages of CUDA, cuDNN and torch on a CPU, but neither Python's error nor other devices'.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or is_oom_error(error)


class OutOfMemory(Callback):
    """Adds to an out-of-memory error a note at its end: which batch size it came from, and which one to try.

    The error itself goes on as it is, for whoever waits for it. `zoo.analysis.memory.free_memory` gives its memory back
    where the process lives on, as in a notebook.

    Args:
        command: write the remedies as options of the `zoo` command; otherwise as arguments in Python.

    >>> from lightning import Trainer
    >>> trainer = Trainer(callbacks=[OutOfMemory()], logger=False, enable_checkpointing=False)
    """

    def __init__(self, command: bool = False) -> None:
        self.command = command

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if is_out_of_memory(exception):
            exception.add_note(f"out of memory {self._what(trainer, str(exception))}: {self._how(trainer, pl_module)}")

    def _what(self, trainer: Trainer, message: str) -> str:
        name, size = batch_size(trainer)
        phase = PHASES[trainer.state.stage.dataloader_prefix]
        what = f"before the first batch of {phase}" if loaders(trainer) is None else f"in {phase}"
        if size is not None:
            what += f" with {name} {size} per device"
        if wanted := re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", message):
            what += f", asking for {wanted[1]}"
        return what

    def _how(self, trainer: Trainer, pl_module: LightningModule) -> str:
        name, size = batch_size(trainer)
        if loaders(trainer) is None:
            how = "net or data are too large as they are; take smaller ones"
        elif size is None:
            how = "take a smaller batch"
        elif size == 1:
            how = "it cannot be halved; take smaller inputs or a smaller net"
        elif trainer.training and pl_module.automatic_optimization:
            how = self._accumulate(name, size, trainer.accumulate_grad_batches)
        else:
            how = f"try {self._set('data', name, size // 2)}"
        if trainer.precision in ("32-true", "64-true") and trainer.strategy.root_device.type != "cpu":
            how += f"; or {self._set('trainer', 'precision', 'bf16-mixed')}"
        return how

    def _accumulate(self, name: str, size: int, steps: int) -> str:
        half = size // 2
        more = steps * round(size / half)
        both = self._set("data", name, half), self._set("trainer", "accumulate_grad_batches", more)
        old, new = size * steps, half * more
        kept = f"keeps the effective batch of {old}" if new == old else f"makes an effective batch of {new}, now {old}"
        return f"try {(' ' if self.command else ' and ').join(both)}, which {kept}"

    def _set(self, owner: str, name: str, value: Any) -> str:
        if self.command:
            return f"--{owner}.{name} {value}"
        return f"Trainer({name}={value!r})" if owner == "trainer" else f"{name}={value!r}"


def loaders(trainer: Trainer) -> Any:
    """The loaders of the phase that a Trainer is in, as they were given to it; None while there are none yet."""
    several = f"{trainer.state.stage.dataloader_prefix}_dataloaders"
    return trainer.train_dataloader if trainer.training else getattr(trainer, several)


def batch_size(trainer: Trainer) -> tuple[str, int | None]:
    """Name and value of the batch size in this phase: the datamodule's, else that of the loaders; None if unknown."""
    given = loaders(trainer)
    if given is None:
        return "batch_size", None
    for name in ("batch_size",) if trainer.training else ("eval_batch_size", "batch_size"):
        if isinstance(size := getattr(trainer.datamodule, name, None), int):
            return name, size
    each = given.values() if isinstance(given, dict) else given if isinstance(given, list) else [given]
    return "batch_size", max((getattr(one, "batch_size", None) or 0 for one in each), default=0) or None
