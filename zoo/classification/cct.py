"""CCT, the compact convolutional transformer: convolutions make the tokens, and a weighted mean of them is
classified. It is a transformer for small data sets, on which one with plain patches learns too little.

B batch, C channels, H height, W width, T tokens, D width of a token, K classes.

Hassani et al. 2021, "Escaping the Big Data Paradigm with Compact Transformers", section 3.
"""

from functools import partial
from itertools import pairwise
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.attention import Block, initialize_deit, rising_stochastic_depth
from zoo.parts.optim.adamw import AdamW
from zoo.parts.patches import LearnedPositions

ADAMW = partial(AdamW, lr=5.5e-4, betas=(0.9, 0.999), weight_decay=0.06)  # of the authors' configuration for CIFAR-10


class CCTNet(nn.Module):
    """Convolutions that make tokens, pre-norm transformer blocks, sequence pooling, a linear layer.

    The defaults are CCT-7/3x1: seven blocks, one convolution with a 3x3 kernel.

    Differs from the authors' code in the second norm of a block, which is applied within the branch only, as in ViT,
    and in having no dropout beside the stochastic depth.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: (H, W) that the positions are learned for, or the side of a square. Images of another size get
            interpolated positions.
        stem_widths: channels of the convolutions before the last, which has D; each halves H and W.
        kernel_size: of the convolutions, odd.
        dim: D.
        num_layers: blocks.
        num_heads: of each attention.
        mlp_ratio: width between the two layers of a block, over D.
        stochastic_depth: probability that a branch of the last block is left out in training; it rises linearly from 0
            at the first.
        positions: add learned positions. The padding of the convolutions tells something of them anyway.

    Shape: (B, C, H, W) -> (B, K).
    """

    extras = ("norm",)

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int | tuple[int, int] = 32,
        stem_widths: tuple[int, ...] = (),
        kernel_size: int = 3,
        dim: int = 256,
        num_layers: int = 7,
        num_heads: int = 4,
        mlp_ratio: int = 2,
        stochastic_depth: float = 0.1,
        positions: bool = True,
    ) -> None:
        super().__init__()
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        widths = (in_channels, *stem_widths, dim)
        self.stem = ConvTokenizer(widths, kernel_size, size if positions else None)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, expand=mlp_ratio, qkv_bias=False, stochastic_depth=share)
            for share in rising_stochastic_depth(stochastic_depth, num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Sequential(SequencePooling(dim), nn.Linear(dim, num_classes))
        for part in (self.blocks, self.head):
            initialize_deit(part)

    @property
    def cam_target(self) -> nn.Module:
        return self.norm  # unlike a class token, sequence pooling gives every token a gradient

    def cam_reshape(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, D) -> maps (B, D, rows, columns)."""
        return tokens.transpose(1, 2).unflatten(2, self.stem.grid)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class ConvTokenizer(nn.Module):
    """Convolutions, each with ReLU and max-pooling, whose maps are read as tokens.

    Args:
        widths: channels of the image, then of each convolution; the last is D.
        kernel_size: of the convolutions, odd.
        image_size: (H, W) that positions are learned for; None for no positions.

    Attributes:
        grid: rows and columns of tokens in the images of the last call.

    Shape: (B, C, H, W) -> (B, T, D); n convolutions give T = H / 2^n * W / 2^n tokens, rounded up.

    Raises:
        ValueError: if the kernel size is even.
    """

    def __init__(self, widths: tuple[int, ...], kernel_size: int, image_size: tuple[int, int] | None) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size is {kernel_size}: expected an odd number, which keeps the size of the maps; "
                f"choose {kernel_size + 1}"
            )
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            conv = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=False)
            nn.init.kaiming_normal_(conv.weight)
            layers += [conv, nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers)
        self.grid = (0, 0)
        if image_size is not None:
            height, width = (-(-side // 2 ** (len(widths) - 1)) for side in image_size)
            self.positions: nn.Module = LearnedPositions(widths[-1], (height, width))
        else:
            self.positions = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.positions(self.layers(x))
        self.grid = maps.shape[2], maps.shape[3]
        return maps.flatten(2).transpose(1, 2)


class SequencePooling(nn.Module):
    """The mean of all tokens, weighted by the softmax of a learned linear function of them.

    Shape: (B, T, D) -> (B, D).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.score(x).float().softmax(1).to(x.dtype)  # (B, T, 1)
        return (weights.transpose(1, 2) @ x).squeeze(1)


class CCT(Classifier):
    """Trains a `CCTNet`, whose arguments it takes; the others are `Classifier`'s.

    >>> sum(p.numel() for p in CCT(num_classes=10).parameters())  # of CCT-7/3x1, 3.76 M in the paper
    3760139
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int | tuple[int, int] = 32,
        stem_widths: tuple[int, ...] = (),
        kernel_size: int = 3,
        dim: int = 256,
        num_layers: int = 7,
        num_heads: int = 4,
        mlp_ratio: int = 2,
        stochastic_depth: float = 0.1,
        positions: bool = True,
        optimizer: OptimizerCallable = ADAMW,
        **task_options: Any,
    ) -> None:
        net = CCTNet(
            num_classes, in_channels, image_size=image_size, stem_widths=stem_widths, kernel_size=kernel_size, dim=dim,
            num_layers=num_layers, num_heads=num_heads, mlp_ratio=mlp_ratio, stochastic_depth=stochastic_depth,
            positions=positions,
        )  # fmt: skip
        super().__init__(net, num_classes, optimizer=optimizer, **task_options)
