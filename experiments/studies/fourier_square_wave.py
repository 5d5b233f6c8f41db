"""A square wave as a sum of sines: how good the sum gets, and what never goes away.

    python -m experiments.studies.fourier_square_wave [FOLDER]

writes fourier_square_wave.png and fourier_square_wave.csv. The wave is 1 and -1 in turn; its Fourier series is
4/pi (sin x + sin 3x / 3 + sin 5x / 5 + ...). With more sines the mean squared error falls as 1 / n, but beside the jump
the sum stays 17.9 % above the wave, in an ever narrower peak (Gibbs' phenomenon; the limit is 2 Si(pi) / pi - 1, where
Si is the sine integral). Weights that fall to zero with the frequency, here the mean of the partial sums (Fejer),
remove the peak and make the step wider. Fixed smooth functions meet a jump badly, whatever their number, while two ReLU
units make one as steep as wanted (see experiments.studies.linear_collapse). The table has, by the number of sines, the
height of the peak above the wave, its distance from the jump in periods, and the mean squared error.
"""

import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from callbacks.figures.style import BLACK, BLUE, GRAY, GREEN, ORANGE, VERMILION
from experiments.studies import Row, panels, publish, run

COUNTS = (1, 2, 3, 5, 10, 25, 100, 400)
SHOWN = {1: ORANGE, 3: GREEN, 25: BLUE}
POINTS = 2**16  # of a period


def period() -> Tensor:
    """(N,) The middles of equal parts of 0..1."""
    return (torch.arange(POINTS, dtype=torch.float64) + 0.5) / POINTS


def wave(x: Tensor) -> Tensor:
    """The square wave of period 1: 1 in the first half, -1 in the second."""
    return torch.where(x % 1 < 0.5, 1.0, -1.0).double()


def series(x: Tensor, count: int, mean: bool = False) -> Tensor:
    """The sum of the first `count` sines; with `mean`, the mean of the partial sums of 0 to 2 `count` frequencies."""
    total = torch.zeros_like(x)
    for k in range(1, 2 * count, 2):
        weight = 1 - k / (2 * count) if mean else 1.0
        total += weight * 4 / math.pi * torch.sin(2 * math.pi * k * x) / k
    return total


def gibbs_limit() -> float:
    """2 Si(pi) / pi - 1, by integration."""
    t = (torch.arange(100_000, dtype=torch.float64) + 0.5) * math.pi / 100_000
    return 2 / math.pi * (torch.sin(t) / t).mean().item() * math.pi - 1


def row(count: int) -> Row:
    """A line of the table."""
    x = period()
    line: Row = {"sines": count}
    for name, mean in {"series": False, "means": True}.items():
        y = series(x, count, mean)
        peak = int(y[: POINTS // 4 + 1].argmax())
        line[f"{name}: peak"] = y[peak].item() - 1
        line[f"{name}: peak at"] = x[peak].item()
        line[f"{name}: squared error"] = (y - wave(x)).square().mean().item()
    return line


def draw(rows: list[Row]) -> Figure:
    titles = ["Partial sums", "Beside the jump", "By the number of sines"]
    figure, (left, middle, right) = panels("A square wave from sines", 1, 3, (15, 4.8), titles)
    for axes, low, high in ((left, -0.05, 1.05), (middle, -0.01, 0.1)):
        x = torch.linspace(low, high, 4001, dtype=torch.float64)
        axes.plot(x, wave(x), color=BLACK, linewidth=1, linestyle=":")
        for count, color in SHOWN.items():
            name = f"{count} sine" + "s" * (count > 1)
            axes.plot(x, series(x, count), color=color, linewidth=1.8, label=name)
        axes.plot(x, series(x, 25, True), color=VERMILION, linewidth=1.8, linestyle="--", label="25, mean of sums")
        axes.set(xlabel="x in periods", xlim=(low, high))
    left.set(ylim=(-2.3, 1.35))
    left.legend(frameon=False, loc="lower left")
    middle.axhline(1 + gibbs_limit(), color=GRAY, linewidth=1, linestyle="--")
    middle.text(-0.009, 1.01 + gibbs_limit(), f"{1 + gibbs_limit():.3f}", color=GRAY, size=9)
    middle.set(ylim=(-0.5, 1.35))
    for name, color, style in (("series", BLUE, "-"), ("means", VERMILION, "--")):
        errors = [float(row[f"{name}: squared error"] or 0) for row in rows]
        right.loglog(COUNTS, errors, style, color=color, marker="o", markersize=4, label=f"squared error, {name}")
    peaks = [float(row["series: peak"] or 0) for row in rows]
    right.loglog(COUNTS, peaks, color=GRAY, marker="s", markersize=4, label="peak above the wave, series")
    right.set(xlabel="sines", ylim=(3e-4, 2))
    right.legend(frameon=False, loc="lower left", fontsize=9)
    return figure


def main(folder: Path) -> None:
    rows = [row(count) for count in COUNTS]
    publish(folder, "fourier_square_wave", draw(rows), rows)


if __name__ == "__main__":
    run(main, __doc__)
