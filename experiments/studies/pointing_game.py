"""Whether relevance maps point at what they should: the pointing game and the mass in the box, on drawn shapes.

    python -m experiments.studies.pointing_game [FOLDER]

writes pointing_game.png and pointing_game.csv. Small nets learn which of seven colors the shapes in an image have: two
or three shapes stand apart from each other on noisy ground, and each color is a yes or no of its own (binary
cross-entropy). Then a map is asked for each color present, in images with two colors or more, so that a map which only
finds what stands out from the ground points at the wrong shape half of the time. (Which shapes are present would need
longer trainings, and of a net that cannot do its task the maps mean nothing.)

The pointing game (Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop", section 4.1) is the share of
maps whose largest value lies in a box of the class. The paper tolerates 15 pixels around it, this study none. The mass
in the box is the share of the map's sum that lies there. A map of zeros, without evidence, has neither. "Any place" is
the value of a map that is the same everywhere, for which both are the share of the image that the boxes cover.

All nets answer 98.7 % or more of 300 new images right. The best maps of each, of 634 questions, win 0.99 of the games
(ResNetMini), 0.94 (ResNet-18), 0.89 (ConvMixer) and 0.85 (ViT); any place wins 0.09, and EigenCAM, which knows no
class, 0.27 to 0.37. HiResCAM has the most mass in the box in all but ResNet-18 (0.75, 0.49 and 0.60, where Grad-CAM has
0.55, 0.33 and 0.50); Grad-CAM++ loses to Grad-CAM in all but the ConvMixer. The layer matters more than the method: in
the last block of the ConvMixer, whose large kernels have carried the evidence all over the image by then, no method
wins more than 0.29; in the second block all of them that know the class win 0.72 or more.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from callbacks.figures.style import SKY
from callbacks.galleries.relevance import relevance
from datamodules.scenes import COLORS, draw_scene
from experiments.studies import Row, panels, publish, run
from zoo.classification.base import Classifier
from zoo.classification.convmixer import ConvMixer
from zoo.classification.resnet import ResNet18
from zoo.classification.resnet_mini import ResNetMini
from zoo.classification.vit import ViT
from zoo.parts.optim.muon import Muon

SIZE, BATCH = 64, 50  # side of the images in pixels
CLASSES = tuple(COLORS)
NETS: dict[str, tuple[Callable[..., Classifier], tuple[str, ...]]] = {  # with the layers that maps are computed from
    "ResNetMini": (ResNetMini, ("stages.1",)),
    "ResNet-18": (partial(ResNet18, width=8, stem_pool=True), ("stages.1",)),
    "ConvMixer": (
        partial(ConvMixer, dim=48, depth=4, kernel_size=7, patch_size=4, act=nn.ReLU),
        ("stages.1", "stages.3"),
    ),
    "ViT": (
        partial(ViT, image_size=SIZE, patch_size=8, dim=64, num_layers=4, num_heads=4, mlp_ratio=2),
        ("blocks.3.norm1",),
    ),
}
METHODS = ("GradCAM", "GradCAMPlusPlus", "XGradCAM", "HiResCAM", "LayerCAM", "EigenCAM")


class Scenes(NamedTuple):
    """Drawn shapes: images (N, 3, S, S), normalized; which colors are present (N, K); boxes and color of each shape."""

    images: Tensor
    present: Tensor
    boxes: list[Tensor]
    colors: list[Tensor]


class Question(NamedTuple):
    """A color that is present in an image: number of the image, class, and the pixels in its boxes (S, S) bool."""

    image: int
    label: int
    inside: np.ndarray


def draw_scenes(count: int, seed: int) -> Scenes:
    drawn = [draw_scene(i, seed, SIZE, max_objects=3, min_objects=2, max_overlap=0.0) for i in range(count)]
    colors = [torch.tensor([CLASSES.index(color) for _, color, _ in scene.words]) for scene in drawn]
    present = torch.stack([torch.zeros(len(CLASSES)).index_fill(0, index, 1.0) for index in colors])
    images = torch.stack([scene.image for scene in drawn])
    return Scenes((images / 255 - 0.5) / 0.25, present, [scene.boxes for scene in drawn], colors)


def train(make: Callable[..., Classifier], scenes: Scenes, epochs: int) -> Classifier:
    torch.manual_seed(0)
    model = make(len(CLASSES), 3)
    optimizer = Muon(model.net.named_parameters(), lr=0.02, adam_lr=0.005)
    batches = [batch for _ in range(epochs) for batch in torch.randperm(len(scenes.images)).split(BATCH)]
    peak, rates = 0.2 * len(batches), [group["lr"] for group in optimizer.param_groups]
    for step, index in enumerate(batches):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min((step + 1) / peak, (len(batches) - step) / (len(batches) - peak))
        images = torch.rot90(scenes.images[index], int(torch.randint(4, ())), (2, 3))
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(model.net(images), scenes.present[index]).backward()
        optimizer.step()
    return model.eval()


def questions(scenes: Scenes) -> list[Question]:
    """One for each color in each image that has more than one."""
    center, found = torch.arange(SIZE) + 0.5, []
    for i, (boxes, colors) in enumerate(zip(scenes.boxes, scenes.colors, strict=True)):
        for color in colors.unique() if len(colors.unique()) > 1 else ():
            x1, y1, x2, y2 = boxes[colors == color].T[..., None]
            columns, rows = (center >= x1) & (center < x2), (center >= y1) & (center < y2)
            found.append(Question(i, int(color), (rows[:, :, None] & columns[:, None]).any(0).numpy()))
    return found


def maps_of(model: Classifier, scenes: Scenes, asked: Sequence[Question], method: str, layer: str) -> np.ndarray:
    """The maps (Q, S, S)."""
    maps = []
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        images, labels = scenes.images[[question.image for question in part]], [question.label for question in part]
        maps.append(relevance(model, images, labels, method, model.net.get_submodule(layer)).maps)
    return np.concatenate(maps)


def pointing_game(maps: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Whether the largest value of each map (Q, S, S) lies inside (Q, S, S) bool; of an empty map it does not."""
    flat = maps.reshape(len(maps), -1)
    return inside.reshape(len(maps), -1)[np.arange(len(maps)), flat.argmax(1)] & (flat.max(1) > 0)


def mass_inside(maps: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The share of the sum of each map (Q, S, S) that lies inside (Q, S, S) bool; 0 of an empty map."""
    return (maps * inside).sum((1, 2)) / np.maximum(maps.sum((1, 2)), 1e-9)


def table(maps: dict[tuple[str, str, str], np.ndarray], inside: np.ndarray, right: dict[str, float]) -> list[Row]:
    rows = [
        Row(net=net, layer=layer, method=method)
        | {"pointing game": float(pointing_game(values, inside).mean())}
        | {"mass in box": float(mass_inside(values, inside).mean()), "answers right": right[net]}
        for (net, layer, method), values in maps.items()
    ]
    share = float(inside.mean())
    anywhere = Row(net="", layer="", method="any place")
    return [*rows, anywhere | {"pointing game": share, "mass in box": share, "answers right": None}]


def draw(
    maps: dict[tuple[str, str, str], np.ndarray], scenes: Scenes, asked: list[Question], rows: list[Row]
) -> Figure:
    """For each net and layer the same two questions, of one image, with the maps of all methods."""
    lines = [(*key, i) for key in dict.fromkeys(key[:2] for key in maps) for i in (0, 1)]
    hits = {(row["net"], row["layer"], row["method"]): row["pointing game"] for row in rows}
    columns = 1 + len(METHODS)
    title = "Where the evidence for a color is: its boxes, the largest value, and the pointing game"
    figure, axes = panels(title, len(lines), columns, (1.4 * columns, 1.5 * len(lines) + 0.6))
    for place, (net, layer, i) in zip(range(0, len(axes), columns), lines, strict=True):
        number, label, _ = asked[i]
        axes[place].imshow((0.25 * scenes.images[number] + 0.5).permute(1, 2, 0).clip(0, 1).numpy())
        axes[place].set_title(f"{net} {layer}: {CLASSES[label]}" if i == 0 else CLASSES[label], size=7, loc="left")
        for panel, method in zip(axes[place + 1 : place + columns], METHODS, strict=True):
            values = maps[net, layer, method][i]
            panel.imshow(values, cmap="inferno", vmin=0, vmax=1)
            y, x = np.unravel_index(values.argmax(), values.shape)
            panel.plot(x, y, "o", ms=4, color=SKY, mec="black", mew=0.5)
            panel.set_title(f"{method} {hits[net, layer, method]:.2f}" if i == 0 else "", size=7, loc="left")
        for panel in axes[place : place + columns]:
            for x1, y1, x2, y2 in (scenes.boxes[number][scenes.colors[number] == label] - 0.5).tolist():
                panel.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=SKY, lw=1.2))
            panel.set_axis_off()
    return figure


def main(folder: Path, count: int = 3000, asked_of: int = 300, epochs: int = 3, nets: Sequence[str] = (*NETS,)) -> None:
    scenes, test = draw_scenes(count, 0), draw_scenes(asked_of, 1)
    asked = questions(test)
    inside, maps, right = np.stack([question.inside for question in asked]), {}, {}
    for name in nets:
        make, layers = NETS[name]
        model = train(make, scenes, epochs)
        with torch.no_grad():
            right[name] = ((model.net(test.images) > 0) == test.present.bool()).float().mean().item()
        for layer, method in itertools.product(layers, METHODS):
            maps[name, layer, method] = maps_of(model, test, asked, method, layer)
    rows = table(maps, inside, right)
    publish(folder, "pointing_game", draw(maps, test, asked, rows), rows)


if __name__ == "__main__":
    run(main, __doc__)
