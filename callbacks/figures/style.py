"""The style of all figures: colors, headings, plain axes, and how figures and images are saved.

C channels, H height, W width. Figures are made with matplotlib's objects, never with pyplot, so that neither its global
state nor its backend matters. The colors are those of Okabe and Ito 2008, "Color Universal Design", which people with
any kind of color vision can tell apart.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from callbacks.figures.letters import choose_fonts, quiet_fonts
from datamodules.io import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GRAY = "#595959"  # of secondary text
GRID = "#E5E5E5"  # of grid lines
COLORS = (ORANGE, SKY, GREEN, PURPLE, BLUE, VERMILION, YELLOW)  # of categories, in turn
DPI = 150


def heading(figure: Figure, title: str, subtitle: str = "", size: int = 10) -> None:
    """A bold title and a gray line below it, at the upper left corner; they take 0.62 inches."""
    width, height = figure.get_size_inches()
    figure.text(0.1 / width, 1 - 0.12 / height, title, size=13, weight="bold", va="top")
    if subtitle:
        figure.text(0.1 / width, 1 - 0.38 / height, subtitle, size=size, color=GRAY, va="top")


def plain_axes(axes: Axes, title: str = "", grid: bool = True) -> None:
    """Axes without a frame at the top and right, with faint horizontal grid lines and a title on the left."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    if grid:
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    if title:
        axes.set_title(title, loc="left", size=11)


def add_axes(figure: Figure, x: float, y: float, width: float, height: float, **options: Any) -> Axes:
    """Axes placed in inches from the lower left corner of the figure."""
    total_width, total_height = figure.get_size_inches()
    return figure.add_axes((x / total_width, y / total_height, width / total_width, height / total_height), **options)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Values in 0..1 -> 0..255."""
    return (image * 255).round().clip(0, 255).astype(np.uint8)


def pixels(image: "Tensor") -> np.ndarray:
    """(C, H, W) in 0..1, of 1, 3 or 4 channels -> (H, W, C) uint8."""
    return to_uint8(image.detach().float().cpu().permute(1, 2, 0).numpy())


def to_pil(image: np.ndarray) -> Image.Image:
    """(H, W, C) uint8 -> a PIL image."""
    return Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)


def save_image(image: np.ndarray, path: Path) -> None:
    """Writes (H, W, C) uint8 as a PNG file."""
    with atomic_write(path) as temporary:
        to_pil(image).save(temporary, format="png")


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG file."""
    choose_fonts(figure)
    with atomic_write(path) as temporary, quiet_fonts():
        figure.savefig(temporary, format="png", dpi=DPI)


def shorten(name: str, letters: int = 24) -> str:
    """At most so many letters, the last an ellipsis where some are cut off."""
    return name if len(name) <= letters else f"{name[: letters - 1]}…"
