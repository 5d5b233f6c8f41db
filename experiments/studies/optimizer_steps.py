"""What each optimizer does, step by step, in an elongated valley of two parameters.

    python -m experiments.studies.optimizer_steps [FOLDER]

writes optimizer_steps.png and optimizer_steps.csv. The loss is (x^2 + 30 y^2) / 2, thirty times as flat along x as
along y, and the start is (-4, 1). The table has the first three steps of all optimizers of zoo.parts.optim.classic
(their sources are given in that module): a parameter, its gradient, the averages after their update, the update of the
parameter, and the parameter after it. With these settings all but one reach a loss of 0.001 in 54 to 136 steps;
AdaDelta, whose learning rate is meant to need no tuning, takes more than 300. The first step of the optimizers that
divide by a root of squares is as long along x as along y, although the gradients differ by a factor of 7.5.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from callbacks.figures.style import BLACK, BLUE, GRAY, GREEN, ORANGE, PURPLE, SKY, VERMILION
from experiments.studies import Row, panels, publish, run
from zoo.parts.optim.classic import SGD, AdaDelta, AdaGrad, Adam, GradientDescent, Momentum, Nesterov, RMSProp

OPTIMIZERS: dict[str, tuple[Callable[..., GradientDescent], str]] = {
    "SGD": (partial(SGD, lr=0.04), BLACK),
    "Momentum": (partial(Momentum, lr=0.4, momentum=0.9), BLUE),  # as torch's at lr 0.04
    "Nesterov": (partial(Nesterov, lr=0.4, momentum=0.9), SKY),
    "AdaGrad": (partial(AdaGrad, lr=0.5), PURPLE),
    "AdaDelta": (partial(AdaDelta, lr=1.0), GREEN),
    "RMSProp": (partial(RMSProp, lr=0.1), ORANGE),
    "Adam": (partial(Adam, lr=0.1), VERMILION),
}
START, STEPS = (-4.0, 1.0), 300
LOW = 1e-3  # the loss that is to be reached
NUM_ROWS = 3  # steps in the table


def valley(w: Tensor) -> Tensor:
    """(..., 2) -> (...)"""
    return (w[..., 0] ** 2 + 30 * w[..., 1] ** 2) / 2


def descend(
    make: Callable[..., GradientDescent], loss: Callable[[Tensor], Tensor], start: Tensor, steps: int
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Runs an optimizer on a loss of two parameters, from one start or several; each number is optimized on its own.

    Args:
        make: makes the optimizer from its parameters.
        loss: (..., 2) -> (...).
        start: (..., 2).
        steps: T.

    Returns:
        The path (T + 1, ..., 2), and for each step the gradient and the averages, each (..., 2).
    """
    w = nn.Parameter(start.clone())
    optimizer, path, records = make([w]), [start], []
    for _ in range(steps):
        optimizer.zero_grad()
        (w.grad,) = torch.autograd.grad(loss(w).sum(), w)
        optimizer.step()
        path.append(w.detach().clone())
        averages = {name: value.clone() for name, value in optimizer.state[w].items() if name != "step"}
        records.append({"gradient": w.grad.clone()} | averages)
    return torch.stack(path), records


def steps_needed(losses: Tensor) -> int | None:
    """The first step from which all losses (T + 1,) stay below LOW, if there is one."""
    above = int((losses >= LOW).nonzero().max())
    return above + 1 if above < len(losses) - 1 else None


def table(name: str, path: Tensor, records: list[dict[str, Tensor]]) -> list[Row]:
    """The first steps of an optimizer, a line for each step and parameter; path (T + 1, 2)."""
    rows: list[Row] = []
    for step, record in enumerate(records[:NUM_ROWS]):
        for i, parameter in enumerate("xy"):
            line: Row = {"optimizer": name, "step": step + 1, "parameter": parameter, "before": path[step, i].item()}
            for key in ("gradient", "average", "squares", "squared_updates"):
                line[key] = record[key][i].item() if key in record else None
            line |= {"update": (path[step + 1, i] - path[step, i]).item(), "after": path[step + 1, i].item()}
            rows.append(line)
    return rows


def draw(paths: dict[str, Tensor]) -> Figure:
    needed = {name: steps_needed(valley(path)) for name, path in paths.items()}
    titles = [f"{name}: {needed[name] or f'more than {len(paths[name]) - 1}'} steps" for name in paths]
    title = f"Steps in a valley thirty times as steep across as along, until the loss is below {LOW:g}"
    figure, places = panels(title, 2, 4, (13, 5.6), [*titles, "Loss after each step"])
    x, y = torch.meshgrid(torch.linspace(-5, 3, 200), torch.linspace(-1.5, 1.5, 200), indexing="xy")
    losses = valley(torch.stack([x, y], -1))
    for axes, (name, path) in zip(places, paths.items(), strict=False):
        color = OPTIMIZERS[name][1]
        axes.contour(x, y, losses, levels=[0.1, 0.5, 1.5, 3, 6, 10, 16, 23], colors="#cccccc", linewidths=0.8)
        axes.plot(*path.T, color=color, linewidth=1.3, marker="o", markersize=2.8)
        axes.plot(0, 0, marker="+", color=GRAY, markersize=11)
        axes.set(xlim=(-5, 3), ylim=(-1.5, 1.5), xlabel="x", ylabel="y")
        places[-1].plot(valley(path), color=color, linewidth=1.4, label=name)
    places[-1].axhline(LOW, color=GRAY, linewidth=0.8)
    places[-1].set(yscale="log", xlabel="step", ylim=(1e-5, 1e5), xlim=(0, 150))
    places[-1].legend(frameon=False, fontsize=8, ncols=2, loc="upper right", labelspacing=0.2)
    return figure


def main(folder: Path, steps: int = STEPS) -> None:
    runs = {name: descend(make, valley, torch.tensor(START), steps) for name, (make, _) in OPTIMIZERS.items()}
    rows = [row for name, run_ in runs.items() for row in table(name, *run_)]
    publish(folder, "optimizer_steps", draw({name: path for name, (path, _) in runs.items()}), rows)


if __name__ == "__main__":
    run(main, __doc__)
