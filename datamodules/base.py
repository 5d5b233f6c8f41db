"""What all datamodules share: splits, loaders, place in the epoch; and what those of images share besides."""

import os
from typing import Any, ClassVar, NamedTuple

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset

from datamodules import files
from datamodules.augment import Augmentation
from datamodules.loader import InMemory, Loader, whole

SPLIT_SEED = 0  # the validation images stay the same whatever the seed of a run


class Data(LightningDataModule):
    """Base of all datamodules. Subclasses give the data sets (`split`) and say how to make a batch of them (`loading`).

    The loaders of validation come as a dict, so that a module can log under the name of the split.

    Args:
        data_dir: folder of all data sets; default `$ZOO_DATA`, else `data`.
        batch_size: of training, per device.
        eval_batch_size: of validation and test, per device.
        watch_test: also follow the test set after each epoch, as a curve beside validation's. Nothing
            is chosen by it; `zoo reproduce` uses it to report the best epoch beside the last.
        seed: of order and augmentation; default the seed given to Lightning's `seed_everything`, else 0.

    Attributes:
        sets: split ("train", "val", "test") -> data set, once set up.
    """

    def __init__(
        self,
        data_dir: str | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        watch_test: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.data_dir = files.data_dir(data_dir)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.watch_test, self.seed = watch_test, seed
        for name in ("batch_size", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        self.sets: dict[str, Dataset] = {}
        self.train_loader: Loader | None = None
        self._resume_at: dict[str, int] | None = None

    def split(self) -> dict[str, Dataset]:
        """The data sets "train", "val" (may be missing) and "test" (may be missing)."""
        raise TypeError(f"{type(self).__name__} must define `split`")

    def loading(self) -> dict:
        """How the data sets are loaded: further arguments of `Loader`."""
        return {"collate": whole}

    def card(self) -> dict[str, Any]:
        """What a checkpoint must know of the data to be used without them, as plain lists, numbers and strings."""
        return {}

    def setup(self, stage: str) -> None:
        if not self.sets:
            self.sets = self.split()

    def resolved_seed(self) -> int:
        return self.seed if self.seed is not None else int(os.environ.get("PL_GLOBAL_SEED", 0))

    def _loader(self, split: str, **options) -> Loader:
        shuffle = split == "train"
        if self.trainer is not None:
            options |= {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
            shuffle = shuffle and not self.trainer.overfit_batches  # which are to be the same in each epoch
        size = self.batch_size if split == "train" else self.eval_batch_size
        return Loader(self.sets[split], size, shuffle=shuffle, seed=self.resolved_seed(), **self.loading(), **options)

    def train_dataloader(self) -> Loader:
        self.train_loader = self._loader("train")
        if self._resume_at:
            self.train_loader.load_state_dict(self._resume_at)
            self._resume_at = None
        return self.train_loader

    def val_dataloader(self) -> dict[str, Loader]:
        watched = ["val", "test"] if self.watch_test else ["val"]
        return {split: self._loader(split) for split in watched if len(self.sets.get(split, ()))}

    def test_dataloader(self) -> Loader:
        return self._loader("test")

    def predict_dataloader(self) -> Loader:
        return self._loader("test")

    # Lightning restores the loader itself, but not where a module asked for `estimated_stepping_batches` before.
    def state_dict(self) -> dict[str, int]:
        return self.train_loader.state_dict() if self.train_loader else {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if self.trainer.state.fn == "fit":
            self._resume_at = state


def hold_out(n: int, val_size: int) -> tuple[Tensor, Tensor]:
    """Indices of training and validation among `n` samples: the same ones whatever the seed of a run.

    Raises:
        ValueError: if `val_size` leaves nothing to train on.
    """
    if not 0 <= val_size < n:
        raise ValueError(f"val_size is {val_size}: expected 0 to {n - 1}, as there are {n} training samples")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(SPLIT_SEED))
    return order[val_size:].sort().values, order[:val_size].sort().values


class ImageData(Data):
    """Base of the datamodules whose batches have an `image`.

    In the loader images are uint8; on the device they become float32 in 0..1, training batches pass
    through `augment`, and all are normalised.

    Args:
        data_dir, batch_size, eval_batch_size, watch_test, seed: as in `Data`.
        val_size: images taken out of train for validation; 0 trains on all and validates on none.
        augment: applied to training batches on the device, in this order.
        mean, std: other statistics to normalise with than those of the data set; (0,) and (1,) leave 0..1 as it is.

    Attributes:
        mean, std: per channel, of images in 0..1.
        classes: their names, in the order of the labels.
        image_shape: (C, H, W).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]

    def __init__(
        self,
        data_dir: str | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        val_size: int = 5000,
        augment: list[Augmentation] | None = None,
        watch_test: bool = False,
        seed: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(data_dir, batch_size, eval_batch_size, watch_test, seed)
        self.val_size, self.augment = val_size, list(augment or ())
        if mean is not None:
            self.mean = mean
        if std is not None:
            self.std = std

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def card(self) -> dict[str, Any]:
        known = ("classes", "mean", "std", "image_shape")
        return {name: list(getattr(self, name)) for name in known if hasattr(self, name)}

    def on_after_batch_transfer(self, batch: NamedTuple, dataloader_idx: int) -> NamedTuple:
        batch = batch._replace(image=batch.image.float() / 255)
        if self.trainer.training and self.augment:
            generator = self.train_loader.generator(batch.image.device)
            for augmentation in self.augment:
                batch = augmentation(batch, generator)
        batch = batch._replace(image=self.normalise(batch.image))
        return self.trainer.precision_plugin.convert_input(batch)  # for bf16-true and 64-true

    def normalise(self, image: Tensor) -> Tensor:
        """(..., C, H, W) in 0..1 -> mean 0 and standard deviation 1 over the training set."""
        mean, std = (image.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (image - mean) / std

    def denormalise(self, image: Tensor) -> Tensor:
        """The inverse of `normalise`, clipped to 0..1."""
        mean, std = (image.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (image * std + mean).clamp(0, 1)


class TorchvisionImages(ImageData):
    """A data set of torchvision's that fits in memory. Subclasses name it, its files and its statistics."""

    name: ClassVar[str]
    dataset: ClassVar[type]
    checksums: ClassVar[dict[str, str]]  # path below data_dir -> md5

    def ways(self) -> dict:
        """How to get the files, in order (`datamodules.files.obtain`)."""
        return {"torchvision's download": files.torchvision_download(self.dataset)}

    def prepare_data(self) -> None:
        files.obtain(self.name, self.data_dir, self.checksums, self.ways())

    def split(self) -> dict[str, Dataset]:
        train, test = (self.read(train=train) for train in (True, False))
        for_train, for_val = hold_out(len(train), self.val_size)
        return {"train": train.subset(for_train), "val": train.subset(for_val), "test": test}

    def read(self, train: bool) -> InMemory:
        source = self.dataset(self.data_dir, train=train)
        images = torch.as_tensor(source.data)
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
        return InMemory(images.contiguous(), torch.as_tensor(source.targets))
