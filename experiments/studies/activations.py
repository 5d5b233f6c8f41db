"""What activation functions do to a number, to its gradient, and to standard normal numbers.

    python -m experiments.studies.activations [FOLDER]

writes activations.png and activations.csv. Each panel shows a function (blue) and its derivative (orange, dashed). The
table has mean and standard deviation of the outputs for standard normal inputs, the share of the inputs whose gradient
is below 0.01 ("flat"), and the gain by which the weights compensate for the activation (zoo.parts.initialization.gain).
"""

import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from callbacks.figures.style import BLUE, GRAY, ORANGE
from experiments.studies import Row, panels, publish, run
from zoo.parts.activations import GeneralReLU, SReLU
from zoo.parts.initialization import gain

ACTIVATIONS = {
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "ReLU": nn.ReLU(),
    "leaky ReLU, 0.1": nn.LeakyReLU(0.1),
    "ELU": nn.ELU(),
    "GELU": nn.GELU(),
    "SiLU (Swish)": nn.SiLU(),
    "Mish": nn.Mish(),
    "GeneralReLU, leak 0.1, sub 0.4": GeneralReLU(0.1, 0.4),
    "the same, maximum 2": GeneralReLU(0.1, 0.4, 2.0),
    "SReLU, as initialized": SReLU(),
    "SReLU, other parameters": SReLU(),
}
with torch.no_grad():
    for name, value in {"t_l": -1.0, "a_l": 0.4, "t_r": 1.0, "a_r": 0.3}.items():
        getattr(ACTIVATIONS["SReLU, other parameters"], name).fill_(value)


def derivative(act: nn.Module, x: Tensor) -> Tensor:
    """(N,) -> (N,)"""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(act(x).sum(), x)[0]


def row(name: str, act: nn.Module) -> Row:
    """A line of the table; means over a standard normal distribution, by integration."""
    z = torch.linspace(-8, 8, 16_001)
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    y, slope = act(z).detach(), derivative(act, z)
    mean = (y * density).sum().item()
    return {
        "activation": name,
        "mean": round(mean, 3),
        "std": round(((y - mean) ** 2 * density).sum().sqrt().item(), 3),
        "flat share": round(((slope.abs() < 0.01) * density).sum().item(), 3),
        "gain": round(gain(act), 3),
    }


def draw(rows: list[Row]) -> Figure:
    title = "Activations (blue) and their derivatives (orange, dashed)"
    figure, places = panels(title, 3, 4, (11, 8.6), ACTIVATIONS)
    x = torch.linspace(-4, 4, 801)
    for axes, act, line in zip(places, ACTIVATIONS.values(), rows, strict=True):
        axes.axhline(0, color="#cccccc", linewidth=0.8)
        axes.axvline(0, color="#cccccc", linewidth=0.8)
        axes.plot(x, act(x).detach(), color=BLUE, linewidth=2)
        axes.plot(x, derivative(act, x), color=ORANGE, linewidth=1.6, linestyle="--")
        axes.set(xlim=(-4, 4), ylim=(-1.75, 3))
        text = f"of N(0, 1): mean {line['mean']:.2f}, std {line['std']:.2f}\nflat: {line['flat share']:.0%}"
        axes.text(0.03, 0.97, text, transform=axes.transAxes, size=8, color=GRAY, va="top")
    return figure


def main(folder: Path) -> None:
    rows = [row(name, act) for name, act in ACTIVATIONS.items()]
    publish(folder, "activations", draw(rows), rows)


if __name__ == "__main__":
    run(main, __doc__)
