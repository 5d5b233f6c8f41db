"""Augmentation of whole `Boxed` batches on the device, with a separate draw for every sample; boxes follow the pixels.

B batch, C channels, H height, W width, M boxes of all samples together. Edges are continuous: pixel (0, 0) covers the
box (0, 0, 1, 1). What moves no pixel, such as `datamodules.augment.images.Color`, needs nothing of its own for boxes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.augment.images import Augmentation
from datamodules.batches import Boxed


class BoxFlip(Augmentation):
    """Mirrors left and right, and top and bottom, each with a probability of its own."""

    def __init__(self, horizontal: float = 0.5, vertical: float = 0.0) -> None:
        self.p = (horizontal, vertical)

    def __call__(self, batch: Boxed, generator: torch.Generator) -> Boxed:
        image, (B, _, H, W) = batch.image, batch.image.shape
        draws = torch.rand(2, B, generator=generator, device=image.device)
        mirrored, upended = draws < torch.tensor(self.p, device=image.device)[:, None]
        image = torch.where(mirrored[:, None, None, None], image.flip(-1), image)
        image = torch.where(upended[:, None, None, None], image.flip(-2), image)
        boxes, sample = _together(batch.boxes)
        x0, y0, x1, y1 = boxes.unbind(1)
        m, u = mirrored[sample], upended[sample]
        edges = (
            torch.where(m, W - x1, x0),
            torch.where(u, H - y1, y0),
            torch.where(m, W - x0, x1),
            torch.where(u, H - y0, y1),
        )
        return batch._replace(image=image, boxes=_apart(torch.stack(edges, 1), sample, B))


class BoxZoomShift(Augmentation):
    """Scales about the centre, then moves, bilinear; what comes from outside has the mean colour of the picture.

    A box that leaves the picture in part is clipped to it; if less than `min_visible` of its area is left, or less
    than `min_size` pixels of a side, it is dropped.

    Args:
        zoom: the factor is uniform in these bounds, in its logarithm; above 1 things get larger.
        stretch: width and height are scaled by different factors, their ratio up to 1 + stretch.
        shift: uniform in -shift..shift of the picture's size, on both axes.
        min_visible: share of its area.
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
        shift = self.shift * (2 * draw[2:].T - 1)  # (B, 2), in picture sizes
        # affine_grid maps output to input coordinates, each axis in -1..1.
        theta = torch.cat([torch.diag_embed(1 / scale), (-2 * shift / scale)[:, :, None]], 2).to(image.dtype)
        grid = F.affine_grid(theta, list(image.shape), align_corners=False)
        ground = image.mean((2, 3), keepdim=True)
        moved = F.grid_sample(image - ground, grid, align_corners=False) + ground

        boxes, sample = _together(batch.boxes)
        size = boxes.new_tensor([W, H])
        middle = size * (0.5 + shift)[sample]  # (M, 2), where the centre of the picture goes
        points = (boxes.view(-1, 2, 2) - size / 2) * scale[sample, None] + middle[:, None]
        inside = points.clamp(boxes.new_zeros(2), size)
        side, full = inside[:, 1] - inside[:, 0], points[:, 1] - points[:, 0]
        keep = (side >= self.min_size).all(1) & (side.prod(1) >= self.min_visible * full.prod(1))
        return Boxed(
            moved.clamp(0, 1),
            _apart(inside.flatten(1)[keep], sample[keep], B),
            _apart(torch.cat(batch.labels)[keep], sample[keep], B),
        )


def _together(boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Boxes of all samples (M, 4), and for each its sample (M,)."""
    counts = torch.tensor([len(rows) for rows in boxes], device=boxes[0].device)
    return torch.cat(boxes), torch.arange(len(boxes), device=counts.device).repeat_interleave(counts)


def _apart(rows: Tensor, sample: Tensor, B: int) -> list[Tensor]:
    """The inverse of `_together`, of boxes or of their labels."""
    return list(rows.split(sample.bincount(minlength=B).tolist()))
