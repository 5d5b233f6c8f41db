"""Normalization is not equalization: what each does to the gray levels of a photograph.

    python -m experiments.studies.normalization_equalization [FOLDER]

writes normalization_equalization.png and normalization_equalization.csv. The original is a photograph with gray levels
from 50 to 180 only. Stretching maps its darkest pixel to 0 and its brightest to 255 by a straight line; normalization,
as nets have it before their first layer, maps mean and standard deviation to 0 and 1, also by a straight line (shown in
the middle of the gray levels, 3 standard deviations to either side). Both keep the shape of the histogram and the
ratios of differences. Equalization maps each level to the share of pixels that are no brighter, so that all levels
become about equally frequent: differences in common gray levels grow, those in rare ones shrink, and levels fall
together, which nothing can undo. The table has, on the scale 0..255, least, most, mean and standard deviation; the
number of levels and their entropy; the correlation with the original (1: a straight line); and the distance of the
histogram from an even one, as the largest difference of the two cumulative shares.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from torch import Tensor

from callbacks.figures.style import BLUE, GRAY, ORANGE
from experiments.studies import Row, panels, publish, run

LOW, HIGH = 50, 180


def original() -> Tensor:
    """(H, W) uint8, with levels LOW to HIGH."""
    rgb = torch.tensor(np.array(load_sample_image("flower.jpg")[:400, :600]), dtype=torch.float32)
    gray = rgb @ torch.tensor([0.299, 0.587, 0.114])
    gray = (gray - gray.min()) / (gray.max() - gray.min())
    return (LOW + (HIGH - LOW) * gray).round().to(torch.uint8)


def stretch(image: Tensor) -> Tensor:
    """(H, W) uint8 -> uint8: a straight line that maps the least level to 0 and the most to 255."""
    x = image.float()
    return ((x - x.min()) * 255 / (x.max() - x.min())).round().to(torch.uint8)


def normalize(image: Tensor) -> Tensor:
    """(H, W) -> float32 with mean 0 and standard deviation 1."""
    x = image.float()
    return (x - x.mean()) / x.std(correction=0)


def equalize(image: Tensor) -> Tensor:
    """(H, W) uint8 -> uint8: each level becomes the share of pixels that are no brighter, the least level 0."""
    cumulative = torch.bincount(image.flatten().long(), minlength=256).cumsum(0)
    first = cumulative[cumulative > 0][0]
    levels = (cumulative - first).clamp_min(0) * 255 / (image.numel() - first)
    return levels.round().to(torch.uint8)[image.long()]


def versions() -> dict[str, Tensor]:
    """Name -> (H, W), of gray levels 0..255."""
    image = original()
    middle = 127.5 + normalize(image) * 127.5 / 3
    return {
        "original": image.float(),
        "stretched": stretch(image).float(),
        "normalized": middle,
        "equalized": equalize(image).float(),
    }


def row(name: str, image: Tensor) -> Row:
    """A line of the table."""
    values, counts = image.unique(return_counts=True)
    shares = counts.double() / image.numel()
    pair = torch.stack([image.flatten(), original().float().flatten()]).double()
    even = (values.double() + 0.5) / 256
    return {
        "image": name,
        "least": image.min().item(),
        "most": image.max().item(),
        "mean": image.mean().item(),
        "std": image.std(correction=0).item(),
        "levels": len(values),
        "entropy, bits": -(shares * shares.log2()).sum().item(),
        "correlation": torch.corrcoef(pair)[0, 1].item(),
        "from even": (shares.cumsum(0) - even).abs().max().item(),
    }


def draw() -> Figure:
    figure, places = panels("Gray levels of a photograph", 2, 4, (15, 6.2), versions())
    for above, below, image in zip(places[:4], places[4:], versions().values(), strict=True):
        above.imshow(image, cmap="gray", vmin=0, vmax=255)
        above.set(xticks=[], yticks=[])
        above.spines[:].set_visible(False)
        below.hist(image.flatten().numpy(), bins=64, range=(0, 256), density=True, color=BLUE)
        below.set(xlim=(0, 256), ylim=(0, 0.03), xlabel="gray level", yticks=[], xticks=(0, 64, 128, 192, 255))
        share = below.twinx()
        share.plot(
            image.flatten().sort().values[:: image.numel() // 500],
            torch.linspace(0, 1, 501)[: 500 + (image.numel() % 500 > 0)],
            color=ORANGE,
        )
        share.set(ylim=(0, 1.02), yticks=(0, 0.5, 1))
        share.spines[["top", "left"]].set_visible(False)
        share.tick_params(labelsize=9, colors=ORANGE)
    places[4].set_ylabel("frequency (line: cumulative share)", color=GRAY)
    return figure


def main(folder: Path) -> None:
    publish(folder, "normalization_equalization", draw(), [row(name, image) for name, image in versions().items()])


if __name__ == "__main__":
    run(main, __doc__)
