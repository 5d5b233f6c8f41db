"""What a trained net looks for: its first filters, and images that its channels and classes answer to most.

    python -m experiments.studies.kernels_and_maximization [FOLDER]

writes kernels_and_maximization.png and kernels_and_maximization.csv. A net of two convolutions and a linear layer
learns scikit-learn's digits at 16x16 pixels, with noise on them, which keeps it from relying on single pixels. In the
figure: the sixteen 5x5 filters of its first layer, some of which are edges and lines; images that excite channels of
both layers, up to ten of each, those that answer most; and images that maximize the logit of each class (see
zoo.analysis.activation_maximization). Channels answer to stripes of a width and direction; some of the first layer
answer to brightness alone, whose images would be white all over, and these are left out. The image of a class has
strokes where that digit has them, and more of them. The table has, for each class, logit and probability of plain gray
and of the image that was found, and the highest logit among the test images of that class, which the found one is far
beyond.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from callbacks.figures.style import GRAY, add_axes, heading
from callbacks.galleries.kernels import signed
from datamodules.images.digits import Digits
from experiments.studies import Row, digits, publish, run
from zoo.analysis.activation_maximization import Maximized, maximize

SIDE, EPOCHS, BATCH = 16, 20, 64
NOISE = 0.7  # standard deviation, in those of the images
SHOWN = 10  # channels of each layer
FLAT = 0.05  # standard deviation of an image without a pattern


def enlarged(split: str) -> tuple[Tensor, Tensor]:
    """The digits at 16x16 pixels, normalized, and their labels."""
    x, label = digits(split)
    return F.interpolate(x, SIDE, mode="bilinear", align_corners=False), label


def normalize(image: Tensor) -> Tensor:
    return (image - Digits.mean[0]) / Digits.std[0]


def trained(epochs: int = EPOCHS) -> nn.Sequential:
    """Noise on the training images keeps the net from relying on single pixels: filters and images become smoother."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 16, 10),
    )  # fmt: skip
    x, label = enlarged("train")
    steps = len(x) // BATCH
    optimizer = torch.optim.AdamW(net.parameters(), 5e-3, weight_decay=0.5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=epochs * steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(BATCH)[:steps]:
            image = x[batch].roll(torch.randint(-1, 2, (2,)).tolist(), (2, 3))
            loss = F.cross_entropy(net(image + NOISE * torch.randn_like(image)), label[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def found_for_classes(net: nn.Sequential, steps: int) -> Maximized:
    return maximize(net, None, range(10), (1, SIDE, SIDE), normalize, steps=steps, variation=4.0)


def found_for_channels(net: nn.Sequential, layer: str, channels: int, steps: int) -> Maximized:
    """Images for the channels of a layer that answer most, other than to brightness, in the order of the channels."""
    found = maximize(net, layer, range(channels), (1, SIDE, SIDE), normalize, steps=steps, variation=0.3)
    answer = found.after.where(found.images.flatten(1).std(1) > FLAT, -torch.inf)
    most = answer.topk(min(SHOWN, int(answer.isfinite().sum()))).indices.sort().values
    return Maximized(*(values[most] for values in found))


@torch.no_grad()
def table(net: nn.Sequential, found: Maximized) -> list[Row]:
    gray = torch.full((1, 1, SIDE, SIDE), 0.5)
    before, after = net(normalize(gray))[0], net(normalize(found.images))
    x, label = enlarged("test")
    logits, rows = net(x), []
    for digit in range(10):
        rows.append(
            Row(
                {
                    "class": digit,
                    "logit, gray": before[digit].item(),
                    "logit, found": after[digit, digit].item(),
                    "probability, gray": before.softmax(0)[digit].item(),
                    "probability, found": after[digit].softmax(0)[digit].item(),
                    "highest logit of a digit": logits[label == digit, digit].max().item(),
                }
            )
        )
    return rows


def draw(net: nn.Sequential, rows: dict[str, Maximized]) -> Figure:
    cell, gap, left, head = 0.82, 0.07, 1.85, 0.75
    kernels = net[0].get_parameter("weight").detach()[:, 0]
    width, height = left + 10 * (cell + gap) + 0.1, head + (len(rows) + 1) * (cell + gap + 0.06) + 0.3
    figure = Figure((width, height), facecolor="white")
    heading(
        figure,
        "What a net that reads digits looks for",
        "Filters: red positive, blue negative; below, images by gradient ascent",
    )

    def cells(row: int, count: int, name: str) -> list[Any]:
        side = min(cell, (10 * (cell + gap) - count * gap) / count)
        y = height - head - row * (cell + gap + 0.06) - cell
        figure.text((left - 0.15) / width, (y + cell / 2) / height, name, size=10, ha="right", va="center")
        places = [add_axes(figure, left + i * (side + gap), y + (cell - side) / 2, side, side) for i in range(count)]
        for axes in places:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color(GRAY)
        return places

    for axes, kernel in zip(cells(0, len(kernels), "filters of the\nfirst layer"), kernels, strict=True):
        axes.imshow(signed(kernel.numpy()), interpolation="nearest")
    for row, (name, found) in enumerate(rows.items(), 1):
        for i, axes in enumerate(cells(row, len(found.images), name)):
            axes.imshow(found.images[i, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            if name.startswith("class"):
                axes.set_xlabel(str(i), size=10, labelpad=2)
    return figure


def main(folder: Path, epochs: int = EPOCHS, steps: int = 150) -> None:
    net = trained(epochs)
    classes = found_for_classes(net, steps)
    rows = {
        "channels of the\nfirst layer": found_for_channels(net, "2", 16, steps),
        "channels of the\nsecond layer": found_for_channels(net, "6", 32, steps),
        "classes": classes,
    }
    publish(folder, "kernels_and_maximization", draw(net, rows), table(net, classes))


if __name__ == "__main__":
    run(main, __doc__)
