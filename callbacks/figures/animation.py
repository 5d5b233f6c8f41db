"""Animations, and their frames side by side."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from callbacks.figures.grids import grid
from datamodules.io import atomic_write

SIDE = 256  # pixels that an animation has at least, so that one sees something
STRIP = 8  # frames in a strip


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
    with atomic_write(path) as part:
        frames[0].save(part, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)


def strip(images: list[np.ndarray], every: int, title: str) -> Figure:
    """Frames (H, W, C) uint8 side by side, `every` steps apart in the film: more of the beginning than of the end."""
    places = sorted({round(place) for place in np.geomspace(1, len(images), STRIP)})
    shown = [place - 1 for place in places]
    names = [f"step {every * place}" for place in shown]
    height, width = images[0].shape[:2]
    return grid([images[place] for place in shown], names, title, f"{width}x{height} pixels", len(shown))
