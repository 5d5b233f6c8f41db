"""A vision transformer written like ConvMixer: tokens stay a map, and every linear layer is a 1x1 convolution. So it
takes images of any size, and Grad-CAM works on it as on a convolutional net.

B batch, C channels, H height, W width, T places of a map, N heads, E width of a head, D = N * E width of a token,
P side of a patch, K classes.

After EVA 8, session 10, "Dawn of Transformers, part II". The blocks are those of Dosovitskiy et al. 2021, "An Image is
Worth 16x16 Words", the frame around them is that of Trockman and Kolter 2022, "Patches Are All You Need?".
"""

from functools import partial
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.attention import attention, initialize_deit
from zoo.parts.norms import NormCallable
from zoo.parts.optim.adamw import AdamW
from zoo.parts.patches import LearnedPositions, PatchProjection, patch_grid

ADAMW = partial(AdamW, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05)


class MapBlock(nn.Module):
    """The pre-norm transformer block on maps: attention among places, then two layers place by place.

    With a norm over the channels of each place it computes what `zoo.parts.attention.Block` does on tokens.

    Args:
        dim: D.
        num_heads: N, which divides D.
        mlp_ratio: width between the two layers, over D.
        norm: makes a norm of D channels.

    Shape: (B, D, H, W) -> the same.

    Raises:
        ValueError: if N does not divide D.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: int, norm: NormCallable) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(
                f"dim is {dim}, num_heads {num_heads}: expected heads of equal width; "
                f"change one, such as dim={num_heads * max(1, round(dim / num_heads))}"
            )
        self.num_heads = num_heads
        self.norm1, self.norm2 = norm(dim), norm(dim)
        self.query, self.key, self.value, self.out = (nn.Conv2d(dim, dim, 1) for _ in range(4))
        self.mlp = nn.Sequential(nn.Conv2d(dim, mlp_ratio * dim, 1), nn.GELU(), nn.Conv2d(mlp_ratio * dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _attend(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).flatten(2).unflatten(1, (self.num_heads, -1)).transpose(2, 3)  # (B, N, T, E)
            for layer in (self.query, self.key, self.value)
        )
        mixed = attention(query, key, value).transpose(2, 3).flatten(1, 2)  # (B, D, T)
        return self.out(mixed.unflatten(2, x.shape[2:]))


class ViTAsConvMixerNet(nn.Module):
    """Patches with learned positions, transformer blocks on maps, global average pooling, a linear layer.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: (H, W) that the positions are learned for, or the side of a square; multiples of P. Images of
            another size, also in multiples of P, get interpolated positions.
        dim: D.
        depth: number of blocks.
        patch_size: P.
        num_heads: N.
        mlp_ratio: width between the two layers of a block, over D.
        norm: makes a norm of D channels; batch norm is ConvMixer's.

    Shape: (B, C, H, W) -> (B, K).

    Raises:
        ValueError: if an image's sides are not multiples of P, or N does not divide D.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int | tuple[int, int] = 32,
        dim: int = 256,
        depth: int = 8,
        patch_size: int = 2,
        num_heads: int = 4,
        mlp_ratio: int = 2,
        norm: NormCallable = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        positions = LearnedPositions(dim, patch_grid(*size, patch_size))
        self.stem = nn.Sequential(PatchProjection(in_channels, dim, patch_size), positions)
        self.stages = nn.Sequential(*(MapBlock(dim, num_heads, mlp_ratio, norm) for _ in range(depth)))
        self.head = nn.Sequential(norm(dim), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(dim, num_classes))
        initialize_deit(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class ViTAsConvMixer(Classifier):
    """Trains a `ViTAsConvMixerNet`, whose arguments it takes; the others are `Classifier`'s."""

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int | tuple[int, int] = 32,
        dim: int = 256,
        depth: int = 8,
        patch_size: int = 2,
        num_heads: int = 4,
        mlp_ratio: int = 2,
        norm: NormCallable = nn.BatchNorm2d,
        optimizer: OptimizerCallable = ADAMW,
        **task_options: Any,
    ) -> None:
        net = ViTAsConvMixerNet(
            num_classes, in_channels, image_size=image_size, dim=dim, depth=depth, patch_size=patch_size,
            num_heads=num_heads, mlp_ratio=mlp_ratio, norm=norm,
        )  # fmt: skip
        super().__init__(net, num_classes, optimizer=optimizer, **task_options)
