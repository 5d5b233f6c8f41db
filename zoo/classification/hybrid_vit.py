"""Hybrid transformer: convolutions up to the level of objects, then a transformer on the places of the last map. It
needs fewer data than a transformer on patches, as convolutions already know that near pixels belong together.

B batch, C channels, H height, W width, T places of the last map, D its channels, K classes.

After EVA 8, session 9, "Dawn of Transformers, part I", the first of its two ways to use a transformer on images: four
levels of convolutions see edges, textures, parts and objects, and each place of the last map, with its 512 channels, is
a token. Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1, call it the hybrid architecture.
"""

from typing import Any

from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.attention import Block
from zoo.parts.convs import conv_norm_act
from zoo.parts.patches import LearnedPositions


class TransformerStage(nn.Module):
    """Transformer blocks on a map whose places are tokens, with learned positions; the result is a map again.

    Args:
        dim: D.
        grid: (H, W) that the positions are learned for; maps of another size get interpolated ones.
        num_layers, num_heads, mlp_ratio, dropout: of the blocks.

    Shape: (B, D, H, W) -> the same.
    """

    def __init__(
        self, dim: int, grid: tuple[int, int], num_layers: int, num_heads: int, mlp_ratio: int, dropout: float
    ) -> None:
        super().__init__()
        self.positions = LearnedPositions(dim, grid)
        self.blocks = nn.Sequential(
            *(Block(dim, num_heads, dropout=dropout, expand=mlp_ratio) for _ in range(num_layers))
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.positions(x).flatten(2).transpose(1, 2)  # (B, T, D)
        return self.norm(self.blocks(tokens)).transpose(1, 2).unflatten(2, x.shape[2:])


class HybridViTNet(nn.Module):
    """Levels of two 3x3 convolutions, a transformer on the last map, global average pooling, a linear layer.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: (H, W) that the positions are learned for, or the side of a square.
        widths: channels of each level; the first level, the stem, has one convolution, the last level D channels.
        pools: which of the levels halve H and W.
        num_layers: transformer blocks.
        num_heads: of each attention.
        mlp_ratio: width between the two layers of a block, over D.
        dropout: of attention weights and branches.

    Shape: (B, C, H, W) -> (B, K).

    Raises:
        ValueError: if there are not as many pools as widths, or the pools leave nothing of an image.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int | tuple[int, int] = 32,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        pools: tuple[bool, ...] = (False, True, True, False),
        num_layers: int = 2,
        num_heads: int = 8,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(pools) != len(widths):
            raise ValueError(
                f"pools are {len(pools)}, widths {len(widths)}: expected one of each a level; add or drop some"
            )
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.smallest = 2 ** sum(pools)
        self._check(height, width)
        self.stem = conv_norm_act(in_channels, widths[0], pool=pools[0])
        levels = [
            nn.Sequential(conv_norm_act(inputs, outputs, pool=pool), conv_norm_act(outputs, outputs))
            for inputs, outputs, pool in zip(widths[:-1], widths[1:], pools[1:], strict=True)
        ]
        grid = height // self.smallest, width // self.smallest
        transformer = TransformerStage(widths[-1], grid, num_layers, num_heads, mlp_ratio, dropout)
        self.stages = nn.Sequential(*levels, transformer)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes))

    def _check(self, height: int, width: int) -> None:
        if min(height, width) < self.smallest:
            raise ValueError(
                f"the images are {width} x {height} pixels: expected {self.smallest} or more on both sides, as the "
                "pools divide them by that; choose larger images or fewer pools"
            )

    def forward(self, x: Tensor) -> Tensor:
        self._check(*x.shape[2:])
        return self.head(self.stages(self.stem(x)))


class HybridViT(Classifier):
    """Trains a `HybridViTNet`, whose arguments it takes; the others are `Classifier`'s."""

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int | tuple[int, int] = 32,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        pools: tuple[bool, ...] = (False, True, True, False),
        num_layers: int = 2,
        num_heads: int = 8,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        **task_options: Any,
    ) -> None:
        net = HybridViTNet(
            num_classes, in_channels, image_size=image_size, widths=widths, pools=pools, num_layers=num_layers,
            num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout,
        )  # fmt: skip
        super().__init__(net, num_classes, **task_options)
