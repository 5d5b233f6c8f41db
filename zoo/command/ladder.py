"""The ladder of a folder of recipes: how far each rung came, drawn from the ledger.

A recipe stands on the ladder if its `expect` has a `rung`; its `label` says what is new there.
"""

import statistics
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from callbacks.figures.style import BLUE, GRAY, GRID, ORANGE, plain_axes, save_figure
from zoo.command import ledger, recipes

MAX_GAP = 20.0  # in per cent; a mean that is further below the best is written at the left edge


def rungs(folder: str) -> list[str]:
    """The recipes of a folder that have a rung and a result, from the bottom to the top."""
    rung = {name: recipes.expectation(name).rung for name in recipes.names() if name.startswith(f"{folder}/")}
    placed = [(place, name) for name, place in rung.items() if place is not None and ledger.latest(name)]
    return [name for _, name in sorted(placed)]


def draw(folder: str) -> Figure:
    """One row for each rung: seeds as dots, their mean as a larger dot, the target as a tick."""
    names = rungs(folder)
    results = {name: [100 * float(row["value"]) for row in ledger.latest(name)] for name in names}
    best = max(statistics.mean(values) for values in results.values())
    shown = [value for values in results.values() for value in values if value > best - MAX_GAP]
    low, high = min(shown) - 1.5, max(shown) + 0.07 * (max(shown) - min(shown) + 1.5)
    figure = Figure((9, 1.1 + 0.34 * len(names)), facecolor="white", layout="constrained")
    axes = figure.subplots()
    plain_axes(axes, grid=False)
    for height, name in enumerate(names):
        draw_rung(axes, height, values=results[name], expect=recipes.expectation(name), left=low)
    labels = [f"{recipes.expectation(name).label}    {name.rpartition('/')[2]}" for name in names]
    axes.set_yticks(range(len(names)), labels, size=9)
    axes.set_xlim(low, high)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("test accuracy in %, at the last epoch")
    axes.set_title(f"{folder}: mean and seeds (dots), target (tick)", loc="right", size=11, weight="bold")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def draw_rung(axes: Axes, height: int, values: list[float], expect: recipes.Expect, left: float) -> None:
    """Draws the results of a rung, in per cent, at a height; `left` is the left edge of the axes."""
    mean, target = statistics.mean(values), 100 * (expect.at_least or 0)
    axes.plot([left, max(mean, left)], [height, height], color=BLUE, linewidth=1.2, alpha=0.35)
    axes.plot(values, [height] * len(values), "o", color=BLUE, markersize=4, alpha=0.7)
    axes.plot(mean, height, "o", color=BLUE, markersize=9)
    if target:
        axes.plot([target, target], [height - 0.36, height + 0.36], color=ORANGE, linewidth=2.4)
    text = f"{mean:.1f}" if mean > left else f"\N{LEFTWARDS ARROW} {mean:.1f}: no learning"
    right = max([left, *values, target])
    axes.annotate(text, (right, height), (7, 0), textcoords="offset points", va="center", size=9, color=GRAY)


def publish() -> list[Path]:
    """Writes docs/ladder_FOLDER.png for each folder that has rungs; returns the files."""
    paths = []
    for folder in sorted({name.partition("/")[0] for name in recipes.names()}):
        if rungs(folder):
            paths.append(recipes.ROOT.parent / "docs" / f"ladder_{folder}.png")
            save_figure(draw(folder), paths[-1])
    return paths
