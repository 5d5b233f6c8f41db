"""Normalization layers written out, and the rule about the bias before them.

B batch, C channels, G groups; C may be followed by any number of axes, such as H and W. All subtract a mean, divide by
a standard deviation with eps inside the root, then scale and shift by learned numbers. They differ in what is averaged
over:

    BatchNorm     B, H, W       a statistic for each channel; in evaluation those of training
    LayerNorm     C, H, W       for each sample
    InstanceNorm  H, W          for each sample and channel
    GroupNorm     C / G, H, W   for each sample and group of channels

A system takes any callable that makes a norm from its channels: one of these, `torch.nn.BatchNorm2d`,
`functools.partial(torch.nn.GroupNorm, 4)`. Statistics are computed in float32 (float64 for float64) whatever the type
of the input, and the output has the input's type. Their parameters are named as torch's are.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

NormCallable = Callable[[int], nn.Module]

_TORCH_NORMS_PER_CHANNEL = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)


def needs_bias(norm: nn.Module | None) -> bool:
    """Whether the layer before `norm` is to have a bias.

    Not if the norm subtracts the mean of every channel: that removes the bias, too, and its gradient is zero. Batch
    norm and instance norm do; layer norm and group norm subtract a mean over several channels and keep the differences.

    >>> [needs_bias(norm) for norm in (None, BatchNorm(8), nn.BatchNorm2d(8), LayerNorm(8), GroupNorm(8, groups=4))]
    [True, False, False, True, True]
    """
    if isinstance(norm, nn.GroupNorm):
        return norm.num_groups != norm.num_channels
    return not (isinstance(norm, _TORCH_NORMS_PER_CHANNEL) or getattr(norm, "removes_channel_mean", False))


def standardize(x: Tensor, dims: Sequence[int], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """x with mean 0 and variance 1 over `dims`, the mean and the (biased) variance, with `dims` of size 1; float32.

    Raises:
        ValueError: if there are fewer than two values to a statistic; the result would be zero, whatever x is.
    """
    if math.prod(x.size(dim) for dim in dims) < 2:
        raise ValueError(
            f"a norm averages over the axes {tuple(dims)} of an input {tuple(x.shape)}: fewer than two values; "
            "expected two or more: use larger batches or images, or a norm that averages over more"
        )
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    var, mean = torch.var_mean(x, tuple(dims), correction=0, keepdim=True)
    return (x - mean) * (var + eps).rsqrt(), mean, var


class ChannelNorm(nn.Module, ABC):
    """Base class of the norms that scale and shift each channel by itself. Subclasses define `standardize`.

    Args:
        channels: C.
        eps: added to the variance.
        affine: learn a scale and a shift for each channel.

    Shape: (B, C, ...) -> the same.

    Raises:
        ValueError: if the input has another number of channels.
    """

    removes_channel_mean = True  # see `needs_bias`

    def __init__(self, channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    @abstractmethod
    def standardize(self, x: Tensor) -> Tensor:
        """x (B, C, ...) with mean 0 and variance 1 over the axes of this norm, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.size(1) != self.channels:
            raise ValueError(f"{type(self).__name__} got {tuple(x.shape)}: expected (B, {self.channels}, ...)")
        y = self.standardize(x)
        if self.weight is not None and self.bias is not None:
            y = y * along_channels(self.weight, x) + along_channels(self.bias, x)
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}, affine={self.weight is not None}"


def along_channels(values: Tensor, x: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...) with as many axes as x."""
    return values.view(1, -1, *[1] * (x.ndim - 2))


class BatchNorm(ChannelNorm):
    """Batch normalization; Ioffe and Szegedy 2015, "Batch Normalization", algorithms 1 and 2.

    Training divides by the biased variance of the batch, while the running variance collects the unbiased one
    (n / (n - 1) times larger, n = B * H * W); so does torch.

    Over several processes the statistics of training are those of each process's own batch; DDP then gives all of them
    the running statistics of rank 0. `Trainer(sync_batchnorm=True)` shares statistics, but converts only torch's
    BatchNorm: use that one where they are to be shared.

    Args:
        channels, eps, affine: see `ChannelNorm`.
        momentum: weight of a batch in the running statistics (torch's sense of the word, not the optimizer's).
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True) -> None:
        super().__init__(channels, eps, affine)
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def standardize(self, x: Tensor) -> Tensor:
        if not self.training:
            mean, var = along_channels(self.running_mean, x), along_channels(self.running_var, x)
            return (x - mean) * (var.to(torch.promote_types(x.dtype, torch.float32)) + self.eps).rsqrt()
        y, mean, var = standardize(x, (0, *range(2, x.ndim)), self.eps)
        n = x.numel() // self.channels
        for running, new in ((self.running_mean, mean), (self.running_var, var * n / (n - 1))):
            running.lerp_(new.detach().flatten().to(running.dtype), self.momentum)
        return y


class InstanceNorm(ChannelNorm):
    """Ulyanov et al. 2016, "Instance Normalization: The Missing Ingredient for Fast Stylization", equation 4.

    Differs from `torch.nn.InstanceNorm2d` in having a scale and a shift unless `affine` is off.
    """

    def standardize(self, x: Tensor) -> Tensor:
        return standardize(x, range(2, x.ndim), self.eps)[0]


class GroupNorm(ChannelNorm):
    """Wu and He 2018, "Group Normalization", section 3.1.

    Args:
        channels, eps, affine: see `ChannelNorm`.
        groups: G, of neighboring channels. (The paper's 32 are for networks of 64 channels and more.)

    Raises:
        ValueError: if the channels cannot be divided equally among the groups.
    """

    def __init__(self, channels: int, groups: int = 4, eps: float = 1e-5, affine: bool = True) -> None:
        if groups < 1 or channels % groups:
            raise ValueError(f"GroupNorm of {channels} channels in {groups} groups: expected a divisor of {channels}")
        super().__init__(channels, eps, affine)
        self.groups = groups
        self.removes_channel_mean = groups == channels

    def standardize(self, x: Tensor) -> Tensor:
        grouped = x.unflatten(1, (self.groups, -1))  # (B, G, C / G, ...)
        return standardize(grouped, range(2, grouped.ndim), self.eps)[0].flatten(1, 2)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, groups={self.groups}"


class LayerNorm(nn.Module):
    """Layer normalization over a complete sample; Ba, Kiros and Hinton 2016, "Layer Normalization", equation 3.

    By default with one scale and one shift for all of it, as in fast.ai's lesson 17; `elementwise` gives each element
    its own, which is the paper's form and `torch.nn.LayerNorm`'s.

    Args:
        shape: C, and the statistics are over C and every axis after it; or the sizes of the last axes, such as
            (C, H, W) or (D,), and they are over those.
        eps: added to the variance.
        elementwise: a scale and a shift for each element of `shape`, which must then be given in full.

    Shape: (B, C, ...) or (..., *shape) -> the same.

    Raises:
        ValueError: if `elementwise` gets channels alone, or the input has another shape.
    """

    def __init__(self, shape: int | Sequence[int], eps: float = 1e-5, elementwise: bool = False) -> None:
        if elementwise and isinstance(shape, int):
            raise ValueError(f"LayerNorm({shape}, elementwise=True): expected all sizes, such as ({shape}, H, W)")
        super().__init__()
        self.shape, self.eps = shape if isinstance(shape, int) else tuple(shape), eps
        self.weight = nn.Parameter(torch.ones(self.shape if elementwise else ()))
        self.bias = nn.Parameter(torch.zeros(self.shape if elementwise else ()))

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.shape, int):
            dims, fits = range(1, x.ndim), x.ndim > 1 and x.size(1) == self.shape
        else:
            dims, fits = range(x.ndim - len(self.shape), x.ndim), x.shape[-len(self.shape) :] == self.shape
        if not fits:
            expected = f"(B, {self.shape}, ...)" if isinstance(self.shape, int) else f"(..., *{self.shape})"
            raise ValueError(f"LayerNorm got {tuple(x.shape)}: expected {expected}")
        return (standardize(x, dims, self.eps)[0] * self.weight + self.bias).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.shape}, eps={self.eps}, elementwise={self.weight.ndim > 0}"
