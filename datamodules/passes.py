"""Epochs of a given length: passes over a data set, cut where an epoch ends and not where the data do."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.loader import num_samples


def part_of_passes(epoch: int, count: int, per_pass: int, draw: Callable[[int], Tensor]) -> Tensor:
    """What an epoch of `count` items is made of: a part of a pass, or the rest of one and further ones.

    Epoch after epoch goes on where the one before ended, so that all items are used equally often.

    Args:
        epoch: number, from 0.
        count: items of an epoch.
        per_pass: items of a pass.
        draw: number of a pass -> its items (per_pass, ...), in their order; the same each time.

    >>> [part_of_passes(epoch, 3, 4, lambda number: 10 * number + torch.arange(4)).tolist() for epoch in range(3)]
    [[0, 1, 2], [3, 10, 11], [12, 13, 20]]
    """
    parts: list[Tensor] = []
    done = 0
    while done < count:
        number, first = divmod(epoch * count + done, per_pass)
        parts.append(draw(number)[first : first + count - done])
        done += len(parts[-1])
    return torch.cat(parts)


class Drawn(Dataset):
    """A data set whose epoch has `count` samples of another one: a part of a pass over that, or several passes.

    So the length of a training does not depend on how many samples there are. The order of each pass is random.

    Args:
        dataset: of samples. If it has `sample(index, turn)`, that is called with the number of the pass, so that a
            sample that is in an epoch twice can be augmented in two ways.
        count: samples of an epoch.
        seed: of the order.
    """

    def __init__(self, dataset: Dataset, count: int, seed: int = 0) -> None:
        self.dataset, self.count, self.seed = dataset, count, seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.drawn = part_of_passes(epoch, self.count, num_samples(self.dataset), self._pass)
        self._pairs = self.drawn.tolist()

    def _pass(self, number: int) -> Tensor:
        """(N, 2), the number of the pass and that of a sample, for all samples in random order."""
        seed = np.random.SeedSequence((self.seed, number)).generate_state(1)[0]
        order = torch.randperm(num_samples(self.dataset), generator=torch.Generator().manual_seed(int(seed)))
        return torch.stack([torch.full_like(order, number), order], 1)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        turn, of_dataset = self._pairs[index]
        sample = getattr(self.dataset, "sample", None)
        return self.dataset[of_dataset] if sample is None else sample(of_dataset, turn)


class DrawnBatches(Drawn):
    """The same of a data set that returns complete batches."""

    def __getitems__(self, indices: Tensor) -> Any:
        return self.dataset.__getitems__(self.drawn[torch.as_tensor(indices), 1])  # type: ignore[attr-defined]
