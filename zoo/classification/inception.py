"""GoogLeNet, that is Inception v1. B batch, C channels, H height, W width, K classes.

Szegedy et al. 2015, "Going Deeper with Convolutions", figure 3 and table 1. Differs from the paper in batch norm after
every convolution (Ioffe and Szegedy 2015) instead of local response normalization.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.convs import conv_norm_act


class Widths(NamedTuple):
    """Channels of an inception module (a row of table 1): of its four branches, and of the two 1x1 reducers."""

    conv1: int
    reduce3: int
    conv3: int
    reduce5: int
    conv5: int
    pool: int


MODULES = {  # table 1
    "3a": Widths(64, 96, 128, 16, 32, 32),
    "3b": Widths(128, 128, 192, 32, 96, 64),
    "4a": Widths(192, 96, 208, 16, 48, 64),
    "4b": Widths(160, 112, 224, 24, 64, 64),
    "4c": Widths(128, 128, 256, 24, 64, 64),
    "4d": Widths(112, 144, 288, 32, 64, 64),
    "4e": Widths(256, 160, 320, 32, 128, 128),
    "5a": Widths(256, 160, 320, 32, 128, 128),
    "5b": Widths(384, 192, 384, 48, 128, 128),
}
STAGES = (("3a", "3b"), ("4a",), ("4b", "4c", "4d"), ("4e",), ("5a", "5b"))  # auxiliary heads follow 4a and 4d
POOLED = ("4a", "5a")  # a max-pooling of stride 2 comes before these


class Inception(nn.Module):
    """Four branches side by side: 1x1, 3x3 and 5x5 convolutions, the latter two on reduced channels, and pooling.

    Args:
        inputs: channels.
        widths: of the branches.
        factorized: two 3x3 convolutions in place of the 5x5 one (Szegedy et al. 2016, "Rethinking the Inception
            Architecture for Computer Vision", section 3.1 and figure 5).

    Shape: (B, inputs, H, W) -> (B, conv1 + conv3 + conv5 + pool, H, W).
    """

    def __init__(self, inputs: int, widths: Widths, factorized: bool = False) -> None:
        super().__init__()
        self.branch1 = conv_norm_act(inputs, widths.conv1, 1)
        self.branch3 = nn.Sequential(
            conv_norm_act(inputs, widths.reduce3, 1), conv_norm_act(widths.reduce3, widths.conv3)
        )
        large = (
            [conv_norm_act(widths.reduce5, widths.conv5), conv_norm_act(widths.conv5, widths.conv5)]
            if factorized
            else [conv_norm_act(widths.reduce5, widths.conv5, 5)]
        )
        self.branch5 = nn.Sequential(conv_norm_act(inputs, widths.reduce5, 1), *large)
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv_norm_act(inputs, widths.pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch3(x), self.branch5(x), self.pool(x)], 1)


class AuxiliaryHead(nn.Module):
    """A classifier on an intermediate map: average-pooling to 4x4, a 1x1 convolution, two linear layers (section 5).

    Shape: (B, inputs, H, W) -> (B, K).
    """

    def __init__(self, inputs: int, num_classes: int, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            conv_norm_act(inputs, width, 1),
            nn.Flatten(),
            nn.Linear(16 * width, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class InceptionV1Net(nn.Module):
    """Nine inception modules in five stages, global average pooling, and two auxiliary heads, used in training only.

    Args:
        num_classes: K.
        in_channels: C.
        width: factor of all channels; 1 is the paper's.
        small_images: stem of one 3x3 convolution, for 32 px; else the paper's, which reduces 224 px to 28.
        stem_pool: halve the maps of the small stem by max-pooling: a quarter of the work.
        auxiliary: build the two heads.
        factorized: see `Inception`.
        dropout: before the last linear layer; the heads have the paper's 0.7.

    Shape: (B, C, H, W) -> (B, K); in training with heads a tuple of three such logits, the main ones first.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        width: float = 1.0,
        small_images: bool = True,
        stem_pool: bool = False,
        auxiliary: bool = True,
        factorized: bool = False,
        dropout: float = 0.4,
    ) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return max(4, round(width * channels))

        inputs = scaled(192)
        if small_images:
            self.stem = conv_norm_act(in_channels, inputs, pool=stem_pool)
        else:
            self.stem = nn.Sequential(
                conv_norm_act(in_channels, scaled(64), 7, stride=2),
                nn.MaxPool2d(3, stride=2, padding=1),
                conv_norm_act(scaled(64), scaled(64), 1),
                conv_norm_act(scaled(64), inputs),
                nn.MaxPool2d(3, stride=2, padding=1),
            )
        self.stages, ends = nn.Sequential(), []
        for stage in STAGES:
            layers: list[nn.Module] = []
            for name in stage:
                widths = Widths(*map(scaled, MODULES[name]))
                layers += [nn.MaxPool2d(3, stride=2, padding=1)] * (name in POOLED)
                layers.append(Inception(inputs, widths, factorized))
                inputs = widths.conv1 + widths.conv3 + widths.conv5 + widths.pool
            self.stages.append(nn.Sequential(*layers))
            ends.append(inputs)
        if auxiliary:
            self.auxiliary = nn.ModuleList(
                AuxiliaryHead(ends[i], num_classes, scaled(128), scaled(1024), dropout=0.7) for i in (1, 2)
            )
        self.extras = ("auxiliary",) if auxiliary else ()
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(inputs, num_classes)
        )

    @property
    def cam_target(self) -> nn.Module:
        return self.stages[3]  # 16x16 of 32 px, 8x8 with `stem_pool`: the last stage halves that

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        x = self.stem(x)
        if not (self.training and self.extras):
            return self.head(self.stages(x))
        after_4a = self.stages[:2](x)
        after_4d = self.stages[2](after_4a)
        logits = self.head(self.stages[3:](after_4d))
        return logits, self.auxiliary[0](after_4a), self.auxiliary[1](after_4d)


class InceptionV1(Classifier):
    """Trains an `InceptionV1Net`, whose arguments it takes; the others are `Classifier`'s.

    Args:
        auxiliary_weight: of each auxiliary head's cross-entropy, added to the loss of training (section 5: 0.3).

    >>> model = InceptionV1(num_classes=10, width=0.25)
    >>> len(model(torch.zeros(2, 3, 32, 32))), model.eval()(torch.zeros(2, 3, 32, 32)).shape
    (3, torch.Size([2, 10]))
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        width: float = 1.0,
        small_images: bool = True,
        stem_pool: bool = False,
        auxiliary: bool = True,
        factorized: bool = False,
        dropout: float = 0.4,
        auxiliary_weight: float = 0.3,
        **task_options: Any,
    ) -> None:
        net = InceptionV1Net(
            num_classes, in_channels, width=width, small_images=small_images, stem_pool=stem_pool,
            auxiliary=auxiliary, factorized=factorized, dropout=dropout,
        )  # fmt: skip
        super().__init__(net, num_classes, **task_options)
        self.auxiliary_weight = auxiliary_weight

    def loss(self, outputs: Tensor | tuple[Tensor, ...], label: Tensor, split: str) -> Tensor:
        main, *auxiliary = (outputs,) if isinstance(outputs, Tensor) else outputs
        extra = sum(self.cross_entropy(logits, label, split) for logits in auxiliary)
        return self.cross_entropy(main, label, split) + self.auxiliary_weight * extra
