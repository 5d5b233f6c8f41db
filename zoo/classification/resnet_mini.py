"""A small residual net for small images: the flagship that `zoo demo` trains. Use it where a good net must train in
minutes on a CPU. B batch, C channels, H height, W width, K classes.

Nothing in it is new: residual blocks (He et al. 2015), average-pooled shortcuts (ResNet-D: He et al. 2018,
"Bag of Tricks for Image Classification", figure 2c), a stem at full resolution. It was chosen
among about ten variants by validation accuracy for its work, one seed each; wider nets with fewer epochs were alike.
"""

from typing import Any

import torch
from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.convs import conv_norm_act


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut that averages instead of skipping pixels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv_norm_act(inputs, outputs, 3, stride), conv_norm_act(outputs, outputs, act=False)
        )
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(nn.AvgPool2d(stride, ceil_mode=True))
        if inputs != outputs:
            self.shortcut.append(conv_norm_act(inputs, outputs, 1, act=False))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


class ResNetMiniNet(nn.Module):
    """Stem at full resolution with max-pooling, one residual block a stage, global max-pooling, linear head.

    Args:
        num_classes: K.
        in_channels: C.
        widths: channels of the stages.
        strides: of the stages.

    Shape: (B, C, H, W) -> (B, K); 28 px go 28 -> 14 -> 14 -> 7 -> 4 with the defaults.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        widths: tuple[int, ...] = (16, 32, 64),
        strides: tuple[int, ...] = (1, 2, 2),
        stem_pool: bool = True,
    ) -> None:
        super().__init__()
        self.stem = conv_norm_act(in_channels, widths[0], pool=stem_pool)
        inputs = (widths[0], *widths)
        self.stages = nn.Sequential(
            *(ResidualBlock(i, o, stride) for i, o, stride in zip(inputs[:-1], widths, strides, strict=True))
        )
        self.head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes))

    @property
    def cam_target(self) -> nn.Module:
        return self.stages[1]  # 7x7 of 28 px: the maps after it are too coarse to look at

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class ResNetMini(Classifier):
    """Trains a `ResNetMiniNet`; the other arguments are `Classifier`'s.

    >>> ResNetMini(num_classes=10).net(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        widths: tuple[int, ...] = (16, 32, 64),
        strides: tuple[int, ...] = (1, 2, 2),
        stem_pool: bool = True,
        **task_options: Any,
    ) -> None:
        net = ResNetMiniNet(num_classes, in_channels, widths=widths, strides=strides, stem_pool=stem_pool)
        super().__init__(net, num_classes, **task_options)
