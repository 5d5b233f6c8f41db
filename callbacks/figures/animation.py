"""Animations as GIF files, and strips of their frames. C channels, H height, W width."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from callbacks.figures.grids import grid
from callbacks.figures.style import to_pil
from datamodules.io import atomic_write

MIN_SIDE = 256  # pixels: smaller images are enlarged, so that their pixels can be seen
STRIP_FRAMES = 8
MIN_FRAME_MS, LAST_FRAME_MS = 20, 1500  # browsers show no frame for less time; the last one stays longer


def write_gif(path: Path, images: Iterable[np.ndarray], fps: int = 20) -> None:
    """Writes images (H, W, C) uint8 as an endless animation in 256 colors; small ones with their pixels enlarged."""
    frames = [to_pil(image).convert("RGB") for image in images]
    # One palette for all frames, taken from the complete animation: with a palette for each, the colors flicker.
    sample = [np.asarray(frame) for frame in frames[:: max(1, len(frames) // 8)] + frames[-1:]]
    palette = Image.fromarray(np.concatenate(sample)).quantize(256, Image.Quantize.MEDIANCUT)
    width, height = frames[0].size
    scale = max(1, -(-MIN_SIDE // max(width, height)))
    frames = [
        frame.quantize(palette=palette, dither=Image.Dither.NONE).resize(
            (scale * width, scale * height), Image.Resampling.NEAREST
        )
        for frame in frames
    ]
    durations = [max(MIN_FRAME_MS, round(1000 / fps))] * (len(frames) - 1) + [LAST_FRAME_MS]
    with atomic_write(path) as temporary:
        frames[0].save(temporary, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)


def strip(images: list[np.ndarray], every: int, title: str) -> Figure:
    """Some frames of an animation side by side, more from its beginning than from its end.

    Args:
        images: all frames (H, W, C) uint8.
        every: steps from one frame to the next.
        title: above the strip.
    """
    counts = sorted({round(count) for count in np.geomspace(1, len(images), STRIP_FRAMES)})
    shown = [count - 1 for count in counts]
    names = [f"step {every * place}" for place in shown]
    height, width = images[0].shape[:2]
    return grid([images[place] for place in shown], names, title, f"{width}x{height} pixels", len(shown))
