"""Fully connected against convolution: what is lost when an image is unrolled, and what position encodings give back.

    python -m experiments.studies.unrolled_digits [FOLDER]

writes unrolled_digits.png and unrolled_digits.csv. Six nets of about the same size learn scikit-learn's 8x8 digits,
as they are and with their pixels in another order, the same one for all images, which no person could read.

A fully connected net on the 64 unrolled pixels does not mind: which pixel is beside which is nothing it knows. The
convolution does know, and loses that. A net that is given a pixel at a time, all by the same layers, and averages what
it finds, sees no more than a histogram of gray levels. It reads digits once a pixel comes with its place: as one
number, that of the unrolled pixel; as row and column; or as sines and cosines of these (Vaswani et al. 2017, "Attention
Is All You Need", section 3.5), from which near and far are easier to tell. (With the pixels in another order, the
encoding is that of the new place.)
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from callbacks.figures.style import BLUE, GRAY, ORANGE
from experiments.studies import Row, digits, panels, publish, run

SIDE, HIDDEN, FREQUENCIES = 8, 64, 4
EPOCHS, BATCH, RATE = 12, 64, 1e-2


def no_place() -> Tensor:
    return torch.zeros(SIDE * SIDE, 0)


def one_number() -> Tensor:
    """(64, 1): the number of the pixel, -1 to 1."""
    return torch.linspace(-1, 1, SIDE * SIDE)[:, None]


def row_and_column() -> Tensor:
    """(64, 2), each -1 to 1."""
    line = torch.linspace(-1, 1, SIDE)
    return torch.cartesian_prod(line, line)


def waves() -> Tensor:
    """(64, 4 * FREQUENCIES): sines and cosines of row and column, of wavelengths from 16 pixels down to 2."""
    angle = row_and_column()[:, :, None] * math.pi * (SIDE - 1) / SIDE * 2.0 ** torch.arange(-1, FREQUENCIES - 1)
    return torch.cat([angle.sin(), angle.cos()], -1).flatten(1)


class Pixelwise(nn.Module):
    """The same two layers for each pixel with its place, a mean over pixels, and two layers for the classes.

    Shape: (B, 1, 8, 8) -> (B, 10).
    """

    place: Tensor

    def __init__(self, place: Tensor) -> None:
        super().__init__()
        self.register_buffer("place", place)
        inputs = 1 + place.size(1)
        self.each = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU())
        self.classes = nn.Sequential(
            nn.BatchNorm1d(HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(1)[..., None]
        tokens = torch.cat([pixels, self.place.expand(len(x), -1, -1)], -1)
        return self.classes(self.each(tokens).mean(1))


def fully_connected() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(SIDE * SIDE, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, 10),
    )


def convolution() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 48, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip


NETS: dict[str, Callable[[], nn.Module]] = {
    "fully connected, unrolled": fully_connected,
    "convolution": convolution,
    "pixel by pixel, no place": lambda: Pixelwise(no_place()),
    "pixel by pixel, one number": lambda: Pixelwise(one_number()),
    "pixel by pixel, row and column": lambda: Pixelwise(row_and_column()),
    "pixel by pixel, waves": lambda: Pixelwise(waves()),
}


def shuffled(x: Tensor) -> Tensor:
    """Images (N, 1, 8, 8) with their pixels in another order, the same for all."""
    order = torch.randperm(SIDE * SIDE, generator=torch.Generator().manual_seed(1))
    return x.flatten(2)[..., order].view_as(x)


def accuracy(name: str, change: Callable[[Tensor], Tensor], seed: int, epochs: int) -> float:
    """Trains a net, and tests it on the last fifth of the digits; in per cent."""
    torch.manual_seed(seed)
    net, (x, label), (test_x, test_label) = NETS[name](), digits("train"), digits("test")
    x, test_x = change(x), change(test_x)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    steps = epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(BATCH)[: len(x) // BATCH]:
            loss = F.cross_entropy(net(x[batch]), label[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        net.eval()
        return 100 * (net(test_x).argmax(1) == test_label).float().mean().item()


def row(name: str, seeds: int, epochs: int) -> Row:
    as_they_are, in_another_order = (
        sum(accuracy(name, change, seed, epochs) for seed in range(seeds)) / seeds for change in (lambda x: x, shuffled)
    )
    return {
        "net": name,
        "parameters": sum(p.numel() for p in NETS[name]().parameters()),
        "accuracy": round(as_they_are, 2),
        "shuffled": round(in_another_order, 2),
    }


def draw(rows: list[Row]) -> Figure:
    titles = ["test accuracy in %", "a digit as it is", "its pixels in another order"]
    figure, (axes, *examples) = panels(
        "Reading digits with and without knowing where a pixel is", 1, 3, (12, 4), titles
    )
    position = axes.get_subplotspec()
    assert position is not None
    position.get_gridspec().set_width_ratios([2.2, 1, 1])
    for height, line in enumerate(reversed(rows)):
        for column, color, offset in (("accuracy", BLUE, 0.18), ("shuffled", ORANGE, -0.18)):
            value = float(line[column] or 0)
            axes.barh(height + offset, value, 0.34, color=color)
            text: dict[str, Any] = {"size": 8, "color": GRAY, "va": "center"}
            axes.annotate(f"{value:.1f}", (value, height + offset), (3, 0), textcoords="offset points", **text)
    axes.set_yticks(range(len(rows)), [str(line["net"]) for line in reversed(rows)], size=9)
    axes.set_xlim(0, 112)
    image = digits("train")[0][:1]
    for place, picture, color in zip(examples, (image, shuffled(image)), (BLUE, ORANGE), strict=True):
        place.imshow(picture[0, 0], cmap="gray")
        place.set(xticks=[], yticks=[])
        place.spines[:].set(visible=True, color=color, linewidth=4)
    return figure


def main(folder: Path, seeds: int = 1, epochs: int = EPOCHS) -> None:
    rows = [row(name, seeds, epochs) for name in NETS]
    publish(folder, "unrolled_digits", draw(rows), rows)


if __name__ == "__main__":
    run(main, __doc__)
