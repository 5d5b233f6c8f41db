"""How often a convolution reads each pixel, and a transposed convolution writes it: the checkerboard.

    python -m experiments.studies.stride_coverage [FOLDER]

writes stride_coverage.png and stride_coverage.csv. With stride 1 a 3x3 kernel reads each inner pixel nine times. With
stride 2 it reads some four times, others two or one, in a pattern that repeats; only a kernel whose size is a multiple
of the stride reads all alike. A transposed convolution writes where the convolution reads, so that its output has the
same pattern, whatever is in the image (Odena et al. 2016, "Deconvolution and Checkerboard Artifacts"). Where all pixels
are written alike, different weights write them, so a weaker pattern is left; only enlarging first and convolving then
has none. The table has the least and the most that an inner pixel is read or written, and the checkerboard of the
output of random layers on an image of one color: the part of the variance of inner pixels that lies between the places
of the pattern, as a ratio to the squared mean, for positive weights (0: the output is as even as the input).
"""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from callbacks.figures.style import GRAY
from experiments.studies import Row, panels, publish, run

SIZE = 9  # of the maps that are drawn


class Case(NamedTuple):
    name: str
    kernel: int
    stride: int
    transposed: bool


CASES = [
    Case("convolution 3x3", 3, 1, False),
    Case("convolution 3x3, stride 2", 3, 2, False),
    Case("convolution 4x4, stride 2", 4, 2, False),
    Case("convolution 3x3, stride 3", 3, 3, False),
    Case("transposed 3x3, stride 2", 3, 2, True),
    Case("transposed 4x4, stride 2", 4, 2, True),
    Case("transposed 5x5, stride 3", 5, 3, True),
    Case("transposed 2x2, stride 2", 2, 2, True),
]


def reads(size: int, kernel: int, stride: int) -> Tensor:
    """(size, size): how often each pixel is under the kernel: the gradient of the sum of the outputs, all weights 1."""
    image = torch.zeros(1, 1, size, size, requires_grad=True)
    F.conv2d(image, torch.ones(1, 1, kernel, kernel), stride=stride).sum().backward()
    assert image.grad is not None
    return image.grad[0, 0]


def writes(size: int, kernel: int, stride: int) -> Tensor:
    """(M, M): how often each pixel of the output of a (size, size) map is written."""
    return F.conv_transpose2d(torch.ones(1, 1, size, size), torch.ones(1, 1, kernel, kernel), stride=stride)[0, 0]


def counts(case: Case, size: int) -> Tensor:
    """Of a map of about `size` pixels; of a transposed convolution, that of its output."""
    if not case.transposed:
        return reads(size, case.kernel, case.stride)
    return writes((size - case.kernel) // case.stride + 1, case.kernel, case.stride)


def inner(values: Tensor, border: int = 12) -> Tensor:
    return values[..., border:-border, border:-border]


def checkerboard(layer: nn.Module, period: int, draws: int = 20) -> float:
    """Variance between the places of a pattern of `period` pixels, relative to the squared mean; weights in 0..1."""
    ratios = []
    for seed in range(draws):
        torch.manual_seed(seed)
        for parameter in layer.parameters():
            nn.init.uniform_(parameter)
        with torch.no_grad():
            output = inner(layer(torch.ones(1, 1, 32, 32)))[0, 0]
        cut = output[: len(output) // 6 * 6, : len(output) // 6 * 6]
        places = F.unfold(cut[None, None], period, stride=period)[0].mean(1)  # one a place of the pattern
        ratios.append((places.var(correction=0) / places.mean() ** 2).item())
    return sum(ratios) / draws


def table() -> list[Row]:
    rows: list[Row] = []
    for case in CASES:
        inside = inner(counts(case, 60))
        kind = nn.ConvTranspose2d if case.transposed else nn.Conv2d
        layer = kind(1, 1, case.kernel, case.stride, bias=False)
        row: Row = {"layer": case.name, "least": int(inside.min()), "most": int(inside.max())}
        rows.append(row | Row({"checkerboard": checkerboard(layer, case.stride) if case.transposed else None}))
    nearest = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 3, bias=False))
    shuffle = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.PixelShuffle(2))
    for name, layers in {"enlarged, then 3x3": nearest, "3x3 and pixel shuffle": shuffle}.items():
        rows.append({"layer": name, "least": None, "most": None, "checkerboard": checkerboard(layers, 2)})
    return rows


def draw() -> Figure:
    title = "How often each pixel is read (above) or written (below)"
    figure, places = panels(title, 2, 4, (12, 6.6), [case.name for case in CASES])
    for axes, case in zip(places, CASES, strict=True):
        number = counts(case, SIZE).int()
        axes.imshow(number, cmap="Blues", vmin=0, vmax=12)
        for (y, x), n in {(y, x): int(n) for y, line in enumerate(number) for x, n in enumerate(line)}.items():
            axes.text(x, y, str(n), ha="center", va="center", size=8.5, color="white" if n > 6 else GRAY)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure


def main(folder: Path) -> None:
    publish(folder, "stride_coverage", draw(), table())


if __name__ == "__main__":
    run(main, __doc__)
