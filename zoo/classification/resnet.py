"""Residual networks. B batch, C channels, H height, W width, K classes.

He, Zhang, Ren and Sun 2015, "Deep Residual Learning for Image Recognition".
"""

from typing import Any

import torch
from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.convs import conv_norm_act


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (figure 2; the shortcut is option B of section 3.3)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv_norm_act(inputs, outputs, 3, stride), conv_norm_act(outputs, outputs, 3, act=False)
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv_norm_act(inputs, outputs, 1, stride, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet of basic blocks, with the stem for small images (3x3, no pooling) or for large ones.

    Args:
        depths: blocks in each stage; each stage but the first halves H and W.
        width: channels of the first stage; they double from stage to stage.
        num_classes: K.
        in_channels: C.
        small_images: stem of one 3x3 convolution, for 32 px; else the paper's 7x7 stride 2 and max-pooling, for 224 px.

    Shape: (B, C, H, W) -> (B, K), for any H and W of at least 8 (64 with the large stem).
    """

    def __init__(
        self,
        depths: tuple[int, ...] = (2, 2, 2, 2),
        width: int = 64,
        num_classes: int = 10,
        in_channels: int = 3,
        small_images: bool = True,
    ) -> None:
        super().__init__()
        self.small_images = small_images
        if small_images:
            self.stem = conv_norm_act(in_channels, width)
        else:
            self.stem = nn.Sequential(
                conv_norm_act(in_channels, width, 7, stride=2), nn.MaxPool2d(3, stride=2, padding=1)
            )
        stages, inputs = [], width
        for i, depth in enumerate(depths):
            outputs = width * 2**i
            blocks = [BasicBlock(inputs, outputs, stride=1 if i == 0 else 2)]
            blocks += [BasicBlock(outputs, outputs, stride=1) for _ in range(depth - 1)]
            stages.append(nn.Sequential(*blocks))
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def cam_target(self) -> nn.Module:
        return self.stages[-2 if self.small_images else -1]  # 8x8 of 32 px: the last stage has only 4x4

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class ResNet18(Classifier):
    """ResNet-18 (table 1); 11 173 962 parameters with the small stem and ten classes. See `ResNet` for the arguments.

    >>> sum(p.numel() for p in ResNet18(num_classes=10).parameters())
    11173962
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        width: int = 64,
        small_images: bool = True,
        **task_options: Any,
    ) -> None:
        net = ResNet((2, 2, 2, 2), width, num_classes=num_classes, in_channels=in_channels, small_images=small_images)
        super().__init__(net, num_classes, **task_options)
