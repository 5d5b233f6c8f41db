"""How the optimizers leave a saddle point and a plateau, where the gradient is almost zero.

    python -m experiments.studies.saddle_and_plateau [FOLDER]

writes saddle_and_plateau.png and saddle_and_plateau.csv. The saddle (x^2 - y^2) / 2 + y^4 / 4 has its minima at y = 1
and -1; the runs start at x = 1, close to the ridge y = 0. The plateau 1 - exp(-(x^2 + y^2) / 2) is flat except for a
hole in the middle; the runs start at distances 3, 4 and 5 from its center. The optimizers have the settings of
`optimizer_steps`, which were chosen for a valley and not for this. The table has the steps until |y| > 1/2, and until
the distance is below 1; empty where 2000 are not enough. Dauphin et al. 2014, "Identifying and attacking the saddle
point problem", explain why saddle points are common in many dimensions. SGD needs more steps the smaller the gradient
is, and momentum about a quarter of them or fewer. The optimizers that divide by the size of the gradients hardly depend
on it, except AdaDelta on the plateau, where its eps is larger than the squares. (The gradients are exact here: noise,
as from small batches, would push SGD off the ridge.)
"""

from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from callbacks.figures.style import GRAY
from experiments.studies import Row, panels, publish, run
from experiments.studies.optimizer_steps import OPTIMIZERS, descend

STEPS = 2000
OFFSETS, DISTANCES = (1e-2, 1e-4, 1e-6), (3.0, 4.0, 5.0)  # of the starts: from the ridge, and from the center
DRAWN = 1  # the start whose path is drawn
SADDLE = torch.tensor([(1.0, offset) for offset in OFFSETS])
PLATEAU = torch.tensor([(-0.8 * distance, 0.6 * distance) for distance in DISTANCES])


def saddle(w: Tensor) -> Tensor:
    """(..., 2) -> (...)"""
    x, y = w.unbind(-1)
    return (x**2 - y**2) / 2 + y**4 / 4


def plateau(w: Tensor) -> Tensor:
    """(..., 2) -> (...)"""
    return 1 - torch.exp(-w.square().sum(-1) / 2)


def first_steps(escaped: Tensor) -> list[int | None]:
    """(T + 1, starts), bool -> the first step of each start at which it is true."""
    return [int(column.nonzero().min()) if column.any() else None for column in escaped.T]


def row(name: str, on_saddle: Tensor, on_plateau: Tensor) -> Row:
    """A line of the table, from the paths (T + 1, starts, 2)."""
    from_ridge = zip(OFFSETS, first_steps(on_saddle[..., 1].abs() > 0.5), strict=True)
    from_plateau = zip(DISTANCES, first_steps(on_plateau.norm(dim=-1) < 1), strict=True)
    line: Row = {"optimizer": name}
    line |= {f"saddle, y = {start:g}": steps for start, steps in from_ridge}
    line |= {f"plateau, distance {start:g}": steps for start, steps in from_plateau}
    return line


def draw_loss(
    axes: Axes,
    loss: Callable[[Tensor], Tensor],
    levels: Tensor,
    xlim: tuple[float, float],
    ylim: tuple[float, float],
) -> None:
    """The loss as gray levels."""
    x, y = torch.meshgrid(torch.linspace(*xlim, 200), torch.linspace(*ylim, 200), indexing="xy")
    axes.contourf(x, y, loss(torch.stack([x, y], -1)), levels=levels, cmap="Greys_r", alpha=0.35, extend="both")
    axes.set(xlim=xlim, ylim=ylim, xlabel="x", ylabel="y")


def draw(paths: dict[str, tuple[Tensor, Tensor]]) -> Figure:
    titles = [f"Saddle, from y = {OFFSETS[DRAWN]:g}", f"Plateau, from distance {DISTANCES[DRAWN]:g}"]
    figure, (a, b, c, d) = panels("Leaving a saddle and a plateau", 2, 2, (11, 8.4), titles)
    draw_loss(a, saddle, torch.linspace(-0.25, 0.9, 16), (-1.2, 1.2), (-1.4, 1.4))
    draw_loss(b, plateau, torch.linspace(0, 1, 16), (-3.6, 2), (-1.5, 2.7))
    for name, both in paths.items():
        on_saddle, on_plateau = (path[:, DRAWN] for path in both)
        color, steps = OPTIMIZERS[name][1], range(1, len(on_saddle))
        a.plot(*on_saddle.T, color=color, linewidth=1.2, marker="o", markersize=2.4)
        b.plot(*on_plateau.T, color=color, linewidth=1.2, marker="o", markersize=2.4)
        c.plot(steps, on_saddle[1:, 1].abs(), color=color, label=name, linewidth=1.6)
        d.plot(steps, on_plateau[1:].norm(dim=-1), color=color, linewidth=1.6)
    c.axhline(0.5, color=GRAY, linestyle=":")
    d.axhline(1, color=GRAY, linestyle=":")
    c.set(xscale="log", yscale="log", xlabel="step", ylabel="|y|", ylim=(5e-5, 3))
    d.set(xscale="log", xlabel="step", ylabel="distance from the center", ylim=(0, 4.3))
    c.legend(frameon=False, fontsize=9, loc="lower right")
    return figure


def main(folder: Path, steps: int = STEPS) -> None:
    paths = {
        name: (descend(make, saddle, SADDLE, steps)[0], descend(make, plateau, PLATEAU, steps)[0])
        for name, (make, _) in OPTIMIZERS.items()
    }
    publish(folder, "saddle_and_plateau", draw(paths), [row(name, *both) for name, both in paths.items()])


if __name__ == "__main__":
    run(main, __doc__)
