"""SqueezeNet: as accurate as AlexNet with a fiftieth of its parameters. Use it where a net must be small, or with its
pretrained weights on few images of your own.

B batch, C channels, H height, W width, K classes. Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x
fewer parameters and <0.5MB model size", sections 3.2 and 3.3 and table 1; version 1.1 is from the authors' repository,
with 2.4 times less work for the same accuracy.
"""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.sequences import sequence_renames

# Fire modules: squeezed channels, and those of the 1x1 and of the 3x3 convolutions (table 1). Stages end at a pooling.
FIRE = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
STAGES = {"1.0": (3, 4, 1), "1.1": (2, 2, 4)}
STEM = {"1.0": (96, 7), "1.1": (64, 3)}  # channels and kernel of the first convolution
SMALLEST = {"1.0": 21, "1.1": 17}  # pixels, of which the poolings leave one


class Fire(nn.Module):
    """A 1x1 convolution to few channels, then a 1x1 and a 3x3 convolution side by side (section 3.2, figure 1).

    Shape: (B, inputs, H, W) -> (B, 2 * expand, H, W).
    """

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


class SqueezeNetNet(nn.Module):
    """A convolution, eight fire modules in three stages with max-pooling between them, and a 1x1 convolution to K maps.

    The logits are the means of these maps, after a ReLU: there is no linear layer. Differs from the authors' repository
    in the biases of the last convolution, which start at 1: with 0 a new head for few classes often stops learning.

    Args:
        num_classes: K.
        in_channels: C.
        version: "1.0", the paper's, or "1.1", with a smaller first convolution and earlier pooling.
        width: factor of all channels; 1 is the paper's.
        dropout: before the last convolution.
        upsample: images are enlarged by this factor, bilinearly: weights that were trained on 224 px want things to be
            as large in small images.

    Shape: (B, C, H, W) -> (B, K), for images of at least 21 px (version 1.1: 17 px) after `upsample`.

    Raises:
        ValueError: for smaller images, or an unknown version.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        version: Literal["1.0", "1.1"] = "1.0",
        width: float = 1.0,
        dropout: float = 0.5,
        upsample: float = 1.0,
    ) -> None:
        super().__init__()
        if version not in STAGES:
            raise ValueError(f"version is {version!r}: expected one of {', '.join(STAGES)}")

        def scaled(channels: int) -> int:
            return max(4, round(width * channels))

        channels, kernel = STEM[version]
        inputs = scaled(channels)
        self.stem = nn.Sequential(
            nn.Upsample(scale_factor=upsample, mode="bilinear") if upsample != 1 else nn.Identity(),
            nn.Conv2d(in_channels, inputs, kernel, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
        )
        self.stages, fire = nn.Sequential(), iter(FIRE)
        for i, modules in enumerate(STAGES[version]):
            layers: list[nn.Module] = [] if i == 0 else [nn.MaxPool2d(3, stride=2, ceil_mode=True)]
            for _ in range(modules):
                squeeze, expand = map(scaled, next(fire))
                layers.append(Fire(inputs, squeeze, expand))
                inputs = 2 * expand
            self.stages.append(nn.Sequential(*layers))
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Conv2d(inputs, num_classes, 1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.smallest, self.upsample = SMALLEST[version], upsample
        classifier = cast(nn.Conv2d, self.head[1])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                nn.init.zeros_(cast(Tensor, module.bias))
        nn.init.normal_(classifier.weight, std=0.01)  # the authors' repository: all logits start near each other
        nn.init.ones_(
            cast(Tensor, classifier.bias)
        )  # above 0: where the ReLU is 0 for all classes, no gradient comes through

    def forward(self, x: Tensor) -> Tensor:
        if int(self.upsample * min(x.shape[2:])) < self.smallest:
            raise ValueError(
                f"the images are {x.shape[3]} x {x.shape[2]} pixels: expected {self.smallest} x {self.smallest} or "
                f"more after upsample, which is {self.upsample:g}, or the poolings leave nothing; raise upsample"
            )
        return self.head(self.stages(self.stem(x)))


class SqueezeNet(Classifier):
    """Trains a `SqueezeNetNet`, whose arguments it takes; the others are `Classifier`'s.

    Args:
        weights: of torchvision's squeezenet1_0 or squeezenet1_1: a name such as "DEFAULT" or a file, see
            `zoo.parts.pretrained.load_weights`. The last convolution starts anew if the number of classes is another.

    Raises:
        ValueError: see `SqueezeNetNet` and `load_weights`.
        FileNotFoundError: if there is no such file.

    >>> sum(p.numel() for p in SqueezeNet(num_classes=1000, version="1.1").parameters())
    1235496
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        version: Literal["1.0", "1.1"] = "1.0",
        width: float = 1.0,
        dropout: float = 0.5,
        upsample: float = 1.0,
        weights: str | None = None,
        **task_options: Any,
    ) -> None:
        net = SqueezeNetNet(
            num_classes, in_channels, version=version, width=width, dropout=dropout, upsample=upsample
        )  # fmt: skip
        super().__init__(net, num_classes, **task_options)
        renames = [
            (r"^features\.0\.", "stem.1."),
            *sequence_renames(net, "features", *(f"stages.{i}" for i in range(3)), start=3),
            (r"^classifier\.", "head."),
        ]
        self.load_weights(weights, f"squeezenet{version.replace('.', '_')}", renames)
