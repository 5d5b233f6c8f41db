"""The ladder of a folder of recipes: how far each rung came, drawn from the ledger.

A recipe stands on the ladder if its `expect` has a `rung`; its `label` says what is new there. Beside the accuracy
there is a column for the parameters, if the nets of the rungs differ in size, and one for the gap between training and
validation, of the rungs for which the ledger has both.
"""

import math
import statistics
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from callbacks.figures.style import BLUE, GRAY, GREEN, GRID, ORANGE, VERMILION, plain_axes, save_figure
from zoo.command import recipes
from zoo.results import ledger

MAX_GAP = 20.0  # in per cent; a mean that is further below the best is written at the left edge
MARGIN = 0.15  # free space beside the results, as a share of their range


class Rung(NamedTuple):
    """A recipe on the ladder: what it expects, and what its seeds reached.

    values: of the seeds, in per cent.
    parameters: of the net.
    gaps: of the seeds, training minus validation in points; empty where the ledger lacks one of them.
    """

    recipe: str
    expect: recipes.Expect
    values: list[float]
    parameters: int
    gaps: list[float]

    @property
    def mean(self) -> float:
        return statistics.mean(self.values)


def rungs(folder: str) -> list[str]:
    """The recipes of a folder that have a rung and a result, from the bottom to the top."""
    rung = {name: recipes.expectation(name).rung for name in recipes.names() if name.startswith(f"{folder}/")}
    placed = [(place, name) for name, place in rung.items() if place is not None and ledger.latest(name)]
    return [name for _, name in sorted(placed)]


def read(name: str) -> Rung:
    """A rung with its results, as the ledger has them."""
    rows = ledger.latest(name)
    both = [(row["train"], row["val"]) for row in rows if row.get("train") and row.get("val")]
    gaps = [100 * (float(train) - float(val)) for train, val in both]
    values = [100 * float(row["value"]) for row in rows]
    return Rung(name, recipes.expectation(name), values, int(rows[-1]["parameters"]), gaps)


def draw(folder: str) -> Figure:
    """One row for each rung: seeds as dots, their mean as a larger dot, the target as a tick; then other columns."""
    found = [read(name) for name in rungs(folder)]
    columns = {"accuracy": 5.2}  # of width
    if len({rung.parameters for rung in found}) > 1:
        columns["parameters"] = 1.7
    if 2 * sum(bool(rung.gaps) for rung in found) >= len(found):  # older rows of the ledger lack it
        columns["gap"] = 1.7
    figure = Figure((3.8 + sum(columns.values()), 1.1 + 0.34 * len(found)), facecolor="white", layout="constrained")
    places = figure.subplots(1, len(columns), sharey=True, squeeze=False, width_ratios=list(columns.values()))[0]
    for column, axes in zip(columns, places, strict=True):
        plain_axes(axes, grid=False)
        {"accuracy": _draw_accuracy, "parameters": _draw_parameters, "gap": _draw_gaps}[column](axes, found)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    labels = [f"{rung.expect.label}    {rung.recipe.rpartition('/')[2]}" for rung in found]
    places[0].set_yticks(range(len(found)), labels, size=9)
    places[0].set_ylim(-0.6, len(found) - 0.4)
    places[0].set_title(f"{folder}: mean and seeds (dots), target (tick)", loc="right", size=11, weight="bold")
    return figure


def _draw_accuracy(axes: Axes, found: list[Rung]) -> None:
    best = max(rung.mean for rung in found)
    reached = [value for rung in found for value in (*rung.values, 100 * (rung.expect.at_least or 0))]
    shown = [value for value in reached if value > best - MAX_GAP]
    margin = MARGIN * (max(shown) - min(shown)) + 0.05
    low = min(shown) - margin
    for height, rung in enumerate(found):
        draw_rung(axes, height, values=rung.values, expect=rung.expect, left=low)
    axes.set_xlim(low, max(shown) + margin)
    axes.set_xlabel("test accuracy in %, at the last epoch")


def draw_rung(axes: Axes, height: int, values: list[float], expect: recipes.Expect, left: float) -> None:
    """Draws the results of a rung, in per cent, at a height; `left` is the left edge of the axes."""
    mean, target = statistics.mean(values), 100 * (expect.at_least or 0)
    axes.plot([left, max(mean, left)], [height, height], color=BLUE, linewidth=1.2, alpha=0.35)
    axes.plot(values, [height] * len(values), "o", color=BLUE, markersize=4, alpha=0.7)
    axes.plot(mean, height, "o", color=BLUE, markersize=9)
    if target:
        axes.plot([target, target], [height - 0.36, height + 0.36], color=ORANGE, linewidth=2.4)
    text = f"{mean:.{_decimals(values)}f}" if mean > left else f"\N{LEFTWARDS ARROW} {mean:.1f}: no learning"
    right = max([left, *values, target])
    axes.annotate(text, (right, height), (7, 0), textcoords="offset points", va="center", size=9, color=GRAY)


def _decimals(values: list[float]) -> int:
    """Two near 100 per cent, where a tenth is much of what is left; else one."""
    return 2 if statistics.mean(values) > 98 else 1


def _draw_parameters(axes: Axes, found: list[Rung]) -> None:
    """The number of parameters on a logarithmic scale, written beside."""
    least, most = (choose(rung.parameters for rung in found) for choose in (min, max))
    axes.set_xscale("log")
    axes.set_xlim(least / 2, most * (most / least) ** 0.6 * 3)
    for height, rung in enumerate(found):
        axes.plot(rung.parameters, height, "D", color=GREEN, markersize=5)
        text = f"{rung.parameters:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
        axes.annotate(
            text, (rung.parameters, height), (7, 0), textcoords="offset points", va="center", size=9, color=GRAY
        )
    decades = range(math.ceil(math.log10(least / 2)), math.floor(math.log10(most)) + 1)
    axes.xaxis.set_major_locator(FixedLocator([10.0**decade for decade in decades]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("parameters")


def _draw_gaps(axes: Axes, found: list[Rung]) -> None:
    """Training minus validation, as bars to either side of 0: over-fitting to the right, under-fitting to the left."""
    means = {height: statistics.mean(rung.gaps) for height, rung in enumerate(found) if rung.gaps}
    reach = max(abs(mean) for mean in means.values()) or 1.0
    axes.axvline(0, color=GRAY, linewidth=0.8)
    for height, mean in means.items():
        axes.barh(height, mean, 0.5, color=VERMILION if mean > 0 else BLUE, alpha=0.75)
        text = f"{mean:+.2f}".replace("-", "\N{MINUS SIGN}")
        side = 1 if mean >= 0 else -1
        axes.annotate(
            text, (mean, height), (4 * side, 0), textcoords="offset points", va="center", size=9, color=GRAY,
            ha="left" if mean >= 0 else "right",
        )  # fmt: skip
    axes.set_xlim(min(0.0, *means.values(), -0.1 * reach) - 0.7 * reach, max(0.0, *means.values()) + 0.7 * reach)
    axes.set_xlabel("train \N{MINUS SIGN} validation, points")


def publish() -> list[Path]:
    """Writes docs/ladder_FOLDER.png for each folder that has rungs; returns the files."""
    paths = []
    for folder in sorted({name.partition("/")[0] for name in recipes.names()}):
        if rungs(folder):
            paths.append(recipes.ROOT.parent / "docs" / f"ladder_{folder}.png")
            save_figure(draw(folder), paths[-1])
    return paths
