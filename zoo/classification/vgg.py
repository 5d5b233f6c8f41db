"""VGG: 3x3 convolutions in five stages, with a max-pooling after each. It is the plain net to compare others with,
and its features are those on which style transfer is built. B batch, C channels, H height, W width, K classes.

Simonyan and Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition", section 2.1 and
table 1. Differs from the paper in batch norm after every convolution (Ioffe and Szegedy 2015), unless `norm` is None.
"""

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.norms import NormCallable, needs_bias
from zoo.parts.pretrained import State
from zoo.parts.sequences import sequence_renames

CHANNELS = (64, 128, 256, 512, 512)  # of the five stages, and below how many convolutions they have: table 1
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # A, B, D, E
HIDDEN = 4096  # units of the first two of the three linear layers
SMALLEST = 32  # pixels, which five poolings reduce to one


class VGGNet(nn.Module):
    """Five stages of 3x3 convolutions with a 2x2 max-pooling between them and after the last, and linear layers.

    The first convolution is the stem; the last pooling belongs to the head.

    Args:
        depth: layers with weights, 11, 13, 16 or 19; the paper's configurations A, B, D and E.
        num_classes: K.
        in_channels: C.
        width: factor of all channels and hidden units; 1 is the paper's.
        small_images: one linear layer on the average over what is left of the map, for 32 px; else the paper's three
            on 7x7 cells, for 224 px.
        norm: makes the norm after a convolution from its channels; None for none, as in the paper.
        dropout: before the last linear layer; with three of them before the second, too.

    Shape: (B, C, H, W) -> (B, K), for H and W of at least 32.

    Raises:
        ValueError: for another depth, or smaller images.
    """

    def __init__(
        self,
        depth: int = 16,
        num_classes: int = 10,
        in_channels: int = 3,
        width: float = 1.0,
        small_images: bool = True,
        norm: NormCallable | None = nn.BatchNorm2d,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if depth not in CONVOLUTIONS:
            raise ValueError(f"depth is {depth}: expected one of {', '.join(map(str, CONVOLUTIONS))}")

        def conv(inputs: int, outputs: int) -> list[nn.Module]:
            norms = [] if norm is None else [norm(outputs)]
            bias = all(needs_bias(layer) for layer in norms)
            return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias), *norms, nn.ReLU(inplace=True)]

        def scaled(channels: int) -> int:
            return max(4, round(width * channels))

        inputs = scaled(CHANNELS[0])
        self.stem = nn.Sequential(*conv(in_channels, inputs))
        self.stages = nn.Sequential()
        for i, (channels, convolutions) in enumerate(zip(CHANNELS, CONVOLUTIONS[depth], strict=True)):
            layers: list[nn.Module] = [] if i == 0 else [nn.MaxPool2d(2)]
            for _ in range(convolutions - (i == 0)):  # the stem is one of the first stage's
                layers += conv(inputs, scaled(channels))
                inputs = scaled(channels)
            self.stages.append(nn.Sequential(*layers))
        side, hidden = (1, []) if small_images else (7, [scaled(HIDDEN), scaled(HIDDEN)])
        self.head = nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(side), nn.Flatten())
        inputs *= side**2
        for units in hidden:
            self.head.extend([nn.Linear(inputs, units), nn.ReLU(inplace=True), nn.Dropout(dropout)])
            inputs = units
        self.head.extend([nn.Dropout(dropout)] * small_images)
        self.head.append(nn.Linear(inputs, num_classes))
        self.apply(_initialize)
        self.small_images = small_images

    @property
    def cam_target(self) -> nn.Module:
        return self.stages[2 if self.small_images else 4]  # 8x8 of 32 px; 14x14 of 224 px

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < SMALLEST:
            raise ValueError(
                f"the images are {x.shape[3]} x {x.shape[2]} pixels: expected {SMALLEST} x {SMALLEST} or more, "
                "which five poolings reduce to one; use larger images, or enlarge them"
            )
        return self.head(self.stages(self.stem(x)))


def _initialize(module: nn.Module) -> None:
    """He et al. 2015, "Delving Deep into Rectifiers", for convolutions; the paper's sigma of 0.01 for linear layers."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _without_biases(state: State) -> State:
    """torchvision's weights without the biases before batch norms: the norm's running mean takes them in."""
    state = dict(state)
    for name in [name for name in state if name.endswith("running_mean")]:
        layer, index, _ = name.split(".")
        state[name] = state[name] - state.pop(f"{layer}.{int(index) - 1}.bias")
    return state


class VGG(Classifier):
    """Trains a `VGGNet` of the depth that a subclass says, whose arguments it takes; the others are `Classifier`'s.

    Args:
        weights: of torchvision's vgg11_bn, vgg16_bn and so on, or of vgg16 and so on where `norm` is None, for
            `small_images: false`: a name such as "DEFAULT" or a file, see `zoo.parts.pretrained.load_weights`. The last
            layer starts anew if the number of classes is another.

    Raises:
        ValueError: see `load_weights`.
        FileNotFoundError: if there is no such file.
    """

    @property
    @abstractmethod
    def depth(self) -> int:
        """Layers with weights."""

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        width: float = 1.0,
        small_images: bool = True,
        norm: NormCallable | None = nn.BatchNorm2d,
        dropout: float = 0.5,
        weights: str | None = None,
        **task_options: Any,
    ) -> None:
        net = VGGNet(
            self.depth, num_classes, in_channels, width=width, small_images=small_images, norm=norm, dropout=dropout
        )
        super().__init__(net, num_classes, **task_options)
        renames = [
            *sequence_renames(net, "features", "stem", *(f"stages.{i}" for i in range(5))),
            *((rf"^classifier\.{i}\.", f"head.{i + 3}.") for i in (0, 3, 6)),
        ]
        model, convert = (f"vgg{self.depth}", None) if norm is None else (f"vgg{self.depth}_bn", _without_biases)
        self.load_weights(weights, model, renames, convert)


class VGG11(VGG):
    """Configuration A.

    >>> sum(p.numel() for p in VGG11(num_classes=10).parameters())
    9228362
    """

    depth = 11


class VGG13(VGG):
    """Configuration B."""

    depth = 13


class VGG16(VGG):
    """Configuration D."""

    depth = 16


class VGG19(VGG):
    """Configuration E."""

    depth = 19
