"""Images found for sentences, and their similarities."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from callbacks.figures.grids import draw_image
from callbacks.figures.style import BLUE, GREY, VERMILION

MARKS = {True: ("✓ ", BLUE, "-"), False: ("✗ ", VERMILION, (0, (2, 1.5))), None: ("", GREY, "-")}


def contact_sheet(rows: list[tuple[str, list]], k: int, title: str, subtitle: str) -> Figure:
    """Sentences, each over a row of the pictures found for it.

    Args:
        rows: sentence and [(image (H, W, 3) in 0..1, cosine, right or wrong or None where nobody knows)], best first.
        k: those behind the first k stand apart.
        title, subtitle: above all.
    """
    cell, gap, head, label, foot = 1.05, 0.1, 0.72, 0.3, 0.26
    most = max(len(cells) for _, cells in rows)
    width = max(gap + most * (cell + gap) + (0.3 if most > k else 0.0), 6.8)
    height = head + len(rows) * (label + cell + foot)
    figure = Figure((width, height), facecolor="white")
    figure.text(gap / width, 1 - 0.12 / height, title, size=13, weight="bold", va="top")
    figure.text(gap / width, 1 - 0.38 / height, subtitle, size=9, color=GREY, va="top")
    for number, (sentence, cells) in enumerate(rows):
        top = height - head - number * (label + cell + foot)
        figure.text(gap / width, (top - label + 0.08) / height, f"“{sentence}”", size=10.5, va="bottom")
        for i, (image, cosine, right) in enumerate(cells):
            x, y = gap + i * (cell + gap) + (0.3 if i >= k else 0.0), top - label - cell
            axes = figure.add_axes((x / width, y / height, cell / width, cell / height))
            _framed(axes, image, *MARKS[right][1:])
            text, colour = f"{MARKS[right][0]}{_signed(cosine)}", MARKS[right][1]
            figure.text(x / width, (y - 0.05) / height, text, size=9, color=colour, va="top")
    return figure


def _framed(axes: Axes, image: np.ndarray, colour: str, style: Any) -> None:
    """The picture, whatever its shape, in a square frame; dashes say wrong to those who see no colours."""
    axes.imshow(image, interpolation="nearest")
    axes.set_axis_off()
    axes.add_patch(
        Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, ec=colour, ls=style, lw=2, clip_on=False)
    )


def similarity_matrix(sentences: list[str], pictures: list[np.ndarray], cosines: np.ndarray, split: str) -> Figure:
    """Cosines (N, N) of sentences (rows) with pictures (columns); those that belong together stand on the diagonal."""
    n, cell, margin, head, gap = len(pictures), 0.72, 0.1, 0.72, 0.08
    words = max(map(len, sentences)) * 0.075 + 0.15  # inches
    left = margin + words
    width, height = max(left + n * cell + margin, 6.0), head + (n + 1) * cell + gap
    figure = Figure((width, height), facecolor="white")
    figure.text(
        margin / width, 1 - 0.12 / height, f"Sentences and pictures: {split} set", size=13, weight="bold", va="top"
    )
    note = "Cosines; framed: sentence and picture that belong together"
    figure.text(margin / width, 1 - 0.38 / height, note, size=9, color=GREY, va="top")
    axes = figure.add_axes((left / width, gap / height, n * cell / width, n * cell / height))
    axes.imshow(cosines, cmap="cividis", vmin=-1, vmax=1)
    for i, (sentence, picture) in enumerate(zip(sentences, pictures, strict=True)):
        x, y = left + (i + 0.05) * cell, gap + (n + 0.05) * cell
        above = figure.add_axes((x / width, y / height, 0.9 * cell / width, 0.9 * cell / height))
        draw_image(above, picture)
        above.set_anchor("S")
        axes.text(-0.6, i, sentence, ha="right", va="center", size=9.5)
        axes.add_patch(Rectangle((i - 0.46, i - 0.46), 0.92, 0.92, fill=False, ec="white", lw=2))
        for j, cosine in enumerate(cosines[i]):
            axes.text(
                j, i, _signed(cosine), ha="center", va="center", size=9, color="black" if cosine > 0.1 else "white"
            )
    axes.set_axis_off()
    return figure


def _signed(cosine: float) -> str:
    return f"{round(cosine, 2) + 0.0:.2f}".replace("-", "\u2212")
