"""Why Ultimus in its literal form is hard to train, and what each change of it does.

    python -m experiments.studies.ultimus [FOLDER]

writes ultimus.png and ultimus.csv. The net (zoo.classification.ultimus) is three convolutions, global average pooling
and four attention blocks on the one vector that is left. It sees scikit-learn's digits, in five forms, with three seeds
each: as the assignment words it, with each of three changes alone, and with all three. Of untrained nets the table has
the standard deviation over the images, as a mean over the numbers of the vector; the share of the variance that lies in
the first principal component; and the median absolute gradient of a weight of the first convolution and of the last
layer (geometric means over the seeds); then the test accuracy after twelve epochs of Adam with one cycle.

In the untrained literal form nearly all scores are close to zero, so the softmax weighs all numbers alike, and a block
hands on the mean of its eight values, eight times, divided by sqrt(8). Each block so leaves a 35th of the standard
deviation, and after two of them 99.99 % of the variance lie in one direction: of what tells images apart, 0.27 after
the pooling, 2e-7 are left after four blocks, where float32 has steps of 7e-9 beside biases of 0.1. The gradient
vanishes in the same way, from 1e-3 in the last layer to 3e-9 in the first, where even Adam, which divides by the size
of the gradient, hardly moves, as its eps is 1e-8. The training ends at 68 to 83 %. Scaling the scores instead of the
weights removes one sqrt(8) from each block (a 15th is left; 72 to 80 %), and pre-norm alone leaves a seventh, but
trains worse (16 to 58 %). A residual connection alone holds both the signal and the gradient (95 to 97 %), and the
other two add nothing to it here (93 to 96 %).
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from callbacks.figures.style import BLUE, GRAY, GREEN, ORANGE, PURPLE, VERMILION
from experiments.studies import Row, digits, panels, publish, run
from zoo.classification.ultimus import UltimusNet
from zoo.parts.optim.classic import Adam
from zoo.parts.optim.schedules import OneCycle

FORMS: dict[str, tuple[dict[str, bool], str]] = {  # arguments of the net, and a color
    "literal": ({}, VERMILION),
    "scaled scores": ({"scale_scores": True}, ORANGE),
    "pre-norm": ({"pre_norm": True}, PURPLE),
    "residual": ({"residual": True}, BLUE),
    "all three": ({"residual": True, "pre_norm": True, "scale_scores": True}, GREEN),
}
PLACES = ("pooling", "block 1", "block 2", "block 3", "block 4")
LAYERS = {  # whose weights' gradients are looked at
    "stem": "stem.0",
    **{f"block {i + 1}": f"blocks.{i}.value" for i in range(4)},
    "head": "head",
}
BATCH_SIZE, LR, EPS = 128, 0.01, 1e-8  # LR and EPS are Adam's


def make(form: str, seed: int) -> UltimusNet:
    torch.manual_seed(seed)
    options: dict[str, Any] = FORMS[form][0]
    return UltimusNet(in_channels=1, **options)


def at_first(form: str, seed: int) -> dict[str, Tensor]:
    """An untrained net on the training digits.

    Returns:
        "signal": (5,) standard deviation over the samples, mean over the features, after pooling and after each block;
        "first": (5,) share of the variance that lies in the first principal component there;
        "gradient": (6,) median absolute gradient of the loss with respect to a weight, of LAYERS.
    """
    net, (x, y) = make(form, seed), digits("train")
    vectors = [net.stages(net.stem(x)).mean((2, 3))]
    for block in net.blocks:
        vectors.append(block(vectors[-1]))
    F.cross_entropy(net.head(vectors[-1]), y).backward()
    deviations = [(v - v.mean(0)).detach().double() for v in vectors]
    squares = [torch.linalg.svdvals(v).square() for v in deviations]
    weights = [net.get_parameter(f"{name}.weight") for name in LAYERS.values()]
    return {
        "signal": torch.stack([v.square().mean(0).sqrt().mean() for v in deviations]),
        "first": torch.stack([s[0] / s.sum() for s in squares]),
        "gradient": torch.stack([cast(Tensor, weight.grad).abs().median() for weight in weights]),
    }


def accuracy(form: str, seed: int, epochs: int) -> float:
    """Trains a net with Adam and one cycle; returns the percentage of test digits that it classifies correctly."""
    net, (x, y) = make(form, seed), digits("train")
    steps = len(x) // BATCH_SIZE
    optimizer = Adam(net.parameters(), LR, eps=EPS)
    schedule = OneCycle(optimizer, epochs * steps)
    for _ in range(epochs):
        for index in torch.randperm(len(x))[: steps * BATCH_SIZE].split(BATCH_SIZE):
            optimizer.zero_grad()
            F.cross_entropy(net(x[index]), y[index]).backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        right = net(digits("test")[0]).argmax(1) == digits("test")[1]
    return 100 * right.float().mean().item()


def average(runs: Sequence[Tensor]) -> Tensor:
    """The geometric mean over the seeds, for numbers of very different sizes."""
    return torch.stack(list(runs)).log().mean(0).exp()


def row(form: str, runs: list[dict[str, Tensor]], accuracies: list[float]) -> Row:
    """A line of the table."""
    signal, first, gradient = (average([run[name] for run in runs]) for name in ("signal", "first", "gradient"))
    return {
        "form": form,
        "std, pooling": signal[0].item(),
        "std, block 4": signal[-1].item(),
        "factor a block": (signal[-1] / signal[0]).item() ** (1 / 4),
        "first component, pooling": first[0].item(),
        "first component, block 2": first[2].item(),
        "gradient, stem": gradient[0].item(),
        "gradient, head": gradient[-1].item(),
        "accuracy, %": statistics.mean(accuracies),
        "least": min(accuracies),
        "most": max(accuracies),
    }


def draw(firsts: dict[str, list[dict[str, Tensor]]], accuracies: dict[str, list[float]]) -> Figure:
    titles = ["Standard deviation over images", "Median absolute gradient of a weight", "Test accuracy, %"]
    title = "Ultimus in five forms: signal and gradient before training, accuracy after it"
    figure, (signals, gradients, scores) = panels(title, 1, 3, (13, 4.6), titles)
    for i, (form, runs) in enumerate(firsts.items()):
        color = FORMS[form][1]
        for axes, name, labels in ((signals, "signal", PLACES), (gradients, "gradient", LAYERS)):
            axes.plot(torch.stack([run[name] for run in runs]).T, color=color, linewidth=0.6, alpha=0.5)
            axes.plot(average([run[name] for run in runs]), color=color, linewidth=2.4, marker="o", label=form)
            axes.set_xticks(range(len(labels)), list(labels))
            axes.set_yscale("log")
        scores.scatter(accuracies[form], [i] * len(runs), color=color, s=36)
        scores.scatter(statistics.mean(accuracies[form]), i, color=color, s=400, marker="|", linewidths=2.4)
    gradients.axhline(EPS, color=GRAY, linewidth=1)
    gradients.text(5.2, EPS, "Adam's eps", color=GRAY, ha="right", va="bottom", size=9)
    signals.legend(frameon=False, loc="lower left", fontsize=9)
    scores.set_yticks(range(len(firsts)), list(firsts))
    scores.set(ylim=(len(firsts) - 0.5, -0.5), xlim=(None, 100))
    return figure


def main(folder: Path, seeds: int = 3, epochs: int = 12) -> None:
    firsts = {form: [at_first(form, seed) for seed in range(seeds)] for form in FORMS}
    accuracies = {form: [accuracy(form, seed, epochs) for seed in range(seeds)] for form in FORMS}
    rows = [row(form, firsts[form], accuracies[form]) for form in FORMS]
    publish(folder, "ultimus", draw(firsts, accuracies), rows)


if __name__ == "__main__":
    run(main, __doc__)
