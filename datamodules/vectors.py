"""A few vectors and their targets, given in the recipe, for nets that are small enough to follow by hand. B batch."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.base import Data


class Vector(NamedTuple):
    """Vectors and what a net is to make of them.

    input: (B, I) float32.
    target: (B, O) float32.
    """

    input: Tensor
    target: Tensor


class RepeatedVectors(Dataset):
    """Pairs of an input and a target, gone through again and again, as one data set."""

    def __init__(self, inputs: Tensor, targets: Tensor, repeats: int) -> None:
        self.inputs, self.targets, self.repeats = inputs, targets, repeats

    def __len__(self) -> int:
        return self.repeats * len(self.inputs)

    def __getitem__(self, index: int) -> Vector:
        return Vector(self.inputs[index % len(self.inputs)], self.targets[index % len(self.inputs)])

    def __getitems__(self, indices: Tensor) -> Vector:
        places = indices % len(self.inputs)
        return Vector(self.inputs[places], self.targets[places])


class Vectors(Data):
    """The same few vectors in training, validation and test.

    Args:
        inputs: (N, I).
        targets: (N, O).
        repeats: how often each is in an epoch of training.
        options: see `Data`.

    Raises:
        ValueError: if there are not as many targets as inputs, or the vectors of one kind are not equally long.

    >>> data = Vectors([[0.05, 0.1]], [[0.01, 0.99]], repeats=100)
    >>> data.setup("fit"); len(data.datasets["train"])
    100
    """

    def __init__(
        self,
        inputs: list[list[float]],
        targets: list[list[float]],
        repeats: int = 1,
        batch_size: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **options)
        lengths = [len({len(vector) for vector in vectors}) for vectors in (inputs, targets)]
        if len(inputs) != len(targets) or lengths != [1, 1] or repeats < 1:
            raise ValueError(
                f"inputs has {len(inputs)} vectors, targets {len(targets)}, and repeats is {repeats}: expected as many "
                "targets as inputs, inputs and targets of one length each, and 1 repeat or more"
            )
        self.inputs, self.targets = torch.tensor(inputs), torch.tensor(targets)
        self.repeats = repeats

    def make_datasets(self) -> dict[str, Dataset]:
        once = RepeatedVectors(self.inputs, self.targets, 1)
        return {"train": RepeatedVectors(self.inputs, self.targets, self.repeats), "val": once, "test": once}
