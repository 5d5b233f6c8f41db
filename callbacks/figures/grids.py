"""Grids of images as figures. C channels, H height, W width."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from callbacks.figures.style import BLUE, GRAY, VERMILION, add_axes, heading

HEAD = 0.62  # inches that the heading takes
GAP = 0.1  # inches between images and at the borders


def grid(images: list[np.ndarray], names: list[str], title: str, subtitle: str, columns: int) -> Figure:
    """Images (H, W, C) uint8 of any sizes in rows, each below its name."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    cell = max(0.9, min(3.0, 12 / columns))
    cell_height = cell * max(image.shape[0] / image.shape[1] for image in images)
    name_height = 0.24
    width = max(columns * (cell + GAP), 5.0) + GAP
    height = HEAD + rows * (cell_height + name_height) + GAP
    figure = Figure((width, height), facecolor="white")
    heading(figure, title, subtitle)
    for i, (image, name) in enumerate(zip(images, names, strict=True)):
        row, column = divmod(i, columns)
        x, top = GAP + column * (cell + GAP), height - HEAD - row * (cell_height + name_height)
        axes = add_axes(figure, x, top - name_height - cell_height, cell, cell_height)
        axes.imshow(image.squeeze(2) if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255)
        axes.set_anchor("N")
        axes.set_axis_off()
        figure.text(x / width, (top - name_height + 0.05) / height, name, size=9, va="bottom")
    return figure


def columns_for(count: int) -> int:
    """How many columns suit a grid of so many images: one row of up to five, else about a square."""
    return count if count <= 5 else math.ceil(math.sqrt(count))


def cells(count: int, panels: int, title: str, subtitle: str, foot: float = 0.1) -> tuple[Figure, list[list[Axes]]]:
    """A figure of `count` cells in rows of five, each of `panels` square axes side by side under room for a caption.

    Everything is placed in inches, because layout engines move axes to make room for long captions. `foot` inches are
    left free at the bottom.
    """
    columns, cell, caption_height = min(5, max(count, 1)), 2.0, 0.66
    side = (cell - GAP) / panels
    rows = -(-count // columns)
    width, height = max(columns * cell, 6.0) + GAP, HEAD + rows * (side + caption_height) + foot
    figure = Figure((width, height), facecolor="white")
    heading(figure, title, subtitle)
    axes = []
    for i in range(count):
        row, column = divmod(i, columns)
        x, y = GAP + column * cell, height - HEAD - (row + 1) * (side + caption_height)
        axes.append([add_axes(figure, x + panel * side, y, 0.97 * side, 0.97 * side) for panel in range(panels)])
    return figure, axes


def draw_image(axes: Axes, image: np.ndarray) -> None:
    """Draws an image (H, W, 3) in 0..1 at the top of the axes, each pixel as a sharp square."""
    axes.imshow(image, interpolation="nearest")
    axes.set_anchor("N")
    axes.set_axis_off()


def caption(axes: Axes, truth: str, prediction: str, detail: str, right: bool = False) -> None:
    """Three lines above the axes. The arrow marks a prediction that is wrong, so colors are not needed to see that."""
    second = (18, "✓ right", BLUE, "bold") if right else (18, f"→ {prediction}", VERMILION, "bold")
    lines = ((31, truth, BLUE, "bold"), second, (5, detail, GRAY, "normal"))
    for points, text, color, weight in lines:
        axes.annotate(
            text, (0, 1), (0, points), xycoords="axes fraction", textcoords="offset points",
            color=color, size=9, weight=weight,
        )  # fmt: skip
