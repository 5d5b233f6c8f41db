"""Nets for MNIST that count every parameter. B batch, C channels, H height, W width, K classes.

The rules are those of the Extensive Vision AI course, sessions 4 and 5: 3x3 convolutions with batch norm, max-pooling
only once strokes can be seen (receptive field 5), global average pooling instead of a large last layer.
"""

from torch import Tensor, nn

from zoo.classification.classifier import Classifier
from zoo.parts.convs import conv_norm_act


class Under8KNet(nn.Module):
    """Two stages of 3x3 convolutions, global average pooling, a linear layer: 7 050 parameters by default.

    No convolution is padded: digits stand on an empty border, and a frame of zeros around it would be one more thing
    for few parameters to learn.

    Args:
        num_classes: K.
        in_channels: C.
        widths: channels of each convolution, stage by stage; 2x2 max-pooling stands between stages.

    Shape: (B, C, 28, 28) -> (B, K).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        widths: tuple[tuple[int, ...], ...] = ((8, 16), (14, 14, 14)),
    ) -> None:
        super().__init__()
        (first, *rest), *others = widths
        self.stem = conv_norm_act(in_channels, first, padding=0)
        stages, inputs = [], first
        for i, stage in enumerate((rest, *others)):
            layers = [nn.MaxPool2d(2)] if i else []
            for outputs in stage:
                layers.append(conv_norm_act(inputs, outputs, padding=0))
                inputs = outputs
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class Under8K(Classifier):
    """Trains an `Under8KNet`; the other arguments are `Classifier`'s.

    >>> sum(p.numel() for p in Under8K().parameters())
    7050
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        widths: tuple[tuple[int, ...], ...] = ((8, 16), (14, 14, 14)),
        **recipe,
    ) -> None:
        super().__init__(Under8KNet(num_classes, in_channels, widths), num_classes, **recipe)
