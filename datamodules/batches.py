"""The batches that datamodules yield and systems take. B batch, C channels, H height, W width, N boxes, T tokens."""

from typing import NamedTuple

from torch import Tensor


class Labelled(NamedTuple):
    """Images and their classes.

    image: (B, C, H, W); uint8 in the loader, float32 and normalized on the device.
    label: (B,) int64 class indices; or (B, K) float32, the shares of the K classes in a mixed image.
    """

    image: Tensor
    label: Tensor


class Boxed(NamedTuple):
    """Images and the boxes in them. N differs from image to image, so boxes and labels are lists.

    image: (B, C, H, W); uint8 in the loader, float32 and normalized on the device.
    boxes: for each image (N, 4) float32, xyxy in pixels; N may be 0.
    labels: for each image (N,) int64 class indices.
    """

    image: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]


class Tokens(NamedTuple):
    """Sequences of tokens and the targets at each position.

    input_ids: (B, T) int64.
    labels: (B, T) int64, the target token at each position; -100 where there is no target.
    attention_mask: (B, T) bool, false at padding; None if no sequence is padded.
    token_type_ids: (B, T) int64, the segment of each token; None if there is only one segment.
    next_label: (B,) int64, 1 where the second segment follows the first; None if this is not predicted.
    """

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor | None = None
    token_type_ids: Tensor | None = None
    next_label: Tensor | None = None


class Paired(NamedTuple):
    """Images and the sentences that describe them, row by row.

    image: (B, C, H, W); uint8 in the loader, float32 and normalized on the device.
    input_ids: (B, T) int64, padded.
    attention_mask: (B, T) bool, false at padding.
    label: (B,) int64, the class that the sentence names; pairs with equal labels describe each other equally well.
    """

    image: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    label: Tensor


class ContentStyle(NamedTuple):
    """A content image, and a style image whose size may differ.

    content: (1, 3, H, W) float32 in 0..1.
    style: (1, 3, h, w) float32 in 0..1; None if there is only a content image.
    """

    content: Tensor
    style: Tensor | None = None
