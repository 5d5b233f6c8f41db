"""Boxes drawn on images."""

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from callbacks.figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW

COLORS = (ORANGE, SKY, YELLOW, PURPLE, GREEN, VERMILION, BLUE)  # of the classes, in turn; black text stands on them


def draw_boxes(axes: Axes, boxes: Tensor, labels: Tensor, texts: list[str], dashed: Tensor, width: float = 1.4) -> None:
    """Draws boxes, each in the colour of its class with a text at its upper left corner; `width` of lines in points."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()  # of the image
    for box, label, text, broken in zip(boxes.tolist(), labels.tolist(), texts, dashed.tolist(), strict=True):
        colour, (x0, y0, x1, y1) = COLORS[label % len(COLORS)], (edge - 0.5 for edge in box)  # pixel 0 is 0 ± 0.5
        style = (0, (2.5, 1.5)) if broken else "-"
        outline = [withStroke(linewidth=1.8 * width, foreground=BLACK, alpha=0.6)]
        frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=width, linestyle=style)
        frame.set_path_effects(outline)
        axes.add_patch(frame)
        # Texts stay within the image: those of boxes at its right end at their right corners, those at its top below.
        last, first = x0 > right - 0.15 * (right - left), y0 < top + 0.06 * (bottom - top)
        if text:
            axes.text(
                min(x1, right) if last else max(x0, left), max(y0, top), text, size=4.2 * width, color=BLACK,
                ha="right" if last else "left", va="top" if first else "bottom", clip_on=True,
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.5 * width, "alpha": 0.9},
            )  # fmt: skip
