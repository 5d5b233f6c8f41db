"""Augmentation of `Boxed` batches on the device, with separate random numbers for every sample.

B batch, C channels, H height, W width, M boxes of all samples together. Edges are continuous: pixel (0, 0) covers the
box (0, 0, 1, 1). Boxes move with the pixels. Augmentations that move no pixel, such as
`datamodules.augment.images.Color`, work for `Boxed` batches as well.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.augment.images import Augmentation
from datamodules.batches import Boxed


class BoxFlip(Augmentation):
    """Horizontal and vertical flip, each with its own probability."""

    def __init__(self, horizontal: float = 0.5, vertical: float = 0.0) -> None:
        self.p = (horizontal, vertical)

    def __call__(self, batch: Boxed, generator: torch.Generator) -> Boxed:
        image, (B, _, H, W) = batch.image, batch.image.shape
        draws = torch.rand(2, B, generator=generator, device=image.device)
        horizontal, vertical = draws < torch.tensor(self.p, device=image.device)[:, None]
        image = torch.where(horizontal[:, None, None, None], image.flip(-1), image)
        image = torch.where(vertical[:, None, None, None], image.flip(-2), image)
        boxes, sample = _concatenate(batch.boxes)
        x0, y0, x1, y1 = boxes.unbind(1)
        h, v = horizontal[sample], vertical[sample]
        edges = (
            torch.where(h, W - x1, x0),
            torch.where(v, H - y1, y0),
            torch.where(h, W - x0, x1),
            torch.where(v, H - y0, y1),
        )
        return batch._replace(image=image, boxes=_split_by_sample(torch.stack(edges, 1), sample, B))


class BoxZoomShift(Augmentation):
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

        boxes, sample = _concatenate(batch.boxes)
        size = boxes.new_tensor([W, H])
        center = size * (0.5 + shift)[sample]  # (M, 2), the new position of the image's center
        points = (boxes.view(-1, 2, 2) - size / 2) * scale[sample, None] + center[:, None]
        inside = points.clamp(boxes.new_zeros(2), size)
        side, full = inside[:, 1] - inside[:, 0], points[:, 1] - points[:, 0]
        keep = (side >= self.min_size).all(1) & (side.prod(1) >= self.min_visible * full.prod(1))
        return Boxed(
            moved.clamp(0, 1),
            _split_by_sample(inside.flatten(1)[keep], sample[keep], B),
            _split_by_sample(torch.cat(batch.labels)[keep], sample[keep], B),
        )


def _concatenate(boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The boxes of all samples (M, 4), and the sample of each (M,)."""
    counts = torch.tensor([len(rows) for rows in boxes], device=boxes[0].device)
    return torch.cat(boxes), torch.arange(len(boxes), device=counts.device).repeat_interleave(counts)


def _split_by_sample(rows: Tensor, sample: Tensor, B: int) -> list[Tensor]:
    """The inverse of `_concatenate`, of boxes or of their labels."""
    return list(rows.split(sample.bincount(minlength=B).tolist()))
