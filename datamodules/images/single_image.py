"""One or two images as the complete data set, for systems that optimize an image. H, W height and width in pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.base import Data
from datamodules.batches import ContentStyle
from datamodules.io import find_file, read_image

Size = int | tuple[int, int]


class Repeated(Dataset):
    """A data set that repeats one batch: an epoch is `length` steps.

    >>> len(Repeated("a batch", 50)), Repeated("a batch", 50).__getitems__([0])
    (50, 'a batch')
    """

    def __init__(self, batch: Any, length: int) -> None:
        self.batch, self.length = batch, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.batch

    def __getitems__(self, indices: Tensor) -> Any:
        return self.batch


def read_resized(path: str | Path, size: Size) -> Tensor:
    """Reads an image at a given size: (1, 3, H, W) float32 in 0..1, RGB even if the file is gray or transparent.

    Args:
        path: of an image file.
        size: pixels of the shorter side, with the aspect ratio kept; or (H, W), with a crop about the center.

    Raises:
        ValueError: if the file is not an image, or smaller than `size`, as images are not enlarged.
        FileNotFoundError: if the file does not exist.
    """
    image = read_image(path)
    width, height = image.size
    if isinstance(size, int):
        scale = size / min(width, height)
        size = (max(size, round(height * scale)), max(size, round(width * scale)))
    if height < size[0] or width < size[1]:
        raise ValueError(
            f"{path} is {width}x{height} pixels: expected {size[1]}x{size[0]} or more; "
            "take a larger image or a smaller size"
        )
    image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous().float() / 255


class ImagePair(Data):
    """A content image, and optionally a style image. An epoch is `length` steps, validation and test are one step.

    Args:
        content: path of the content image, see `datamodules.io.find_file`.
        style: path of the style image, if there is one.
        size: of the content image (see `read_resized`).
        style_size: of the style image; default the content image's shorter side.
        length: steps in an epoch.
        data_dir, seed: as in `Data`.

    Attributes:
        images: the batch, `ContentStyle`, once set up.
        image_shape: (3, H, W) of the content image, once set up.

    Raises:
        ValueError: for a size or length below 1, and as in `read_resized`.
        FileNotFoundError: if an image does not exist.
    """

    def __init__(
        self,
        content: str,
        style: str | None = None,
        size: Size = 256,
        style_size: Size | None = None,
        length: int = 50,
        data_dir: str | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(data_dir=data_dir, batch_size=1, eval_batch_size=1, seed=seed)
        self.size, self.length = size, length
        self.style_size = style_size or (size if isinstance(size, int) else min(size))
        for name in ("size", "style_size", "length"):
            if np.min(getattr(self, name)) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        self.content = find_file(content, "an image file", self.data_dir)
        self.style = find_file(style, "an image file", self.data_dir) if style else None

    def make_datasets(self) -> dict[str, Dataset]:
        style = read_resized(self.style, self.style_size) if self.style else None
        self.images = ContentStyle(read_resized(self.content, self.size), style)
        self.image_shape = tuple(self.images.content.shape[1:])
        lengths = {"train": self.length, "val": 1, "test": 1}
        return {split: Repeated(self.images, length) for split, length in lengths.items()}

    def metadata(self) -> dict[str, Any]:
        return {"image_shape": list(self.image_shape)}
