"""Patches of images, and their positions. B batch, C channels, H height, W width, D width of a token, P patch side.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", section 3.1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def patch_grid(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches in an image.

    Raises:
        ValueError: if the sides are not multiples of P.

    >>> patch_grid(224, 160, 16)
    (14, 10)
    """
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"the images are {width} x {height} pixels: expected multiples of the patch size {patch_size}; "
            "choose another image_size or patch_size"
        )
    return height // patch_size, width // patch_size


class PatchProjection(nn.Conv2d):
    """A linear projection of each patch, written as a convolution whose stride is the size of its kernel.

    Shape: (B, C, H, W) -> (B, D, H / P, W / P).

    Raises:
        ValueError: if an image's sides are not multiples of P; a plain convolution would ignore what is left over.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__(in_channels, dim, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        patch_grid(x.size(2), x.size(3), self.kernel_size[0])
        return super().forward(x)


class LearnedPositions(nn.Module):
    """Adds a learned vector to each place of a map, by which attention can tell the places apart.

    Args:
        dim: D.
        grid: (H, W) that the vectors are learned for. Maps of another size get interpolated ones.

    Shape: (B, D, H, W) -> the same.
    """

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(1, dim, *grid))

    def forward(self, x: Tensor) -> Tensor:
        return x + resize_positions(self.position, x.shape[2:])


def sincos_positions(grid: tuple[int, int], dim: int) -> Tensor:
    """Positions (H * W, D) of sines and cosines of the column and of the row, at frequencies from 1 down to 1 / 10000.

    Places that are near have similar ones, which learned positions must first find out. Beyer, Zhai and Kolesnikov
    2022, "Better plain ViT baselines for ImageNet-1k", section 2, after Vaswani et al. 2017, section 3.5.

    Raises:
        ValueError: if D is not a multiple of 4.

    >>> sincos_positions((7, 7), 8)[0].tolist()
    [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    """
    if dim % 4:
        raise ValueError(f"dim is {dim}: expected a multiple of 4, for the sines and cosines of columns and rows")
    frequency = torch.logspace(0, -4, dim // 4)
    row, column = (
        place.flatten()[:, None] * frequency for place in torch.meshgrid(*map(torch.arange, grid), indexing="ij")
    )
    return torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], 1)


def resize_positions(position: Tensor, grid: tuple[int, ...]) -> Tensor:
    """(1, D, H, W) -> (1, D, *grid), bicubically, as images of another resolution need it (section 3.2)."""
    if position.shape[2:] == grid:
        return position
    return F.interpolate(position, grid, mode="bicubic", align_corners=False)
