"""A net for MNIST that counts every parameter. B batch, C channels, H height, W width, K classes.

The rules are those of the Extensive Vision AI course, sessions 4 and 5: 3x3 convolutions with batch norm, max-pooling
only once strokes can be seen (receptive field 5), no large last layer. What the course spends on dense 3x3 convolutions
behind the pooling goes here into inverted residual blocks, and where it takes the mean over the last maps, each channel
weighs its pixels: a digit stands in the middle, and where a stroke is tells a 6 from a 9.
"""

from torch import Tensor, nn

from zoo.classification.classifier import Classifier
from zoo.parts.convs import conv_norm_act


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel by 3x3, narrow by 1x1, beside a shortcut.

    Sandler et al. 2018, "MobileNetV2", figure 3b and section 3.3; differs from the paper in ReLU instead of ReLU6.

    Shape: (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int, expanded: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv_norm_act(channels, expanded, 1),
            conv_norm_act(expanded, expanded, 3, groups=expanded),
            conv_norm_act(expanded, channels, 1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Under8KNet(nn.Module):
    """3x3 convolutions, inverted residual blocks behind max-pooling, a global depthwise convolution, a linear layer.

    The global depthwise convolution has filters as large as the maps: Chen et al. 2018, "MobileFaceNets", section 3.1.

    The first convolutions are not padded: digits stand on an empty border, and a frame of zeros around it would be one
    more thing for few parameters to learn.

    Args:
        num_classes: K.
        in_channels: C.
        width: channels of the blocks; the first convolution has half of them.
        expanded: channels inside a block.
        depths: blocks behind each 2x2 max-pooling.
        size: H and W of the images, px.

    Shape: (B, C, size, size) -> (B, K); 28 px go 28 -> 26 -> 24 -> 12 -> 6 -> 1 with the defaults.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        width: int = 16,
        expanded: int = 31,
        depths: tuple[int, ...] = (2, 2),
        size: int = 28,
    ) -> None:
        super().__init__()
        self.stem = conv_norm_act(in_channels, width // 2, padding=0)
        stages = [conv_norm_act(width // 2, width, padding=0)]
        for depth in depths:
            stages.append(nn.Sequential(nn.MaxPool2d(2), *(InvertedResidual(width, expanded) for _ in range(depth))))
        self.stages = nn.Sequential(*stages)
        last = (size - 4) // 2 ** len(depths)
        weigh = conv_norm_act(width, width, last, padding=0, groups=width, act=False)
        self.head = nn.Sequential(weigh, nn.Flatten(), nn.Linear(width, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class Under8K(Classifier):
    """Trains an `Under8KNet`; the other arguments are `Classifier`'s.

    >>> sum(p.numel() for p in Under8K().parameters())
    7758
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        width: int = 16,
        expanded: int = 31,
        depths: tuple[int, ...] = (2, 2),
        size: int = 28,
        **recipe,
    ) -> None:
        super().__init__(Under8KNet(num_classes, in_channels, width, expanded, depths, size), num_classes, **recipe)
