"""The base class of all datamodules: data sets and their splits, loaders, and the position within an epoch."""

import os
from abc import ABC, abstractmethod
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.io import data_dir as default_data_dir
from datamodules.loader import Loader, identity_collate, num_samples

SPLIT_SEED = 0  # the validation samples stay the same whatever the seed of a run
TEST_SHARE = VAL_SHARE = 0.15  # of the user's own data, if they come without splits


class Data(LightningDataModule, ABC):
    """Base class of all datamodules: a subclass makes the data sets (`make_datasets`), this class makes the loaders.

    The validation loaders come as a dict, so that a module can log under the name of the split.

    Args:
        data_dir: the data folder, which holds all data sets; default `$ZOO_DATA`, else `data`.
        batch_size: of training, per device.
        eval_batch_size: of validation and test, per device.
        watch_test: also evaluate the test set after each epoch, as a curve next to validation's. Nothing is chosen by
            it; `zoo reproduce` uses it to report the best epoch next to the last.
        seed: of order and augmentation; default the seed given to Lightning's `seed_everything`, else 0.

    Attributes:
        datasets: split ("train", "val", "test") -> data set, once set up.
        license: under which the data may be used, and whose they are; "" where the class does not know. Trained models
            that are passed on say it.

    Raises:
        ValueError: if a batch size is below 1.
    """

    license = ""

    def __init__(
        self,
        data_dir: str | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        watch_test: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.data_dir = default_data_dir(data_dir)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.watch_test, self.seed = watch_test, seed
        for name in ("batch_size", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        self.datasets: dict[str, Dataset] = {}
        self.train_loader: Loader | None = None
        self._resume_at: dict[str, int] | None = None

    @abstractmethod
    def make_datasets(self) -> dict[str, Dataset]:
        """The data sets "train", "val" (may be missing) and "test" (may be missing)."""

    def loader_options(self) -> dict[str, Any]:
        """Further arguments of `Loader`, such as the function that collates samples into a batch."""
        return {"collate": identity_collate}

    def metadata(self) -> dict[str, Any]:
        """Facts about the data that a checkpoint needs to be usable without them: plain lists, numbers and strings."""
        return {}

    def setup(self, stage: str) -> None:
        if not self.datasets:
            self.datasets = self.make_datasets()

    def resolved_seed(self) -> int:
        """The given seed, else Lightning's global one, else 0."""
        return self.seed if self.seed is not None else int(os.environ.get("PL_GLOBAL_SEED", 0))

    def _loader(self, split: str, **options: Any) -> Loader:
        shuffle = split == "train"
        if self.trainer is not None:
            options |= {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
            # The overfitted batches must be the same in each epoch. Lightning sets the attribute outside `__init__`.
            shuffle = shuffle and not self.trainer.overfit_batches  # type: ignore[attr-defined]
        size = self.batch_size if split == "train" else self.eval_batch_size
        options = {"shuffle": shuffle, "seed": self.resolved_seed(), **self.loader_options(), **options}
        return Loader(self.datasets[split], size, **options)

    def train_dataloader(self) -> Loader:
        self.train_loader = self._loader("train")
        if self._resume_at:
            self.train_loader.load_state_dict(self._resume_at)
            self._resume_at = None
        return self.train_loader

    def val_dataloader(self) -> dict[str, Loader]:
        watched = ["val", "test"] if self.watch_test else ["val"]
        present = [split for split in watched if split in self.datasets and num_samples(self.datasets[split])]
        return {split: self._loader(split) for split in present}

    def test_dataloader(self) -> Loader:
        return self._loader("test")

    def predict_dataloader(self) -> Loader:
        return self._loader("test")

    # Lightning itself restores the loader, except if a module read `estimated_stepping_batches` before.
    def state_dict(self) -> dict[str, int]:
        if self.train_loader is None:
            return {}
        loader = self.train_loader
        batches = len(loader) if self.trainer is None else min(len(loader), self.trainer.num_training_batches)
        sizes = {"batch_size": loader.batch_size, "world_size": loader.world_size, "batches": int(batches)}
        return loader.state_dict() | sizes

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continues a training where its loader was.

        Raises:
            ValueError: within an epoch, if the rest of it would consist of other batches.
        """
        if self.trainer is None or self.trainer.state.fn != "fit" or not state:
            return
        now = {"batch_size": self.batch_size, "world_size": self.trainer.world_size}
        then = {name: state.get(name, value) for name, value in now.items()}
        if 0 < state["position"] < state.get("batches", 0) and now != then:
            raise ValueError(
                f"the checkpoint is from within an epoch, after {state['position']} batches of {then['batch_size']} on "
                f"{then['world_size']} process(es), and now there are batches of {now['batch_size']} on "
                f"{now['world_size']}: expected the same, as the rest of the epoch would be lost; go on with the same, "
                "or from the checkpoint of an epoch's end"
            )
        self._resume_at = {name: state[name] for name in ("epoch", "position")}


def hold_out(n: int, val_size: int) -> tuple[Tensor, Tensor]:
    """Indices of training and validation among `n` samples: the same ones whatever the seed of a run.

    Raises:
        ValueError: if `val_size` leaves no sample for training.
    """
    if not 0 <= val_size < n:
        raise ValueError(f"val_size is {val_size}: expected 0 to {n - 1}, as there are {n} training samples")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(SPLIT_SEED))
    return order[val_size:].sort().values, order[:val_size].sort().values
