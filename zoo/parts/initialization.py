"""Initialisation of weights, written out, with the gain that belongs to the activation.

The rules keep the size of the numbers from layer to layer: a weight (O, I, ...) is drawn with standard deviation
gain / sqrt(fan), where the fan is how many products are summed, and the gain makes up for what the activation takes
away. All are called (weight, gain=...), as torch's `xavier_normal_` and `orthogonal_` are, so that a recipe says which
one with a dotted path, theirs or these, and the system knows the gain.
"""

import copy
import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

InitCallable = Callable[..., object]  # (weight, gain=...)

# Not derived but agreed upon; torch.nn.init.calculate_gain has the same.
KNOWN_GAINS = {nn.Identity: 1.0, nn.Sigmoid: 1.0, nn.Tanh: 5 / 3, nn.SELU: 3 / 4}


def gain(act: nn.Module | None) -> float:
    """By how much weights must be larger because of the activation: 1 / sqrt(E[act(z)^2]) for standard normal z.

    He et al. 2015, "Delving Deep into Rectifiers", equations 10 and 15: sqrt(2) for ReLU and sqrt(2 / (1 + leak^2)) for
    leaky ones, which tell their leak as `leak` or `negative_slope`. What `GeneralReLU` subtracts is left out of it, as
    in fast.ai's lesson 17. `KNOWN_GAINS` has those with figures of their own, and for all others the mean is integrated.

    Args:
        act: works on each number by itself; None for none.

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
    """Products summed in the forward pass and in the backward pass, of a weight (O, I, ...).

    Raises:
        ValueError: for a vector, which has no fan.
    """
    if weight.ndim < 2:
        raise ValueError(f"a weight {tuple(weight.shape)} has no fan: expected (O, I) or (O, I, ...)")
    area = math.prod(weight.shape[2:])
    return weight.size(1) * area, weight.size(0) * area


@torch.no_grad()
def kaiming_normal_(weight: Tensor, gain: float = math.sqrt(2), fan_out: bool = False) -> Tensor:
    """He et al. 2015, section 2.2: variance gain^2 / fan. `fan_out` keeps the gradients' size, not the activations'."""
    return weight.normal_(0, gain / math.sqrt(fans(weight)[fan_out]))


@torch.no_grad()
def kaiming_uniform_(weight: Tensor, gain: float = math.sqrt(2), fan_out: bool = False) -> Tensor:
    """`kaiming_normal_`'s variance in a uniform distribution."""
    bound = gain * math.sqrt(3 / fans(weight)[fan_out])
    return weight.uniform_(-bound, bound)


@torch.no_grad()
def xavier_normal_(weight: Tensor, gain: float = 1.0) -> Tensor:
    """Glorot and Bengio 2010, "Understanding the difficulty of training ...", equation 12: both fans' mean."""
    return weight.normal_(0, gain * math.sqrt(2 / sum(fans(weight))))


@torch.no_grad()
def xavier_uniform_(weight: Tensor, gain: float = 1.0) -> Tensor:
    """`xavier_normal_`'s variance in a uniform distribution; the paper's equation 16."""
    bound = gain * math.sqrt(6 / sum(fans(weight)))
    return weight.uniform_(-bound, bound)


def unchanged_(weight: Tensor, gain: float = 1.0) -> Tensor:
    """Leaves the layer as torch made it: uniform within 1 / sqrt(fan), that is `kaiming_uniform_` with gain sqrt(1/3).

    It is smaller than any rule above asks for; the signal fades from layer to layer.
    """
    return weight


def initialize(net: nn.Module, init: InitCallable = kaiming_normal_, act: nn.Module | None = None) -> nn.Module:
    """Draws anew the weights of all convolutions and linear layers of `net`; biases and norms stay as they are.

    Args:
        net: any module.
        init: called (weight, gain=...).
        act: the activation between its layers, which decides on the gain.

    >>> net = initialize(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)), act=nn.ReLU())
    """
    return net.apply(functools.partial(_initialize_layer, init=init, gain=gain(act)))


def _initialize_layer(layer: nn.Module, init: InitCallable, gain: float) -> None:
    if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
        init(layer.weight, gain=gain)
