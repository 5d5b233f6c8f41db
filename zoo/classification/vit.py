"""Vision transformers: an image is cut into patches, and attention lets each patch look at all others. They are for
many images or pretrained weights: on few images convolutional nets are better.

B batch, C channels, H height, W width, T patches, D width of a token, P side of a patch, K classes.
Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", section 3.1.
"""

from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.attention import Block, initialize_deit, rising_stochastic_depth
from zoo.parts.norms import NormCallable
from zoo.parts.optim.adamw import AdamW
from zoo.parts.patches import PatchProjection, patch_grid, resize_positions, sincos_positions
from zoo.parts.pretrained import State

LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)  # the eps of the paper's code, and torchvision's
ADAMW = partial(AdamW, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05)
RENAMES = (  # torchvision's names; its first release called the two layers of a block linear_1 and linear_2
    ("^class_token$", "stem.cls_token"),
    ("^encoder.pos_embedding$", "stem.position"),
    ("^conv_proj", "stem.project"),
    ("^encoder.layers.encoder_layer_", "blocks."),
    ("self_attention", "attention"),
    ("out_proj", "out"),
    ("[.]ln_([12])", r".norm\1"),
    ("[.]mlp[.](3|linear_2)", ".mlp.2"),
    ("[.]mlp[.]linear_1", ".mlp.0"),
    ("^encoder.ln", "norm"),
    ("^heads.head", "head"),
)


Pool = Literal["cls", "mean"]
Position = Literal["normal", "sincos"]


class ViTNet(nn.Module):
    """Patches as tokens, a class token, learned positions, pre-norm transformer blocks, a linear layer.

    With `pool` "mean" and `position` "sincos" it learns faster: Beyer, Zhai and Kolesnikov 2022, "Better plain ViT
    baselines for ImageNet-1k", section 2. Differs from that paper in that the positions are learned further.

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
        stochastic_depth: probability that a branch of the last block is left out in training; it rises linearly from 0
            at the first.
        pool: what the last layer sees: "cls", the class token, or "mean", the mean of all patches, with no such token.
        position: what the learned positions are at first: "normal", random ones, or "sincos", half of those of
            `sincos_positions`.
        norm: makes a norm from D.

    Shape: (B, C, H, W) -> (B, K).

    Raises:
        ValueError: if an image's sides are not multiples of P.
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
        stochastic_depth: float = 0.0,
        pool: Pool = "cls",
        position: Position = "normal",
        norm: NormCallable = LAYER_NORM,
    ) -> None:
        super().__init__()
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.pool = pool
        self.stem = PatchEmbedding(in_channels, size, patch_size, dim, dropout, pool == "cls", position)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, dropout=dropout, norm=norm, expand=mlp_ratio, stochastic_depth=share)
            for share in rising_stochastic_depth(stochastic_depth, num_layers)
        )
        self.norm = norm(dim)
        self.head = nn.Linear(dim, num_classes)
        initialize_deit(self)

    @property
    def cam_target(self) -> nn.Module:
        # After the last attention only a class token gets a gradient from the logits, and the map would be zero.
        return self.blocks[-1].get_submodule("norm1")

    def cam_reshape(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, D), or (B, 1 + T, D) with a class token, which is left out -> maps (B, D, H / P, W / P)."""
        patches = tokens[:, self.stem.num_first :]
        return patches.transpose(1, 2).unflatten(2, self.stem.grid)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]) if self.pool == "cls" else self.norm(x).mean(1))


class PatchEmbedding(nn.Module):
    """A projection of each patch, with learned positions added, and a class token in front or not.

    Attributes:
        grid: rows and columns of patches in the images of the last call.
        num_first: how many tokens come before the patches, 0 or 1.

    Shape: (B, C, H, W) -> (B, num_first + T, D).
    """

    def __init__(
        self,
        in_channels: int,
        size: tuple[int, int],
        patch_size: int,
        dim: int,
        dropout: float,
        has_cls_token: bool,
        position: Position,
    ) -> None:
        super().__init__()
        self.grid = self.learned_grid = patch_grid(*size, patch_size)
        self.num_first = int(has_cls_token)
        self.project = PatchProjection(in_channels, dim, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if has_cls_token else None
        self.position = nn.Parameter(0.02 * torch.randn(1, self.num_first + self.grid[0] * self.grid[1], dim))
        if position == "sincos":
            with torch.no_grad():
                self.position[0, self.num_first :] = 0.5 * sincos_positions(self.grid, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.project(x)
        self.grid = maps.shape[2], maps.shape[3]
        tokens = maps.flatten(2).transpose(1, 2)
        if self.cls_token is not None:
            tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1)
        return self.drop(tokens + self._positions())

    def _positions(self) -> Tensor:
        first, of_patches = self.position[:, : self.num_first], self.position[:, self.num_first :]
        maps = resize_positions(of_patches.transpose(1, 2).unflatten(2, self.learned_grid), self.grid)
        return torch.cat([first, maps.flatten(2).transpose(1, 2)], 1)


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
        stochastic_depth: float = 0.0,
        pool: Pool = "cls",
        position: Position = "normal",
        optimizer: OptimizerCallable = ADAMW,
        **task_options: Any,
    ) -> None:
        net = ViTNet(
            num_classes, in_channels, image_size=image_size, patch_size=patch_size, dim=dim, num_layers=num_layers,
            num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout, stochastic_depth=stochastic_depth, pool=pool,
            position=position,
        )  # fmt: skip
        super().__init__(net, num_classes, optimizer=optimizer, **task_options)


class ViTB16(ViT):
    """ViT-B/16 (table 1), for images of 224 px and other multiples of 16; 86 567 656 parameters with 1000 classes.

    Args:
        weights: of torchvision's vit_b_16 to start from, see `load_weights`; None for random ones.
        options: see `ViT`. Other sizes give other nets, such as ViT-L/16 with dim 1024, 24 layers and 16 heads.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        dim: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        weights: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            num_classes, in_channels, image_size=image_size, patch_size=patch_size, dim=dim, num_layers=num_layers,
            num_heads=num_heads, **options,
        )  # fmt: skip
        self.load_weights(weights, "vit_b_16", RENAMES, split_projections)


def split_projections(state: State) -> State:
    """torchvision's weights with the projection to queries, keys and values, (3 D, ...) there, as three."""
    found: State = {}
    for name, tensor in state.items():
        if "in_proj_" in name:
            parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
            found |= {name.replace("in_proj_", f"{part}."): value for part, value in parts}
        else:
            found[name] = tensor
    return found
