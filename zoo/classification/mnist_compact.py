"""A net for MNIST that counts every parameter. B batch, C channels, H height, W width, K classes.

The rules are those of the Extensive Vision AI course, sessions 4 and 5: 3x3 convolutions with batch norm, max-pooling
only once strokes can be seen (receptive field 5), global average pooling instead of a large last layer. What the course
spends on dense 3x3 convolutions behind the pooling goes here into inverted residual blocks.
"""

from typing import Any

from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.convs import conv_norm_act


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel by 3x3, narrow by 1x1, beside a shortcut; all of it several times over.

    Sandler et al. 2018, "MobileNetV2", figure 3b and section 3.3; differs from the paper in ReLU instead of ReLU6. Each
    time has the same filters, depth without parameters, but norms of its own (Jastrzebski et al. 2018, "Residual
    Connections Encourage Iterative Inference", on sharing residual layers).

    Shape: (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int, expanded: int, times: int = 1) -> None:
        super().__init__()
        self.widen = nn.Conv2d(channels, expanded, 1, bias=False)
        self.filter = nn.Conv2d(expanded, expanded, 3, padding=1, groups=expanded, bias=False)
        self.narrow = nn.Conv2d(expanded, channels, 1, bias=False)
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.BatchNorm2d(width) for width in (expanded, expanded, channels)) for _ in range(times)
        )

    def forward(self, x: Tensor) -> Tensor:
        for norms in self.norms:
            widened, filtered, narrowed = norms.children()
            h = widened(self.widen(x)).relu_()
            h = filtered(self.filter(h)).relu_()
            x = x + narrowed(self.narrow(h))
        return x


class Under8KNet(nn.Module):
    """Two 3x3 convolutions, max-pooling, inverted residual blocks, global average pooling, a linear layer.

    The first convolutions are not padded: digits stand on an empty border, and a frame of zeros around it would be one
    more thing for few parameters to learn.

    Args:
        num_classes: K.
        in_channels: C.
        width: channels of the blocks; the first convolution has half of them.
        expanded: channels inside a block.
        times: how often each block is gone through.
        depths: blocks behind each 2x2 max-pooling.

    Shape: (B, C, 28, 28) -> (B, K); 28 px go 28 -> 26 -> 24 -> 12 with the defaults.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        width: int = 16,
        expanded: int = 31,
        times: int = 2,
        depths: tuple[int, ...] = (4,),
    ) -> None:
        super().__init__()
        self.stem = conv_norm_act(in_channels, width // 2, padding=0)
        stages = [conv_norm_act(width // 2, width, padding=0)]
        for depth in depths:
            blocks = (InvertedResidual(width, expanded, times) for _ in range(depth))
            stages.append(nn.Sequential(nn.MaxPool2d(2), *blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class Under8K(Classifier):
    """Trains an `Under8KNet`; the other arguments are `Classifier`'s.

    >>> sum(p.numel() for p in Under8K().parameters())
    7774
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        width: int = 16,
        expanded: int = 31,
        times: int = 2,
        depths: tuple[int, ...] = (4,),
        **task_options: Any,
    ) -> None:
        net = Under8KNet(num_classes, in_channels, width=width, expanded=expanded, times=times, depths=depths)
        super().__init__(net, num_classes, **task_options)
