"""Variance and covariance, each computed by two formulas that are mathematically equal.

    python -m experiments.studies.variance_covariance [FOLDER]

writes variance_covariance.png and variance_covariance.csv. The first formula is the mean of products of deviations,
E[(x - E x)(y - E y)], where y = x for the variance; the second is E[xy] - E[x] E[y], which needs only one pass over the
data (fast.ai's lesson 17 shows both). Left, the first formula: every point forms a rectangle with the point of the
means; blue ones count as positive, orange ones as negative. Right and in the table: the relative error of each formula
when the same points are far from zero. The second one subtracts two large, nearly equal numbers: its error grows as eps
* (mean / std)^2 (dotted), and in float32 it is as large as the variance itself where the mean is a few thousand
standard deviations; in float64 the two formulas agree to eight digits there. Further out the first formula has an error
too, because the mean is rounded, but `torch.var_mean`, which the norms of zoo.parts.norms use, does not.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from callbacks.figures.style import BLUE, GRAY, GREEN, ORANGE, VERMILION
from experiments.studies import Row, panels, publish, run

COUNT, CORRELATION = 10_000, 0.8
RATIOS = [0, *(10 ** (exponent / 2) for exponent in range(0, 13))]


def of_deviations(x: Tensor, y: Tensor) -> Tensor:
    """E[(x - E x)(y - E y)]; (N,), (N,) -> ()."""
    return ((x - x.mean()) * (y - y.mean())).mean()


def of_products(x: Tensor, y: Tensor) -> Tensor:
    """E[xy] - E[x] E[y]; (N,), (N,) -> ()."""
    return (x * y).mean() - x.mean() * y.mean()


def of_torch(x: Tensor, y: Tensor) -> Tensor:
    """torch's own, where the covariance is an entry of a matrix; (N,), (N,) -> ()."""
    return torch.var_mean(x, correction=0)[0] if x is y else torch.cov(torch.stack([x, y]), correction=0)[0, 1]


FORMULAS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], torch.dtype, str]] = {
    "deviations, float32": (of_deviations, torch.float32, BLUE),
    "products, float32": (of_products, torch.float32, VERMILION),
    "torch, float32": (of_torch, torch.float32, GREEN),
    "products, float64": (of_products, torch.float64, ORANGE),
}
LABELS = {  # where their names are in the figure
    "deviations, float32": (6e3, 2e-4),
    "products, float32": (1.2, 2e-3),
    "torch, float32": (1.2e4, 8e-10),
    "products, float64": (4e2, 1e-13),
}


def points(ratio: float, count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Two correlated columns with standard deviation 1 and mean `ratio`, rounded to float32; (N,), (N,) float64."""
    draw = torch.Generator().manual_seed(0)
    x, other = torch.randn(2, count, generator=draw, dtype=torch.float64)
    y = CORRELATION * x + (1 - CORRELATION**2) ** 0.5 * other
    return (x + ratio).float().double(), (y + ratio).float().double()


def row(ratio: float, of: str) -> Row:
    """A line of the table: errors relative to the first formula in float64, on the same numbers."""
    x, y = points(ratio)
    y = x if of == "variance" else y
    right = of_deviations(x, y).item()
    line: Row = {"mean / std": float(f"{ratio:.3g}"), "of": of, "value": right}
    for name, (compute, dtype, _) in FORMULAS.items():
        first = x.to(dtype)
        line[name] = abs(compute(first, first if y is x else y.to(dtype)).item() / right - 1)
    return line


def draw() -> Figure:
    titles = ["Covariance: the mean area of the rectangles", "Error of the variance of points far from zero"]
    figure, (left, right) = panels("Variance and covariance by two formulas", 1, 2, (11, 5), titles)
    x, y = points(0, 150)
    center_x, center_y = x.mean().item(), y.mean().item()
    areas = (x - center_x) * (y - center_y)
    for a, b, area in zip(x.tolist(), y.tolist(), areas.tolist(), strict=True):
        corners = [center_x, a, a, center_x], [center_y, center_y, b, b]
        left.fill(*corners, color=BLUE if area > 0 else ORANGE, alpha=0.035, linewidth=0)
    left.scatter(x, y, s=14, c=[BLUE if area > 0 else ORANGE for area in areas], zorder=3)
    left.axvline(center_x, color=GRAY, linewidth=0.8)
    left.axhline(center_y, color=GRAY, linewidth=0.8)
    left.set(xlabel="x", ylabel="y", aspect="equal")
    left.text(0.03, 0.97, f"covariance {areas.mean():.2f}", transform=left.transAxes, va="top", color=GRAY)

    ratios = RATIOS[1:]
    lines = [row(ratio, "variance") for ratio in ratios]
    for name, (_, _, color) in FORMULAS.items():
        errors = torch.tensor([line[name] for line in lines]).clamp_min(1e-17)
        right.plot(ratios, errors, color=color, marker="o", markersize=4)
        right.text(*LABELS[name], name, color=color)
    right.plot(ratios, [torch.finfo(torch.float32).eps * ratio**2 for ratio in ratios], ":", color=GRAY)
    right.axhline(1, color=GRAY, linewidth=0.8)
    right.text(1, 2, "as wrong as zero", color=GRAY, size=9)
    right.set(
        xscale="log", yscale="log", ylim=(1e-17, 1e6), xlabel="mean / standard deviation", ylabel="relative error"
    )
    return figure


def main(folder: Path) -> None:
    rows = [row(ratio, of) for of in ("variance", "covariance") for ratio in RATIOS]
    publish(folder, "variance_covariance", draw(), rows)


if __name__ == "__main__":
    run(main, __doc__)
