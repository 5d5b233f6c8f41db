"""Initialization of weights, written out, with the gain that belongs to the activation.

The rules keep the size of activations from layer to layer: a weight (O, I, ...) is drawn with standard deviation
gain / sqrt(fan), where the fan is the number of products that are summed, and the gain makes up for what the activation
takes away. All are called (weight, gain=...), as torch's `xavier_normal_` and `orthogonal_` are, so that a recipe names
one by a dotted path, torch's or one of these, and the system knows the gain.
"""

import copy
import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

InitCallable = Callable[..., object]  # (weight, gain=...)

# By convention, not derived; the same as those of torch.nn.init.calculate_gain.
KNOWN_GAINS = {nn.Identity: 1.0, nn.Sigmoid: 1.0, nn.Tanh: 5 / 3, nn.SELU: 3 / 4}


def gain(act: nn.Module | None) -> float:
    """By how much weights must be larger because of the activation: 1 / sqrt(E[act(z)^2]) for standard normal z.

    He et al. 2015, "Delving Deep into Rectifiers", equations 10 and 15: sqrt(2) for ReLU and sqrt(2 / (1 + leak^2)) for
    leaky ones, which have the leak as their attribute `leak` or `negative_slope`. What `GeneralReLU` subtracts is
    ignored, as in fast.ai's lesson 17. `KNOWN_GAINS` has those that are a convention; for all others the mean is
    integrated numerically.

    Args:
        act: an elementwise activation; None for none.

    >>> [round(gain(act), 4) for act in (None, nn.ReLU(), nn.LeakyReLU(0.1), nn.Tanh(), nn.GELU())]
    [1.0, 1.4142, 1.4072, 1.6667, 1.5335]
    """
    if act is None or type(act) in KNOWN_GAINS:
        return KNOWN_GAINS[type(act)] if act is not None else 1.0
    leak = 0.0 if isinstance(act, nn.ReLU) else getattr(act, "leak", getattr(act, "negative_slope", None))
    if leak is not None:
        return math.sqrt(2 / (1 + leak**2))
    z = torch.linspace(-10, 10, 20_001, dtype=torch.float64)
    with torch.no_grad():
        square = copy.deepcopy(act).double().eval()(z) ** 2
    return (square * torch.exp(-(z**2) / 2)).sum().mul(20 / 20_000 / math.sqrt(2 * math.pi)).rsqrt().item()


def fans(weight: Tensor) -> tuple[int, int]:
    """Fan-in and fan-out of a weight (O, I, ...): products summed in the forward pass and in the backward pass.

    Raises:
        ValueError: for a vector, which has no fan.
    """
    if weight.ndim < 2:
        raise ValueError(f"a weight {tuple(weight.shape)} has no fan: expected (O, I) or (O, I, ...)")
    area = math.prod(weight.shape[2:])
    return weight.size(1) * area, weight.size(0) * area


@torch.no_grad()
def kaiming_normal_(weight: Tensor, gain: float = math.sqrt(2), fan_out: bool = False) -> Tensor:
    """He et al. 2015, section 2.2: variance gain^2 / fan. `fan_out` keeps the size of gradients, not of activations."""
    return weight.normal_(0, gain / math.sqrt(fans(weight)[fan_out]))


@torch.no_grad()
def kaiming_uniform_(weight: Tensor, gain: float = math.sqrt(2), fan_out: bool = False) -> Tensor:
    """A uniform distribution with the variance of `kaiming_normal_`."""
    bound = gain * math.sqrt(3 / fans(weight)[fan_out])
    return weight.uniform_(-bound, bound)


@torch.no_grad()
def xavier_normal_(weight: Tensor, gain: float = 1.0) -> Tensor:
    """Glorot and Bengio 2010, "Understanding the difficulty of training ...", equation 12: the mean of both fans."""
    return weight.normal_(0, gain * math.sqrt(2 / sum(fans(weight))))


@torch.no_grad()
def xavier_uniform_(weight: Tensor, gain: float = 1.0) -> Tensor:
    """A uniform distribution with the variance of `xavier_normal_`; the paper's equation 16."""
    bound = gain * math.sqrt(6 / sum(fans(weight)))
    return weight.uniform_(-bound, bound)


def unchanged_(weight: Tensor, gain: float = 1.0) -> Tensor:
    """Keeps torch's default: uniform within 1 / sqrt(fan), that is `kaiming_uniform_` with gain sqrt(1/3).

    It is smaller than the result of any rule above; the signal fades from layer to layer.
    """
    return weight


def initialize(net: nn.Module, init: InitCallable = kaiming_normal_, act: nn.Module | None = None) -> nn.Module:
    """Redraws the weights of all convolutions and linear layers of `net`; biases and norms stay as they are.

    Args:
        net: any module.
        init: called (weight, gain=...).
        act: the activation between its layers, which determines the gain.

    >>> net = initialize(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)), act=nn.ReLU())
    """
    return net.apply(functools.partial(_initialize_layer, init=init, gain=gain(act)))


def _initialize_layer(layer: nn.Module, init: InitCallable, gain: float) -> None:
    if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
        init(layer.weight, gain=gain)
