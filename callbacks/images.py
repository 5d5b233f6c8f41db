"""Images as files and figures. C channels, H height, W width. Imports no Lightning, so that commands can be quick."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from datamodules.files import at_once

GREY = "#595959"  # of what is said beside the point
DPI = 150
SIDE = 256  # pixels that an animation has at least, so that one sees something
STRIP = 8  # frames in a strip


def to_uint8(image: np.ndarray) -> np.ndarray:
    return (image * 255).round().clip(0, 255).astype(np.uint8)


def pixels(image: Tensor) -> np.ndarray:
    """(C, H, W) in 0..1, of 1, 3 or 4 channels -> (H, W, C) uint8."""
    return to_uint8(image.detach().float().cpu().permute(1, 2, 0).numpy())


def save(image: np.ndarray, path: Path) -> None:
    """Writes (H, W, C) uint8 as a PNG, at once."""
    with at_once(path) as part:
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(part, format="png")


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG, at once."""
    with at_once(path) as part:
        figure.savefig(part, format="png", dpi=DPI)


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


def write_gif(path: Path, images: Iterable[np.ndarray], fps: int = 20) -> None:
    """Writes images (H, W, C) uint8 as an endless animation in 256 colours; small ones with their pixels enlarged."""
    frames = [Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).convert("RGB") for image in images]
    # One palette for all, of frames from all over the film: with one for each, the colours flicker.
    some = [np.asarray(frame) for frame in frames[:: max(1, len(frames) // 8)] + frames[-1:]]
    palette = Image.fromarray(np.concatenate(some)).quantize(256, Image.Quantize.MEDIANCUT)
    width, height = frames[0].size
    scale = max(1, -(-SIDE // max(width, height)))
    frames = [
        frame.quantize(palette=palette, dither=Image.Dither.NONE).resize(
            (scale * width, scale * height), Image.Resampling.NEAREST
        )
        for frame in frames
    ]
    # Browsers take 20 ms at the least; the last frame stays, to show where it ends.
    durations = [max(20, round(1000 / fps))] * (len(frames) - 1) + [1500]
    with at_once(path) as part:
        frames[0].save(part, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)


def strip(images: list[np.ndarray], every: int, title: str) -> Figure:
    """Frames (H, W, C) uint8 side by side, `every` steps apart in the film: more of the beginning than of the end."""
    places = sorted({round(place) for place in np.geomspace(1, len(images), STRIP)})
    shown = [place - 1 for place in places]
    names = [f"step {every * place}" for place in shown]
    height, width = images[0].shape[:2]
    return grid([images[place] for place in shown], names, title, f"{width}x{height} pixels", len(shown))
