"""Adversarial images drawn: the image, what was added to it, and the result. H height, W width."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from callbacks.figures.grids import draw_image
from callbacks.figures.style import BLUE, GRAY, VERMILION, add_axes, heading, shorten

COLUMNS = 5
SIDE, GAP, LEFT = 1.6, 0.12, 1.25  # inches: of an image, between images, of the names of the rows
CAPTION = 0.4  # inches above an image, for two lines


class Attacked(NamedTuple):
    """An image before and after an attack.

    image, result: (H, W, 3) in 0..1.
    truth: name of the class.
    before, after: name and confidence (0..1) of the class that is predicted for the image and for the result.
    target: name of the class that was aimed at.
    """

    image: np.ndarray
    result: np.ndarray
    truth: str
    before: tuple[str, float]
    after: tuple[str, float]
    target: str


def attack_figure(shown: list[Attacked], factor: float, title: str, subtitle: str, about: str = "") -> Figure:
    """Each image above what was added to it, magnified, and the result.

    Args:
        shown: the images.
        factor: by which the change is multiplied to be seen; gray is no change.
        title, subtitle: above it.
        about: below it, which net was attacked.
    """
    columns, blocks = min(COLUMNS, len(shown)), -(-len(shown) // COLUMNS)
    block_height = 3 * SIDE + 2 * CAPTION + 3 * GAP
    head, legend = 0.7, 0.75
    width = LEFT + max(columns * (SIDE + GAP), 5.0) + GAP
    height = head + blocks * (block_height + GAP) + legend
    figure = Figure((width, height), facecolor="white")
    heading(figure, title, subtitle)
    for i, item in enumerate(shown):
        block, column = divmod(i, COLUMNS)
        x, top = LEFT + column * (SIDE + GAP), height - head - block * (block_height + GAP)
        tops = (top - CAPTION, top - CAPTION - SIDE - GAP, top - 2 * CAPTION - 2 * (SIDE + GAP))
        panels = [add_axes(figure, x, y - SIDE, SIDE, SIDE) for y in tops]
        change = np.clip(0.5 + factor * (item.result - item.image), 0, 1)
        for panel, image in zip(panels, (item.image, change, item.result), strict=True):
            draw_image(panel, image)
        reached = item.after[0] == item.target
        _caption(panels[0], item.truth, item.before, BLUE if item.before[0] == item.truth else GRAY)
        _caption(panels[2], item.target, item.after, VERMILION if reached else GRAY, arrow=True)
        if column == 0:
            for y, name in zip(tops, ("image", f"change,\n{factor:g} times", "result"), strict=True):
                figure.text((LEFT - 0.15) / width, (y - SIDE / 2) / height, name, size=10, ha="right", va="center")
    figure.text(
        0.15 / width, 0.1 / height,
        "Above an image its class, above a result the class aimed at;\nunder that what is predicted, and how surely.\n"
        + about.replace("$", r"\$"),
        size=9, color=GRAY,
    )  # fmt: skip
    return figure


def _caption(axes: Axes, name: str, predicted: tuple[str, float], color: str, arrow: bool = False) -> None:
    """Two lines above the axes: the class, and what is predicted."""
    lines = ((15, f"{'→ ' if arrow else ''}{shorten(name, 16)}", "bold"), (4, _prediction(predicted), "normal"))
    for points, line, weight in lines:
        axes.annotate(
            line, (0, 1), (0, points), xycoords="axes fraction", textcoords="offset points",
            size=9, weight=weight, color=color,
        )  # fmt: skip


def _prediction(predicted: tuple[str, float]) -> str:
    return f"{shorten(predicted[0], 14)} {100 * predicted[1]:.0f} %"
