"""A convolution by hand, and the same as one matrix product, in two ways.

    python -m experiments.studies.convolution_as_matrix [FOLDER]

writes convolution_as_matrix.png and convolution_as_matrix.csv. "Loops" multiplies and adds number by number. "Windows"
copies the pixels under the kernel, for every place, into a column of a matrix (torch's `unfold`, "im2col"), and
multiplies that by the kernels as rows. "One large matrix" keeps the image as it is, as a vector, and writes the kernel
into a matrix with a row for every place (left): most of its numbers are zero. Its transpose, multiplied by a small map,
gives a large one: that is a transposed convolution (middle), and also what a gradient takes on its way back. The table
has, for one channel and a 3x3 kernel, the numbers that are stored, the multiplications, the time and the largest
difference from `F.conv2d`. A convolution layer is a linear layer whose matrix has few numbers and uses them everywhere.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from callbacks.figures.style import BLUE, COLORS, GREEN, ORANGE, VERMILION
from experiments.studies import Row, panels, publish, run

SIZES, KERNEL = (4, 8, 16, 32, 64), 3


def loops(image: Tensor, kernel: Tensor) -> Tensor:
    """(H, W) and (K, K) -> (H - K + 1, W - K + 1)"""
    pixels, weights, k = image.tolist(), kernel.tolist(), len(kernel)
    rows, columns = (n - k + 1 for n in image.shape)
    sums = [[0.0] * columns for _ in range(rows)]
    for top in range(rows):
        for left in range(columns):
            for i in range(k):
                for j in range(k):
                    sums[top][left] += weights[i][j] * pixels[top + i][left + j]
    return torch.tensor(sums)


def windows(image: Tensor, kernel: Tensor) -> Tensor:
    """The kernel as a row times the windows as columns; the same shapes."""
    k = len(kernel)
    columns = F.unfold(image[None, None], k)[0]  # (K * K, places)
    return (kernel.flatten() @ columns).unflatten(0, (image.size(0) - k + 1, -1))


def matrix_of(kernel: Tensor, height: int, width: int) -> Tensor:
    """(places, H * W): each row has the kernel where it lies at one place."""
    k = len(kernel)
    matrix = torch.zeros(height - k + 1, width - k + 1, height, width)
    for top in range(height - k + 1):
        for left in range(width - k + 1):
            matrix[top, left, top : top + k, left : left + k] = kernel
    return matrix.flatten(2).flatten(0, 1)


def large(image: Tensor, kernel: Tensor) -> Tensor:
    """One matrix times the image as a vector; the same shapes."""
    rows = image.size(0) - len(kernel) + 1
    return (matrix_of(kernel, *image.shape) @ image.flatten()).unflatten(0, (rows, -1))


def of_torch(image: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(image[None, None], kernel[None, None])[0, 0]


METHODS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "loops": (loops, VERMILION),
    "windows": (windows, BLUE),
    "one large matrix": (large, ORANGE),
    "torch": (of_torch, GREEN),
}


def milliseconds(compute: Callable[[], object], repeats: int) -> float:
    """Median of the times."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        compute()
        times.append(1e3 * (time.process_time() - began))
    return statistics.median(times)


def row(method: str, size: int, repeats: int) -> Row:
    """A line of the table."""
    draw = torch.Generator().manual_seed(0)
    image, kernel = torch.randn(size, size, generator=draw), torch.randn(KERNEL, KERNEL, generator=draw)
    compute, places = METHODS[method][0], (size - KERNEL + 1) ** 2
    matrix = matrix_of(kernel, size, size)
    timed = (lambda: matrix @ image.flatten()) if compute is large else (lambda: compute(image, kernel))
    stored = {"windows": places * KERNEL**2, "one large matrix": matrix.numel()}.get(method, 0)
    return {
        "method": method,
        "size": size,
        "numbers stored": stored + image.numel() + kernel.numel(),
        "multiplications": matrix.numel() if compute is large else places * KERNEL**2,
        "ms": milliseconds(timed, repeats),
        "largest difference": (compute(image, kernel) - of_torch(image, kernel)).abs().max().item(),
    }


def draw(rows: list[Row]) -> Figure:
    titles = ["3x3 on 4x4 as a matrix of 4x16", "Its transpose makes 4x4 of 2x2", "Time for an image"]
    figure, (left, middle, right) = panels("A convolution is a matrix product", 1, 3, (15, 4.8), titles)
    numbered = matrix_of(torch.arange(1.0, 10).view(3, 3), 4, 4)  # 0 where there is no weight
    colors = ListedColormap(["#ffffff", *COLORS, "#cccccc", "#a6761d"])
    for axes, numbers in ((left, numbered), (middle, numbered.T)):
        axes.imshow(numbers, cmap=colors, vmin=-0.5, vmax=9.5, aspect="auto")
        axes.set(xticks=range(numbers.size(1)), yticks=range(numbers.size(0)))
        for (i, j), number in {(i, j): int(n) for i, line in enumerate(numbers) for j, n in enumerate(line)}.items():
            if number:
                axes.text(j, i, f"$w_{number}$", ha="center", va="center", size=10)
    left.set(xlabel="pixel of the image, row by row", ylabel="place of the kernel")
    middle.set(xlabel="pixel of the small map", ylabel="pixel of the large map")
    for method, (_, color) in METHODS.items():
        lines = [line for line in rows if line["method"] == method]
        times = [float(line["ms"] or 0) for line in lines]
        right.loglog([int(line["size"] or 0) for line in lines], times, "o-", color=color, label=method)
    right.set_xscale("log", base=2)
    right.set_xticks(SIZES, [str(size) for size in SIZES])
    right.set(xlabel="height and width", ylabel="ms of processor time")
    right.legend(frameon=False)
    return figure


def main(folder: Path, repeats: int = 9) -> None:
    rows = [row(method, size, repeats) for method in METHODS for size in SIZES]
    publish(folder, "convolution_as_matrix", draw(rows), rows)


if __name__ == "__main__":
    run(main, __doc__)
