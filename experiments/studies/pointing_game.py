"""Whether relevance maps point at what they should: the pointing game and the mass in the box, on drawn shapes.

    python -m experiments.studies.pointing_game [FOLDER]

writes pointing_game.png and pointing_game.csv. Nets learn to tell which of five shapes are in an image: two or three of
them stand on it, apart from each other, with two or three labels, each learned as a yes or no of its own (binary
cross-entropy). A map is asked for each shape that is present, so a map that finds only what stands out from the ground
points at one of the others more often than not; that is what makes the game mean something, and images with one kind
of shape are left out for it. The pointing game (Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop",
section 4.1) is the share of maps whose largest value lies in a box of the class; the paper tolerates 15 pixels around
it, this study none. The mass in the box is the share of the map's sum that lies there. A map without evidence, 0
everywhere, counts as a miss. TODO
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from callbacks.galleries.relevance import relevance
from datamodules.scenes import SHAPES, draw_scene
from zoo.classification.base import Classifier
from zoo.classification.convmixer import ConvMixer
from zoo.classification.resnet import ResNet18
from zoo.classification.resnet_mini import ResNetMini
from zoo.classification.vit import ViT
from zoo.parts.optim.muon import Muon

SIZE, BATCH = 64, 50  # side of the images in pixels
NETS: dict[str, Callable[[], Classifier]] = {
    "ResNetMini": partial(ResNetMini, len(SHAPES), 3),
    "ResNet-18": partial(ResNet18, len(SHAPES), 3, width=8, stem_pool=True),
    "ConvMixer": partial(ConvMixer, len(SHAPES), 3, dim=48, depth=4, kernel_size=7, patch_size=4, act=nn.ReLU),
    "ViT": partial(ViT, len(SHAPES), 3, image_size=SIZE, patch_size=8, dim=64, num_layers=4, num_heads=4, mlp_ratio=2),
}
METHODS = ("GradCAM", "GradCAMPlusPlus", "XGradCAM", "HiResCAM", "LayerCAM", "EigenCAM")


class Scenes(NamedTuple):
    """Drawn shapes: images (N, 3, S, S), normalized; which shapes are present (N, K); boxes and labels of each."""

    images: Tensor
    present: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]


class Question(NamedTuple):
    """A shape that is present in an image: number of the image, class, and the pixels in its boxes (S, S) bool."""

    image: int
    label: int
    inside: np.ndarray


def draw_scenes(count: int, seed: int) -> Scenes:
    drawn = [draw_scene(i, seed, SIZE, max_objects=3, min_objects=2, max_overlap=0.0) for i in range(count)]
    images, boxes, labels, _ = zip(*drawn, strict=True)
    present = torch.stack([torch.zeros(len(SHAPES)).index_fill(0, label, 1.0) for label in labels])
    return Scenes((torch.stack(images) / 255 - 0.5) / 0.25, present, list(boxes), list(labels))


def train(make: Callable[[], Classifier], scenes: Scenes, epochs: int) -> Classifier:
    torch.manual_seed(0)
    model = make()
    optimizer = Muon(model.net.named_parameters(), lr=0.02, adam_lr=0.005)
    batches = [batch for _ in range(epochs) for batch in torch.randperm(len(scenes.images)).split(BATCH)]
    peak, rates = 0.2 * len(batches), [group["lr"] for group in optimizer.param_groups]
    for step, index in enumerate(batches):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min((step + 1) / peak, 1, (len(batches) - step) / (len(batches) - peak))
        images = torch.rot90(scenes.images[index], int(torch.randint(4, ())), (2, 3))
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(model.net(images), scenes.present[index]).backward()
        optimizer.step()
    return model.eval()


def questions(scenes: Scenes) -> list[Question]:
    """One for each shape in each image that has more than one kind of shape."""
    center = torch.arange(SIZE) + 0.5
    found = []
    for i, (boxes, labels) in enumerate(zip(scenes.boxes, scenes.labels, strict=True)):
        for label in labels.unique() if len(labels.unique()) > 1 else ():
            x1, y1, x2, y2 = boxes[labels == label].T[..., None]
            columns, rows = (center >= x1) & (center < x2), (center >= y1) & (center < y2)
            found.append(Question(i, int(label), (rows[:, :, None] & columns[:, None]).any(0).numpy()))
    return found


def maps_of(model: Classifier, scenes: Scenes, asked: Sequence[Question], method: str) -> np.ndarray:
    """The maps (Q, S, S)."""
    parts = [asked[start : start + BATCH] for start in range(0, len(asked), BATCH)]
    return np.concatenate(
        [
            relevance(model, scenes.images[[q.image for q in part]], [q.label for q in part], method).maps
            for part in parts
        ]
    )


def pointing_game(maps: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Whether the largest value of each map (Q, S, S) lies inside (Q, S, S) bool; of an empty map it does not."""
    flat = maps.reshape(len(maps), -1)
    return inside.reshape(len(maps), -1)[np.arange(len(maps)), flat.argmax(1)] & (flat.max(1) > 0)


def mass_inside(maps: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The share of the sum of each map (Q, S, S) that lies inside (Q, S, S) bool; 0 of an empty map."""
    return (maps * inside).sum((1, 2)) / np.maximum(maps.sum((1, 2)), 1e-9)
