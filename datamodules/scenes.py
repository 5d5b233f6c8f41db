"""Drawn scenes: colored shapes on noisy ground, as images with boxes, classes and words. S side of the image in pixels.

A scene is a function of (seed, index) alone. Shapes are polygons (and the circle), antialiased by their signed
distance, so that the box of a shape follows from its corners and not from its pixels.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

COLORS = {
    "red": (0.86, 0.12, 0.12),
    "orange": (0.98, 0.55, 0.05),
    "yellow": (0.96, 0.90, 0.12),
    "green": (0.13, 0.62, 0.18),
    "cyan": (0.15, 0.82, 0.86),
    "blue": (0.14, 0.27, 0.88),
    "purple": (0.58, 0.18, 0.75),
}
SIZES = {"small": (0.07, 0.11), "large": (0.15, 0.24)}  # bounds of the circumscribed circle's radius, as a share of S


def _star(*radii: float) -> np.ndarray:
    """Corners at equal angles, the first one up, at the distances `radii` from the center."""
    angles = 2 * np.pi * np.arange(len(radii)) / len(radii)
    return np.stack([np.sin(angles), -np.cos(angles)], 1) * np.asarray(radii)[:, None]


_CROSS_ARM = np.asarray([[-1, -3], [1, -3], [1, -1]]) / np.sqrt(10)
_QUARTER_TURN = np.asarray([[0, 1], [-1, 0]])
CORNERS = {  # (V, 2) inside the circle of radius 1; the circle itself has none
    "circle": None,
    "square": _star(1, 1, 1, 1),
    "triangle": _star(1, 1, 1),
    "star": _star(*[1, 0.45] * 5),
    "cross": np.concatenate([_CROSS_ARM @ np.linalg.matrix_power(_QUARTER_TURN, turns) for turns in range(4)]),
}
SHAPES = tuple(CORNERS)
MAX_PLACEMENT_ATTEMPTS = 30  # a shape that overlaps others too much at all of these places is left out


class Scene(NamedTuple):
    """A drawn image and its N shapes.

    image: (3, S, S) uint8.
    boxes: (N, 4) float32, xyxy in pixels, completely inside the image.
    labels: (N,) int64, index into the shapes that the scene may contain.
    words: for each box (size, color, shape), such as ("large", "red", "circle").
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    words: list[tuple[str, str, str]]


def draw_scene(
    index: int,
    seed: int = 0,
    size: int = 96,
    max_objects: int = 6,
    min_objects: int = 1,
    shapes: tuple[str, ...] = SHAPES,
    colors: tuple[str, ...] = tuple(COLORS),
    max_overlap: float = 0.2,
) -> Scene:
    """Draws scene number `index`.

    Shapes, colors, sizes, angles and positions are random; larger shapes are drawn below smaller ones.

    Args:
        index, seed: equal ones give equal scenes.
        size: S.
        max_objects, min_objects: bounds of the number of shapes; some are left out if there is no room for them.
        shapes, colors: to choose from.
        max_overlap: the share of a box that another may cover; therefore no IoU is above it.

    >>> scene = draw_scene(3, size=64, max_objects=1)
    >>> scene.image.shape, scene.boxes.shape, scene.words
    (torch.Size([3, 64, 64]), torch.Size([1, 4]), [('large', 'cyan', 'square')])
    """
    draw = np.random.default_rng((seed, index))
    image = _ground(draw, size)
    count = draw.integers(min_objects, max_objects + 1)

    def choice(names: Iterable[str]) -> str:
        return str(draw.choice(list(names)))

    words = [(choice(SIZES), choice(colors), choice(shapes)) for _ in range(count)]
    radii = np.asarray([draw.uniform(*SIZES[kind]) * size for kind, _, _ in words])
    boxes, placed = np.zeros((0, 4)), []
    for i in np.argsort(-radii):
        (_, color, shape), radius = words[i], radii[i]
        points = _rotated(shape, radius, draw)
        low, high = (-radius, radius) if points is None else (points.min(0), points.max(0))
        for _ in range(MAX_PLACEMENT_ATTEMPTS):
            center = draw.uniform(-np.broadcast_to(low, 2), size - np.broadcast_to(high, 2))
            box = np.concatenate([center + low, center + high])
            if (_overlap(box, boxes) <= max_overlap).all():
                boxes = np.concatenate([boxes, box[None]])
                placed.append(words[i])
                _paint(image, draw, box=box, center=center, points=points, radius=radius, color=color)
                break
    pixels = torch.from_numpy((image.clip(0, 1) * 255).round().astype(np.uint8))
    labels = torch.tensor([tuple(shapes).index(shape) for _, _, shape in placed], dtype=torch.int64)
    return Scene(pixels, torch.from_numpy(boxes.astype(np.float32)), labels, placed)


def _rotated(shape: str, radius: float, draw: np.random.Generator) -> np.ndarray | None:
    """The corners (V, 2) of a shape about its center, turned by a random angle; None for the circle."""
    angle = draw.uniform(0, 2 * np.pi)
    rotation = np.asarray([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = CORNERS[shape]
    return None if corners is None else corners @ rotation * radius


def _overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The area that `box` shares with each of the `boxes` (N, 4), as a share of the smaller of the two."""
    common = (np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])).clip(0).prod(1)
    return common / np.minimum((box[2:] - box[:2]).prod(), (boxes[:, 2:] - boxes[:, :2]).prod(1))


def _ground(draw: np.random.Generator, size: int) -> np.ndarray:
    """(3, S, S): dull colors, interpolated between 3 x 3 points, under noise."""
    points = draw.uniform(0.2, 0.8) + draw.uniform(-0.18, 0.18, (1, 3, 3)) + draw.uniform(-0.06, 0.06, (3, 3, 3))
    at = np.linspace(0, 2, size)
    weight = (1 - np.abs(at[:, None] - np.arange(3))).clip(0)  # (S, 3), linear interpolation
    noise = draw.standard_normal((3, size, size), np.float32) * draw.uniform(0.01, 0.08)
    return (weight @ points @ weight.T).astype(np.float32) + noise


def _paint(
    image: np.ndarray,
    draw: np.random.Generator,
    box: np.ndarray,
    center: np.ndarray,
    points: np.ndarray | None,
    radius: float,
    color: str,
) -> None:
    """Paints one shape onto `image` (3, S, S), slightly off its pure color and lit from a random side."""
    size = image.shape[1]
    left, top = (box[:2] - 1).clip(0).astype(int)
    right, bottom = np.ceil(box[2:] + 1).clip(0, size).astype(int)
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32) + np.float32(0.5)
    x, y = x - center[0], y - center[1]
    distance = np.hypot(x, y) - radius if points is None else _distance(points, x, y)
    alpha = (0.5 - distance).clip(0, 1)
    light = draw.uniform(-0.15, 0.15, 2) @ np.stack([x, y]).reshape(2, -1) / radius
    paint = np.asarray(COLORS[color]) + draw.uniform(-0.06, 0.06, 3)
    paint = paint[:, None, None] * (1 + light.reshape(x.shape))
    patch = image[:, top:bottom, left:right]
    patch += alpha * (paint - patch)


def _distance(points: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance of the positions (h, w) from the border of the polygon (V, 2): negative inside."""
    (px, py), (qx, qy) = (p.T[:, :, None, None] for p in (points, np.roll(points, -1, 0)))
    ex, ey, wx, wy = qx - px, qy - py, x - px, y - py  # along the edge, and from its start; (V, 1, 1), (V, h, w)
    along = ((wx * ex + wy * ey) / (ex**2 + ey**2)).clip(0, 1)
    nearest = np.hypot(wx - along * ex, wy - along * ey).min(0)
    crossed = ((py > y) != (qy > y)) & (wx < wy * ex / np.where(ey == 0, 1, ey))  # a ray to the right meets the edge
    return np.where(crossed.sum(0) % 2 == 1, -nearest, nearest)
