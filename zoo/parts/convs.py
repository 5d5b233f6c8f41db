"""Convolutions with what usually follows them. B batch, C channels, H height, W width."""

from torch import nn


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    *,
    padding: int | None = None,
    groups: int = 1,
    pool: bool = False,
    act: bool = True,
) -> nn.Sequential:
    """Convolution without bias, optional 2x2 max-pooling, batch norm, optional ReLU.

    By default padding keeps H and W at stride 1 for odd kernels. Pooling comes before the norm: the result is nearly
    the same as pooling after the norm, which then runs over a quarter of the values.

    >>> import torch
    >>> conv_norm_act(3, 8, stride=2)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 8, 16, 16])
    """
    padding = kernel_size // 2 if padding is None else padding
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
    ]
    if pool:
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.BatchNorm2d(out_channels))
    if act:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
