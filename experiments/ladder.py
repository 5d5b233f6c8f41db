"""The ladder: how far each rung of Fashion-MNIST came, one picture drawn from the ledger."""

import statistics
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from callbacks.images import GREY, save_figure
from callbacks.pictures import BLUE, ORANGE
from experiments import ledger, recipes

RUNGS = {  # from the foot to the top: what is new on each
    "default-init": "five convolutions, torch's initialisation",
    "kaiming": "normalised inputs, Kaiming initialisation",
    "general-relu": "leaky, shifted ReLU",
    "lsuv": "LSUV initialisation, plain ReLU",
    "layer-norm": "layer norm",
    "instance-norm": "instance norm",
    "group-norm": "group norm",
    "batch-norm": "batch norm, twice the learning rate",
    "sgd": "SGD without momentum",
    "momentum": "momentum",
    "rmsprop": "RMSProp",
    "adam": "Adam",
    "towards-90": "batch 256, five epochs, two learning rates",
    "one-cycle": "AdamW, one cycle, twice the channels",
    "resnet": "residual net, five epochs",
    "flagship": "small residual net, Muon, augmentation",
    "hundred-k": "the same a little wider and longer",
    "resnet-20": "the large residual net, 20 epochs",
}
LOWEST = 83.5  # per cent; what lies below is written at the left edge


def draw() -> Figure:
    """A row a rung that has a result: seeds as dots, their mean as a larger one, the figure to reach as a tick."""
    rungs = [name for name in RUNGS if ledger.latest(f"fashion_mnist/{name}")]
    figure = Figure((9, 1.1 + 0.34 * len(rungs)), facecolor="white", layout="constrained")
    axes = figure.subplots()
    for height, name in enumerate(rungs):
        draw_rung(axes, height, f"fashion_mnist/{name}")
    axes.set_yticks(range(len(rungs)), [f"{RUNGS[name]}    {name}" for name in rungs], size=9)
    axes.set_xlim(LOWEST, 95.2)
    axes.set_ylim(-0.6, len(rungs) - 0.4)
    axes.set_xlabel("test accuracy in %, at the last epoch")
    axes.set_title(
        "Fashion-MNIST, rung by rung: mean and seeds (dots), the figure to reach (tick)",
        loc="right", size=11, weight="bold",
    )  # fmt: skip
    axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def draw_rung(axes: Axes, height: int, recipe: str) -> None:
    expect = recipes.Expect(**recipes.read(recipes.find(recipe))["expect"])
    values = [100 * float(row["value"]) for row in ledger.latest(recipe)]
    mean = statistics.mean(values)
    axes.plot([LOWEST, max(mean, LOWEST)], [height, height], color=BLUE, linewidth=1.2, alpha=0.35)
    axes.plot(values, [height] * len(values), "o", color=BLUE, markersize=4, alpha=0.7)
    axes.plot(mean, height, "o", color=BLUE, markersize=9)
    if expect.at_least is not None:
        axes.plot([100 * expect.at_least] * 2, [height - 0.36, height + 0.36], color=ORANGE, linewidth=2.4)
    text = f"{mean:.1f}" if mean > LOWEST else f"\N{LEFTWARDS ARROW} {mean:.1f}: no learning"
    right = max([LOWEST, *values, 100 * (expect.at_least or 0)])
    axes.annotate(text, (right, height), (7, 0), textcoords="offset points", va="center", size=9, color=GREY)


def publish() -> Path:
    """Writes docs/ladder.png, at once."""
    path = recipes.ROOT.parent / "docs" / "ladder.png"
    save_figure(draw(), path)
    return path
