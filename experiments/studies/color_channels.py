"""Color channels: the same photograph in four color spaces, and which channels one could do without.

    python -m experiments.studies.color_channels [FOLDER]

writes color_channels.png and color_channels.csv. Red, green and blue are nearly the same image three times. YCbCr, the
space of JPEG, has the brightness in one channel and what is left, two differences of color, in the others; HSV has hue,
saturation and value; CIE Lab has lightness and two differences of color as people see them. Two images of the first
column show what that is good for: with Cb and Cr an eighth as high and wide, hardly anything is missing, with Y an
eighth, almost all edges. The third has hue and saturation, but everywhere the value 1. The table has mean and standard
deviation of each channel, its correlation with the brightness Y, and the peak signal-to-noise ratio of the photograph
when only that channel is an eighth as large.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from torch import Tensor

from experiments.studies import Row, panels, publish, run

SHRINK = 8
YCBCR = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])  # ITU-R BT.601
XYZ = torch.tensor([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # of linear sRGB
WHITE = torch.tensor([0.9505, 1.0, 1.089])  # D65


def photograph() -> Tensor:
    """(H, W, 3) in 0..1."""
    return torch.tensor(np.array(load_sample_image("china.jpg")[:400, :600]), dtype=torch.float32) / 255


def to_ycbcr(rgb: Tensor) -> Tensor:
    """(..., 3) in 0..1 -> Y in 0..1, Cb and Cr in -0.5..0.5."""
    return rgb @ YCBCR.T


def from_ycbcr(ycbcr: Tensor) -> Tensor:
    return ycbcr @ torch.linalg.inv(YCBCR).T


def to_hsv(rgb: Tensor) -> Tensor:
    return torch.tensor(rgb_to_hsv(rgb.numpy()))


def to_lab(rgb: Tensor) -> Tensor:
    """(..., 3) sRGB in 0..1 -> CIE 1976 L* in 0..100, a*, b*."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    ratio = linear @ XYZ.T / WHITE
    x, y, z = torch.where(ratio > (6 / 29) ** 3, ratio ** (1 / 3), ratio * (29 / 6) ** 2 / 3 + 4 / 29).unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


SPACES = {
    "RGB": (lambda rgb: rgb, ("red", "green", "blue")),
    "YCbCr": (to_ycbcr, ("Y, brightness", "Cb, blue - Y", "Cr, red - Y")),
    "HSV": (to_hsv, ("hue", "saturation", "value")),
    "Lab": (to_lab, ("L, lightness", "a, green to red", "b, blue to yellow")),
}
INVERSES = {"RGB": lambda rgb: rgb, "YCbCr": from_ycbcr}


def coarse(channels: Tensor, which: list[int]) -> Tensor:
    """Channels (H, W, C) of which some are shrunk to an eighth and enlarged again."""
    chosen = channels[..., which].permute(2, 0, 1)[None]
    small = F.interpolate(chosen, scale_factor=1 / SHRINK, mode="area")
    result = channels.clone()
    result[..., which] = F.interpolate(small, channels.shape[:2], mode="bilinear")[0].permute(1, 2, 0)
    return result


def psnr(image: Tensor, original: Tensor) -> float:
    """In decibels, of images in 0..1."""
    return -10 * (image.clamp(0, 1) - original).square().mean().log10().item()


def table() -> list[Row]:
    rgb, rows = photograph(), list[Row]()
    brightness = to_ycbcr(rgb)[..., 0].flatten()
    for space, (convert, names) in SPACES.items():
        channels = convert(rgb)
        for i, name in enumerate(names):
            values = channels[..., i].flatten()
            row: Row = {"space": space, "channel": name, "mean": values.mean().item(), "std": values.std().item()}
            row["correlation with Y"] = torch.corrcoef(torch.stack([values, brightness]))[0, 1].item()
            back = INVERSES.get(space)
            row["PSNR, dB"] = psnr(back(coarse(channels, [i])), rgb) if back else None
            rows.append(row)
    return rows


def draw() -> Figure:
    rgb = photograph()
    ycbcr = to_ycbcr(rgb)
    hue = to_hsv(rgb)
    hue[..., 2] = 1
    first = {
        "photograph": rgb,
        f"Cb and Cr 1/{SHRINK} as large": from_ycbcr(coarse(ycbcr, [1, 2])).clamp(0, 1),
        "value 1 everywhere": torch.tensor(hsv_to_rgb(hue.numpy())),
        f"Y 1/{SHRINK} as large": from_ycbcr(coarse(ycbcr, [0])).clamp(0, 1),
    }
    titles = [title for name, (_, names) in zip(first, SPACES.values(), strict=True) for title in (name, *names)]
    figure, places = panels("A photograph in four color spaces", 4, 4, (13, 9.6), titles)
    for row, (image, (space, (convert, _))) in enumerate(zip(first.values(), SPACES.items(), strict=True)):
        places[4 * row].imshow(image)
        places[4 * row].set_ylabel(space, size=12, weight="bold")
        for i, axes in enumerate(places[4 * row + 1 : 4 * row + 4]):
            channel = convert(rgb)[..., i]
            if space == "HSV" and i == 0:
                axes.imshow(channel, cmap="hsv", vmin=0, vmax=1)
            elif channel.min() < 0:  # a difference: gray is none
                limit = channel.abs().max().item()
                axes.imshow(channel, cmap="gray", vmin=-limit, vmax=limit)
            else:
                axes.imshow(channel, cmap="gray", vmin=0, vmax=100 if space == "Lab" else 1)
    for axes in places:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure


def main(folder: Path) -> None:
    publish(folder, "color_channels", draw(), table())


if __name__ == "__main__":
    run(main, __doc__)
