"""ConvMixer: patches are mixed by large depthwise convolutions, and their channels by 1x1 convolutions, at one
resolution throughout. It tests how much of a vision transformer's success is due to patches: there is no attention in
it.

B batch, C channels, H height, W width, D width of the net, P side of a patch, K classes.

Trockman and Kolter 2022, "Patches Are All You Need?", section 2 and figure 2.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.optim.adamw import AdamW
from zoo.parts.patches import PatchProjection

ActCallable = Callable[[], nn.Module]
ADAMW = partial(AdamW, lr=0.01, betas=(0.9, 0.999), weight_decay=0.01)


class MixerBlock(nn.Module):
    """A depthwise convolution, which mixes places, beside a shortcut, then a pointwise one, which mixes channels.

    Each is followed by an activation and batch norm (equations 2 and 3).

    Shape: (B, D, H, W) -> the same.
    """

    def __init__(self, dim: int, kernel_size: int, act: ActCallable) -> None:
        super().__init__()
        depthwise = nn.Conv2d(dim, dim, kernel_size, groups=dim, padding="same")
        self.depthwise = nn.Sequential(depthwise, act(), nn.BatchNorm2d(dim))
        self.pointwise = nn.Sequential(nn.Conv2d(dim, dim, 1), act(), nn.BatchNorm2d(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(x + self.depthwise(x))


class ConvMixerNet(nn.Module):
    """Patches, then blocks of convolutions that all keep the size of the maps, global average pooling, a linear layer.

    Parameters: D [d (k^2 + D + 6) + C P^2 + K + 3] + K, with d the depth and k the kernel size.

    Args:
        num_classes: K.
        in_channels: C.
        dim: D.
        depth: number of blocks.
        kernel_size: of the depthwise convolutions.
        patch_size: P.
        act: makes an activation. GELU is the paper's; ReLU takes a third of its time on a CPU.

    Shape: (B, C, H, W) -> (B, K).

    Raises:
        ValueError: if an image's sides are not multiples of P.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        dim: int = 256,
        depth: int = 8,
        kernel_size: int = 5,
        patch_size: int = 2,
        act: ActCallable = nn.GELU,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(PatchProjection(in_channels, dim, patch_size), act(), nn.BatchNorm2d(dim))
        self.stages = nn.Sequential(*(MixerBlock(dim, kernel_size, act) for _ in range(depth)))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(dim, num_classes))

    @property
    def cam_target(self) -> nn.Module:
        # All blocks keep the size of the maps, and each spreads the evidence further: a block in the middle points
        # better than the last one, see experiments/studies/pointing_game.py.
        return self.stages[(len(self.stages) - 1) // 2]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class ConvMixer(Classifier):
    """Trains a `ConvMixerNet`, by default ConvMixer-256/8; the other arguments are `Classifier`'s.

    >>> sum(p.numel() for p in ConvMixer(num_classes=10).parameters())
    594186
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        dim: int = 256,
        depth: int = 8,
        kernel_size: int = 5,
        patch_size: int = 2,
        act: ActCallable = nn.GELU,
        optimizer: OptimizerCallable = ADAMW,
        **task_options: Any,
    ) -> None:
        net = ConvMixerNet(
            num_classes, in_channels, dim=dim, depth=depth, kernel_size=kernel_size, patch_size=patch_size, act=act
        )
        super().__init__(net, num_classes, optimizer=optimizer, **task_options)
