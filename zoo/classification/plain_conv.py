"""Five stride-2 convolutions and nothing else: the net of fast.ai's lesson 17. It is for comparisons of
initializations, norms, optimizers and schedules, whose effects a better net would hide.

B batch, C channels, H height, W width, K classes. 28 -> 14 -> 7 -> 4 -> 2 -> 1, channels 1-8-16-32-64-K.
"""

import itertools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.initialization import InitCallable, initialize, kaiming_normal_
from zoo.parts.norms import NormCallable, needs_bias


class PlainConvNet(nn.Module):
    """3x3 convolutions of stride 2 down to one pixel, whose channels are the logits; no pooling, no linear layer.

    Args:
        num_classes: K.
        in_channels: C.
        widths: channels after each convolution but the last.
        act: makes the activation that follows each of them.
        norm: makes the norm between convolution and activation from its channels; None for none.
        init: draws the weights of the convolutions, called (weight, gain=...) with the gain that belongs to `act`.

    Shape: (B, C, 28, 28) -> (B, K); larger images are averaged over the pixels left.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        widths: tuple[int, ...] = (8, 16, 32, 64),
        act: Callable[[], nn.Module] = nn.ReLU,
        norm: NormCallable | None = None,
        init: InitCallable = kaiming_normal_,
    ) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Sequential:
            norms = [] if norm is None else [norm(outputs)]
            bias = all(needs_bias(layer) for layer in norms)
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=bias), *norms, act())

        self.stem = block(in_channels, widths[0])
        self.stages = nn.Sequential(*(block(i, o) for i, o in itertools.pairwise(widths)))
        self.head = nn.Sequential(
            nn.Conv2d(widths[-1], num_classes, 3, stride=2, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        initialize(self, init, act())

    @property
    def cam_target(self) -> nn.Module:
        return self.stages[0]  # 7x7 of 28 px: the maps after it are too coarse to look at

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class PlainConv(Classifier):
    """Trains a `PlainConvNet`; the other arguments are `Classifier`'s.

    >>> import torch
    >>> PlainConv(num_classes=10, norm=nn.BatchNorm2d).net(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        widths: tuple[int, ...] = (8, 16, 32, 64),
        act: Callable[[], nn.Module] = nn.ReLU,
        norm: NormCallable | None = None,
        init: InitCallable = kaiming_normal_,
        **task_options: Any,
    ) -> None:
        net = PlainConvNet(num_classes, in_channels, widths=widths, act=act, norm=norm, init=init)
        super().__init__(net, num_classes, **task_options)
