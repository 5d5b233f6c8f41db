"""A contact sheet of images with what a net says of them. C channels, H height, W width, N boxes, K classes."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, zeros

from callbacks.figures.boxes import BOX_COLORS, draw_boxes
from callbacks.figures.grids import GAP, HEAD, columns_for, draw_image
from callbacks.figures.style import BLUE, GRAY, VERMILION, add_axes, heading, shorten

FOOT = 0.42  # inches below an image, for two lines
LEGEND = 0.3  # inches that the legend takes
MANY_BOXES = 12  # in an image; then the colors say the classes, as texts would hide the image
LETTER = 0.083  # inches of an average letter at 9 points


class Predicted(NamedTuple):
    """An image and what a net says of it.

    image: (H, W, 3) uint8.
    name: of the file.
    text: one line, such as "ankle boot 0.98".
    is_sure: false if the net found nothing, or the file could not be read.
    boxes: (N, 4) xyxy in pixels of `image`; None from a classifier.
    labels: (N,) int64.
    texts: one for each box.
    """

    image: np.ndarray
    name: str
    text: str
    is_sure: bool = True
    boxes: Tensor | None = None
    labels: Tensor | None = None
    texts: tuple[str, ...] = ()


def prediction_sheet(shown: list[Predicted], title: str, subtitle: str, classes: list[str]) -> Figure:
    """Images in rows, each above its name and what the net says.

    Args:
        shown: one or more.
        title, subtitle: above all.
        classes: K names; those that occur as boxes are explained by their colors.
    """
    columns = min(columns_for(len(shown)), 8)
    rows = -(-len(shown) // columns)
    has_boxes = any(one.boxes is not None for one in shown)
    cell = min(3.4 if has_boxes else 2.0, max(1.9 if has_boxes else 1.3, 13 / columns))
    tall = cell * min(1.4, max(one.image.shape[0] / one.image.shape[1] for one in shown))
    occurring = sorted({label for one in shown if one.labels is not None for label in one.labels.tolist()})
    head = HEAD + (LEGEND if occurring else 0.0)
    width, height = max(columns * (cell + GAP) + GAP, 5.0), head + rows * (tall + FOOT + GAP)
    figure = Figure((width, height), facecolor="white")
    heading(figure, title, subtitle)
    _legend(figure, [(classes[label], BOX_COLORS[label % len(BOX_COLORS)]) for label in occurring])
    letters = int(cell / LETTER)
    for i, one in enumerate(shown):
        row, column = divmod(i, columns)
        x, top = GAP + column * (cell + GAP), height - head - row * (tall + FOOT + GAP)
        axes = add_axes(figure, x, top - tall, cell, tall)
        draw_image(axes, one.image)
        if one.boxes is not None and one.labels is not None:
            texts = list(one.texts) if len(one.texts) <= MANY_BOXES else [""] * len(one.texts)
            draw_boxes(axes, one.boxes, one.labels, texts, zeros(len(texts)).bool(), width=1.5)
        color = BLUE if one.is_sure else VERMILION
        for down, text, shade, weight in ((0.03, one.text, color, "bold"), (0.21, one.name, GRAY, "normal")):
            text = shorten(text, letters).replace("$", r"\$")
            below = (top - tall - down) / height
            figure.text(x / width, below, text, size=9, color=shade, weight=weight, va="top")
    return figure


def _legend(figure: Figure, entries: list[tuple[str, str]]) -> None:
    """Names with their colors in one line below the heading, as many as there is room for."""
    width, height = figure.get_size_inches()
    x, y = GAP, height - HEAD - 0.08
    for name, color in entries:
        long = 0.3 + LETTER * len(name)
        if x + long > width:
            figure.text(x / width, y / height, "…", size=9, va="center")
            return
        side = 0.13
        figure.add_artist(
            Rectangle((x / width, (y - side / 2) / height), side / width, side / height, facecolor=color, edgecolor="k")
        )
        figure.text((x + 0.18) / width, y / height, name, size=9, va="center")
        x += long + 0.1
