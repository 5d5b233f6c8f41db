"""What residual networks are assembled from. B batch, C channels, H height, W width.

He, Zhang, Ren and Sun 2015, "Deep Residual Learning for Image Recognition". All filters are drawn by Kaiming's rule
that keeps the size of gradients (He et al. 2015, "Delving Deep into Rectifiers", section 2.2).
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.parts.convs import conv_norm_act
from zoo.parts.initialization import kaiming_normal_

BlockCallable = Callable[[int, int, int], nn.Module]  # (input channels, output channels, stride) -> block


def make_stem(in_channels: int, width: int, small_images: bool, stem_pool: bool = False) -> nn.Sequential:
    """The first layers of a ResNet, for small images or for large ones.

    Args:
        in_channels: C.
        width: channels of the result.
        small_images: one 3x3 convolution, for 32 px (section 4.2); else a 7x7 one of stride 2 and max-pooling, which
            reduce 224 px to 56 (table 1).
        stem_pool: halve the maps of the small stem by max-pooling: a quarter of the work.

    Raises:
        ValueError: if the large stem is asked to pool once more.

    >>> import torch
    >>> [make_stem(3, 8, small)(torch.zeros(1, 3, 64, 64)).shape[-1] for small in (True, False)]
    [64, 16]
    """
    if small_images:
        return _initialize(conv_norm_act(in_channels, width, pool=stem_pool))
    if stem_pool:
        raise ValueError(
            "stem_pool is True with small_images False: expected False, as the large stem pools anyway; leave it out"
        )
    return _initialize(
        nn.Sequential(conv_norm_act(in_channels, width, 7, stride=2), nn.MaxPool2d(3, stride=2, padding=1))
    )


def make_stages(block: BlockCallable, depths: tuple[int, ...], width: int, expansion: int = 1) -> nn.Sequential:
    """Stages of residual blocks; each but the first halves H and W in its first block.

    Args:
        block: makes a block.
        depths: blocks in each stage.
        width: channels of the input. The output of the first stage has `expansion * width`, that of each further stage
            twice the channels of the stage before.
        expansion: see `width`.
    """
    stages, inputs = nn.Sequential(), width
    for i, depth in enumerate(depths):
        outputs = expansion * width * 2**i
        blocks = [block(inputs, outputs, 1 if i == 0 else 2)]
        blocks += [block(outputs, outputs, 1) for _ in range(depth - 1)]
        stages.append(nn.Sequential(*blocks))
        inputs = outputs
    return _initialize(stages)


def _initialize(layers: nn.Sequential) -> nn.Sequential:
    for module in layers.modules():
        if isinstance(module, nn.Conv2d):
            kaiming_normal_(module.weight, fan_out=True)
    return layers


def cam_stage(depths: tuple[int, ...], small_images: bool, stem_pool: bool) -> int:
    """The last stage whose maps are large enough to look at: 8x8 of images of 32 px, 7x7 of 224 px."""
    last = len(depths) - 1
    return min(2 - stem_pool, last) if small_images else last


def shortcut(inputs: int, outputs: int, stride: int, project: bool = True) -> nn.Module:
    """The identity; where shapes change, a 1x1 convolution (section 3.3, option B) or `ZeroPadding` (option A)."""
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return conv_norm_act(inputs, outputs, 1, stride, act=False) if project else ZeroPadding(outputs - inputs, stride)


class ZeroPadding(nn.Module):
    """A shortcut without parameters: skips pixels, and adds channels of zeros.

    Shape: (B, C, H, W) -> (B, C + channels, H / stride, W / stride), rounded up.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[..., :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.channels))
