"""The base classes of the datamodules whose batches have images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules import files
from datamodules.augment.alternating_flip import AlternatingFlip
from datamodules.augment.images import Augmentation
from datamodules.base import Data, hold_out
from datamodules.loader import InMemory


class ImageData(Data):
    """Base class of the datamodules whose batches have an `image`.

    In the loader images are uint8. On the device they become float32 in 0..1, training batches are augmented, and all
    are normalized.

    Args:
        val_size: images taken out of train for validation; 0 trains on all and validates on none.
        augment: augmentations of training batches on the device, in this order.
        mean, std: statistics to normalize with instead of the data set's own; (0,) and (1,) leave 0..1 as it is.
        options: see `Data`.

    Attributes:
        mean, std: per channel, of images in 0..1.
        classes: names of the classes, in the order of the labels.
        image_shape: (C, H, W).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]

    def __init__(
        self,
        *,  # else the first would be taken for the data folder, which `Data` takes first
        val_size: int = 5000,
        augment: list[Augmentation] | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.val_size, self.augment = val_size, list(augment or ())
        if mean is not None:
            self.mean = tuple(mean)
        if std is not None:
            self.std = tuple(std)

    @property
    def in_channels(self) -> int:
        return self.image_shape[0]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def metadata(self) -> dict[str, Any]:
        known = ("classes", "mean", "std", "image_shape")
        return {name: list(getattr(self, name)) for name in known if hasattr(self, name)}

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """A batch (a NamedTuple with an `image`) from uint8 to normalized, in training augmented."""
        assert self.trainer is not None
        batch = batch._replace(image=batch.image.float() / 255)
        if self.trainer.training and self.augment:
            assert self.train_loader is not None
            generator = self.train_loader.generator(batch.image.device)
            for augmentation in self.augment:
                batch = augmentation(batch, generator)
        batch = batch._replace(image=self.normalize(batch.image))
        return self.trainer.precision_plugin.convert_input(batch)  # for bf16-true and 64-true

    def normalize(self, image: Tensor) -> Tensor:
        """(..., C, H, W) in 0..1 -> mean 0 and standard deviation 1 over the training set."""
        mean, std = (image.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (image - mean) / std

    def denormalize(self, image: Tensor) -> Tensor:
        """The inverse of `normalize`, clipped to 0..1."""
        mean, std = (image.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (image * std + mean).clamp(0, 1)


class TorchvisionImages(ImageData):
    """Base class for torchvision's data sets that fit in memory.

    A subclass defines the class attributes below, and those of `ImageData`.

    Args:
        alternating_flip: mirror each training image in every second epoch; see `AlternatingFlip`.
        options: see `ImageData`.

    Attributes:
        name: of the data set, for messages.
        dataset: torchvision's class.
        checksums: path of a file below `data_dir` -> md5.
    """

    name: str
    dataset: ClassVar[type]
    checksums: ClassVar[dict[str, str]]

    def __init__(self, *, alternating_flip: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.alternating_flip = alternating_flip

    def sources(self) -> dict[str, Callable[[Path], None]]:
        """The sources of the files, in order; see `datamodules.files.ensure_files`."""
        return {"torchvision's download": files.torchvision_download(self.dataset)}

    def prepare_data(self) -> None:
        files.ensure_files(self.name, self.data_dir, self.checksums, self.sources())

    def make_datasets(self) -> dict[str, Dataset]:
        train, test = (self.read(train=train) for train in (True, False))
        for_train, for_val = hold_out(len(train), self.val_size)
        kept = train.subset(for_train)
        return {
            "train": AlternatingFlip(kept, self.resolved_seed()) if self.alternating_flip else kept,
            "val": train.subset(for_val),
            "test": test,
        }

    def read(self, train: bool) -> InMemory:
        source = self.dataset(self.data_dir, train=train)
        images = torch.as_tensor(source.data)
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
        return InMemory(images.contiguous(), torch.as_tensor(source.targets))
