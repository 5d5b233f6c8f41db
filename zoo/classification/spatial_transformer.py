"""A spatial transformer before a plain net: it finds where to look, and passes on only that. It is for objects that
are small, shifted, turned or among others, and it learns to find them from the classes alone.

B batch, C channels, H height, W width, h height and w width of what is passed on, K classes.

Jaderberg, Simonyan, Zisserman and Kavukcuoglu 2015, "Spatial Transformer Networks".
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.convs import conv_norm_act
from zoo.parts.optim.adamw import AdamW

IDENTITY = {"affine": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), "attention": (1.0, 0.0, 0.0)}
LARGE = 32  # pixels: the localization net looks at larger images at half their size


Transform = Literal["affine", "attention"]
Localization = Literal["linear", "argmax"]


class SpatialSoftArgmax(nn.Module):
    """Where each map is largest: the mean of all places, weighted by a softmax over the map.

    It tells a place from a few filters, which a linear layer over all pixels must learn for each place anew. Finn et
    al. 2016, "Deep Spatial Autoencoders for Visuomotor Learning".

    Args:
        temperature: divides the maps before the softmax; with a low one a small difference decides.

    Shape: (B, C, H, W) -> (B, 2 C): x of all maps, then y, in -1..1 from border to border.

    >>> maps = torch.zeros(1, 1, 2, 4)
    >>> maps[0, 0, 1, 0] = 50.0
    >>> SpatialSoftArgmax()(maps).tolist()
    [[-0.75, 0.5]]
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        weights = (x.float() / self.temperature).flatten(2).softmax(2).unflatten(2, x.shape[2:])
        rows, columns = ((2 * torch.arange(side, device=x.device) + 1) / side - 1 for side in x.shape[2:])
        return torch.cat([weights.sum(2) @ columns, weights.sum(3) @ rows], 1).to(x.dtype)


class SpatialTransformerLayer(nn.Module):
    """Predicts an affine map for each image, and samples the image along it (section 3).

    A small net, the localization net, predicts the map. It starts with the same one whatever the image, and learns from
    the gradient that the sampling passes on (equations 6 and 7): no label says where the digit is. Outside the image
    its border is repeated.

    Args:
        in_channels: C.
        image_size: H and W.
        out_size: h and w; None for the size of the image.
        transform: "affine", six numbers (equation 1); or "attention", a scale and a shift (equation 2).
        start: scale of the first map: 1 is the identity, 0.5 a window in the middle, half as wide and as high.
        localization: its net ends in a "linear" layer over all pixels, as the paper's; or it takes the "argmax" of some
            maps (`SpatialSoftArgmax`), which finds one thing among others. The window moves to where the first map is
            largest.
        width: channels of the localization net's first convolution.

    Shape: (B, C, H, W) -> (B, C, h, w).

    Raises:
        ValueError: for a `start` that is not above 0.
    """

    first: Tensor

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int = 28,
        out_size: int | None = None,
        transform: Transform = "affine",
        start: float = 1.0,
        localization: Localization = "linear",
        width: int = 8,
    ) -> None:
        super().__init__()
        if not start > 0:
            raise ValueError(f"start is {start:g}: expected a scale above 0, 1 for the identity")
        self.out_size, self.transform = out_size or image_size, transform
        self.register_buffer("first", start * torch.tensor(IDENTITY[transform]), persistent=False)
        shrink = [nn.AvgPool2d(2)] if image_size > LARGE else []
        side = image_size // 2 ** (2 + len(shrink))
        if localization == "linear":
            layers = [
                conv_norm_act(in_channels, width, 5, pool=True),
                conv_norm_act(width, 2 * width, 5, pool=True),
                nn.Flatten(),
            ]
            features = 2 * width * side**2
        else:
            maps = nn.Conv2d(2 * width, width, 1)
            nn.init.zeros_(maps.weight[:1])  # the first map is flat at the start, and its place the middle
            layers = [
                conv_norm_act(in_channels, 2 * width, 5, pool=True),
                conv_norm_act(2 * width, 2 * width, 5),
                conv_norm_act(2 * width, 2 * width, 5),
                maps,
                SpatialSoftArgmax(temperature=1 / 8),
            ]
            features = 2 * width
        self.localization = nn.Sequential(*shrink, *layers)
        hidden, last = nn.Linear(features, 32), nn.Linear(32, len(IDENTITY[transform]))
        self.regression = nn.Sequential(hidden, nn.ReLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def theta(self, x: Tensor) -> Tensor:
        """The maps (B, 2, 3) from coordinates of what is passed on to those of the image, x before y, both in -1..1."""
        found = self.localization(x)
        numbers = self.regression(found).float() + self.first
        if self.transform == "attention":
            scale, right, down = numbers.unbind(1)
            zero = torch.zeros_like(scale)
            numbers = torch.stack([scale, zero, right, zero, scale, down], 1)
        theta = numbers.view(-1, 2, 3)
        if isinstance(self.localization[-1], SpatialSoftArgmax):
            place = found.float().unflatten(1, (2, -1))[..., :1]
            theta = theta + F.pad(place, (2, 0))
        return theta

    def forward(self, x: Tensor) -> Tensor:
        size = [len(x), x.size(1), self.out_size, self.out_size]
        grid = F.affine_grid(self.theta(x), size, align_corners=False).to(x.dtype)
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


class SpatialTransformerNet(nn.Module):
    """A spatial transformer, three convolutions with max-pooling, two linear layers.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H and W.
        transformer: whether there is a spatial transformer. Without it the net is the control of experiments: the same
            layers, which see the complete image.
        out_size, transform, start, localization: see `SpatialTransformerLayer`.
        width: channels of the first convolution, and half of the others'.
        hidden: width between the linear layers.
        dropout: share of these that are dropped in training.

    Shape: (B, C, H, W) -> (B, K).

    Raises:
        ValueError: for an `out_size` without a transformer, or images below 8 pixels.
    """

    extras = ("transformer",)

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        transformer: bool = True,
        out_size: int | None = None,
        transform: Transform = "affine",
        start: float = 1.0,
        localization: Localization = "linear",
        width: int = 16,
        hidden: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if out_size is not None and not transformer:
            raise ValueError(f"out_size is {out_size} and transformer false: expected true, or no out_size")
        size = out_size or image_size
        if min(size, image_size) < 8:
            raise ValueError(f"image_size is {image_size} and out_size {out_size}: expected 8 pixels or more")
        self.transformer: nn.Module = nn.Identity()
        if transformer:
            self.transformer = SpatialTransformerLayer(
                in_channels, image_size, out_size, transform, start=start, localization=localization
            )
        self.stem = conv_norm_act(in_channels, width, 5, pool=True)
        self.stages = nn.Sequential(
            conv_norm_act(width, 2 * width, pool=True), conv_norm_act(2 * width, 2 * width, pool=True)
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(2 * width * (size // 8) ** 2, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    @property
    def cam_target(self) -> nn.Module:
        return self.stages[0]  # 7x7 of 28 px: the maps after it are too coarse to look at

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(self.transformer(x))))


class SpatialTransformer(Classifier):
    """Trains a `SpatialTransformerNet`, whose arguments it takes; the others are `Classifier`'s.

    >>> SpatialTransformer(image_size=60).net(torch.zeros(2, 1, 60, 60)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        transformer: bool = True,
        out_size: int | None = None,
        transform: Transform = "affine",
        start: float = 1.0,
        localization: Localization = "linear",
        width: int = 16,
        hidden: int = 64,
        dropout: float = 0.0,
        optimizer: OptimizerCallable = AdamW,
        **task_options: Any,
    ) -> None:
        net = SpatialTransformerNet(
            num_classes, in_channels, image_size=image_size, transformer=transformer, out_size=out_size,
            transform=transform, start=start, localization=localization, width=width, hidden=hidden, dropout=dropout,
        )  # fmt: skip
        super().__init__(net, num_classes, optimizer=optimizer, **task_options)

    def setup(self, stage: str) -> None:
        """Compares the size of the images with that of the net."""
        super().setup(stage)
        shape, size = (
            getattr(getattr(self.trainer, "datamodule", None), "image_shape", None),
            self.hparams["image_size"],
        )
        if shape is not None and tuple(shape[1:]) != (size, size):
            raise ValueError(
                f"image_size is {size}, but the images are {shape[1]}x{shape[2]} pixels: expected the same, as "
                f"its linear layers are made for that; set image_size to {shape[1]}"
            )
