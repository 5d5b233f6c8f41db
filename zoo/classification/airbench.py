"""Airbench: the net of the fastest known training to 94 % on CIFAR-10. It is for experiments that need a good
accuracy in as little work as possible, such as comparisons of optimizers.

B batch, C channels, H height, W width, K classes.

Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section 3. His later recipes have Muon in place of SGD:
Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.classification.base import Classifier


class WhitenedStem(nn.Module):
    """A 2x2 convolution that decorrelates patches, with fixed weights from data, then GELU (section 3.2).

    The outputs are the patches' coordinates along the eigenvectors of their covariance, each divided by its standard
    deviation, and the same with the opposite sign, of which the activation would otherwise lose half. Only the bias
    is trained.

    Args:
        in_channels: C.
        kernel_size: side of the patches.

    Shape: (B, C, H, W) -> (B, 2 * C * kernel_size**2, H - kernel_size + 1, W - kernel_size + 1).
    """

    def __init__(self, in_channels: int, kernel_size: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 2 * in_channels * kernel_size**2, kernel_size)
        self.conv.weight.requires_grad_(False)
        self.act = nn.GELU()

    @torch.no_grad()
    def covariance(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> the second moments of its patches, (C * kernel_size**2, C * kernel_size**2)."""
        columns = nn.functional.unfold(image.float(), self.conv.kernel_size).transpose(1, 2).flatten(0, 1)
        return columns.T @ columns / len(columns)

    @torch.no_grad()
    def whiten(self, covariance: Tensor, eps: float = 5e-4) -> None:
        """Sets the weights; `eps` is added to the variances, as those of some directions are almost 0."""
        variance, vectors = torch.linalg.eigh(covariance.double())
        rows = (vectors / (variance.clamp(min=0) + eps).sqrt()).T.flip(0)  # largest variance first
        self.conv.weight.copy_(torch.cat([rows, -rows]).view_as(self.conv.weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class AirbenchBlock(nn.Module):
    """Convolutions with batch norm and GELU, of which the first halves H and W by max-pooling (section 3.1).

    Args:
        inputs, outputs: channels.
        depth: convolutions. With more than two, a shortcut leads around all but the first, as in the net for 96 %
            (section 4).

    Shape: (B, inputs, H, W) -> (B, outputs, H // 2, W // 2).
    """

    def __init__(self, inputs: int, outputs: int, depth: int = 2) -> None:
        super().__init__()
        self.act = nn.GELU()
        self.first = nn.Sequential(dirac_conv(inputs, outputs), nn.MaxPool2d(2), airbench_norm(outputs), self.act)
        self.others = nn.Sequential()
        for i in range(1, depth):
            self.others.extend([*([self.act] if i > 1 else []), dirac_conv(outputs, outputs), airbench_norm(outputs)])
        self.shortcut = depth > 2

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.act(self.others(x) + x if self.shortcut else self.others(x))


def airbench_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm that forgets its running statistics fast, as the training is short (section 3.1)."""
    return nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)


def dirac_conv(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution that at first passes on its inputs, as far as it has outputs for them (section 3.3)."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[:inputs])
    return conv


class ScaledLinear(nn.Linear):
    """A linear layer without bias whose outputs are multiplied by a constant."""

    def __init__(self, in_features: int, out_features: int, scale: float) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


class AirbenchNet(nn.Module):
    """Whitened stem, three blocks, global max-pooling, a linear layer whose logits are scaled down.

    The weights of batch norm are fixed at 1 (section 3.1).

    Args:
        num_classes: K.
        in_channels: C.
        widths: channels of the blocks; those of airbench94.
        depth: convolutions in a block.
        logit_scale: factor of the logits.

    Shape: (B, C, H, W) -> (B, K), for H and W of at least 9.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        widths: tuple[int, ...] = (64, 256, 256),
        depth: int = 2,
        logit_scale: float = 1 / 9,
    ) -> None:
        super().__init__()
        self.stem = WhitenedStem(in_channels)
        inputs = (self.stem.conv.out_channels, *widths)
        self.stages = nn.Sequential(*(AirbenchBlock(i, o, depth) for i, o in zip(inputs[:-1], widths, strict=True)))
        logits = ScaledLinear(widths[-1], num_classes, scale=logit_scale)
        self.head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), logits)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.weight.requires_grad_(False)

    @property
    def cam_target(self) -> nn.Module:
        return self.stages[1]  # 7x7 of 32 px: the last stage has 3x3

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class Airbench(Classifier):
    """Trains an `AirbenchNet`, whose stem the first batch of training sets; the other arguments are `Classifier`'s.

    Differs from the paper in whitening by the first batch, of all processes and as it is augmented, instead of 5000
    images, and in a bias of the stem that is trained to the end. `MuonSGD` is the optimizer of his recipes with Muon.

    >>> sum(p.numel() for p in Airbench(num_classes=10).parameters())
    1972792
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        widths: tuple[int, ...] = (64, 256, 256),
        depth: int = 2,
        logit_scale: float = 1 / 9,
        **task_options: Any,
    ) -> None:
        net = AirbenchNet(num_classes, in_channels, widths=widths, depth=depth, logit_scale=logit_scale)
        super().__init__(net, num_classes, **task_options)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if not (self.is_initialized or self.trainer.global_step):
            stem = cast(WhitenedStem, self.net.stem)
            covariance = stem.covariance(batch[0])
            if self.trainer.world_size > 1:
                covariance = cast(Tensor, self.all_gather(covariance)).mean(0)
            stem.whiten(covariance)
            self.is_initialized = True
