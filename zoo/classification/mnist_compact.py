"""Nets for MNIST that count every parameter. They show how little is needed to read digits, and what each part is
worth.

B batch, C channels, H height, W width, K classes.

The rules are those of the Extensive Vision AI course, sessions 4 and 5: 3x3 convolutions with batch norm, max-pooling
only once strokes can be seen (receptive field 5), global average pooling instead of a large last layer. What the course
spends on dense 3x3 convolutions after the pooling goes here into inverted residual blocks (`Under20K`, `Under8K`),
below 2 000 parameters into depthwise separable ones that are used again and again (`Tiny`), and below 1 000 into plain
depthwise separable convolutions, the last of which see the complete image (`Separable`).
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
    """Batch norm with a shift and without a scale, for a ReLU and a convolution after it.

    These pass a positive factor on, which the weights of the convolution can hold as well. A net has then exactly as
    many learned numbers as after its norms are folded into its convolutions, one bias for each channel.

    Shape: (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        del self.weight
        self.register_buffer("weight", torch.ones(channels), persistent=False)


class Recurrent(nn.Module):
    """Depthwise separable blocks beside shortcuts, gone through several times, at one scale after another.

    Each time and scale has the same filters, but norms of its own: depth and field of view for C parameters instead of
    C * (C + 9). The norm before the addition has no parameters: the next norm would remove a shift.

    Args:
        channels: C.
        blocks: how many different ones there are.
        times: how often all of them are gone through at each scale; there is 2x2 max-pooling between two scales.

    Shape: (B, C, H, W) -> (B, C, H / 2^n, W / 2^n) at the last of n + 1 scales.
    """

    def __init__(self, channels: int, blocks: int, times: tuple[int, ...]) -> None:
        super().__init__()
        self.times = times
        self.filters = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False) for _ in range(blocks)
        )
        self.mixes = nn.ModuleList(nn.Conv2d(channels, channels, 1, bias=False) for _ in range(blocks))
        count = blocks * sum(times)
        self.filter_norms = nn.ModuleList(ShiftNorm(channels) for _ in range(count))
        self.mix_norms = nn.ModuleList(nn.BatchNorm2d(channels, affine=False) for _ in range(count))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        norms = zip(self.filter_norms, self.mix_norms, strict=True)
        for scale, times in enumerate(self.times):
            x = self.pool(x) if scale else x
            for _ in range(times):
                for filter_channels, mix in zip(self.filters, self.mixes, strict=True):
                    filter_norm, mix_norm = next(norms)
                    x = x + mix_norm(mix(filter_norm(filter_channels(x)).relu_()))
        return x


class TinyNet(nn.Module):
    """Two convolutions, then blocks that are used again and again, global average pooling, a linear layer.

    The first convolution is a plain 3x3 one, the second is depthwise separable; both are not padded, see `Under8KNet`.

    Args:
        num_classes: K.
        in_channels: C.
        stem_width: channels of the first convolution.
        width: channels after it.
        blocks, times: see `Recurrent`. The first scale is that after a 2x2 max-pooling.

    Shape: (B, C, 28, 28) -> (B, K); 28 px go 28 -> 26 -> 24 -> 12 -> 6 with the defaults.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        stem_width: int = 8,
        width: int = 8,
        blocks: int = 2,
        times: tuple[int, ...] = (3, 2),
    ) -> None:
        super().__init__()
        self.stem = conv_norm_act(in_channels, stem_width, padding=0, norm=ShiftNorm)
        filters = nn.Conv2d(stem_width, stem_width, 3, groups=stem_width, bias=False)
        self.stages = nn.Sequential(
            nn.Sequential(filters, *conv_norm_act(stem_width, width, 1, norm=ShiftNorm)),
            nn.Sequential(nn.MaxPool2d(2), Recurrent(width, blocks, times)),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class Tiny(Classifier):
    """Trains a `TinyNet`, whose arguments it takes; the others are `Classifier`'s.

    >>> sum(p.numel() for p in Tiny().parameters())
    666
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        stem_width: int = 8,
        width: int = 8,
        blocks: int = 2,
        times: tuple[int, ...] = (3, 2),
        **task_options: Any,
    ) -> None:
        net = TinyNet(num_classes, in_channels, stem_width=stem_width, width=width, blocks=blocks, times=times)
        super().__init__(net, num_classes, **task_options)


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

    Shape: (B, C, 28, 28) -> (B, K); 28 px go 28 -> 14 -> 12 -> 10 -> 6 -> 2 with the defaults.

    Raises:
        ValueError: if there are not as many dilations as widths.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        widths: tuple[int, ...] = (6, 7, 10, 10),
        dilations: tuple[int, ...] = (1, 1, 2, 2),
    ) -> None:
        super().__init__()
        if len(dilations) != len(widths):
            raise ValueError(f"dilations are {dilations} and widths {widths}: expected as many of these as of those")
        stem = conv_norm_act(in_channels, widths[0], pool=True, norm=ShiftNorm, act=False)
        self.stem = nn.Sequential(*stem, nn.SiLU())
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
        **task_options: Any,
    ) -> None:
        super().__init__(
            SeparableNet(num_classes, in_channels, widths=widths, dilations=dilations), num_classes, **task_options
        )
