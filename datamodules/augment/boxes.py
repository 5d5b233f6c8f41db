"""Augmentation of `Boxed` batches on the device, with separate random numbers for every sample.

B batch, C channels, H height, W width, M boxes of all samples together. Edges are continuous: pixel (0, 0) covers the
box (0, 0, 1, 1). Boxes move with the pixels. Augmentations that move no pixel, such as
`datamodules.augment.images.Color`, work for `Boxed` batches as well.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.augment.images import Augmentation, constant
from datamodules.batches import Boxed


class BoxAugmentation(Augmentation):
    """Base class of the augmentations that move boxes with the pixels."""

    def check(self, batch: Any, num_classes: int | None) -> None:
        if not isinstance(batch, Boxed):
            raise ValueError(
                f"{type(self).__name__} moves images with their boxes, but the batches are {type(batch).__name__}: "
                "expected Boxed; take one of datamodules.augment.images"
            )


class BoxFlip(BoxAugmentation):
    """Horizontal and vertical flip, each with its own probability."""

    def __init__(self, horizontal: float = 0.5, vertical: float = 0.0) -> None:
        self.p = (horizontal, vertical)

    def __call__(self, batch: Boxed, generator: torch.Generator) -> Boxed:
        image, (B, _, H, W) = batch.image, batch.image.shape
        draws = torch.rand(2, B, generator=generator, device=image.device)
        horizontal, vertical = draws < constant(self.p, draws)[:, None]
        image = torch.where(horizontal[:, None, None, None], image.flip(-1), image)
        image = torch.where(vertical[:, None, None, None], image.flip(-2), image)
        boxes, counts = torch.cat(batch.boxes), [len(rows) for rows in batch.boxes]
        x0, y0, x1, y1 = boxes.unbind(1)
        sample = _on_device(_samples(counts), boxes)
        h, v = horizontal[sample], vertical[sample]
        edges = (
            torch.where(h, W - x1, x0),
            torch.where(v, H - y1, y0),
            torch.where(h, W - x0, x1),
            torch.where(v, H - y0, y1),
        )
        return batch._replace(image=image, boxes=list(torch.stack(edges, 1).split(counts)))


class BoxZoomShift(BoxAugmentation):
    """Scales about the center, then shifts, with bilinear interpolation; new areas get the mean color of the image.

    A box that is partly outside the image is clipped to it; it is dropped if less than `min_visible` of its area is
    left, or a side shorter than `min_size`.

    Args:
        zoom: bounds of the factor, which is log-uniform between them; above 1 objects become larger.
        stretch: width and height are scaled by different factors, whose ratio is at most 1 + stretch.
        shift: uniform in -shift..shift of the image's size, on both axes.
        min_visible: share of the area.
        min_size: pixels.
    """

    def __init__(
        self,
        zoom: tuple[float, float] = (0.8, 1.25),
        stretch: float = 0.0,
        shift: float = 0.1,
        min_visible: float = 0.3,
        min_size: float = 2.0,
    ) -> None:
        if not 0 < zoom[0] <= zoom[1]:
            raise ValueError(f"zoom is {zoom}: expected a lower and an upper bound above 0, such as [0.8, 1.25]")
        self.zoom, self.stretch, self.shift = zoom, stretch, shift
        self.min_visible, self.min_size = min_visible, min_size

    def __call__(self, batch: Boxed, generator: torch.Generator) -> Boxed:
        image, (B, _, H, W) = batch.image, batch.image.shape
        low, high = torch.tensor(self.zoom).log().tolist()
        draw = torch.rand(4, B, generator=generator, device=image.device)
        zoom = (low + draw[0] * (high - low)).exp()[:, None]
        ratio = (1 + self.stretch) ** (draw[1, :, None] - 0.5)
        scale = torch.cat([zoom * ratio, zoom / ratio], 1)  # (B, 2), of x and of y
        shift = self.shift * (2 * draw[2:].T - 1)  # (B, 2), in image sizes
        # affine_grid maps output to input coordinates, each axis in -1..1.
        theta = torch.cat([torch.diag_embed(1 / scale), (-2 * shift / scale)[:, :, None]], 2).to(image.dtype)
        grid = F.affine_grid(theta, list(image.shape), align_corners=False)
        ground = image.mean((2, 3), keepdim=True)
        moved = F.grid_sample(image - ground, grid, align_corners=False) + ground

        boxes, of_image = torch.cat(batch.boxes), _samples([len(rows) for rows in batch.boxes])
        sample, size = _on_device(of_image, boxes), constant((float(W), float(H)), boxes)
        center = size * (0.5 + shift)[sample]  # (M, 2), the new position of the image's center
        points = (boxes.view(-1, 2, 2) - size / 2) * scale[sample, None] + center[:, None]
        inside = points.clamp(boxes.new_zeros(2), size)
        side, full = inside[:, 1] - inside[:, 0], points[:, 1] - points[:, 0]
        keep = (side >= self.min_size).all(1) & (side.prod(1) >= self.min_visible * full.prod(1))
        # The only place where the host waits for the device: it must know how many boxes are left.
        kept = keep.cpu().nonzero()[:, 0]
        counts, index = of_image[kept].bincount(minlength=B).tolist(), _on_device(kept, boxes)
        return Boxed(
            moved.clamp(0, 1),
            list(inside.flatten(1)[index].split(counts)),
            list(torch.cat(batch.labels)[index].split(counts)),
        )


def _samples(counts: list[int]) -> Tensor:
    """The number of the image of each box (M,), on the host, for images with so many boxes."""
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def _on_device(values: Tensor, like: Tensor) -> Tensor:
    """Moves a tensor of the host to the device of another without waiting for that."""
    return values.to(like.device, non_blocking=True)
