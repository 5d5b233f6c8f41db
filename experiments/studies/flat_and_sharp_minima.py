"""Flat and sharp minima: which ones small and large batches find, and whether it matters.

    python -m experiments.studies.flat_and_sharp_minima [FOLDER]

writes flat_and_sharp_minima.png and flat_and_sharp_minima.csv. A net of two hidden layers learns scikit-learn's digits
by plain SGD until its training loss is below 0.01, so that all nets have the same training loss: with batches of 8, and
with all of the data in each step, at the same learning rate and at five times that. Left: the loss around the minima
along random directions in which the change of every filter is as long as the filter (Li et al. 2018, "Visualizing the
Loss Landscape of Neural Nets", section 4; biases are not changed). Right: the loss on the line from the small-batch net
to the large-batch net with the same initialization (Keskar et al. 2017, "On Large-Batch Training", figure 2). Bands:
standard deviation over the seeds. The table has mean and standard deviation over the seeds: `rise` is the increase of
the training loss from distance 0 to distance 0.5 on the left, `curvature` the largest eigenvalue of the Hessian, by
power iteration. Small batches find flatter minima, and their test loss is lower; but large batches come close to that
with a larger learning rate, and the share of test digits that are classified wrongly shows no difference.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.func import functional_call

from callbacks.figures.style import BLUE, GRAY, GREEN, VERMILION
from experiments.studies import Row, digits, panels, publish, run
from zoo.parts.optim.classic import SGD

ALL, TARGET = 1437, 0.01  # images in training; the loss at which it ends
SETTINGS = {  # batch size, learning rate, color
    "batches of 8, lr 0.1": (8, 0.1, BLUE),
    f"batches of {ALL}, lr 0.1": (ALL, 0.1, VERMILION),
    f"batches of {ALL}, lr 0.5": (ALL, 0.5, GREEN),
}
AROUND, ALONG, DIRECTIONS = torch.linspace(-1, 1, 17), torch.linspace(-0.5, 1.5, 21), 5
NET = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
Weights = Mapping[str, Tensor]


def evaluate(weights: Weights, split: str) -> tuple[Tensor, Tensor]:
    """Loss, and share of digits that are classified wrongly."""
    x, y = digits(split)
    logits = functional_call(NET, dict(weights), x.flatten(1))
    return F.cross_entropy(logits, y), (logits.argmax(1) != y).float().mean()


def train(seed: int, batch_size: int, lr: float, limit: int) -> tuple[Weights, int]:
    """Weights and number of steps; the loss on all of the data is computed every 20 steps."""
    torch.manual_seed(seed)
    for layer in NET:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    optimizer, (x, y), steps = SGD(NET.parameters(), lr), digits("train"), 0
    weights = dict(NET.named_parameters())
    while steps < limit and (steps % 20 or evaluate(weights, "train")[0] > TARGET):
        if steps % -(-ALL // batch_size) == 0:
            batches = iter(torch.randperm(len(x)).split(batch_size))
        index = next(batches)
        optimizer.zero_grad()
        F.cross_entropy(NET(x[index].flatten(1)), y[index]).backward()
        optimizer.step()
        steps += 1
    return {name: w.detach().clone() for name, w in weights.items()}, steps


@torch.no_grad()
def profile(weights: Weights, change: Weights, places: Tensor, split: str) -> Tensor:
    """The loss at weights + place * change, for each of `places`."""
    moved = ({k: w + place * change[k] for k, w in weights.items()} for place in places)
    return torch.stack([evaluate(w, split)[0] for w in moved])


def around(weights: Weights, split: str) -> Tensor:
    """The mean over random directions, in which every filter's (row's) change is as long as the filter; at AROUND."""
    draw, profiles = torch.Generator().manual_seed(0), []
    for _ in range(DIRECTIONS):
        change = {k: torch.randn(w.shape, generator=draw) * (w.ndim > 1) for k, w in weights.items()}
        change = {k: F.normalize(d, dim=-1) * weights[k].norm(dim=-1, keepdim=True) for k, d in change.items()}
        profiles.append(profile(weights, change, AROUND, split))
    return torch.stack(profiles).mean(0)


def curvature(weights: Weights, rounds: int = 20) -> float:
    """The largest eigenvalue of the Hessian of the training loss."""
    weights = {k: w.clone().requires_grad_() for k, w in weights.items()}
    slopes = torch.autograd.grad(evaluate(weights, "train")[0], list(weights.values()), create_graph=True)
    slope = torch.cat([s.flatten() for s in slopes])
    product = torch.randn(len(slope), generator=torch.Generator().manual_seed(0))
    for _ in range(rounds):
        vector = F.normalize(product, dim=0)
        products = torch.autograd.grad(slope, list(weights.values()), vector, retain_graph=True)
        product = torch.cat([p.flatten() for p in products])
    return (vector @ product).item()


def row(name: str, ends: list[tuple[Weights, int]], profiles: Tensor) -> Row:
    """A line of the table, from weights, steps and profiles around them (seeds, AROUND)."""
    ring = profiles[:, AROUND.abs() == 0.5].mean(1)
    columns = {
        "training loss": torch.stack([evaluate(weights, "train")[0] for weights, _ in ends]),
        "test loss": torch.stack([evaluate(weights, "test")[0] for weights, _ in ends]),
        "test error, %": torch.stack([100 * evaluate(weights, "test")[1] for weights, _ in ends]),
        "rise": ring - profiles[:, len(AROUND) // 2],
        "curvature": torch.tensor([curvature(weights) for weights, _ in ends]),
    }
    line: Row = {"setting": name, "seeds": len(ends), "steps": sum(steps for _, steps in ends) / len(ends)}
    for column, values in columns.items():
        line |= {column: values.mean().item(), f"{column}: std": values.std(correction=0).item()}
    return line


def draw(curves: list[tuple[int, str, str, str, Tensor]]) -> Figure:
    titles = [
        "Around each minimum, along random directions",
        "From small batches (0) to large ones at the same rate (1)",
    ]
    figure, places = panels("Loss around minima: training (solid) and test (dashed)", 1, 2, (12, 5), titles)
    for panel, split, label, color, profiles in curves:
        x, logs = (AROUND, ALONG)[panel], profiles.log()
        mean, std = logs.mean(0), logs.std(0, correction=0)
        solid = split == "train"
        places[panel].plot(x, mean.exp(), "-" if solid else "--", color=color, label=label if solid else None)
        places[panel].fill_between(x, (mean - std).exp(), (mean + std).exp(), color=color, alpha=0.2, linewidth=0)
    for axes, text in zip(places, ("distance, in lengths of the filters", "position on the line"), strict=True):
        axes.set(yscale="log", ylabel="loss", xlabel=text, ylim=(0.005, 6))
    places[0].legend(frameon=False, loc="upper center")
    return figure


def main(folder: Path, seeds: int = 5, limit: int = 3000) -> None:
    ends = {
        name: [train(seed, batch_size=batch_size, lr=lr, limit=limit) for seed in range(seeds)]
        for name, (batch_size, lr, _) in SETTINGS.items()
    }
    curves = [
        (0, split, name, SETTINGS[name][2], torch.stack([around(weights, split) for weights, _ in runs]))
        for split in ("train", "test")
        for name, runs in ends.items()
    ]
    rows = [row(name, ends[name], profiles) for _, _, name, _, profiles in curves[: len(ends)]]
    small, large, *_ = ends.values()
    lines = [(a, {k: b[k] - w for k, w in a.items()}) for (a, _), (b, _) in zip(small, large, strict=True)]
    for split in ("train", "test"):
        curves.append((1, split, "", GRAY, torch.stack([profile(*line, ALONG, split) for line in lines])))
    publish(folder, "flat_and_sharp_minima", draw(curves), rows)


if __name__ == "__main__":
    run(main, __doc__)
