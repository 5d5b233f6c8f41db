"""Backpropagation by hand: one step of a net of eight weights, and its error at six learning rates.

    python -m experiments.studies.backprop_by_hand [FOLDER]

writes backprop_by_hand.png and backprop_by_hand.csv. The net is zoo.classification.backprop_by_hand: inputs 0.05 and
0.10, targets 0.01 and 0.99, two hidden units, sigmoids, no biases. The table has its weights, their gradients by the
written-out formulas and by autograd, and the weights after a step at a learning rate of 0.5. The curves are the error
over 1 000 steps. It falls at all six rates, and the larger the faster: the error of one sample, behind sigmoids whose
slope is a quarter at most, is so smooth that even 2 is a small step. The dots are where half the error is left.
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from callbacks.figures.style import BLACK, BLUE, GRAY, GREEN, ORANGE, PURPLE, VERMILION
from experiments.studies import Row, panels, publish, run
from zoo.classification.backprop_by_hand import BackpropByHandNet, error

INPUT, TARGET = torch.tensor([[0.05, 0.10]]), torch.tensor([[0.01, 0.99]])
RATES = {0.1: GRAY, 0.2: GREEN, 0.5: BLUE, 0.8: PURPLE, 1.0: ORANGE, 2.0: VERMILION}
STEPS = 1000


def step(net: BackpropByHandNet, rate: float) -> None:
    """Gradient descent, by hand."""
    gradients = net.gradients(INPUT, TARGET)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.sub_(rate * gradients[name])


def table(rate: float = 0.5) -> list[Row]:
    """One step: a row for each weight."""
    net = BackpropByHandNet()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    theirs = torch.autograd.grad(error(net(INPUT), TARGET), list(net.parameters()))
    ours = [net.gradients(INPUT, TARGET)[name] for name, _ in net.named_parameters()]
    step(net, rate)
    columns = [
        torch.cat([each.detach().flatten() for each in part]) for part in (before, ours, theirs, [*net.parameters()])
    ]
    return [
        {
            "weight": f"w{i}",
            "before": round(values[0], 8),
            "gradient": values[1],
            "autograd": values[2],
            "difference": abs(values[1] - values[2]),
            "after": values[3],
        }
        for i, values in enumerate(zip(*(column.tolist() for column in columns), strict=True), 1)
    ]


def errors(rate: float, steps: int = STEPS) -> Tensor:
    """The error before each step, (steps + 1,)."""
    net, found = BackpropByHandNet(), []
    for _ in range(steps + 1):
        found.append(error(net.activations(INPUT)[1], TARGET).detach())
        step(net, rate)
    return torch.stack(found)


def draw(curves: dict[float, Tensor]) -> Figure:
    title = "Error of the 2-2-2 net at six learning rates"
    figure, (axes,) = panels(title, 1, 1, (8, 5.2))
    for rate, values in curves.items():
        axes.plot(values, color=RATES[rate], linewidth=1.8)
        label = f"{rate:g}: {values[-1]:.2g}"
        axes.annotate(
            label, (len(values) - 1, values[-1]), (6, 0), textcoords="offset points", color=RATES[rate], va="center"
        )
        half = int((values > values[0] / 2).sum())
        if half < len(values):
            axes.plot(half, values[half], "o", color=RATES[rate], markersize=5)
    first = float(next(iter(curves.values()))[0])
    axes.axhline(first / 2, color=BLACK, linewidth=0.7, linestyle=(0, (4, 3)))
    axes.annotate("half of the first error", (len(next(iter(curves.values()))) - 1, first / 2), (0, 4),
                  textcoords="offset points", ha="right", size=9, color=GRAY)  # fmt: skip
    axes.set(xlabel="step", ylabel="half the squared error, of both outputs", yscale="log", xlim=(0, 1.16 * STEPS))
    axes.set_xticks(range(0, STEPS + 1, 200))
    return figure


def main(folder: Path, steps: int = STEPS) -> None:
    publish(folder, "backprop_by_hand", draw({rate: errors(rate, steps) for rate in RATES}), table())


if __name__ == "__main__":
    run(main, __doc__)
