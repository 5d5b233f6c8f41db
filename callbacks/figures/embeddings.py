"""Embeddings in the plane. N samples, K classes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from callbacks.figures.style import BLACK, COLORS, GRAY, add_axes, heading, shorten

MOST_NAMES = 30  # classes up to which each is named in the plane
SIDE = 6.5  # inches


def draw_embeddings(
    places: np.ndarray, labels: np.ndarray, wrong: np.ndarray, names: Sequence[str], title: str, subtitle: str
) -> Figure:
    """Draws samples as dots in the colors of their classes, the class names in the middle of each, and mistakes ringed.

    Args:
        places: (N, 2).
        labels: (N,), the classes.
        wrong: (N,) bool, which samples are in a cluster whose most frequent class is another.
        names: K.
        title, subtitle: above it.
    """
    figure = Figure((SIDE + 0.2, SIDE + 0.95), facecolor="white")
    heading(figure, title, subtitle)
    axes = add_axes(figure, 0.1, 0.3, SIDE, SIDE - 0.05)
    present = np.unique(labels)
    for label in present:
        own = places[labels == label]
        shade = to_rgba(COLORS[label % len(COLORS)], 0.65)
        marker = "os^Dv"[label // len(COLORS) % 5]  # more classes than colors: other shapes
        axes.scatter(own[:, 0], own[:, 1], s=9, color=shade, linewidths=0, marker=marker)
    axes.scatter(places[wrong, 0], places[wrong, 1], s=34, facecolors="none", edgecolors=BLACK, linewidths=0.9)
    if len(present) <= MOST_NAMES:
        for label in present:
            middle = np.median(places[labels == label], axis=0)
            text = axes.annotate(
                shorten(names[label], 16).replace("$", r"\$"), middle, size=12, weight="bold", ha="center", va="center"
            )
            text.set_path_effects([withStroke(linewidth=3, foreground="white")])
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    note = f"{wrong.sum()} of {len(wrong)} ringed: in a cluster whose most frequent class is another"
    figure.text(0.1 / (SIDE + 0.2), 0.1 / (SIDE + 0.95), note, size=9, color=GRAY)
    return figure
