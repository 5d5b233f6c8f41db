"""Boxes drawn on images."""

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke
from torch import Tensor

from callbacks.figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW

BOX_COLORS = (
    ORANGE,
    SKY,
    YELLOW,
    PURPLE,
    GREEN,
    VERMILION,
    BLUE,
)  # of classes, in turn; bright ones first: they hold text


def draw_boxes(axes: Axes, boxes: Tensor, labels: Tensor, texts: list[str], dashed: Tensor, width: float = 1.4) -> None:
    """Draws boxes over an image, each in the color of its class with a text at its upper left corner.

    Args:
        axes: with the image, one unit a pixel.
        boxes: (N, 4), xyxy in pixels.
        labels: (N,) int64, the classes.
        texts: one for each box; "" for none.
        dashed: (N,) bool, which boxes have a dashed outline.
        width: of the lines, in points; the text grows with it.
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()  # of the image
    for box, label, text, is_dashed in zip(boxes.tolist(), labels.tolist(), texts, dashed.tolist(), strict=True):
        color = BOX_COLORS[label % len(BOX_COLORS)]
        x0, y0, x1, y1 = (edge - 0.5 for edge in box)  # in the axes, pixel 0 reaches from -0.5 to 0.5
        frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=width)
        frame.set_linestyle((0, (2.5, 1.5)) if is_dashed else "-")
        outline: list[AbstractPathEffect] = [withStroke(linewidth=1.8 * width, foreground=BLACK, alpha=0.6)]
        frame.set_path_effects(outline)
        axes.add_patch(frame)
        # Texts stay within the image: near its right edge they end at the box's right corner, near its top they hang.
        ends, hangs = x0 > right - 0.15 * (right - left), y0 < top + 0.06 * (bottom - top)
        if text:
            axes.text(
                min(x1, right) if ends else max(x0, left), max(y0, top), text, size=4.2 * width, color=BLACK,
                ha="right" if ends else "left", va="top" if hangs else "bottom", clip_on=True,
                bbox={"facecolor": color, "edgecolor": "none", "pad": 0.5 * width, "alpha": 0.9},
            )  # fmt: skip
