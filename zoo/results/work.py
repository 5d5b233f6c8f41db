"""What training buys: the accuracy of a folder's recipes against the work of their training, drawn from the ledger.

A recipe is among them if its `expect` has a `label` and no `rung`, which would put it on a ladder instead.
"""

import statistics
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from callbacks.figures.style import BLUE, GRID, ORANGE, add_axes, heading, plain_axes, save_figure
from zoo.command import recipes
from zoo.results import ledger

LARGEST = 900.0  # area of the marker of the net with the most parameters, in points squared
LEADER = "#BBBBBB"  # color of the lines from a marker to its name
WIDTH, LEFT, PLOT = 10.0, 0.75, 6.2  # of the figure, the left margin and the axes, in inches


class Point(NamedTuple):
    """A recipe that was trained: means over its seeds, accuracy in per cent."""

    recipe: str
    label: str
    accuracy: float
    tflop: float
    parameters: int


def points(folder: str) -> list[Point]:
    """The recipes of a folder that have a label, no rung, and a result, best first."""
    found = []
    for name in recipes.names():
        if not name.startswith(f"{folder}/"):
            continue
        expect, rows = recipes.expectation(name), ledger.latest(name)
        if expect.label and expect.rung is None and rows:
            accuracy, tflop = (statistics.mean(float(row[key]) for row in rows) for key in ("value", "tflop"))
            found.append(Point(name, expect.label, 100 * accuracy, tflop, int(rows[-1]["parameters"])))
    return sorted(found, key=lambda point: -point.accuracy)


def spread(heights: list[float], gap: float, top: float) -> list[float]:
    """Moves heights, which fall, apart until neighbors differ by `gap`, keeping their order and about their places.

    >>> spread([3.0, 2.9, 0.0], gap=1.0, top=9.0), spread([3.0, 2.9, 0.0], gap=1.0, top=3.0)
    ([3.45, 2.45, 0.0], [3.0, 2.0, 0.0])
    """
    groups: list[tuple[float, int]] = []  # of heights that touch: their middle, and how many they are
    for height in heights:
        groups.append((height, 1))
        while len(groups) > 1:
            (above, many), (below, few) = groups[-2:]
            if above - below >= gap * (many + few) / 2:
                break
            groups[-2:] = [((above * many + below * few) / (many + few), many + few)]
    places: list[float] = []
    for place in (middle + gap * ((count - 1) / 2 - i) for middle, count in groups for i in range(count)):
        places.append(min(place, places[-1] - gap if places else top))
    return places


def draw(folder: str) -> Figure:
    """Accuracy against work, the area of a marker in proportion to the parameters, with the names at the right."""
    found = points(folder)
    height = max(4.5, 1.6 + 0.27 * len(found))
    figure = Figure((WIDTH, height), facecolor="white")
    heading(
        figure,
        f"{folder}: what training buys",
        "Test accuracy at the last epoch, work of training; the area of a marker is the number of parameters",
    )
    axes = add_axes(figure, LEFT, 0.6, PLOT, height - 1.4)
    plain_axes(axes)
    most = max(point.parameters for point in found)
    low, high = min(point.accuracy for point in found), max(point.accuracy for point in found)
    margin = 0.08 * (high - low) + 0.3
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlim(0, 1.08 * max(point.tflop for point in found))
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set(xlabel="work of training, in TFLOP", ylabel="test accuracy, %")
    per_inch = (high - low + 2 * margin) / (height - 1.4)
    places = spread([point.accuracy for point in found], gap=0.25 * per_inch, top=high + margin)
    edge = axes.get_xlim()[1]
    for rank, (point, place) in enumerate(zip(found, places, strict=True)):
        color = ORANGE if rank == 0 else BLUE
        area = max(12.0, LARGEST * point.parameters / most)
        axes.scatter(point.tflop, point.accuracy, s=area, color=color, alpha=0.6, linewidths=0)
        axes.plot(
            [point.tflop, edge, 1.02 * edge], [point.accuracy, place, place], color=LEADER, linewidth=0.6, clip_on=False
        )
        text = f"{point.accuracy:.1f}  {point.label} ({_short(point.parameters)})"
        axes.text(1.03 * edge, place, text, va="center", size=9, color="black")
    return figure


def _short(parameters: int) -> str:
    """
    >>> _short(98200), _short(1102776)
    ('98.2 k', '1.1 M')
    """
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e6 else f"{parameters / 1e3:.3g} k"


def folders() -> list[str]:
    """The folders that have such recipes."""
    return [folder for folder in sorted({name.partition("/")[0] for name in recipes.names()}) if points(folder)]


def publish() -> list[Path]:
    """Writes docs/work_FOLDER.png for each folder that has such recipes; returns the files."""
    paths = []
    for folder in folders():
        paths.append(recipes.ROOT.parent / "docs" / f"work_{folder}.png")
        save_figure(draw(folder), paths[-1])
    return paths
