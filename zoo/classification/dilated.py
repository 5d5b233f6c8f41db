"""A net of four stages without pooling and under 200 000 parameters. It shows what strides, dilation and depthwise
separable convolutions can do in place of pooling and of many channels.

B batch, C channels, H height, W width, K classes.

The task of the Extensive Vision AI course, session 6: four blocks of convolutions, C1 to C4, and an output; strided or
dilated convolutions in place of max-pooling; a receptive field of more than 44 pixels; at least one depthwise separable
and one dilated convolution; global average pooling; fewer than 200 000 parameters.
"""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.classification.base import Classifier


def conv3x3(
    inputs: int, outputs: int, stride: int = 1, dilation: int = 1, separable: bool = False, act: bool = True
) -> nn.Sequential:
    """3x3 convolution without bias, batch norm, optional ReLU.

    Args:
        inputs, outputs: channels.
        stride: of the convolution.
        dilation: distance between the pixels that a filter looks at.
        separable: depthwise separable, that is one filter for each channel and a 1x1 convolution (Howard et al. 2017,
            "MobileNets", section 3.1; differs from it in having no norm and ReLU between the two).
        act: ReLU at the end.

    >>> layers = conv3x3(16, 32, separable=True)
    >>> sum(weight.numel() for weight in layers[:2].parameters())  # and not 16 * 32 * 9 = 4608
    656
    """
    options: dict[str, Any] = {"stride": stride, "padding": dilation, "dilation": dilation, "bias": False}
    layers: dict[str, nn.Module] = {}
    if separable:
        layers["depthwise"] = nn.Conv2d(inputs, inputs, 3, groups=inputs, **options)
        layers["pointwise"] = nn.Conv2d(inputs, outputs, 1, bias=False)
    else:
        layers["conv"] = nn.Conv2d(inputs, outputs, 3, **options)
    layers["norm"] = nn.BatchNorm2d(outputs)
    if act:
        layers["act"] = nn.ReLU(inplace=True)
    return nn.Sequential(OrderedDict(layers))


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions, the second dilated, beside a shortcut (He et al. 2015, figure 2).

    Shape: (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv3x3(channels, channels), conv3x3(channels, channels, dilation=dilation, act=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.branch(x))


class GatedUnit(nn.Module):
    """A depthwise convolution, then a gated pair of 1x1 convolutions, beside a shortcut.

    The filters of the second half of the channels are dilated: of one number of parameters, filters of several sizes
    do better than those of a single size (Tan and Le 2019, "MixConv", section 3.1; dilated ones in section 3.2). The
    gate is that of Shazeer 2020, "GLU Variants Improve Transformer", equation 5 (SwiGLU).

    Args:
        channels: C, even.
        kernel_size: of the depthwise filters.
        dilation: of half of them.

    Shape: (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int, kernel_size: int = 3, dilation: int = 1) -> None:
        super().__init__()
        half = channels // 2
        self.depthwise = nn.ModuleList(
            nn.Conv2d(half, half, kernel_size, 1, d * (kernel_size // 2), d, groups=half, bias=False)
            for d in (1, dilation)
        )
        self.norm = nn.BatchNorm2d(channels)
        self.widen = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.narrow = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        filtered = [conv(part) for conv, part in zip(self.depthwise, x.chunk(2, 1), strict=True)]
        value, gate = self.widen(self.norm(torch.cat(filtered, 1))).chunk(2, 1)
        return x + self.narrow(value * F.silu(gate))


class DilatedNet(nn.Module):
    """A 3x3 convolution, four stages, global average pooling, a linear layer.

    A stage begins with the 3x3 convolution that takes the place of pooling, strided or, at stride 1, dilated. Residual
    units follow: gated ones where the stage is separable, plain ones else.

    Args:
        num_classes: K.
        in_channels: C.
        stem_width: channels of the stem.
        widths: channels of the stages; even where they are separable.
        depths: residual units of the stages.
        strides: of the stages' first convolutions.
        dilations: of the stages' convolutions; the first one is not dilated where it is strided.
        separable: which stages consist of depthwise separable convolutions.
        kernel_size: of the depthwise filters in gated units.

    Shape: (B, C, H, W) -> (B, K).

    Raises:
        ValueError: if there are not as many widths, depths, strides, dilations and flags, or a width cannot be halved.

    >>> net = DilatedNet()
    >>> sum(p.numel() for p in net.parameters())
    190538
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        stem_width: int = 32,
        widths: tuple[int, ...] = (32, 64, 96, 128),
        depths: tuple[int, ...] = (2, 3, 2, 1),
        strides: tuple[int, ...] = (1, 2, 1, 2),
        dilations: tuple[int, ...] = (1, 2, 2, 2),
        separable: tuple[bool, ...] = (True, True, True, True),
        kernel_size: int = 5,
    ) -> None:
        super().__init__()
        settings = {"widths": widths, "depths": depths, "strides": strides, "dilations": dilations}
        for name, values in (settings | {"separable": separable}).items():
            if len(values) != len(widths):
                raise ValueError(f"{name} has {len(values)} values, widths {len(widths)}: expected one for each stage")
        odd = [width for width, flag in zip(widths, separable, strict=True) if flag and width % 2]
        if odd:
            raise ValueError(f"a separable stage has {odd[0]} channels: expected an even number; half are dilated")
        self.stem = conv3x3(in_channels, stem_width)
        self.stages, inputs = nn.Sequential(), stem_width
        for width, depth, stride, dilation, flag in zip(widths, depths, strides, dilations, separable, strict=True):
            first = conv3x3(inputs, width, stride, dilation if stride == 1 else 1, flag)
            units = [
                GatedUnit(width, kernel_size, dilation) if flag else ResidualUnit(width, dilation) for _ in range(depth)
            ]
            self.stages.append(nn.Sequential(first, *units))
            inputs = width
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes))

    @property
    def cam_target(self) -> nn.Module:
        return self.stages[-2]  # 16x16 of 32 px with the defaults: the last stage halves that

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class Dilated(Classifier):
    """Trains a `DilatedNet`, whose arguments it takes; the others are `Classifier`'s.

    >>> Dilated(num_classes=10, depths=(1, 1, 1, 1)).net(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        stem_width: int = 32,
        widths: tuple[int, ...] = (32, 64, 96, 128),
        depths: tuple[int, ...] = (2, 3, 2, 1),
        strides: tuple[int, ...] = (1, 2, 1, 2),
        dilations: tuple[int, ...] = (1, 2, 2, 2),
        separable: tuple[bool, ...] = (True, True, True, True),
        kernel_size: int = 5,
        **task_options: Any,
    ) -> None:
        net = DilatedNet(
            num_classes, in_channels, stem_width=stem_width, widths=widths, depths=depths, strides=strides,
            dilations=dilations, separable=separable, kernel_size=kernel_size,
        )  # fmt: skip
        super().__init__(net, num_classes, **task_options)
