"""What training buys: the accuracy of a folder's recipes, which take about the same work, drawn from the ledger.

A recipe is among them if its `expect` has a `label` and no `rung`, which would put it on a ladder instead.
"""

import statistics
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from callbacks.figures.style import BLUE, GRAY, GRID, add_axes, heading, plain_axes, save_figure
from zoo.command import recipes
from zoo.results import ledger

LARGEST = 260.0  # area of the marker of the net with the most parameters, in points squared
COLUMNS = ("accuracy", "TFLOP", "images/s", "parameters")  # of the numbers at the right
WIDTH, LEFT, PLOT, COLUMN = 9.6, 2.2, 3.8, 0.85  # of the figure, the names, the axes and a column, in inches
HEAD, ROW, FOOT = 0.95, 0.3, 0.6  # heights, in inches


class Point(NamedTuple):
    """A recipe that was trained: means over its seeds, accuracy in per cent.

    The speed, in samples a second, is only known of trainings on the device that most have been on.
    """

    recipe: str
    label: str
    accuracy: float
    tflop: float
    parameters: int
    devices: tuple[str, ...]
    speed: str = ""


def points(folder: str) -> list[Point]:
    """The recipes of a folder that have a label, no rung, and a result, best first."""
    found = []
    for name in recipes.names():
        if not name.startswith(f"{folder}/"):
            continue
        expect, rows = recipes.expectation(name), ledger.latest(name)
        if expect.label and expect.rung is None and rows:
            accuracy, tflop = (statistics.mean(float(row[key]) for row in rows) for key in ("value", "tflop"))
            parameters, devices = int(rows[-1]["parameters"]), tuple(dict.fromkeys(row["device"] for row in rows))
            found.append(Point(name, expect.label, 100 * accuracy, tflop, parameters, devices))
    found.sort(key=lambda point: -point.accuracy)
    usual = usual_device(found)
    return [point._replace(speed=ledger.rate(point.recipe, usual)) for point in found]


def usual_device(found: list[Point]) -> str:
    """That which most of some recipes were trained on; the first of several."""
    return statistics.mode(device for point in found for device in point.devices) if found else ""


def draw(folder: str) -> Figure:
    """A row for each recipe, best first: a marker at its accuracy, and what it took as numbers."""
    found = points(folder)
    tall = ROW * len(found)
    figure = Figure((WIDTH, HEAD + tall + FOOT), facecolor="white")
    heading(
        figure,
        f"{folder}: what training buys",
        "Test accuracy at the last epoch; the area of a marker is in proportion to the number of parameters",
    )
    axes = add_axes(figure, LEFT, FOOT, PLOT, tall)
    plain_axes(axes, grid=False)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    low, high = min(point.accuracy for point in found), max(point.accuracy for point in found)
    margin = 0.06 * (high - low) + 0.3
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_yticks(range(len(found)), [point.label.replace("$", r"\$") for point in found])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("test accuracy, %")
    most = max(point.parameters for point in found)
    for rank, point in enumerate(found):
        area = max(12.0, LARGEST * point.parameters / most)
        axes.scatter(point.accuracy, rank, s=area, color=BLUE, alpha=0.75, linewidths=0, clip_on=False)
    numbers = [(f"{p.accuracy:.1f} %", f"{p.tflop:.3g}", p.speed, _short(p.parameters)) for p in found]
    for place, (name, column) in enumerate(zip(COLUMNS, zip(*numbers, strict=True), strict=True)):
        x = 1 + COLUMN * (place + 1) / PLOT  # of the axes
        for rank, text in enumerate((name, *column), -1):
            color, size = (GRAY, 8) if rank < 0 else ("black", 9)
            y = rank if rank >= 0 else -0.5 - 0.15 / ROW
            axes.text(
                x,
                y,
                text,
                transform=axes.get_yaxis_transform(),
                ha="right",
                va="center_baseline",
                color=color,
                size=size,
            )
    note = f"images/s: {usual_device(found)}"
    figure.text(1 - (WIDTH - LEFT - PLOT - len(COLUMNS) * COLUMN) / WIDTH, 0.03, note, ha="right", color=GRAY, size=8)
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
