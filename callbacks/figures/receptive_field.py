"""Receptive fields drawn on an image. H height, W width."""

import math
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from callbacks.figures.style import BLACK, GRAY, VERMILION, add_axes, heading, plain_axes, shorten

SIDE = 4.6  # inches of the image
MAX_OUTLINES = 6  # of earlier layers
MAX_MARGIN = 1.0  # around the image, for fields beyond the border, in sides of the image
VEIL = 0.6  # opacity of the white over what the field does not hold
GROUND = "#DDDDDD"  # beyond the border, where a net sees padding


class Field(NamedTuple):
    """The receptive field of one layer's central unit.

    name: of the layer.
    size: (height, width) in pixels.
    box: xyxy in pixels; None if it sees nothing.
    """

    name: str
    size: tuple[int, int]
    box: tuple[int, int, int, int] | None


def field_figure(image: np.ndarray, fields: list[Field], chosen: int, title: str, subtitle: str) -> Figure:
    """The field of one layer and of some before it on an image, and the growth of the field from layer to layer.

    Args:
        image: (H, W, 3) in 0..1, as large as the net's input.
        fields: of the layers, in the order of the graph.
        chosen: index of the layer whose field is bright.
        title, subtitle: above it.
    """
    figure = Figure((SIDE + 5.5, SIDE + 0.9), facecolor="white")
    heading(figure, title, subtitle)
    outlines = _outlines(fields, chosen)
    shades = colormaps["viridis"](np.linspace(0.05, 0.85, len(outlines)))
    colors: dict[int, Any] = dict(zip(outlines, shades, strict=True)) | {chosen: VERMILION}
    _draw_image(add_axes(figure, 0.1, 0.15, SIDE, SIDE), image, fields, colors, chosen)
    _draw_growth(add_axes(figure, SIDE + 0.8, 0.6, 4.5, SIDE - 0.75), image.shape[:2], fields, colors)
    return figure


def _outlines(fields: list[Field], chosen: int) -> list[int]:
    """Layers before the chosen one whose fields are drawn, too: the first of each new largest size, or some of them."""
    areas = list(accumulate((math.prod(field.size) for field in fields), max))
    first = [i for i in range(chosen) if fields[i].box and areas[i] > (areas[i - 1] if i else 0)]
    found = [i for i in first if areas[i] < math.prod(fields[chosen].size)]
    if len(found) > MAX_OUTLINES:
        goals = np.geomspace(areas[found[0]], areas[found[-1]], MAX_OUTLINES)
        found = sorted({min(found, key=lambda i: abs(math.log(areas[i] / goal))) for goal in goals})
    return found


def _draw_image(axes: Axes, image: np.ndarray, fields: list[Field], colors: dict[int, Any], chosen: int) -> None:
    height, width = image.shape[:2]
    axes.set_facecolor(GROUND)
    axes.imshow(image, extent=(0, width, height, 0), interpolation="nearest", zorder=1)
    box = fields[chosen].box or (0, 0, 0, 0)
    space = 0.03 * max(height, width) if box[0] < 0 or box[1] < 0 or box[2] > width or box[3] > height else 0
    left, top = (max(min(0, box[i]), -MAX_MARGIN * side) - space for i, side in ((0, width), (1, height)))
    right, bottom = (min(max(side, box[i]), (1 + MAX_MARGIN) * side) + space for i, side in ((2, width), (3, height)))
    x0, y0, x1, y1 = box
    for a, b, c, d in ((0, 0, width, y0), (0, y1, width, height), (0, y0, x0, y1), (x1, y0, width, y1)):
        a, b, c, d = max(a, 0), max(b, 0), min(c, width), min(d, height)
        axes.add_patch(
            Rectangle((a, b), max(0, c - a), max(0, d - b), color="white", alpha=VEIL, linewidth=0, zorder=2)
        )
    for i, color in colors.items():
        if outline := fields[i].box:
            x0, y0, x1, y1 = outline
            options = {"edgecolor": color, "linewidth": 2.6 if i == chosen else 1.4, "zorder": 3, "clip_on": True}
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, **options))
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_anchor("NW")


def _draw_growth(axes: Axes, image: tuple[int, ...], fields: list[Field], colors: dict[int, Any]) -> None:
    plain_axes(axes, "Largest field so far, side in pixels")
    square = all(height == width for height, width in (image, *(field.size for field in fields)))
    places = range(1, 1 + len(fields))
    for i, (name, style) in enumerate([("height", "-"), ("width", ":")][: 1 if square else 2]):
        values = [field.size[i] for field in fields]
        axes.plot(places, list(accumulate(values, max)), style, color=GRAY, linewidth=1.4, drawstyle="steps-post")
        if square or name == "width" or image[0] != image[1]:
            axes.axhline(image[i], color=BLACK, linewidth=1, linestyle=(0, (4, 3)))
            label = "the image" if square or image[0] == image[1] else f"the image's {name}"
            axes.annotate(
                f"{label}: {image[i]}", (1, image[i]), (0, 3), xycoords=("axes fraction", "data"),
                textcoords="offset points", size=8, ha="right",
            )  # fmt: skip
    for i, color in colors.items():
        axes.plot(i + 1, fields[i].size[0], "o", color=color, markersize=6, zorder=3)
    lines = [Line2D([], [], marker="o", linestyle="", color=color) for color in colors.values()]
    names = [f"{shorten(fields[i].name, 28)}: {text(fields[i].size)}" for i in colors]
    if not square:
        lines += [Line2D([], [], linestyle="-", color=GRAY), Line2D([], [], linestyle=":", color=GRAY)]
        names += ["height", "width"]
    axes.legend(lines, names, loc="upper left", fontsize=8, frameon=True, framealpha=0.9, edgecolor="none")
    axes.set_ylim(bottom=0, top=1.12 * max(*image, *(max(field.size) for field in fields)))
    axes.set_xlabel("layer, in the order of the graph")


def text(numbers: tuple[float, float]) -> str:
    """Height and width as one number where they are equal: "3", else "3x5".

    >>> text((3, 3)), text((3, 0.5))
    ('3', '3x0.5')
    """
    height, width = (f"{number:g}" for number in numbers)
    return height if height == width else f"{height}x{width}"
