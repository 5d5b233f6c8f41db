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


class Boxed(NamedTuple):
    """Images and the boxes in them. Collections of N differ from image to image, so they are lists.

    image: (B, C, H, W); uint8 in the loader, float32 and normalised once on the device.
    boxes: for each image (N, 4) float32, xyxy in pixels; N may be 0.
    labels: for each image (N,) int64 class indices.
    """

    image: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]


class Tokens(NamedTuple):
    """Sequences of tokens and what is asked at each place.

    input_ids: (B, T) int64.
    labels: (B, T) int64, the token wanted at each place; -100 where nothing is asked.
    attention_mask: (B, T) bool, false at padding; None where there is none.
    token_type_ids: (B, T) int64, the segment of each token; None where there is one.
    next_label: (B,) int64, 1 where the second segment follows the first; None where it is not asked.
    """

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor | None = None
    token_type_ids: Tensor | None = None
    next_label: Tensor | None = None


class Paired(NamedTuple):
    """Images and sentences that describe them, row by row.

    image: (B, C, H, W); uint8 in the loader, float32 and normalised once on the device.
    input_ids: (B, T) int64, padded.
    attention_mask: (B, T) bool, false at padding.
    label: (B,) int64, the class that the sentence names; equal labels are equal pairs.
    """

    image: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    label: Tensor


class ContentStyle(NamedTuple):
    """The picture that tells what is to be seen, and the one that tells how it is painted.

    content: (1, 3, H, W) float32 in 0..1.
    style: (1, 3, h, w) float32 in 0..1; None where there is one picture.
    """

    content: Tensor
    style: Tensor | None = None
