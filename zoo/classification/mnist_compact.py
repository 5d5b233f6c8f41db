"""Nets for MNIST that count every parameter. They show how little is needed to read digits, and what each part is
worth.

B batch, C channels, H height, W width, K classes.

The rules are those of the Extensive Vision AI course, sessions 4 and 5: 3x3 convolutions with batch norm, max-pooling
only once strokes can be seen (receptive field 5), global average pooling instead of a large last layer. What the course
spends on dense 3x3 convolutions after the pooling goes here into inverted residual blocks (`Under20K`, `Under8K`),
and below 2 000 parameters into depthwise separable convolutions, the last of which see the complete image
(`Separable`).
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.convs import conv_norm_act, depthwise_separable


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
        depths: blocks after each 2x2 max-pooling.
        dropout: share of the averages before the linear layer that are dropped in training.

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
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.stem = conv_norm_act(in_channels, width // 2, padding=0)
        stages = [conv_norm_act(width // 2, width, padding=0)]
        for depth in depths:
            blocks = (InvertedResidual(width, expanded, times) for _ in range(depth))
            stages.append(nn.Sequential(nn.MaxPool2d(2), *blocks))
        self.stages = nn.Sequential(*stages)
        dropped = [nn.Dropout(dropout)] if dropout else []
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *dropped, nn.Linear(width, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class Under8K(Classifier):
    """Trains an `Under8KNet`, whose arguments it takes; the others are `Classifier`'s.

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
        dropout: float = 0.0,
        **task_options: Any,
    ) -> None:
        net = Under8KNet(
            num_classes, in_channels, width=width, expanded=expanded, times=times, depths=depths, dropout=dropout
        )
        super().__init__(net, num_classes, **task_options)


class Under20K(Under8K):
    """The same net, wider, with dropout, no block used twice: session 3 of the course allows 20 000 parameters.

    >>> sum(p.numel() for p in Under20K().parameters())
    18830
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        width: int = 24,
        expanded: int = 64,
        times: int = 1,
        depths: tuple[int, ...] = (2, 2),
        dropout: float = 0.05,
        **task_options: Any,
    ) -> None:
        super().__init__(
            num_classes, in_channels, width=width, expanded=expanded, times=times, depths=depths, dropout=dropout,
            **task_options,
        )  # fmt: skip


class ShiftNorm(nn.BatchNorm2d):
    """Batch norm with a shift and without a scale: one learned number for each channel instead of two.

    Before a ReLU and a convolution a scale would be redundant: these pass a positive factor on, which the weights of
    the convolution can hold as well.

    Shape: (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        del self.weight
        self.register_buffer("weight", torch.ones(channels), persistent=False)


class Opposites(nn.Module):
    """Each channel and its negative: what one filter finds, and what its negative would find, for the price of one.

    Shang et al. 2016, "Understanding and Improving Convolutional Neural Networks via Concatenated Rectified Linear
    Units", section 2, which shows that first layers learn such pairs; differs from the paper in that max-pooling, a
    norm and SiLU come next instead of ReLU.

    Shape: (B, C, H, W) -> (B, 2 C, H, W).
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, -x], 1)


class ClassMaps(nn.Module):
    """A head of one parameter: each channel is the map of a class, and the maps' averages are the logits.

    Lin, Chen and Yan 2014, "Network In Network", section 3.2; differs from the paper in that the maps are normalized,
    and then multiplied by one learned factor.

    Shape: (B, K, H, W) -> (B, K).
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(num_classes, affine=False)
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.norm(x).mean((2, 3))


class SeparableNet(nn.Module):
    """A convolution, max-pooling, depthwise separable convolutions, the last of which makes a map of each class.

    Nothing is padded after the pooling, as in `Under8KNet`. Dilation costs no parameters: with the defaults the last
    filters see as much as 28x28 pixels, and the maps have 2x2 (Yu and Koltun 2016, "Multi-Scale Context Aggregation by
    Dilated Convolutions"). Norms learn a shift only. A scale would not be redundant before SiLU, as it is before ReLU;
    it is left out to save parameters, and before the head so is the shift.

    Args:
        num_classes: K.
        in_channels: C.
        widths: channels after the first convolution, and after each of the others but the last, which has K.
        dilations: of the separable convolutions, as many as there are widths.
        opposites: whether half of the first channels are the negatives of the other half, see `Opposites`.

    Shape: (B, C, 28, 28) -> (B, K); 28 px go 28 -> 14 -> 12 -> 10 -> 6 -> 2 with the defaults.

    Raises:
        ValueError: if there are not as many dilations as widths, or for `opposites` with an odd first width.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        widths: tuple[int, ...] = (6, 7, 10, 10),
        dilations: tuple[int, ...] = (1, 1, 2, 2),
        opposites: bool = False,
    ) -> None:
        super().__init__()
        if len(dilations) != len(widths):
            raise ValueError(f"dilations are {dilations} and widths {widths}: expected as many of these as of those")
        if opposites and widths[0] % 2:
            raise ValueError(f"widths[0] is {widths[0]}: expected an even number with opposites")
        filters, negatives = (widths[0] // 2, [Opposites()]) if opposites else (widths[0], [])
        conv = nn.Conv2d(in_channels, filters, 3, padding=1, bias=False)
        self.stem = nn.Sequential(conv, *negatives, nn.MaxPool2d(2), ShiftNorm(widths[0]), nn.SiLU())
        norms = [*map(ShiftNorm, widths[1:]), nn.BatchNorm2d(num_classes, affine=False)]
        layers = zip(pairwise((*widths, num_classes)), dilations, norms, strict=True)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(*depthwise_separable(*channels, dilation=dilation, padding=0), norm, nn.SiLU())
                for channels, dilation, norm in layers
            )
        )
        self.head = ClassMaps(num_classes)

    @property
    def cam_target(self) -> nn.Module:
        return self.stages[1]  # 10x10 of 28 px: the maps after it are too coarse to look at

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class Separable(Classifier):
    """Trains a `SeparableNet`, whose arguments it takes; the others are `Classifier`'s.

    >>> sum(p.numel() for p in Separable().parameters())
    697
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        widths: tuple[int, ...] = (6, 7, 10, 10),
        dilations: tuple[int, ...] = (1, 1, 2, 2),
        opposites: bool = False,
        **task_options: Any,
    ) -> None:
        net = SeparableNet(num_classes, in_channels, widths=widths, dilations=dilations, opposites=opposites)
        super().__init__(net, num_classes, **task_options)
