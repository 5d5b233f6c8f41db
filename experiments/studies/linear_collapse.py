"""Why nets need a non-linearity: without one, any number of layers is a single matrix.

    python -m experiments.studies.linear_collapse [FOLDER]

writes linear_collapse.png and linear_collapse.csv. Left: the singular values of the product of five random linear
layers: it does what the layers do, and its rank is the width of the narrowest. Right: a square wave of two periods,
fitted by nets with one input and by a Fourier series. However many linear layers there are, the fit is the best
straight line, which least squares finds directly; with ReLU between them the same layers can bend. The table has the
number of parameters; for linear layers also the size of the one matrix (and bias) that does the same, its rank, and the
largest difference between the outputs; the mean squared error of the fit, and the share of the wave's variance that it
explains. The nets are trained by Adam from one seed, so their errors are not the least possible.
"""

import itertools
import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from callbacks.figures.style import BLACK, BLUE, GRAY, GREEN, ORANGE, VERMILION
from experiments.studies import Row, panels, publish, run
from zoo.parts.initialization import initialize
from zoo.parts.optim.classic import Adam

STEPS, WIDTH, DEPTH = 1500, 32, 4
SIZES = (64, 48, 8, 48, 32, 64)  # of the random layers, input first
Fits = dict[str, tuple[int, Tensor, str]]  # name -> parameters, fit (N, 1), color


def random_layers(seed: int = 0) -> nn.Sequential:
    """Five linear layers, float64, whose outputs are about as large as their standard normal inputs."""
    torch.manual_seed(seed)
    layers = nn.Sequential(*(nn.Linear(i, o, bias=False, dtype=torch.float64) for i, o in itertools.pairwise(SIZES)))
    initialize(layers)
    return layers


@torch.no_grad()
def collapsed(layers: nn.Sequential) -> Tensor:
    """The one matrix (O, I) that does the same as all layers."""
    return torch.linalg.multi_dot([layer.weight for layer in reversed(layers)])


def wave(count: int = 512) -> tuple[Tensor, Tensor]:
    """x in -1..1 and the square wave 1, -1, 1, -1; both (N, 1)."""
    x = (torch.arange(count)[:, None] + 0.5) / count * 2 - 1
    return x, torch.sign(torch.sin(2 * math.pi * x))


def net(depth: int, width: int, act: type[nn.Module]) -> nn.Sequential:
    """`depth` hidden layers, each followed by an activation; one input and one output."""
    torch.manual_seed(0)
    sizes = [1, *[width] * depth]
    hidden = [layer for i, o in itertools.pairwise(sizes) for layer in (nn.Linear(i, o), act())]
    return nn.Sequential(*hidden, nn.Linear(width, 1))


def train(layers: nn.Sequential, steps: int) -> Tensor:
    """The fit of `layers` after training on the complete wave; (N, 1)."""
    x, y = wave()
    optimizer = Adam(layers.parameters(), lr=0.003)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.003 * (1 - step / steps)
        optimizer.zero_grad()
        (layers(x) - y).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        return layers(x)


def least_squares(features: Tensor) -> Tensor:
    """The linear combination of columns (N, K) that is nearest to the wave; (N, 1)."""
    return features @ torch.linalg.lstsq(features, wave()[1]).solution


def fits(steps: int) -> Fits:
    x, _ = wave()
    results: Fits = {"best straight line": (2, least_squares(torch.cat([torch.ones_like(x), x], 1)), GRAY)}
    nets: list[tuple[str, type[nn.Module], int, int, str]] = [
        (f"{DEPTH + 1} linear layers", nn.Identity, DEPTH, WIDTH, VERMILION),
        ("1 hidden layer of 8 ReLUs", nn.ReLU, 1, 8, ORANGE),
        (f"{DEPTH} hidden layers of {WIDTH} ReLUs", nn.ReLU, DEPTH, WIDTH, BLUE),
    ]
    for name, act, depth, width, color in nets:
        layers = net(depth, width, act)
        results[name] = (sum(p.numel() for p in layers.parameters()), train(layers, steps), color)
    sines = torch.cat([torch.sin(2 * math.pi * k * x) for k in range(1, 16, 2)], 1)
    return results | {"Fourier series, 8 sines": (8, least_squares(sines), GREEN)}


def table(results: Fits) -> list[Row]:
    columns = ("model", "parameters", "as one matrix", "rank", "difference", "squared error", "explained")
    layers, matrix, x = random_layers(), collapsed(random_layers()), torch.randn(1000, SIZES[0], dtype=torch.float64)
    name, numbers = f"random linear layers {'-'.join(map(str, SIZES))}", sum(w.numel() for w in layers.parameters())
    difference = (layers(x) - x @ matrix.T).abs().max().item()
    rows: list[tuple] = [(name, numbers, matrix.numel(), int(torch.linalg.matrix_rank(matrix)), difference, None, None)]
    line, (_, y) = results["best straight line"][1], wave()
    for name, (numbers, fit, _) in results.items():
        one = (2, 1, (fit - line).abs().max().item()) if "line" in name else (None, None, None)
        error = (fit - y).square().mean().item()
        rows.append((name, numbers, *one, error, 1 - error / y.var(correction=0).item()))
    return [dict(zip(columns, row, strict=True)) for row in rows]


def draw(results: Fits, rows: list[Row]) -> Figure:
    titles = [f"Five random linear layers are one matrix of rank {rows[0]['rank']}", "Fits of a square wave"]
    figure, (left, right) = panels(
        "Linear layers without an activation between them are one layer", 1, 2, (12, 5), titles
    )
    values = torch.linalg.svdvals(collapsed(random_layers()))
    left.semilogy(range(1, len(values) + 1), values, ".", color=BLUE)
    left.axvline(min(SIZES) + 0.5, color=GRAY, linestyle=":")
    left.annotate(f"narrowest layer: {min(SIZES)}", (min(SIZES) + 2, 0.1), color=GRAY)
    left.set(xlabel="number", ylabel="singular value of the product")
    x, y = wave()
    right.plot(x, y, color=BLACK, linewidth=1, linestyle=":")
    for line, (name, (_, fit, color)) in zip(rows[1:], results.items(), strict=True):
        under = name == "best straight line"
        label = f"{name}: {line['explained']:.1%}"
        right.plot(x, fit, color=color, linewidth=6 if under else 1.8, alpha=0.35 if under else 1, label=label)
    right.set(xlabel="x", ylim=(-1.5, 2.75))
    right.legend(frameon=False, loc="upper left", fontsize=9, title="explained of the wave (dotted)", alignment="left")
    return figure


def main(folder: Path, steps: int = STEPS) -> None:
    results = fits(steps)
    rows = table(results)
    publish(folder, "linear_collapse", draw(results, rows), rows)


if __name__ == "__main__":
    run(main, __doc__)
