"""What happens to numbers in fifty linear layers, depending on how the weights are initialized.

    python -m experiments.studies.fifty_layers [FOLDER]

writes fifty_layers.png and fifty_layers.csv. 200 standard normal vectors are multiplied by fifty 100 x 100 matrices,
without and with ReLU after each. Glorot and Bengio 2010 keep the size of the numbers in linear nets, He et al. 2015
("Kaiming") in nets with ReLU. The experiment is that of fast.ai's lesson 17, here over ten seeds: one thin line for
each seed, and their median thick. The table has the standard deviation after the last layer (median, least and most of
the seeds), and the layers after which the first number was infinite, the first was NaN, and all were zero (medians;
empty where that did not happen).
"""

import math
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from callbacks.figures.style import BLUE, GREEN, ORANGE, PURPLE, VERMILION
from experiments.studies import Row, panels, publish, run
from zoo.parts.initialization import kaiming_normal_, unchanged_, xavier_normal_

LAYERS, WIDTH, VECTORS = 50, 100, 200
Rule = Callable[[Tensor], object]
RULES: dict[str, tuple[Rule, str]] = {  # how weights are drawn, and a color
    "standard normal": (nn.init.normal_, VERMILION),
    "normal, std 0.01": (lambda weight: nn.init.normal_(weight, std=0.01), ORANGE),
    "torch's default": (unchanged_, PURPLE),
    "Glorot": (xavier_normal_, BLUE),
    "Kaiming": (kaiming_normal_, GREEN),
}
CASES = {"linear": (nn.Identity(), list(RULES)[:-1]), "ReLU": (nn.ReLU(), list(RULES))}


@torch.no_grad()
def outputs(rule: Rule, act: nn.Module, seed: int) -> list[Tensor]:
    """The numbers before the first layer and after each: LAYERS + 1 tensors (VECTORS, WIDTH), float32."""
    torch.manual_seed(seed)
    layers = [torch.randn(VECTORS, WIDTH)]
    for _ in range(LAYERS):
        layer = nn.Linear(WIDTH, WIDTH, bias=False)
        rule(layer.weight)
        layers.append(act(layer(layers[-1])))
    return layers


def first(layers: list[Tensor], holds: Callable[[Tensor], Tensor]) -> int | None:
    """The number of the first layer for which a condition holds."""
    return next((i for i, x in enumerate(layers) if holds(x)), None)


def row(name: str, case: str, runs: list[list[Tensor]]) -> Row:
    """A line of the table, from the outputs of all seeds."""

    def median(values: list) -> float | None:
        return None if None in values else statistics.median(values)

    final = [layers[-1].double().std().item() for layers in runs]
    bad = math.isnan(sum(final))
    return {
        "weights": name,
        "after each layer": case,
        "final std": math.nan if bad else statistics.median(final),
        "least": math.nan if bad else min(final),
        "most": math.nan if bad else max(final),
        "infinite after": median([first(layers, lambda x: x.isinf().any()) for layers in runs]),
        "NaN after": median([first(layers, lambda x: x.isnan().any()) for layers in runs]),
        "zero after": median([first(layers, lambda x: (x == 0).all()) for layers in runs]),
    }


def draw(results: dict[tuple[str, str], list[list[Tensor]]]) -> Figure:
    titles = ["Linear layers only", "ReLU after each layer"]
    figure, places = panels("Standard deviation of the numbers after each of fifty layers", 1, 2, (11, 5.2), titles)
    for (case, name), runs in results.items():
        axes, color = places[list(CASES).index(case)], RULES[name][1]
        std = torch.stack([torch.stack([x.double().std() for x in layers]) for layers in runs])  # (seeds, LAYERS + 1)
        std[(std == 0) | ~std.isfinite()] = math.nan
        axes.plot(std.T, color=color, linewidth=0.6, alpha=0.5)
        middle = std.median(0).values
        axes.plot(middle, color=color, linewidth=2.4)
        end = int(middle.isfinite().nonzero().max())
        lost = "" if end == LAYERS else ": zero" if middle[end] < 1 else ": NaN"
        axes.annotate(name + lost, (end, middle[end]), (7, 0), textcoords="offset points", color=color, va="center")
    for axes in places:
        axes.set_yscale("log")
        axes.set(xlabel="layer", ylim=(1e-50, 1e43), xlim=(0, 1.5 * LAYERS), xticks=range(0, LAYERS + 1, 10))
        axes.set_yticks([1e-40, 1e-30, 1e-20, 1e-10, 1, 1e10, 1e20, 1e30, 1e40])
        axes.axhspan(3.4e38, 1e43, color="#e6e6e6")
        axes.axhspan(1e-50, 1.4e-45, color="#e6e6e6")
    places[0].set_ylabel("standard deviation (gray: beyond float32)")
    return figure


def main(folder: Path, seeds: int = 10) -> None:
    results = {
        (case, name): [outputs(RULES[name][0], act, seed) for seed in range(seeds)]
        for case, (act, names) in CASES.items()
        for name in names
    }
    rows = [row(name, case, runs) for (case, name), runs in results.items()]
    publish(folder, "fifty_layers", draw(results), rows)


if __name__ == "__main__":
    run(main, __doc__)
