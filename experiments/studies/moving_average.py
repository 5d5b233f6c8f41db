"""Momentum is an exponential moving average: how it smooths a noisy curve, for four values of beta.

    python -m experiments.studies.moving_average [FOLDER]

writes moving_average.png and moving_average.csv. Blue: m <- lerp(m, y, 1 - beta) from zero, as in momentum
(zoo.parts.optim.classic.Momentum; fast.ai's lesson 17). Orange: the same divided by 1 - beta^t, as in Adam (Kingma and
Ba 2015, section 3), which removes the bias towards the zero at which it starts. The table has the share of the noise's
standard deviation that is left, measured and by the formula sqrt((1 - beta) / (1 + beta)); the number of steps by which
the average lags on a straight line; and the root mean square error over all draws of the noise, for the first 20 steps
and for all. A larger beta leaves less noise and lags more; which one is best depends on the curve.
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from callbacks.figures.style import BLACK, BLUE, GRAY, ORANGE
from experiments.studies import Row, panels, publish, run

BETAS, STEPS, FIRST, NOISE, DRAWS = (0.5, 0.7, 0.9, 0.99), 200, 20, 0.3, 2000
KINDS = {"lerped": False, "unbiased": True}


def moving_average(y: Tensor, beta: float, unbiased: bool) -> Tensor:
    """Along the last axis; (..., T) -> (..., T)."""
    average, averages = torch.zeros_like(y[..., 0]), []
    for step, value in enumerate(y.unbind(-1), 1):
        average = average.lerp(value, 1 - beta)
        averages.append(average / (1 - beta**step) if unbiased else average)
    return torch.stack(averages, -1)


def curve() -> Tensor:
    """(T,): rises from 0.8 to 1.7 and falls to 0.2."""
    x = torch.linspace(-1, 1, STEPS, dtype=torch.float64)
    return 1.5 - x**2 + 0.3 * torch.sin(5 * x)


def noisy() -> Tensor:
    """(DRAWS, T)"""
    draw = torch.Generator().manual_seed(0)
    return curve() + NOISE * torch.randn(DRAWS, STEPS, generator=draw, dtype=torch.float64)


def row(beta: float) -> Row:
    """A line of the table."""
    y = noisy()
    averages = {kind: moving_average(y, beta, unbiased) for kind, unbiased in KINDS.items()}
    ramp = torch.arange(4000, dtype=torch.float64)
    line: Row = {
        "beta": beta,
        "noise left": averages["lerped"][:, -1].std().item() / NOISE,
        "by formula": ((1 - beta) / (1 + beta)) ** 0.5,
        "lag, steps": (ramp - moving_average(ramp, beta, True))[-1].item(),
    }
    for name, part in {f"error, first {FIRST}": slice(FIRST), "error, all": slice(None)}.items():
        for kind, average in averages.items():
            line[f"{name}: {kind}"] = (average - curve())[:, part].square().mean().sqrt().item()
    return line


def draw(rows: list[Row]) -> Figure:
    titles = [f"beta {beta:g}: a mean of about {1 / (1 - beta):.0f} steps" for beta in BETAS]
    title = "Moving averages of a noisy curve: lerped from zero (blue), and unbiased (orange)"
    figure, places = panels(title, 2, 2, (11, 6.8), titles)
    for axes, beta, line in zip(places, BETAS, rows, strict=True):
        y = noisy()[0]
        axes.scatter(range(1, STEPS + 1), y, s=7, color="#bbbbbb", label="noisy")
        axes.plot(range(1, STEPS + 1), curve(), color=BLACK, linewidth=1.2, linestyle=":", label="without noise")
        for (kind, unbiased), color, width in zip(KINDS.items(), (BLUE, ORANGE), (3.2, 1.4), strict=True):
            average = moving_average(y, beta, unbiased)
            axes.plot(range(1, STEPS + 1), average, color=color, linewidth=width, label=kind)
        errors = "  ".join(f"{kind} {line[f'error, all: {kind}']:.2f}" for kind in KINDS)
        axes.text(0.4, 0.05, f"error: {errors}", transform=axes.transAxes, ha="center", size=9, color=GRAY)
        axes.set(xlim=(0, STEPS), ylim=(-0.4, 2.5), xlabel="step")
    places[0].legend(frameon=False, ncols=4, loc="upper left", fontsize=8.5)
    return figure


def main(folder: Path) -> None:
    rows = [row(beta) for beta in BETAS]
    publish(folder, "moving_average", draw(rows), rows)


if __name__ == "__main__":
    run(main, __doc__)
