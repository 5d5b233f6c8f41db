"""GoogLeNet, that is Inception v1: each module looks at its input through kernels of several sizes and joins what
they see. Use it to learn parallel branches, 1x1 reducers and auxiliary heads. B batch, C channels, H height, W width,
K classes.

Szegedy et al. 2015, "Going Deeper with Convolutions", figure 3 and table 1. Differs from the paper in batch norm after
every convolution (Ioffe and Szegedy 2015) instead of local response normalization.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.convs import conv_norm_act
from zoo.parts.features import IMAGENET
from zoo.parts.pretrained import State

# Table 1: channels of the 1x1 branch, the 3x3 branch (reduced, output), the 5x5 branch (reduced, output), the pooling.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
STAGES = (("3a", "3b"), ("4a",), ("4b", "4c", "4d"), ("4e",), ("5a", "5b"))  # auxiliary heads follow 4a and 4d
POOLED = ("4a", "5a")  # a max-pooling of stride 2 comes before these
RENAMES = [  # of torchvision's weights, see `load_weights`
    *((rf"^inception{name}\.", f"stages.{i}.{j}.") for i, stage in enumerate(STAGES)
      for j, name in enumerate(stage, start=stage[0] in POOLED)),
    *((rf"^conv{i + 1}\.", f"stem.{j}.") for i, j in enumerate((0, 2, 3))),
    *((rf"\.branch{theirs}\.", f".{ours}.") for theirs, ours in ((4, "pool"), (3, "branch5"), (2, "branch3"))),
    *((rf"^aux{i + 1}\.", f"auxiliary.{i}.") for i in (0, 1)),
    *((rf"^(auxiliary\..)\.{theirs}\.", rf"\1.{ours}.") for theirs, ours in (("conv", 1), ("fc1", 3), ("fc2", 6))),
    *((rf"\.{theirs}\.(\w+)$", rf".{ours}.\1") for theirs, ours in (("conv", 0), ("bn", 1))),
    (r"^fc\.", "head.3."),
]  # fmt: skip


class Inception(nn.Module):
    """Four branches side by side: 1x1, 3x3 and 5x5 convolutions, the latter two on reduced channels, and pooling.

    Args:
        inputs: channels.
        widths: of the branches, a row of `MODULES`.
        kernels: of the third branch's convolutions: one of 5, or of 3 and 3 in factorized form (Szegedy et al. 2016,
            "Rethinking the Inception Architecture for Computer Vision", section 3.1 and figure 5).

    Shape: (B, inputs, H, W) -> (B, conv1 + conv3 + conv5 + pool, H, W).
    """

    def __init__(self, inputs: int, widths: tuple[int, ...], kernels: tuple[int, ...] = (5,)) -> None:
        super().__init__()
        conv1, reduce3, conv3, reduce5, conv5, pool = widths
        self.branch1 = conv_norm_act(inputs, conv1, 1)
        self.branch3 = nn.Sequential(conv_norm_act(inputs, reduce3, 1), conv_norm_act(reduce3, conv3))
        large = [conv_norm_act(i, conv5, kernel) for i, kernel in zip((reduce5, conv5), kernels, strict=False)]
        self.branch5 = nn.Sequential(conv_norm_act(inputs, reduce5, 1), *large)
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv_norm_act(inputs, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch3(x), self.branch5(x), self.pool(x)], 1)


def auxiliary_head(inputs: int, num_classes: int, width: int, hidden: int) -> nn.Sequential:
    """A classifier on an intermediate map (section 5). Shape: (B, inputs, H, W) -> (B, K)."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(4), conv_norm_act(inputs, width, 1), nn.Flatten(),
        nn.Linear(16 * width, hidden), nn.ReLU(inplace=True), nn.Dropout(0.7), nn.Linear(hidden, num_classes),
    )  # fmt: skip


class GoogLeNetNet(nn.Module):
    """Nine inception modules in five stages, global average pooling, and two auxiliary heads, used in training only.

    Args:
        num_classes: K.
        in_channels: C.
        width: factor of all channels; 1 is the paper's.
        small_images: stem of one 3x3 convolution, for 32 px; else the paper's, which reduces 224 px to 28.
        stem_pool: max-pooling in the small stem: a quarter of the work.
        auxiliary: build the two heads.
        factorized: two 3x3 convolutions in place of each 5x5 one, see `Inception`.
        dropout: before the last linear layer; the heads have the paper's 0.7.
        as_torchvision: where torchvision's googlenet differs from the paper, follow it: 3x3 convolutions for the 5x5
            ones, a last max-pooling of 2x2, an eps of 0.001 in batch norm.
        transform_input: the images are normalized by ImageNet's mean and standard deviation: bring 0..1 to -1..1.

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
        as_torchvision: bool = False,
        transform_input: bool = False,
    ) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return max(4, round(width * channels))

        halve = partial(nn.MaxPool2d, stride=2, ceil_mode=True)  # as the authors' model has them
        inputs, kernels = scaled(192), (3, 3) if factorized else (3,) if as_torchvision else (5,)
        if small_images:
            self.stem = conv_norm_act(in_channels, inputs, pool=stem_pool)
        else:
            self.stem = nn.Sequential(
                conv_norm_act(in_channels, scaled(64), 7, stride=2), halve(3),
                conv_norm_act(scaled(64), scaled(64), 1), conv_norm_act(scaled(64), inputs), halve(3),
            )  # fmt: skip
        self.stages, ends = nn.Sequential(), []
        for stage in STAGES:
            layers: list[nn.Module] = [halve(2 if as_torchvision and stage[0] == "5a" else 3)] * (stage[0] in POOLED)
            for name in stage:
                widths = tuple(map(scaled, MODULES[name]))
                layers.append(Inception(inputs, widths, kernels))
                inputs = widths[0] + widths[2] + widths[4] + widths[5]
            self.stages.append(nn.Sequential(*layers))
            ends.append(inputs)
        if auxiliary:
            heads = [auxiliary_head(ends[i], num_classes, scaled(128), scaled(1024)) for i in (1, 2)]
            self.auxiliary = nn.ModuleList(heads)
        self.extras, self.transform_input = ("auxiliary",) if auxiliary else (), transform_input
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self.head.append(nn.Linear(inputs, num_classes))
        for module in self.modules():
            if as_torchvision and isinstance(module, nn.BatchNorm2d):
                module.eps = 1e-3

    @property
    def cam_target(self) -> nn.Module:
        return self.stages[3]  # 16x16 of 32 px, 8x8 with `stem_pool`: the last stage halves that

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.transform_input:
            mean, std = (x.new_tensor(values)[:, None, None] for values in IMAGENET)
            x = (x * std + mean) * 2 - 1
        x = self.stem(x)
        if not (self.training and self.extras):
            return self.head(self.stages(x))
        after_4a = self.stages[:2](x)
        after_4d = self.stages[2](after_4a)
        return self.head(self.stages[3:](after_4d)), self.auxiliary[0](after_4a), self.auxiliary[1](after_4d)


class GoogLeNet(Classifier):
    """Trains a `GoogLeNetNet`, whose arguments it takes; the others are `Classifier`'s.

    Args:
        weights: of torchvision's googlenet, by name ("DEFAULT") or in a file, see `zoo.parts.pretrained.load_weights`;
            for `small_images: false`. It implies `as_torchvision`, and a name `transform_input`, which the same weights
            want when they come from a file. Last layers start anew if the number of classes is another.
        auxiliary_weight: of each auxiliary head's cross-entropy, added to the loss of training (section 5: 0.3).

    >>> model = GoogLeNet(num_classes=10, width=0.25)
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
        as_torchvision: bool = False,
        transform_input: bool = False,
        weights: str | None = None,
        auxiliary_weight: float = 0.3,
        **task_options: Any,
    ) -> None:
        as_torchvision = as_torchvision or weights is not None
        transform_input = transform_input or (
            weights is not None and not weights.endswith((".safetensors", ".pth", ".pt"))
        )
        net = GoogLeNetNet(
            num_classes, in_channels, width=width, small_images=small_images, stem_pool=stem_pool,
            auxiliary=auxiliary, factorized=factorized, dropout=dropout, as_torchvision=as_torchvision,
            transform_input=transform_input,
        )  # fmt: skip
        super().__init__(net, num_classes, **task_options)
        self.hparams.update(as_torchvision=as_torchvision, transform_input=transform_input)  # `weights` is not saved
        self.auxiliary_weight = auxiliary_weight
        self.load_weights(weights, "googlenet", RENAMES, self._fitting)

    def _fitting(self, state: State) -> State:
        """torchvision's weights without auxiliary heads if there are none here, and with ours of another K."""
        heads: list[Any] = list(self.net.get_submodule("auxiliary").children()) if self.net.extras else []
        state = {name: tensor for name, tensor in state.items() if heads or not name.startswith("aux")}
        last = {f"aux{i}.fc2.{kind}": v for i, head in enumerate(heads, 1) for kind, v in head[-1].state_dict().items()}
        return state | {name: own for name, own in last.items() if len(state.get(name, own)) != len(own)}

    def loss(self, outputs: Tensor | tuple[Tensor, ...], label: Tensor, split: str) -> Tensor:
        main, *auxiliary = (outputs,) if isinstance(outputs, Tensor) else outputs
        extra = sum(self.cross_entropy(logits, label, split) for logits in auxiliary)
        return self.cross_entropy(main, label, split) + self.auxiliary_weight * extra
