"""Custom ResNet: a shallow and wide residual net for CIFAR-10. It trains to 94 % in minutes on one GPU, and is what
the course uses to learn how a learning rate is chosen.

B batch, C channels, H height, W width, K classes.

Page 2018, "How to Train Your ResNet", part 4. Differs from it in pooling before the norm instead of after the ReLU, and
in the pooling of the last maps to one value, whatever their size.
"""

from typing import Any

from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.convs import conv_norm_act


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each with norm and ReLU, beside the identity; nothing follows the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv_norm_act(channels, channels), conv_norm_act(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Scale(nn.Module):
    """Multiplies by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class CustomResNetNet(nn.Module):
    """Four convolutions of growing width, a residual block after the second and the fourth, max-pooling, linear layer.

    Args:
        num_classes: K.
        in_channels: C.
        width: channels of the first convolution; each of the three layers doubles them, and halves H and W.
        logit_scale: factor of the logits; the linear layer has no bias.

    Shape: (B, C, H, W) -> (B, K), for any H and W of 8 or more. The last maps are 4x4 of 32 px.

    >>> sum(p.numel() for p in CustomResNetNet(num_classes=10).parameters())
    6573120
    """

    def __init__(
        self, num_classes: int = 10, in_channels: int = 3, width: int = 64, logit_scale: float = 0.125
    ) -> None:
        super().__init__()
        self.stem = conv_norm_act(in_channels, width)
        self.stages = nn.Sequential(
            nn.Sequential(conv_norm_act(width, 2 * width, pool=True), ResidualBlock(2 * width)),
            conv_norm_act(2 * width, 4 * width, pool=True),
            nn.Sequential(conv_norm_act(4 * width, 8 * width, pool=True), ResidualBlock(8 * width)),
        )
        self.head = nn.Sequential(
            nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8 * width, num_classes, bias=False), Scale(logit_scale)
        )

    @property
    def cam_target(self) -> nn.Module:
        return self.stages[1]  # 8x8 of 32 px: the last stage has only 4x4

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class CustomResNet(Classifier):
    """Trains a `CustomResNetNet`, whose arguments it takes; the others are `Classifier`'s."""

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        width: int = 64,
        logit_scale: float = 0.125,
        **task_options: Any,
    ) -> None:
        net = CustomResNetNet(num_classes, in_channels, width=width, logit_scale=logit_scale)
        super().__init__(net, num_classes, **task_options)
