"""Residual networks with pre-activation: norm and activation come before each convolution, and nothing changes what a
shortcut passes on. They are for very deep residual nets, which train more easily so.

B batch, C channels, H height, W width, K classes.

He, Zhang, Ren and Sun 2016, "Identity Mappings in Deep Residual Networks".
"""

from typing import Any

from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.convs import StridedPointwiseConv2d, conv_norm_act
from zoo.parts.residual import cam_stage, make_stages, make_stem


class PreActBlock(nn.Module):
    """Norm, ReLU and 3x3 convolution, twice, beside a shortcut that nothing follows (figure 4e).

    The shortcut is the identity; where shapes change, a 1x1 convolution of the input after norm and ReLU, which both
    paths share (appendix).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.activate: nn.Module = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        self.branch = nn.Sequential(
            conv_norm_act(inputs, outputs, 3, stride), nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        )
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else StridedPointwiseConv2d(inputs, outputs, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activate(x)
        return self.branch(activated) + (x if self.shortcut is None else self.shortcut(activated))


class PreActResNet(nn.Module):
    """A stem, stages of `PreActBlock`, a last norm and ReLU, global average pooling, a linear layer.

    The stem ends in norm and ReLU, so the first block does not begin with them; the last block is followed by them
    (appendix).

    Args:
        num_classes: K.
        in_channels: C.
        depths, width: see `make_stages`.
        small_images, stem_pool: see `make_stem`.

    Shape: (B, C, H, W) -> (B, K), for any H and W.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        depths: tuple[int, ...] = (2, 2, 2, 2),
        width: int = 64,
        small_images: bool = True,
        stem_pool: bool = False,
    ) -> None:
        super().__init__()
        self.stem = make_stem(in_channels, width, small_images, stem_pool)
        self.stages = make_stages(PreActBlock, depths, width)
        self.stages.get_submodule("0.0").activate = nn.Identity()
        outputs = width * 2 ** (len(depths) - 1)
        self.head = nn.Sequential(
            nn.BatchNorm2d(outputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(outputs, num_classes)
        )
        self.cam_stage = cam_stage(depths, small_images, stem_pool)

    @property
    def cam_target(self) -> nn.Module:
        return self.stages[self.cam_stage]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class PreActResNet18(Classifier):
    """ResNet-18 with pre-activation, 11 172 170 parameters with the small stem and ten classes.

    That is 1024 more than in public variants for CIFAR-10, which have no norm after the last block. See `PreActResNet`
    for the arguments.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        width: int = 64,
        small_images: bool = True,
        stem_pool: bool = False,
        **task_options: Any,
    ) -> None:
        net = PreActResNet(num_classes, in_channels, width=width, small_images=small_images, stem_pool=stem_pool)
        super().__init__(net, num_classes, **task_options)
