"""A plain net in ten versions: how the Extensive Vision AI course, session 4, designs a net for MNIST step by step. It
is for learning what each decision about a net is worth, from the accuracy and the gap between training and validation.

B batch, C channels, H height, W width, K classes.

Blocks of 3x3 convolutions stand between max-poolings. What the ten steps change are arguments; the recipes `mnist/
drill-01` to `drill-10` name them, with the target of each step and what it shows:

    step  blocks                            transition  norm  dropout  head     parameters
    1     32 64 | 128 256 | 512 1024                                   kernel    6 379 786
    2     32 64 128 | 64 128                32                         kernel      194 884
    3     10 10 20 | 10 20                  10                         kernel       10 790
    4     "                                 10          BN             kernel       10 970
    5     "                                 10          BN    once     kernel       10 970
    6     "                                 10          BN    once     average       6 050
    7     10 10 20 | 10 20 32               10          BN    once     average      11 994
    8     16 32 | 16 16 16 16               10          BN    each     average      13 828
    9, 10 "                                 10          BN    each     average      13 828

The counts are those of the course but for two: in step 6 the course has a norm between the last convolution and the
average (6 070), and in step 8 none in the transition (13 808).
"""

from typing import Any, Literal

from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.parts.convs import conv_norm_act
from zoo.parts.convs import transition as transition_block
from zoo.parts.norms import NormCallable

MIN_MAP = 5  # pixels along a side: a smaller class activation map says nothing about where


class DrillNet(nn.Module):
    """Blocks of 3x3 convolutions with max-pooling between them, then one output for each class.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H and W, which the kernel of the head depends on.
        blocks: channels after each 3x3 convolution, block by block.
        padding: of the convolutions of each block; 0 makes maps 2 pixels smaller with each convolution.
        transition: channels of the 1x1 convolution after each max-pooling; 0 for none.
        norm: makes the norm of each convolution from its channels; None for none.
        bias: whether convolutions have a bias.
        dropout: share of the numbers that are dropped in training.
        dropout_after: "once", before the first max-pooling, or after "each" convolution.
        head: "kernel", a convolution whose kernel is as large as the maps, after a 1x1 convolution to K channels where
            there is a transition; or "average", global average pooling and a linear layer. (That a 1x1 convolution
            stands before the average, as in the course's steps 6 and 7, or after it, as in step 8, makes no
            difference: both are linear.)

    Shape: (B, C, H, W) -> (B, K).

    Raises:
        ValueError: if there isn't a padding for each block, or nothing is left of the images.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        blocks: tuple[tuple[int, ...], ...] = ((16, 32), (16, 16, 16, 16)),
        padding: tuple[int, ...] = (0, 0),
        transition: int = 10,
        norm: NormCallable | None = nn.BatchNorm2d,
        bias: bool = False,
        dropout: float = 0.0,
        dropout_after: Literal["once", "each"] = "each",
        head: Literal["kernel", "average"] = "average",
    ) -> None:
        super().__init__()
        if len(padding) != len(blocks):
            raise ValueError(f"padding has {len(padding)} values, and there are {len(blocks)} blocks: expected as many")
        options: dict[str, Any] = {"norm": norm, "bias": bias}
        layers: list[Any] = []
        sizes: list[int] = []  # of the maps after each layer
        width, size = in_channels, image_size
        for i, (block, pad) in enumerate(zip(blocks, padding, strict=True)):
            if i:
                layers.append(between_blocks(width, transition, **options))
                width, size = transition or width, size // 2
                sizes.append(size)
            for j, channels in enumerate(block, 1):
                dropped = dropout_after == "each" or (i == 0 and j == len(block))
                layers.append(conv_norm_act(width, channels, padding=pad, **options))
                if dropout and dropped:
                    layers[-1].append(nn.Dropout(dropout))
                width, size = channels, size + 2 * pad - 2
                sizes.append(size)
        if min(sizes) < 1:
            raise ValueError(
                f"image_size is {image_size}, of which {len(layers)} layers leave nothing: expected larger images, "
                "fewer convolutions, or a padding of 1"
            )
        self.stem, self.stages, self._sizes = layers[0], nn.Sequential(*layers[1:]), sizes[1:]
        self.head = nn.Sequential()
        if head == "kernel":
            if transition:
                self.head.append(conv_norm_act(width, num_classes, 1, **options))
                width = num_classes
            self.head.extend([nn.Conv2d(width, num_classes, size, bias=bias), nn.Flatten()])
        else:
            self.head.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes, bias=bias)])

    @property
    def cam_target(self) -> nn.Module:
        """The last of the stages whose maps are large enough to look at."""
        large = [stage for stage, size in zip(self.stages, self._sizes, strict=True) if size >= MIN_MAP]
        return large[-1] if large else self.stages[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


def between_blocks(in_channels: int, squeezed: int, **options: Any) -> nn.Module:
    """2x2 max-pooling, with a 1x1 convolution to `squeezed` channels unless that is 0."""
    return transition_block(in_channels, squeezed, **options) if squeezed else nn.MaxPool2d(2)


class Drill(Classifier):
    """Trains a `DrillNet`, whose arguments it takes; the others are `Classifier`'s.

    >>> sum(p.numel() for p in Drill().parameters())
    13828
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        blocks: tuple[tuple[int, ...], ...] = ((16, 32), (16, 16, 16, 16)),
        padding: tuple[int, ...] = (0, 0),
        transition: int = 10,
        norm: NormCallable | None = nn.BatchNorm2d,
        bias: bool = False,
        dropout: float = 0.0,
        dropout_after: Literal["once", "each"] = "each",
        head: Literal["kernel", "average"] = "average",
        **task_options: Any,
    ) -> None:
        net = DrillNet(
            num_classes, in_channels, image_size=image_size, blocks=blocks, padding=padding, transition=transition,
            norm=norm, bias=bias, dropout=dropout, dropout_after=dropout_after, head=head,
        )  # fmt: skip
        super().__init__(net, num_classes, **task_options)

    def setup(self, stage: str) -> None:
        """Compares the size of the images with that of the net."""
        super().setup(stage)
        shape, size = (
            getattr(getattr(self.trainer, "datamodule", None), "image_shape", None),
            self.hparams["image_size"],
        )
        if self.hparams["head"] == "kernel" and shape is not None and tuple(shape[1:]) != (size, size):
            raise ValueError(
                f"image_size is {size}, but the images are {shape[1]}x{shape[2]} pixels: expected the same, as "
                f"the kernel of the head is made for that; set image_size to {shape[1]}"
            )
