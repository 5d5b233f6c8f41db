"""What 3x3 kernels see in a photograph: edges, lines, spots, or less noise.

    python -m experiments.studies.edge_kernels [FOLDER]

writes edge_kernels.png and edge_kernels.csv. Each kernel is slid over the gray photograph without padding, as a
convolution layer does it (the kernel is not mirrored). Blue is a negative response, red a positive one, of the size of
which the colors show the nearest 98 %; the kernel's nine numbers stand in the corner (those of blur are divided by 16).
The table has the sum of a kernel (0: it does not see a uniform area), its rank (1: it is a column times a row, so two
convolutions of 3 numbers each do the same), and its largest response to drawn patterns of 0 and 1. A line kernel gives
6 to a line of its own direction, and little or nothing to others; an edge kernel answers to steps, and to a line by its
two sides.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from torch import Tensor

from callbacks.figures.style import GRAY
from experiments.studies import Row, panels, publish, run

KERNELS: dict[str, list[list[int]]] = {
    "vertical edge (Sobel)": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "horizontal edge (Sobel)": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "diagonal edge": [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]],
    "vertical line": [[-1, 2, -1], [-1, 2, -1], [-1, 2, -1]],
    "horizontal line": [[-1, -1, -1], [2, 2, 2], [-1, -1, -1]],
    "diagonal line": [[-1, -1, 2], [-1, 2, -1], [2, -1, -1]],
    "spot (Laplacian)": [[0, -1, 0], [-1, 4, -1], [0, -1, 0]],
    "blur": [[1, 2, 1], [2, 4, 2], [1, 2, 1]],
    "sharper": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
}


def photograph() -> Tensor:
    """(H, W) in 0..1: a temple; the gray of ITU-R BT.601."""
    rgb = torch.tensor(np.array(load_sample_image("china.jpg")[:360:2, 90:570:2]), dtype=torch.float32) / 255
    return rgb @ torch.tensor([0.299, 0.587, 0.114])


def weights(kernel: list[list[int]]) -> Tensor:
    """(3, 3), divided by its sum where that is more than 1, so that the image keeps its brightness."""
    numbers = torch.tensor(kernel, dtype=torch.float32)
    return numbers / numbers.sum().clamp_min(1)


def respond(kernel: list[list[int]], image: Tensor) -> Tensor:
    """The responses of a kernel at all places where it fits; (H, W) -> (H - 2, W - 2)."""
    return F.conv2d(image[None, None], weights(kernel)[None, None])[0, 0]


def patterns(size: int = 9) -> dict[str, Tensor]:
    """Drawn images (size, size) of 0 and 1."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    middle = size // 2
    drawn = {
        "uniform": x >= 0,
        "vertical edge": x > middle,
        "horizontal edge": y > middle,
        "diagonal edge": x - y > 0,
        "vertical line": x == middle,
        "horizontal line": y == middle,
        "diagonal line": x + y == size - 1,
        "spot": (x == middle) & (y == middle),
    }
    return {name: image.float() for name, image in drawn.items()}


def row(name: str, kernel: list[list[int]]) -> Row:
    """A line of the table."""
    numbers = weights(kernel)
    line: Row = {"kernel": name, "sum": numbers.sum().item(), "rank": int(torch.linalg.matrix_rank(numbers))}
    for pattern, image in patterns().items():
        responses = respond(kernel, image)
        line[pattern] = responses.flatten()[responses.abs().argmax()].item()
    return line


def draw() -> Figure:
    image = photograph()
    figure, places = panels("Responses of nine 3x3 kernels to a photograph", 2, 5, (15, 5.3), ["photograph", *KERNELS])
    places[0].imshow(image, cmap="gray", vmin=0, vmax=1)
    for axes, (name, kernel) in zip(places[1:], KERNELS.items(), strict=True):
        response = respond(kernel, image)
        if name in ("blur", "sharper"):  # still photographs
            axes.imshow(response, cmap="gray", vmin=0, vmax=1)
        else:
            limit = response.abs().flatten().kthvalue(int(0.98 * response.numel())).values.item()
            axes.imshow(response, cmap="RdBu_r", vmin=-limit, vmax=limit)
    for axes, numbers in zip(places, [None, *KERNELS.values()], strict=True):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if numbers is not None:
            lines = (" ".join(f"{number:2}" for number in line) for line in numbers)
            box = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1}
            style: dict[str, Any] = {
                "family": "monospace",
                "size": 9,
                "color": GRAY,
                "ha": "right",
                "va": "top",
                "bbox": box,
            }
            axes.text(0.99, 0.98, "\n".join(lines), transform=axes.transAxes, **style)
    return figure


def main(folder: Path) -> None:
    publish(folder, "edge_kernels", draw(), [row(name, kernel) for name, kernel in KERNELS.items()])


if __name__ == "__main__":
    run(main, __doc__)
