"""What a non-linearity buys: without one, any number of layers is a single matrix.

    python -m experiments.studies.linear_collapse [FOLDER]

writes linear_collapse.png and linear_collapse.csv. Left: the singular values of five random linear layers' product: it
does what the layers do, and its rank is the width of the narrowest. Right: a square wave of two periods, fitted by nets
with one input and by a Fourier series. However many linear layers, the fit is the best straight line, which least
squares find at once; with ReLU between them the same layers bend. The table: parameters; for the linear ones the
numbers of the one matrix (and bias) that does the same, its rank, and by how much the outputs differ at most; the mean
squared error of the fit, and the share of the wave that it explains. The nets were trained by Adam from one seed: their
errors are what that reached, not the least possible.
"""

import itertools
import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from callbacks.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILION
from experiments.studies import panels, publish, run
from zoo.parts.initialization import initialize
from zoo.parts.optim.classic import Adam

STEPS, WIDTH, DEPTH = 1500, 32, 4
SIZES = (64, 48, 8, 48, 32, 64)  # of the stack on the left, input first


def stack(seed: int = 0) -> nn.Sequential:
    """Five linear layers, float64, with standard normal numbers in and about that size out."""
    torch.manual_seed(seed)
    layers = [nn.Linear(i, o, bias=False, dtype=torch.float64) for i, o in itertools.pairwise(SIZES)]
    return initialize(nn.Sequential(*layers))


@torch.no_grad()
def collapsed(layers: nn.Sequential) -> Tensor:
    """The one matrix (O, I) that does what all layers do."""
    return torch.linalg.multi_dot([layer.weight for layer in reversed(layers)])


def wave(count: int = 512) -> tuple[Tensor, Tensor]:
    """x in -1..1 and the square wave 1, -1, 1, -1; both (N, 1)."""
    x = (torch.arange(count)[:, None] + 0.5) / count * 2 - 1
    return x, torch.sign(torch.sin(2 * math.pi * x))


def net(depth: int, width: int, act: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    sizes = [1, *[width] * depth]
    hidden = [layer for i, o in itertools.pairwise(sizes) for layer in (nn.Linear(i, o), act())]
    return nn.Sequential(*hidden, nn.Linear(width, 1))


def train(layers: nn.Sequential, steps: int) -> Tensor:
    """What `layers` make of x after training on all of the wave; (N, 1)."""
    x, y = wave()
    optimiser = Adam(layers.parameters(), lr=0.003)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.003 * (1 - step / steps)
        optimiser.zero_grad()
        (layers(x) - y).square().mean().backward()
        optimiser.step()
    with torch.no_grad():
        return layers(x)


def least_squares(features: Tensor) -> Tensor:
    """The combination of columns (N, K) nearest to the wave; (N, 1)."""
    return features @ torch.linalg.lstsq(features, wave()[1]).solution


def fits(steps: int) -> dict[str, tuple[int, Tensor, str]]:
    """Name -> parameters, fit (N, 1), colour."""
    x, _ = wave()
    results = {"best straight line": (2, least_squares(torch.cat([torch.ones_like(x), x], 1)), GREY)}
    for name, act, depth, width, colour in (
        (f"{DEPTH + 1} linear layers", nn.Identity, DEPTH, WIDTH, VERMILION),
        ("1 hidden layer of 8 ReLUs", nn.ReLU, 1, 8, ORANGE),
        (f"{DEPTH} hidden layers of {WIDTH} ReLUs", nn.ReLU, DEPTH, WIDTH, BLUE),
    ):
        layers = net(depth, width, act)
        results[name] = (sum(p.numel() for p in layers.parameters()), train(layers, steps), colour)
    sines = torch.cat([torch.sin(2 * math.pi * k * x) for k in range(1, 16, 2)], 1)
    return results | {"Fourier series, 8 sines": (8, least_squares(sines), GREEN)}


def table(results: dict[str, tuple[int, Tensor, str]]) -> list[dict]:
    columns = ("model", "parameters", "as one matrix", "rank", "difference", "squared error", "explained")
    layers, matrix, x = stack(), collapsed(stack()), torch.randn(1000, SIZES[0], dtype=torch.float64)
    name, numbers = f"random linear layers {'-'.join(map(str, SIZES))}", sum(w.numel() for w in layers.parameters())
    difference = (layers(x) - x @ matrix.T).abs().max().item()
    rows = [(name, numbers, matrix.numel(), int(torch.linalg.matrix_rank(matrix)), difference, None, None)]
    line, (_, y) = results["best straight line"][1], wave()
    for name, (numbers, fit, _) in results.items():
        one = (2, 1, (fit - line).abs().max().item()) if "line" in name else (None, None, None)
        error = (fit - y).square().mean().item()
        rows.append((name, numbers, *one, error, 1 - error / y.var(correction=0).item()))
    return [dict(zip(columns, row, strict=True)) for row in rows]


def draw(results: dict[str, tuple[int, Tensor, str]], rows: list[dict]) -> Figure:
    titles = [f"Five random linear layers are one matrix of rank {rows[0]['rank']}", "Fits of a square wave"]
    figure, (left, right) = panels("Layers with nothing between them collapse", 1, 2, (12, 5), titles)
    values = torch.linalg.svdvals(collapsed(stack()))
    left.semilogy(range(1, len(values) + 1), values, ".", color=BLUE)
    left.axvline(min(SIZES) + 0.5, color=GREY, linestyle=":")
    left.annotate(f"narrowest layer: {min(SIZES)}", (min(SIZES) + 2, 0.1), color=GREY)
    left.set(xlabel="number", ylabel="singular value of the product")
    x, y = wave()
    right.plot(x, y, color=BLACK, linewidth=1, linestyle=":")
    for line, (name, (_, fit, colour)) in zip(rows[1:], results.items(), strict=True):
        under = name == "best straight line"
        label = f"{name}: {100 * line['explained']:.1f} %"
        right.plot(x, fit, color=colour, linewidth=6 if under else 1.8, alpha=0.35 if under else 1, label=label)
    right.set(xlabel="x", ylim=(-1.5, 2.75))
    right.legend(frameon=False, loc="upper left", fontsize=9, title="explained of the wave (dotted)", alignment="left")
    return figure


def main(folder: Path, steps: int = STEPS) -> None:
    results = fits(steps)
    rows = table(results)
    publish(folder, "linear_collapse", draw(results, rows), rows)


if __name__ == "__main__":
    run(main, __doc__)
