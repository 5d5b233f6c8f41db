"""Convolutions, and the blocks that they are put together to. B batch, C channels, H height, W width.

A plain, a 1x1, a dilated and a grouped convolution are one layer with other arguments (`conv_norm_act`). What takes two
layers or more has a function of its own. Parameters, from 16 channels to 32 with filters of 3x3 and without bias:

    plain, dilated            4608      depthwise separable    656
    grouped, four groups      1152      spatially separable   2304
    1x1                        512      subpixel, factor 2   18432
"""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.parts.norms import NormCallable

SAFE_CHANNELS = 16  # of the input of torch's strided 1x1 convolution; see `StridedPointwiseConv2d`


class StridedPointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution of every `stride`-th pixel, as in the shortcuts of residual nets.

    Equal to `nn.Conv2d(in_channels, out_channels, 1, stride)`. With few channels, last in memory, the backward pass of
    that writes outside of its memory on CPUs, and the process crashes (oneDNN, issue 6035; torch 2.15 has it); so the
    pixels are taken before the convolution then.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.in_channels >= SAFE_CHANNELS:
            return super().forward(x)
        rows, columns = self.stride
        return F.conv2d(x[..., ::rows, ::columns], self.weight, self.bias)


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    *,
    padding: int | None = None,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
    pool: bool = False,
    norm: NormCallable | None = nn.BatchNorm2d,
    act: bool = True,
) -> nn.Sequential:
    """Convolution, optional 2x2 max-pooling, norm, optional ReLU.

    By default padding keeps H and W at stride 1 for odd kernels. Pooling comes before the norm: the result is nearly
    the same as pooling after the norm, which then runs over a quarter of the values.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: of the convolution.
        pool: whether there is max-pooling.
        norm: makes the norm from its channels; None for none.
        act: whether there is a ReLU.

    >>> conv_norm_act(3, 8, stride=2)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 8, 16, 16])
    """
    padding = dilation * (kernel_size // 2) if padding is None else padding
    conv: nn.Conv2d
    if kernel_size == 1 and stride > 1 and padding == 0 and groups == 1:
        conv = StridedPointwiseConv2d(in_channels, out_channels, stride, bias)
    else:
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
    layers: list[nn.Module] = [conv]
    if pool:
        layers.append(nn.MaxPool2d(2))
    if norm is not None:
        layers.append(norm(out_channels))
    if act:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def depthwise_separable(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    dilation: int = 1,
    *,
    padding: int | None = None,
) -> nn.Sequential:
    """One filter for each channel, then a 1x1 convolution, which mixes the channels; without bias.

    Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", section
    3.1; differs from it in having no norm and ReLU between the two. By default padding keeps H and W at stride 1, for
    odd kernels.

    >>> sum(p.numel() for p in depthwise_separable(16, 32).parameters())  # 16 * 9 + 16 * 32, and not 16 * 32 * 9 = 4608
    656
    """
    padding = dilation * (kernel_size // 2) if padding is None else padding
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, kernel_size, stride, padding, dilation, in_channels, bias=False),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
    )


def spatially_separable(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, middle: int | None = None
) -> nn.Sequential:
    """Filters one pixel wide, then filters one pixel high; without bias.

    Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", section 3.2.

    Args:
        in_channels, out_channels: of the two together.
        kernel_size: height of the first filters, width of the second.
        stride: in the direction of each.
        middle: channels between them; default `in_channels`.

    >>> sum(p.numel() for p in spatially_separable(16, 32).parameters())  # 16 * 16 * 3 + 16 * 32 * 3
    2304
    """
    middle, padding = middle or in_channels, kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, middle, (kernel_size, 1), (stride, 1), (padding, 0), bias=False),
        nn.Conv2d(middle, out_channels, (1, kernel_size), (1, stride), (0, padding), bias=False),
    )


def transposed(in_channels: int, out_channels: int, factor: int = 2, kernel_size: int | None = None) -> nn.Module:
    """A transposed convolution that enlarges H and W by a factor; without bias.

    Args:
        in_channels, out_channels: of the layer.
        factor: the stride.
        kernel_size: default twice the factor. A multiple of the factor writes equally often to all pixels, others
            leave a checkerboard (Odena et al. 2016, "Deconvolution and Checkerboard Artifacts").

    Raises:
        ValueError: if the result cannot be exactly `factor` times as large.

    >>> transposed(16, 32)(torch.zeros(1, 16, 5, 7)).shape
    torch.Size([1, 32, 10, 14])
    """
    size = 2 * factor if kernel_size is None else kernel_size
    if size < factor or (size - factor) % 2:
        raise ValueError(
            f"kernel_size is {size} and factor {factor}: expected a kernel that is larger than the factor by 0, 2, 4 "
            f"or another even number, such as {2 * factor if factor % 2 == 0 else 3 * factor}"
        )
    return nn.ConvTranspose2d(in_channels, out_channels, size, factor, (size - factor) // 2, bias=False)


def subpixel(in_channels: int, out_channels: int, factor: int = 2, kernel_size: int = 3) -> nn.Sequential:
    """A convolution that computes the factor^2 pixels of a larger image as channels, and pixel shuffle; without bias.

    Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional
    Neural Network", section 3.2. The filters of the pixels that become neighbors start equal, so that at first there is
    no checkerboard: Aitken et al. 2017, "Checkerboard artifact free sub-pixel convolution", section 3.1.

    >>> subpixel(16, 32)(torch.zeros(1, 16, 5, 7)).shape
    torch.Size([1, 32, 10, 14])
    """
    conv = nn.Conv2d(in_channels, out_channels * factor**2, kernel_size, padding=kernel_size // 2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(conv.weight[:: factor**2].repeat_interleave(factor**2, 0))
    return nn.Sequential(conv, nn.PixelShuffle(factor))


def transition(in_channels: int, out_channels: int, **options: Any) -> nn.Sequential:
    """2x2 max-pooling, then a 1x1 convolution that reduces the channels, between two blocks of convolutions.

    Args:
        in_channels, out_channels: of the convolution.
        options: see `conv_norm_act`.
    """
    return nn.Sequential(nn.MaxPool2d(2), *conv_norm_act(in_channels, out_channels, 1, **options))


def expanding(in_channels: int, widths: tuple[int, ...], **options: Any) -> nn.Sequential:
    """3x3 convolutions one after the other, each with the next of the `widths` as its channels.

    Args:
        in_channels: of the first.
        widths: channels after each, in general rising.
        options: see `conv_norm_act`.
    """
    return nn.Sequential(*(conv_norm_act(i, o, **options) for i, o in pairwise((in_channels, *widths))))


def squeeze_and_expand(in_channels: int, widths: tuple[int, ...], squeezed: int, **options: Any) -> nn.Sequential:
    """A block whose channels rise, and a `transition` that reduces them to the few that the next one begins with.

    The first of the two ways in which the Extensive Vision AI course arranges convolutions (session 2): every block
    begins with few channels, such as 32, and ends with many, such as 512.

    >>> squeeze_and_expand(32, (64, 128, 256, 512), 32)(torch.zeros(1, 32, 16, 16)).shape
    torch.Size([1, 32, 8, 8])
    """
    return nn.Sequential(expanding(in_channels, widths, **options), transition(widths[-1], squeezed, **options))


def pyramidal(in_channels: int, widths: tuple[int, ...], **options: Any) -> nn.Sequential:
    """A block whose channels rise, and 2x2 max-pooling: the next block goes on with as many channels.

    The other way, that of VGG and of ResNet, whose maps become smaller and their channels more numerous throughout.

    >>> pyramidal(32, (64, 128))(torch.zeros(1, 32, 16, 16)).shape
    torch.Size([1, 128, 8, 8])
    """
    return nn.Sequential(expanding(in_channels, widths, **options), nn.MaxPool2d(2))
