"""The confusion matrix of a classifier as a figure. K classes."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from callbacks.figures.grids import HEAD
from callbacks.figures.style import add_axes, heading, shorten

COLORMAP = matplotlib.colormaps["Blues"]
MOST_COUNTS, MOST_NAMES = 25, 60  # classes up to which counts are written into the cells, and names at the borders
LETTER = 0.075  # inches, about, of a letter of a class name
CELL, LARGEST = 0.5, 0.8  # inches of a cell, and of one of few classes; many classes get smaller ones
WIDEST = 11.0  # inches of the matrix


def draw_confusion(matrix: np.ndarray, names: Sequence[str], title: str, subtitle: str) -> Figure:
    """Draws counts in cells whose color tells the share of the true class, so that rare classes can be compared.

    The color follows the root of the share: mistakes, which are few, would all look like none.

    Args:
        matrix: (K, K), how often a class (row) was taken for another (column).
        names: of the classes.
        title, subtitle: of the figure.
    """
    number = len(names)
    names = [shorten(name, 20).replace("$", r"\$") for name in names]
    named = number <= MOST_NAMES
    cell = min(max(CELL, min(LARGEST, 3 / number)), WIDEST / number)
    size = min(9.0, 60 * cell) if named else 9.0  # points of letters
    side = number * cell
    room = 0.25 + (size / 9 * LETTER * max(map(len, names)) if named else 0.35)
    width, height = max(room + 0.35 + side + 0.2, 5.5), HEAD + side + room + 0.45
    figure = Figure((width, height), facecolor="white")
    heading(figure, title, subtitle)
    axes = add_axes(figure, room + 0.35, height - HEAD - 0.05 - side, side, side)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(np.sqrt(shares), cmap=COLORMAP, vmin=0, vmax=1)
    axes.set(xlabel="prediction", ylabel="truth")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=size)
    if named:
        axes.set_xticks(range(number), names, rotation=90)
        axes.set_yticks(range(number), names)
    if number <= MOST_COUNTS:
        # Counts of more than four digits would not fit into their cell.
        size = min(size, 0.8 * 72 * cell / (0.6 * max(3, len(str(matrix.max())))))
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                color = "white" if shares[row, column] > 0.3 else "black"
                axes.text(column, row, str(count), ha="center", va="center", size=size, color=color)
    return figure
