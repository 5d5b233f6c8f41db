"""One picture or two as the whole data set: for systems that optimise a picture. H, W height and width in pixels."""

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
    """The same batch again and again: an epoch is `length` steps.

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


def picture(path: str | Path, size: Size) -> Tensor:
    """Reads a picture at a size: (1, 3, H, W) float32 in 0..1. Grey ones get three channels, transparent ones white.

    Args:
        path: of any image file.
        size: pixels of the shorter side, the aspect ratio stays; or (H, W), to which it is cropped about the centre.

    Raises:
        ValueError: if the file is no picture, or a smaller one than asked for: none is ever enlarged.
        FileNotFoundError: if there is no such file.
    """
    image = read_image(path)
    width, height = image.size
    if isinstance(size, int):
        scale = size / min(width, height)
        size = (max(size, round(height * scale)), max(size, round(width * scale)))
    if height < size[0] or width < size[1]:
        raise ValueError(
            f"{path} is {width}x{height} pixels: expected {size[1]}x{size[0]} or more; "
            "take a larger picture or a smaller size"
        )
    image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous().float() / 255


class ImagePair(Data):
    """A picture and perhaps another whose style it is to take. An epoch is `length` steps, validation and test one.

    Args:
        content: path of the picture; a relative one is looked for as it is and below `data_dir`.
        style: the same of the other, if there is one.
        size: of the content (see `picture`).
        style_size: of the style; default the content's shorter side.
        length: steps in an epoch.
        data_dir, seed: as in `Data`.

    Attributes:
        pictures: the batch, `ContentStyle`, once set up.
        image_shape: (3, H, W) of the content, once set up.

    Raises:
        ValueError: for sizes or lengths below 1, and as `picture`.
        FileNotFoundError: if a picture is not there.
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
        super().__init__(data_dir, batch_size=1, eval_batch_size=1, seed=seed)
        self.size, self.length = size, length
        self.style_size = style_size or (size if isinstance(size, int) else min(size))
        for name in ("size", "style_size", "length"):
            if np.min(getattr(self, name)) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        self.content = find_file(content, "an image file", self.data_dir)
        self.style = find_file(style, "an image file", self.data_dir) if style else None

    def make_datasets(self) -> dict[str, Dataset]:
        style = picture(self.style, self.style_size) if self.style else None
        self.pictures = ContentStyle(picture(self.content, self.size), style)
        self.image_shape = tuple(self.pictures.content.shape[1:])
        return {"train": Repeated(self.pictures, self.length)} | dict.fromkeys(
            ("val", "test"), Repeated(self.pictures, 1)
        )

    def metadata(self) -> dict[str, Any]:
        return {"image_shape": list(self.image_shape)}
