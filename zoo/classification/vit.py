"""Vision transformers.

B batch, C channels, H height, W width, T patches, D width of a token, P side of a patch, K classes.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", section 3.1.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.attention import Block
from zoo.parts.norms import NormCallable
from zoo.parts.optim.adamw import AdamW

LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)  # the eps of the paper's code, and torchvision's
ADAMW = partial(AdamW, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05)


class ViTNet(nn.Module):
    """Patches as tokens, a class token, learned positions, pre-norm transformer blocks, a linear layer.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: (H, W) that the positions are learned for, or the side of a square; multiples of P. Images of
            another size, also in multiples of P, get interpolated positions (section 3.2).
        patch_size: P.
        dim: D.
        num_layers: blocks.
        num_heads: of each attention.
        mlp_ratio: width between the two layers of a block, over D.
        dropout: of embeddings, attention weights and branches.
        norm: makes a norm from D.

    Shape: (B, C, H, W) -> (B, K).

    Raises:
        ValueError: if an image's sides are not multiples of P.

    >>> net = ViTNet(num_classes=1000, image_size=224, patch_size=16, dim=768, num_layers=12, num_heads=12)
    >>> sum(p.numel() for p in net.parameters())  # of ViT-B/16
    86567656
    """

    extras = ("norm",)

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int | tuple[int, int] = 32,
        patch_size: int = 4,
        dim: int = 192,
        num_layers: int = 6,
        num_heads: int = 3,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        norm: NormCallable = LAYER_NORM,
    ) -> None:
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.stem = PatchEmbedding(in_channels, (height, width), patch_size, dim, dropout)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, dropout=dropout, norm=norm, expand=mlp_ratio) for _ in range(num_layers)
        )
        self.norm = norm(dim)
        self.head = nn.Linear(dim, num_classes)
        self.apply(_initialize)

    @property
    def cam_target(self) -> nn.Module:
        # After the last attention only the class token gets a gradient from the logits, and the map would be zero.
        return self.blocks[-1].get_submodule("norm1")

    def cam_reshape(self, tokens: Tensor) -> Tensor:
        """Tokens (B, 1 + T, D) -> maps (B, D, H / P, W / P), without the class token."""
        return tokens[:, 1:].transpose(1, 2).unflatten(2, self.stem.grid)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


class PatchEmbedding(nn.Module):
    """A linear projection of each patch, written as a convolution, with the class token in front and positions added.

    Attributes:
        grid: rows and columns of patches in the images of the last call.

    Shape: (B, C, H, W) -> (B, 1 + T, D).
    """

    def __init__(
        self, in_channels: int, image_size: tuple[int, int], patch_size: int, dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.grid = self.learned_grid = self._grid(*image_size)
        self.project = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(0.02 * torch.randn(1, 1 + self.grid[0] * self.grid[1], dim))
        self.drop = nn.Dropout(dropout)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"the images are {width} x {height} pixels: expected multiples of the patch size {self.patch_size}; "
                "choose another image_size or patch_size"
            )
        return height // self.patch_size, width // self.patch_size

    def forward(self, x: Tensor) -> Tensor:
        self.grid = self._grid(*x.shape[2:])
        patches = self.project(x).flatten(2).transpose(1, 2)  # (B, T, D)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], 1)
        return self.drop(tokens + self._positions())

    def _positions(self) -> Tensor:
        if self.grid == self.learned_grid:
            return self.position
        of_class, of_patches = self.position[:, :1], self.position[:, 1:]
        maps = of_patches.transpose(1, 2).unflatten(2, self.learned_grid)
        maps = F.interpolate(maps, self.grid, mode="bicubic", align_corners=False)
        return torch.cat([of_class, maps.flatten(2).transpose(1, 2)], 1)


def _initialize(module: nn.Module) -> None:
    """Normal weights of standard deviation 0.02, biases 0, as in Touvron et al. 2021, "DeiT"."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class ViT(Classifier):
    """Trains a `ViTNet`, whose arguments it takes; the others are `Classifier`'s.

    >>> ViT(num_classes=10, dim=48, num_layers=2).net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int | tuple[int, int] = 32,
        patch_size: int = 4,
        dim: int = 192,
        num_layers: int = 6,
        num_heads: int = 3,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        optimizer: OptimizerCallable = ADAMW,
        **task_options: Any,
    ) -> None:
        net = ViTNet(
            num_classes, in_channels, image_size=image_size, patch_size=patch_size, dim=dim, num_layers=num_layers,
            num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout,
        )  # fmt: skip
        super().__init__(net, num_classes, optimizer=optimizer, **task_options)
