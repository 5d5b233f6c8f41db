"""Activation functions that torch lacks; take ReLU, LeakyReLU, ELU, GELU, SiLU, Mish and others from `torch.nn`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GeneralReLU(nn.Module):
    """Leaky ReLU, shifted down and optionally capped, so that its output can have mean zero.

    Source: fast.ai, "From Deep Learning Foundations to Stable Diffusion", lesson 17.

    Args:
        leak: slope below zero.
        sub: subtracted from the result.
        maximum: cap of the result; None for no cap.

    Shape: any -> the same.
    """

    def __init__(self, leak: float = 0.0, sub: float = 0.0, maximum: float | None = None) -> None:
        super().__init__()
        self.leak, self.sub, self.maximum = leak, sub, maximum

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(x, self.leak) - self.sub
        return x if self.maximum is None else x.clamp_max(self.maximum)

    def extra_repr(self) -> str:
        return f"leak={self.leak}, sub={self.sub}, maximum={self.maximum}"


class SquaredReLU(nn.Module):
    """The square of the ReLU, max(0, x)**2, which So et al. 2021, "Primer", section 3, found to suit transformers.

    Shape: any -> the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


class SReLU(nn.Module):
    """S-shaped ReLU: a line with two bends, whose positions and outer slopes are learned, for each channel or shared.

        a_r (x - t_r) + t_r  above t_r,      x  between,      a_l (x - t_l) + t_l  below t_l

    Source: Jin et al. 2015, "Deep Learning with S-shaped Rectified Linear Activation Units", equation 1. Differs from
    the paper in that the upper threshold isn't set from the data after some epochs of training, but starts at `upper`.

    Args:
        num_parameters: C, for four parameters to each channel; 1 for the same four in all (as in `torch.nn.PReLU`).
        leak: initial slope a_l below t_l, which starts at 0. The slope a_r above t_r starts at 1.
        upper: initial t_r.

    Shape: (B, C, ...) -> the same; any, if `num_parameters` is 1.
    """

    def __init__(self, num_parameters: int = 1, leak: float = 0.2, upper: float = 1.0) -> None:
        super().__init__()
        self.t_l, self.a_l, self.t_r, self.a_r = (
            nn.Parameter(torch.full((num_parameters,), value)) for value in (0.0, leak, upper, 1.0)
        )

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else (-1,)
        t_l, a_l, t_r, a_r = (p.view(shape) for p in (self.t_l, self.a_l, self.t_r, self.a_r))
        # The identity and what each bend adds to it; training may push t_l over t_r, and both bends then count.
        return x + (a_r - 1) * F.relu(x - t_r) + (1 - a_l) * F.relu(t_l - x)
