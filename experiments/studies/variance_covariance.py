"""Variance and covariance, each computed in two ways that are equal on paper.

    python -m experiments.studies.variance_covariance [FOLDER]

writes variance_covariance.png and variance_covariance.csv. Both are means of products, E[(x - E x)(y - E y)], the
variance with y = x; and both are E[xy] - E[x] E[y], which needs no second look at the data (fast.ai's lesson 17 shows
both ways). Left, the first way: every point spans a rectangle with the point of the means, blue ones count as positive,
orange ones as negative. Right and in the table: the relative error of each way when the same points lie far from zero.
In the second way two large, nearly equal numbers are subtracted: the error grows as eps * (mean / std)^2 (dotted), and
in float32 it is as large as the variance where the mean is a few thousand standard deviations; in float64 the two ways
agree to eight digits there. Far out the first way errs too, because the mean is rounded, but `torch.var_mean`, which
the norms of zoo.parts.norms take, does not.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from callbacks.figures.style import BLUE, GREEN, GREY, ORANGE, VERMILION
from experiments.studies import panels, publish, run

COUNT, CORRELATION = 10_000, 0.8
RATIOS = [0, *(10 ** (exponent / 2) for exponent in range(0, 13))]


def of_deviations(x: Tensor, y: Tensor) -> Tensor:
    """E[(x - E x)(y - E y)]; (N,), (N,) -> ()."""
    return ((x - x.mean()) * (y - y.mean())).mean()


def of_products(x: Tensor, y: Tensor) -> Tensor:
    """E[xy] - E[x] E[y]; (N,), (N,) -> ()."""
    return (x * y).mean() - x.mean() * y.mean()


def of_torch(x: Tensor, y: Tensor) -> Tensor:
    """torch's own; it has no covariance but as a matrix."""
    return torch.var_mean(x, correction=0)[0] if x is y else torch.cov(torch.stack([x, y]), correction=0)[0, 1]


WAYS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], torch.dtype, str]] = {
    "deviations, float32": (of_deviations, torch.float32, BLUE),
    "products, float32": (of_products, torch.float32, VERMILION),
    "torch, float32": (of_torch, torch.float32, GREEN),
    "products, float64": (of_products, torch.float64, ORANGE),
}
LABELS = {  # where their names stand in the picture
    "deviations, float32": (6e3, 2e-4),
    "products, float32": (1.2, 2e-3),
    "torch, float32": (1.2e4, 8e-10),
    "products, float64": (4e2, 1e-13),
}


def points(ratio: float, count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Two correlated columns with standard deviation 1 and mean `ratio`, as float32 has them; (N,), (N,) float64."""
    draw = torch.Generator().manual_seed(0)
    x, other = torch.randn(2, count, generator=draw, dtype=torch.float64)
    y = CORRELATION * x + (1 - CORRELATION**2) ** 0.5 * other
    return (x + ratio).float().double(), (y + ratio).float().double()


def row(ratio: float, of: str) -> dict[str, str | float]:
    """One line of the table: relative errors, by what the first way makes of the same numbers in float64."""
    x, y = points(ratio)
    y = x if of == "variance" else y
    right = of_deviations(x, y).item()
    errors = {}
    for way, (compute, dtype, _) in WAYS.items():
        first = x.to(dtype)
        errors[way] = abs(compute(first, first if y is x else y.to(dtype)).item() / right - 1)
    return {"mean / std": float(f"{ratio:.3g}"), "of": of, "value": right} | errors


def draw(rows: list[dict]) -> Figure:
    titles = ["Covariance: the mean area of the rectangles", "Error of the variance of points far from zero"]
    figure, (left, right) = panels("Variance and covariance, two ways", 1, 2, (11, 5), titles)
    x, y = points(0, 150)
    areas = (x - x.mean()) * (y - y.mean())
    for a, b, area in zip(x.tolist(), y.tolist(), areas.tolist(), strict=True):
        corner = [x.mean().item(), a, a, x.mean().item()], [y.mean().item(), y.mean().item(), b, b]
        left.fill(*corner, color=BLUE if area > 0 else ORANGE, alpha=0.035, linewidth=0)
    left.scatter(x, y, s=14, c=[BLUE if area > 0 else ORANGE for area in areas], zorder=3)
    left.axvline(x.mean(), color=GREY, linewidth=0.8)
    left.axhline(y.mean(), color=GREY, linewidth=0.8)
    left.set(xlabel="x", ylabel="y", aspect="equal")
    left.text(0.03, 0.97, f"covariance {areas.mean():.2f}", transform=left.transAxes, va="top", color=GREY)

    lines = [line for line in rows if line["of"] == "variance" and line["mean / std"]]
    ratios = [line["mean / std"] for line in lines]
    for way, (_, _, colour) in WAYS.items():
        right.plot(ratios, [max(line[way], 1e-17) for line in lines], color=colour, marker="o", markersize=4)
        x, height = LABELS[way]
        right.text(x, height, way, color=colour)
    right.plot(ratios, [torch.finfo(torch.float32).eps * ratio**2 for ratio in ratios], ":", color=GREY)
    right.axhline(1, color=GREY, linewidth=0.8)
    right.text(1, 2, "as wrong as zero", color=GREY, size=9)
    right.set(
        xscale="log", yscale="log", ylim=(1e-17, 1e6), xlabel="mean / standard deviation", ylabel="relative error"
    )
    return figure


def main(folder: Path) -> None:
    rows = [row(ratio, of) for of in ("variance", "covariance") for ratio in RATIOS]
    publish(folder, "variance_covariance", draw(rows), rows)


if __name__ == "__main__":
    run(main, __doc__)
