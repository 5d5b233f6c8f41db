"""ResNet and ResNeXt: each block adds something to its input, so that nets of a hundred layers can be trained. They
are the first choice for most images. B batch, C channels, H height, W width, K classes.

He et al. 2015, "Deep Residual Learning for Image Recognition". Xie et al. 2017, "Aggregated Residual Transformations".
Bottlenecks have their stride in the 3x3 convolution, as torchvision's; in the first paper it is in the 1x1 before.
"""

from abc import abstractmethod
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.convs import conv_norm_act
from zoo.parts.residual import BlockCallable, cam_stage, make_stages, make_stem, shortcut

LAYERS = ("conv", "bn")  # torchvision's names of the layers in `conv_norm_act`
RENAMES = (  # torchvision's keys to ours
    *((rf"^{layer}1\.", f"stem.0.{j}.") for j, layer in enumerate(LAYERS)),
    *((rf"^layer{i + 1}\.", f"stages.{i}.") for i in range(4)),
    *((rf"\.{layer}{i + 1}\.", f".branch.{i}.{j}.") for i in range(3) for j, layer in enumerate(LAYERS)),
    (r"\.downsample\.", ".shortcut."),
    (r"^fc\.", "head.2."),
)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al., figure 2); `project`: see `shortcut`."""

    def __init__(self, inputs: int, outputs: int, stride: int, project: bool = True) -> None:
        super().__init__()
        first, second = conv_norm_act(inputs, outputs, 3, stride), conv_norm_act(outputs, outputs, act=False)
        self.branch = nn.Sequential(first, second)
        self.shortcut = shortcut(inputs, outputs, stride, project)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1 beside a shortcut (He et al., figure 5; with groups Xie et al., figure 3c).

    The 3x3 convolution has `ratio * outputs` channels in `groups` groups; ValueError if they cannot be divided so.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, ratio: float = 1 / 4, groups: int = 1) -> None:
        super().__init__()
        inner = round(ratio * outputs)
        if not inner or inner % groups:
            raise ValueError(
                f"a 3x3 convolution has {inner} channels in {groups} groups: expected a multiple; choose another width"
            )
        self.branch = nn.Sequential(
            conv_norm_act(inputs, inner, 1),
            conv_norm_act(inner, inner, 3, stride, groups=groups),
            conv_norm_act(inner, outputs, 1, act=False),
        )
        self.shortcut = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, stages of residual blocks, global average pooling, a linear layer.

    Args:
        num_classes, in_channels: K and C.
        block, depths, width, expansion, small_images, stem_pool: see `make_stages` and `make_stem`.

    Shape: (B, C, H, W) -> (B, K), for any H and W.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        block: BlockCallable = BasicBlock,
        depths: tuple[int, ...] = (2, 2, 2, 2),
        width: int = 64,
        expansion: int = 1,
        small_images: bool = True,
        stem_pool: bool = False,
    ) -> None:
        super().__init__()
        self.stem = make_stem(in_channels, width, small_images, stem_pool)
        self.stages = make_stages(block, depths, width, expansion)
        outputs = expansion * width * 2 ** (len(depths) - 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(outputs, num_classes))
        self.cam_stage = cam_stage(depths, small_images, stem_pool)

    @property
    def cam_target(self) -> nn.Module:
        return self.stages[self.cam_stage]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class TorchvisionResNet(Classifier):
    """Base class of the ResNets that torchvision has too; for the arguments see `ResNet`.

    `weights` are torchvision's, a name or a file (see `load_weights`), for the large stem and a width of 64.
    """

    model: ClassVar[str]  # torchvision's name
    block: ClassVar[type[BasicBlock] | type[Bottleneck]] = BasicBlock
    block_options: ClassVar[dict[str, Any]] = {}
    expansion: ClassVar[int] = 1

    @property
    @abstractmethod
    def depths(self) -> tuple[int, ...]: ...

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        width: int = 64,
        small_images: bool = True,
        stem_pool: bool = False,
        weights: str | None = None,
        **task_options: Any,
    ) -> None:
        net = ResNet(
            num_classes, in_channels, block=partial(self.block, **self.block_options), depths=self.depths, width=width,
            expansion=self.expansion, small_images=small_images, stem_pool=stem_pool,
        )  # fmt: skip
        super().__init__(net, num_classes, **task_options)
        self.load_weights(weights, self.model, RENAMES)


class ResNet18(TorchvisionResNet):
    """ResNet-18 (table 1); 11 173 962 parameters with the small stem and ten classes."""

    model, depths = "resnet18", (2, 2, 2, 2)


class ResNet34(TorchvisionResNet):
    """ResNet-34 (table 1)."""

    model, depths = "resnet34", (3, 4, 6, 3)


class ResNet50(TorchvisionResNet):
    """ResNet-50 (table 1)."""

    model, depths, block, expansion = "resnet50", (3, 4, 6, 3), Bottleneck, 4


class ResNet101(ResNet50):
    """ResNet-101 (table 1)."""

    model, depths = "resnet101", (3, 4, 23, 3)


class ResNet152(ResNet50):
    """ResNet-152 (table 1)."""

    model, depths = "resnet152", (3, 8, 36, 3)


class ResNeXt50(ResNet50):
    """ResNeXt-50, 32x4d: 32 groups, of 4 channels in the first stage (Xie et al., table 1)."""

    model, block_options = "resnext50_32x4d", {"ratio": 1 / 2, "groups": 32}


class ResNet56(Classifier):
    """ResNet-56 for small images (He et al., section 4.2: n = 9, option A); 853 018 parameters for ten classes."""

    def __init__(
        self, num_classes: int = 10, in_channels: int = 3, width: int = 16, stem_pool: bool = False, **task_options: Any
    ) -> None:
        block = partial(BasicBlock, project=False)
        net = ResNet(num_classes, in_channels, block=block, depths=(9, 9, 9), width=width, stem_pool=stem_pool)
        super().__init__(net, num_classes, **task_options)


class ResNeXt29(Classifier):
    """ResNeXt-29 for small images (Xie et al., section 5.1); 8x64d, the default, has 34.4 million parameters.

    The 3x3 convolutions have `cardinality` groups, of `base_width` channels in the first stage.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        width: int = 64,
        cardinality: int = 8,
        base_width: int = 64,
        stem_pool: bool = False,
        **task_options: Any,
    ) -> None:
        block = partial(Bottleneck, ratio=cardinality * base_width / (4 * width), groups=cardinality)
        net = ResNet(num_classes, in_channels, block, depths=(3, 3, 3), width=width, expansion=4, stem_pool=stem_pool)
        super().__init__(net, num_classes, **task_options)
