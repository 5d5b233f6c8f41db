"""Images as files and figures. C channels, H height, W width. Imports no Lightning, so that commands can be quick."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from callbacks.figures.style import BLUE, GREY, VERMILION


def grid(images: list[np.ndarray], names: list[str], title: str, subtitle: str, columns: int) -> Figure:
    """Images (H, W, C) uint8 of any sizes in rows, the name above each; placed in inches."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    cell = max(0.9, min(3.0, 12 / columns))
    tall = cell * max(image.shape[0] / image.shape[1] for image in images)
    gap, head, label = 0.1, 0.62, 0.24
    width, height = max(columns * (cell + gap), 5.0) + gap, head + rows * (tall + label) + gap
    figure = Figure((width, height), facecolor="white")
    figure.text(gap / width, 1 - 0.12 / height, title, size=13, weight="bold", va="top")
    figure.text(gap / width, 1 - 0.38 / height, subtitle, size=10, color=GREY, va="top")
    for i, (image, name) in enumerate(zip(images, names, strict=True)):
        x, top = gap + i % columns * (cell + gap), height - head - i // columns * (tall + label)
        axes = figure.add_axes((x / width, (top - label - tall) / height, cell / width, tall / height))
        axes.imshow(image.squeeze(2) if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=255)
        axes.set_anchor("N")
        axes.set_axis_off()
        figure.text(x / width, (top - label + 0.05) / height, name, size=9, va="bottom")
    return figure


def columns_for(count: int) -> int:
    return count if count <= 5 else math.ceil(math.sqrt(count))


def cells(count: int, panels: int, title: str, subtitle: str, foot: float = 0.1) -> tuple[Figure, list[list[Axes]]]:
    """A figure of `count` cells in rows of five, each of `panels` square axes side by side under room for a caption.

    Placed by hand, in inches: layout engines move axes about to make room for long captions. `foot` is left free below.
    """
    columns, cell, gap, head, caption = min(5, max(count, 1)), 2.0, 0.1, 0.62, 0.66
    side = (cell - gap) / panels
    rows = -(-count // columns)
    width, height = max(columns * cell, 6.0) + gap, head + rows * (side + caption) + foot
    figure = Figure((width, height), facecolor="white")
    figure.text(gap / width, 1 - 0.12 / height, title, size=13, weight="bold", va="top")
    figure.text(gap / width, 1 - 0.38 / height, subtitle, size=10, color=GREY, va="top")
    axes = []
    for i in range(count):
        x, y = gap + i % columns * cell, height - head - (i // columns + 1) * (side + caption)
        boxes = [((x + p * side) / width, y / height, 0.97 * side / width, 0.97 * side / height) for p in range(panels)]
        axes.append([figure.add_axes(box) for box in boxes])
    return figure, axes


def draw_image(axes: Axes, image: np.ndarray) -> None:
    """(H, W, 3) in 0..1, every pixel a sharp square, at the top of the axes."""
    axes.imshow(image, interpolation="nearest")
    axes.set_anchor("N")
    axes.set_axis_off()


def caption(axes: Axes, truth: str, prediction: str, detail: str) -> None:
    """Three lines above the axes. The arrow says which is which, the colours only help."""
    lines = ((31, truth, BLUE, "bold"), (18, f"→ {prediction}", VERMILION, "bold"), (5, detail, GREY, "normal"))
    for points, text, colour, weight in lines:
        axes.annotate(
            text, (0, 1), (0, points), xycoords="axes fraction", textcoords="offset points",
            color=colour, size=9, weight=weight,
        )  # fmt: skip
