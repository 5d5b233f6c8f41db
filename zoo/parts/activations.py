"""Activation functions."""

import torch.nn.functional as F
from torch import Tensor, nn


class GeneralReLU(nn.Module):
    """Leaky ReLU, moved down and optionally capped, so that its output can have mean zero.

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
