"""Ultimus: three convolutions, then four attention blocks on one vector. It is an exercise in attention without tokens,
and in why a net does not train.

B batch, C channels, H height, W width, D numbers of a vector, E width of query, key and value, K classes.

An assignment of the Extensive Vision AI course (session 9), here in its literal form and with three changes that make
it easier to train; `experiments/studies/ultimus.py` shows what each of them does.
"""

from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.convs import conv_norm_act

ADAM = partial(torch.optim.Adam, lr=0.01)


class UltimusBlock(nn.Module):
    """Attention between the E numbers of a query and the E numbers of a key of the same vector.

    The outer product of query and key is an E x E matrix of scores. Softmax over its rows gives the weights A, and the
    value, as a row vector, is multiplied by A / sqrt(E). Vaswani et al. 2017, equation 1, have tokens in place of the
    single numbers, and divide the scores by sqrt(E), not the weights.

    Args:
        dim: D.
        width: E.
        residual: add the input to the output.
        pre_norm: layer norm before the three projections.
        scale_scores: divide the scores by sqrt(E) instead of the weights, as the paper does.
        gain: of the four layers' initial weights, as a factor of torch's; biases then start at zero. None leaves both
            as torch draws them.

    Shape: (B, D) -> (B, D).
    """

    def __init__(
        self,
        dim: int = 48,
        width: int = 8,
        residual: bool = False,
        pre_norm: bool = False,
        scale_scores: bool = False,
        gain: float | None = None,
    ) -> None:
        super().__init__()
        self.residual, self.scale_scores = residual, scale_scores
        self.norm = nn.LayerNorm(dim) if pre_norm else nn.Identity()
        self.query, self.key, self.value = (nn.Linear(dim, width) for _ in range(3))
        self.out = nn.Linear(width, dim)
        if gain is not None:
            with torch.no_grad():
                for layer in (self.query, self.key, self.value, self.out):
                    layer.weight *= gain
                    layer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        query, key, value = self.query(h), self.key(h), self.value(h)  # (B, E)
        scores, root = query[:, :, None] * key[:, None, :], query.size(1) ** 0.5  # (B, E, E)
        weights = (scores / root).softmax(-1) if self.scale_scores else scores.softmax(-1) / root
        y = self.out((value[:, None] @ weights)[:, 0])
        return x + y if self.residual else y


class UltimusNet(nn.Module):
    """Three 3x3 convolutions, global average pooling, Ultimus blocks, a linear layer.

    The course leaves open what follows a convolution and how large the maps are: here batch norm and ReLU, in both
    forms, and max-pooling.

    Args:
        num_classes: K.
        in_channels: C.
        widths: channels of the three convolutions; the last is D.
        pool: which of the three convolutions are followed by 2x2 max-pooling.
        num_blocks: Ultimus blocks.
        width, residual, pre_norm, scale_scores, gain: see `UltimusBlock`.

    Shape: (B, C, H, W) -> (B, K).

    Raises:
        ValueError: unless there are three widths and flags, or if the poolings leave nothing of an image.
    """

    extras = ("blocks",)

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        widths: tuple[int, int, int] = (16, 32, 48),
        pool: tuple[bool, bool, bool] = (True, True, False),
        num_blocks: int = 4,
        width: int = 8,
        residual: bool = False,
        pre_norm: bool = False,
        scale_scores: bool = False,
        gain: float | None = None,
    ) -> None:
        super().__init__()
        if not len(widths) == len(pool) == 3:
            raise ValueError(
                f"widths has {len(widths)} values, pool {len(pool)}: expected one for each of three layers"
            )
        first, second, dim = widths
        self.smallest = 2 ** sum(pool)
        self.stem = conv_norm_act(in_channels, first, pool=pool[0])
        self.stages = nn.Sequential(
            conv_norm_act(first, second, pool=pool[1]), conv_norm_act(second, dim, pool=pool[2])
        )
        self.blocks = nn.Sequential(
            *(
                UltimusBlock(dim, width, residual=residual, pre_norm=pre_norm, scale_scores=scale_scores, gain=gain)
                for _ in range(num_blocks)
            )
        )
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if min(height, width) < self.smallest:
            raise ValueError(
                f"the images are {width} x {height} pixels: expected {self.smallest} x {self.smallest} or more; "
                "take larger images, or pool fewer times"
            )
        return self.head(self.blocks(self.stages(self.stem(x)).mean((2, 3))))


class Ultimus(Classifier):
    """Trains an `UltimusNet`, whose arguments it takes; the others are `Classifier`'s.

    >>> sum(p.numel() for p in Ultimus(num_classes=10).net.blocks[0].parameters())  # three of 48 -> 8, one of 8 -> 48
    1608
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        widths: tuple[int, int, int] = (16, 32, 48),
        pool: tuple[bool, bool, bool] = (True, True, False),
        num_blocks: int = 4,
        width: int = 8,
        residual: bool = False,
        pre_norm: bool = False,
        scale_scores: bool = False,
        gain: float | None = None,
        optimizer: OptimizerCallable = ADAM,
        **task_options: Any,
    ) -> None:
        net = UltimusNet(
            num_classes, in_channels, widths=widths, pool=pool, num_blocks=num_blocks, width=width,
            residual=residual, pre_norm=pre_norm, scale_scores=scale_scores, gain=gain,
        )  # fmt: skip
        super().__init__(net, num_classes, optimizer=optimizer, **task_options)
