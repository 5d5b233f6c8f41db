"""The batches that datamodules yield and systems take."""

from typing import NamedTuple

from torch import Tensor


class Labelled(NamedTuple):
    """Images and their classes.

    image: (B, C, H, W); uint8 in the loader, float32 and normalised once on the device.
    label: (B,) int64 class indices.
    """

    image: Tensor
    label: Tensor
