"""The loader of every datamodule: order from (seed, epoch), exact on several ranks, resumable inside an epoch."""

import signal
import time
import traceback
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.batches import Labelled

NOTICED = 2.0  # seconds by which the end of a worker may be seen later than that of its connection


class InMemory(Dataset):
    """A data set held as two tensors; a batch is one indexing operation.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.

    Attributes:
        device: where the tensors are; batches are there, too.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    @property
    def device(self) -> torch.device:
        return self.images.device

    def to(self, device: torch.device) -> "InMemory":
        """The same data set on another device; itself if it is there."""
        return self if device == self.device else InMemory(self.images.to(device), self.labels.to(device))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Labelled:
        return Labelled(self.images[index], self.labels[index])

    def __getitems__(self, indices: Tensor) -> Labelled:
        return Labelled(self.images[indices], self.labels[indices])

    def subset(self, indices: Tensor) -> "InMemory":
        return InMemory(self.images[indices], self.labels[indices])


def num_samples(dataset: Dataset) -> int:
    """The length of a map-style data set, which torch's base class does not declare."""
    return len(dataset)  # type: ignore[arg-type]


def identity_collate(batch: Any) -> Any:
    """Collate function for data sets whose `__getitems__` already returns a batch."""
    return batch


class Loader:
    """Iterates over the batches of a map-style data set. It is not a `DataLoader`, so Lightning does not replace it.

    Training (`shuffle=True`): the order is a permutation drawn from (seed, epoch), cut into global batches of
    `batch_size * world_size`; a rank takes every `world_size`-th sample of each, and the incomplete last batch is
    dropped, so that all ranks take the same number of steps.

    Evaluation: rank r takes samples r, r + world_size, ...: each sample exactly once, without padding, cut so that all
    ranks have the same number of batches (collective calls stay matched) and none is empty. This is the only case in
    which a batch of size 1 may contain two samples.

    The position is part of `state_dict`, so that a run resumed inside an epoch sees the rest of its batches.
    `generator` makes the random numbers of the latest batch a function of (seed, epoch, rank, position): augmentation
    that draws from it resumes with the loader and never touches the global generators.

    Args:
        dataset: with `__len__` and `__getitem__`, or with `__getitems__`, which returns a complete batch.
        batch_size: samples per rank and batch.
        shuffle: training order (see above) or evaluation order.
        seed: of order and augmentation.
        rank, world_size: number of this process, and of processes.
        num_workers: processes that load; they are started for each epoch, so that they know its number.
        collate: list of samples -> batch.
        pin_memory: as in torch's DataLoader.

    Raises:
        ValueError: if there are fewer samples than ranks.
        RuntimeError: in an iteration, if a worker has died; with torch's message, which names it.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        collate: Callable = identity_collate,
        pin_memory: bool = False,
    ) -> None:
        if num_samples(dataset) < world_size:
            raise ValueError(
                f"a data set of {num_samples(dataset)} samples cannot be shared by {world_size} processes: "
                "expected at least one sample each; use fewer devices or more data"
            )
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, batch_size, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.num_workers, self.collate, self.pin_memory = num_workers, collate, pin_memory
        self.epoch = self.position = self._start = 0

    @property
    def batch_sampler(self) -> SimpleNamespace:
        """The place where Lightning looks for an object to call `set_epoch` of; a `loader.sampler` it might replace."""
        return SimpleNamespace(sampler=self)

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.position, self._start = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch = state["epoch"]
        self.position = self._start = state["position"]

    def __len__(self) -> int:
        n = num_samples(self.dataset)
        fewest, most = n // self.world_size, -(-n // self.world_size)  # samples of a rank
        if self.shuffle:
            return max(1, fewest // self.batch_size)
        return min(fewest, -(-most // self.batch_size))

    def batches(self) -> list[Tensor]:
        """The sample indices of each batch of this rank in this epoch, on the device of the data set if it has one."""
        n, device = num_samples(self.dataset), getattr(self.dataset, "device", "cpu")
        if not self.shuffle:
            return list(torch.arange(self.rank, n, self.world_size, device=device).tensor_split(len(self)))
        # Drawn on the host, so that the order is the same on every device, and moved once, not in each step.
        order = torch.randperm(n, generator=self._seeded(torch.Generator(), self.epoch)).to(device, non_blocking=True)
        size = min(self.batch_size, n // self.world_size) * self.world_size
        return [order[i * size : (i + 1) * size][self.rank :: self.world_size] for i in range(len(self))]

    def __iter__(self) -> Iterator[Any]:
        # This is a generator: its body runs at the first `next`, after Lightning has called `set_epoch`.
        self.position, self._start = self._start, 0
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(self.epoch)
        loader = DataLoader(
            self.dataset,
            batch_sampler=self.batches()[self.position :],  # type: ignore[arg-type]  # any iterable of indices works
            num_workers=self.num_workers,
            collate_fn=self.collate,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),  # without one it would draw a seed from the global generator
        )
        batches = iter(loader)
        try:
            for batch in batches:
                self.position += 1
                yield batch
        except (ValueError, OSError, EOFError, RuntimeError) as error:
            is_other = isinstance(error, RuntimeError) and "DataLoader worker (pid" not in str(error)
            if is_other or not self.num_workers:
                raise
            lost = lost_worker(batches, error)
            del batches  # this variable and the frames of the error would keep the workers alive
            traceback.clear_frames(error.__traceback__)
            if lost is not None:
                raise RuntimeError(lost) from error
            # The message of a worker's error contains its complete traceback; only the end of it is the message.
            message = str(error).rpartition(f"\n{type(error).__name__}: ")[2].strip()
            raise type(error)(message) from error

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """The generator of the random numbers that belong to the latest batch."""
        return self._seeded(torch.Generator(device), self.epoch, self.rank, self.position)

    def _seeded(self, generator: torch.Generator, *key: int) -> torch.Generator:
        seed = np.random.SeedSequence((self.seed, *key)).generate_state(1, np.uint64)[0]
        return generator.manual_seed(int(seed) >> 1)


def lost_worker(batches: Any, error: BaseException) -> str | None:
    """What torch says of a worker that has died, with the signal that killed it; None if all are alive.

    By what torch notices first, it reports the signal, or only that the process has ended or its connection has.
    """
    if "DataLoader worker process" in str(error):  # one that a worker has sent
        return None
    end = time.monotonic() + NOTICED
    while time.monotonic() < end:
        for worker in getattr(batches, "_workers", []):
            if worker.exitcode:
                how = f"is killed by signal: {signal.strsignal(-worker.exitcode)}" if worker.exitcode < 0 else ""
                return f"DataLoader worker (pid {worker.pid}) {how or 'exited unexpectedly'}."
        time.sleep(0.02)
    return None
