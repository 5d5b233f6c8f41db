"""Images found for sentences, and their similarities. H height, W width, N pairs of a sentence and an image."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from callbacks.figures.grids import draw_image
from callbacks.figures.style import BLUE, GRAY, VERMILION, add_axes, heading

MARKS = {True: ("✓ ", BLUE, "-"), False: ("✗ ", VERMILION, (0, (2, 1.5))), None: ("", GRAY, "-")}
HEAD = 0.72  # inches that the heading takes


def contact_sheet(rows: list[tuple[str, list]], k: int, title: str, subtitle: str) -> Figure:
    """Sentences, each above a row of the images found for it.

    Args:
        rows: sentence and its images, best first: (image (H, W, 3) in 0..1, cosine, whether the sentence is true of it,
            or None where that is unknown).
        k: a gap follows the first k.
        title, subtitle: above all rows.
    """
    cell, gap, label, foot = 1.05, 0.1, 0.3, 0.26
    longest = max(len(cells) for _, cells in rows)
    width = max(gap + longest * (cell + gap) + (0.3 if longest > k else 0.0), 6.8)
    height = HEAD + len(rows) * (label + cell + foot)
    figure = Figure((width, height), facecolor="white")
    heading(figure, title, subtitle, size=9)
    for number, (sentence, cells) in enumerate(rows):
        top = height - HEAD - number * (label + cell + foot)
        figure.text(gap / width, (top - label + 0.08) / height, f"“{sentence}”", size=10.5, va="bottom")
        for i, (image, cosine, right) in enumerate(cells):
            mark, color, linestyle = MARKS[right]
            x, y = gap + i * (cell + gap) + (0.3 if i >= k else 0.0), top - label - cell
            _draw_framed(add_axes(figure, x, y, cell, cell), image, color, linestyle)
            figure.text(x / width, (y - 0.05) / height, f"{mark}{_signed(cosine)}", size=9, color=color, va="top")
    return figure


def _draw_framed(axes: Axes, image: np.ndarray, color: str, linestyle: Any) -> None:
    """The image, whatever its shape, in a square frame; a wrong one is dashed, as some people see no colors."""
    axes.imshow(image, interpolation="nearest")
    axes.set_axis_off()
    axes.add_patch(
        Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, ec=color, ls=linestyle, lw=2, clip_on=False)
    )


def similarity_matrix(sentences: list[str], images: list[np.ndarray], cosines: np.ndarray, split: str) -> Figure:
    """The cosine of each sentence with each image.

    Args:
        sentences: N, one for each row.
        images: N of (H, W, 3) in 0..1, one for each column; the i-th belongs to the i-th sentence.
        cosines: (N, N).
        split: name of the data, for the title.
    """
    n, cell, margin, gap = len(images), 0.72, 0.1, 0.08
    left = margin + max(map(len, sentences)) * 0.075 + 0.15  # inches, of which the sentences take 0.075 a letter
    width, height = max(left + n * cell + margin, 6.0), HEAD + (n + 1) * cell + gap
    figure = Figure((width, height), facecolor="white")
    subtitle = "Cosines; framed: sentence and image that belong together"
    heading(figure, f"Sentences and images: {split} set", subtitle, size=9)
    axes = add_axes(figure, left, gap, n * cell, n * cell)
    axes.imshow(cosines, cmap="cividis", vmin=-1, vmax=1)
    for i, (sentence, image) in enumerate(zip(sentences, images, strict=True)):
        above = add_axes(figure, left + (i + 0.05) * cell, gap + (n + 0.05) * cell, 0.9 * cell, 0.9 * cell)
        draw_image(above, image)
        above.set_anchor("S")
        axes.text(-0.6, i, sentence, ha="right", va="center", size=9.5)
        axes.add_patch(Rectangle((i - 0.46, i - 0.46), 0.92, 0.92, fill=False, ec="white", lw=2))
        for j, cosine in enumerate(cosines[i]):
            color = "black" if cosine > 0.1 else "white"
            axes.text(j, i, _signed(cosine), ha="center", va="center", size=9, color=color)
    axes.set_axis_off()
    return figure


def _signed(cosine: float) -> str:
    """Two digits, with a real minus sign and no negative zero."""
    return f"{round(cosine, 2) + 0.0:.2f}".replace("-", "\u2212")
