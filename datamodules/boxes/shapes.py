"""Drawn scenes: coloured shapes on noisy ground, with exact boxes, classes and words. No files are needed.

A scene is a function of (seed, index) alone. Shapes are polygons (and the circle), antialiased by their signed
distance, so that the box of a shape is that of its corners and not of its pixels.
"""

from typing import Any

import torch

from datamodules.boxes.base import BoxedData, BoxedInMemory
from datamodules.scenes import COLORS, SHAPES, Scene, draw_scene


class Shapes(BoxedData):
    """Drawn scenes, kept in memory; the three splits share no scene, and are the same whatever the seed of a run.

    Args:
        size: side of the pictures in pixels.
        train_size, val_size, test_size: how many scenes.
        max_objects, min_objects, shapes, colours, max_overlap: as in `draw_scene`; the classes are the shapes.
        options: see `ImageData`.

    Raises:
        ValueError: if a shape or colour is unknown, or a number makes no sense.
    """

    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def __init__(
        self,
        size: int = 96,
        train_size: int = 4000,
        val_size: int = 500,
        test_size: int = 500,
        max_objects: int = 6,
        min_objects: int = 1,
        shapes: tuple[str, ...] = SHAPES,
        colors: tuple[str, ...] = tuple(COLORS),
        max_overlap: float = 0.2,
        batch_size: int = 32,
        eval_batch_size: int = 100,
        **options: Any,
    ) -> None:
        super().__init__(val_size=val_size, batch_size=batch_size, eval_batch_size=eval_batch_size, **options)
        for name, given, known in (("shape", shapes, SHAPES), ("colour", colors, tuple(COLORS))):
            if unknown := set(given) - set(known) or not given:
                raise ValueError(f"{name}s {list(given)}: expected one or more of {list(known)}, not {unknown}")
        if size < 16 or not 0 <= min_objects <= max_objects:
            raise ValueError(
                f"size {size}, min_objects {min_objects}, max_objects {max_objects}: "
                "expected a side of 16 pixels or more, and 0 <= min_objects <= max_objects"
            )
        self.classes, self.image_shape = tuple(shapes), (3, size, size)
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        self.options = {"size": size, "max_objects": max_objects, "min_objects": min_objects}
        self.options |= {"shapes": self.classes, "colors": tuple(colors), "max_overlap": max_overlap}

    def scenes(self, split: str) -> list[Scene]:
        """The scenes of "train", "val" or "test", with their words."""
        seed = list(self.sizes).index(split)
        return [draw_scene(i, seed, **self.options) for i in range(self.sizes[split])]

    def make_datasets(self) -> dict[str, BoxedInMemory]:
        sets = {}
        for name in [name for name, count in self.sizes.items() if count]:
            images, boxes, labels, _ = zip(*self.scenes(name), strict=True)
            sets[name] = BoxedInMemory(torch.stack(images), list(boxes), list(labels))
        return sets
