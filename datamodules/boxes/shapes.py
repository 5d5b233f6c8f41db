"""Drawn scenes (`datamodules.scenes`) with exact boxes, as a data set for detection. No files are needed."""

from typing import Any

import torch
from torch.utils.data import Dataset

from datamodules.boxes.base import BoxedData, BoxedInMemory
from datamodules.scenes import COLORS, SHAPES, Scene, draw_scene


class Shapes(BoxedData):
    """Drawn scenes in memory; the three splits share no scene, and are the same whatever the seed of a run.

    Args:
        size: side of the images in pixels.
        train_size, val_size, test_size: numbers of scenes.
        max_objects, min_objects, shapes, colors, max_overlap: as in `draw_scene`; the classes are the shapes.
        options: see `ImageData`.

    Raises:
        ValueError: if a shape or color is unknown, or a number is out of range.
    """

    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    license = "MIT: drawn by litzoo"

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
        for name, given, known in (("shapes", shapes, SHAPES), ("colors", colors, tuple(COLORS))):
            if set(given) - set(known) or not given:
                raise ValueError(f"{name} are {list(given)}: expected one or more of {list(known)}")
        if size < 16 or not 0 <= min_objects <= max_objects:
            raise ValueError(
                f"size is {size}, min_objects {min_objects}, max_objects {max_objects}: "
                "expected a side of 16 pixels or more, and 0 <= min_objects <= max_objects"
            )
        self.classes, self.image_shape = tuple(shapes), (3, size, size)
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        self.scene_options: dict[str, Any] = {
            "size": size, "max_objects": max_objects, "min_objects": min_objects, "shapes": self.classes,
            "colors": tuple(colors), "max_overlap": max_overlap,
        }  # fmt: skip

    def scenes(self, split: str) -> list[Scene]:
        """The scenes of "train", "val" or "test", with their words."""
        seed = list(self.sizes).index(split)
        return [draw_scene(i, seed, **self.scene_options) for i in range(self.sizes[split])]

    def make_datasets(self) -> dict[str, Dataset]:
        datasets: dict[str, Dataset] = {}
        for split in [split for split, count in self.sizes.items() if count]:
            images, boxes, labels, _ = zip(*self.scenes(split), strict=True)
            datasets[split] = BoxedInMemory(torch.stack(images), list(boxes), list(labels))
        return datasets
