"""Which pooling makes features bear a shift, a rotation, a change of scale.

    python -m experiments.studies.pooling_invariance [FOLDER]

writes pooling_invariance.png and pooling_invariance.csv. A photograph is moved, turned or enlarged a little; eight edge
and line kernels with ReLU find features in both; these are made four times smaller, by taking every fourth pixel, by
2x2 max-pooling twice, by 2x2 average-pooling twice, or not at all. Shown and in the table: the correlation of the
features of the changed photograph with those of the original (1: they are the same), over all places and kernels.
Pooling keeps them alike for a pixel or two, a few degrees, a few percent: not invariance, but some tolerance. Picking
every fourth pixel has none: it is the maximum or the average that helps, not the smaller size, and for the larger
changes the maximum helps more. A shift by four pixels, the stride, moves the pooled features by exactly one pixel,
which no pooling hides: convolution and pooling are equivariant to that, not invariant (Zhang 2019, "Making
Convolutional Networks Shift-Invariant Again", section 3.1).
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from callbacks.figures.style import BLUE, GRAY, ORANGE, VERMILION
from experiments.studies import Row, panels, publish, run
from experiments.studies.edge_kernels import KERNELS, photograph, weights

SIDE = 128  # of the part of the photograph that is looked at
POOLINGS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "none": (lambda x: x, GRAY),
    "every fourth pixel": (lambda x: x[..., ::4, ::4], VERMILION),
    "2x2 maximum, twice": (lambda x: F.max_pool2d(F.max_pool2d(x, 2), 2), BLUE),
    "2x2 average, twice": (lambda x: F.avg_pool2d(F.avg_pool2d(x, 2), 2), ORANGE),
}
CHANGES: dict[str, tuple[str, tuple[float, ...]]] = {  # unit and amounts
    "shift": ("pixels", (0, 1, 2, 3, 4, 6, 8)),
    "rotation": ("degrees", (0, 1, 2, 3, 5, 8, 12, 20)),
    "scale": ("percent larger", (0, 1, 2, 4, 8, 15, 25)),
}


def changed(image: Tensor, change: str, amount: float) -> Tensor:
    """The middle (SIDE, SIDE) of an image (H, W) that was moved to the right, turned or enlarged about its middle."""
    angle = math.radians(amount) if change == "rotation" else 0.0
    zoom = 1 + amount / 100 if change == "scale" else 1.0
    shift = amount if change == "shift" else 0.0
    height, width = image.shape
    steps = torch.arange(SIDE) - (SIDE - 1) / 2  # pixels from the middle
    y, x = torch.meshgrid(steps, steps - shift, indexing="ij")
    x, y = (math.cos(angle) * x - math.sin(angle) * y) / zoom, (math.sin(angle) * x + math.cos(angle) * y) / zoom
    places = torch.stack([2 * x / width, 2 * y / height], -1)
    return F.grid_sample(image[None, None], places[None], mode="bicubic", align_corners=False)[0, 0]


def features(image: Tensor) -> Tensor:
    """(H, W) -> (8, H - 2, W - 2): what the edge and line kernels find, of either sign, cut to a multiple of four."""
    kernels = torch.stack([weights(kernel) for name, kernel in KERNELS.items() if name not in ("blur", "sharper")])
    return F.relu(F.conv2d(image[None, None], kernels[:, None]))[0]


def likeness(pooling: str, change: str, amount: float) -> float:
    """The correlation of the pooled features of the changed photograph with those of the original."""
    pool, image = POOLINGS[pooling][0], photograph()
    pair = [pool(features(x)[:, :-2, :-2]).flatten() for x in (changed(image, change, a) for a in (0.0, amount))]
    return torch.corrcoef(torch.stack(pair))[0, 1].item()


def draw(rows: list[Row]) -> Figure:
    titles = [f"{change}, {unit}" for change, (unit, _) in CHANGES.items()]
    figure, places = panels("Correlation of features with those of the original", 1, 3, (14, 4.6), titles)
    for axes, change in zip(places, CHANGES, strict=True):
        lines = [row for row in rows if row["change"] == change]
        for pooling, (_, color) in POOLINGS.items():
            values = [float(line[pooling] or 0) for line in lines]
            axes.plot(
                [float(line["amount"] or 0) for line in lines], values, "o-", color=color, markersize=4, label=pooling
            )
        axes.set(ylim=(-0.05, 1.02))
    places[0].set_ylabel("correlation")
    places[1].legend(frameon=False)
    return figure


def main(folder: Path) -> None:
    rows: list[Row] = []
    for change, (unit, amounts) in CHANGES.items():
        for amount in amounts:
            row: Row = {"change": change, "unit": unit, "amount": amount}
            rows.append(row | {pooling: likeness(pooling, change, amount) for pooling in POOLINGS})
    publish(folder, "pooling_invariance", draw(rows), rows)


if __name__ == "__main__":
    run(main, __doc__)
