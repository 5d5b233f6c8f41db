"""A pipeline of albumentations for data in memory. B batch, C channels, H height, W width."""

from typing import Any

import albumentations as A
import numpy as np
import torch
from torch import Tensor

from datamodules.augment.images import ImageAugmentation, host_seed

TRIED = 8  # draws of a pipeline before training, as a transform may be one that is not always applied


def transformed(pipeline: A.Compose, image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What a pipeline makes of an image (H, W, C) uint8.

    Args:
        shape: (H, W, C) that it must have.

    Raises:
        ValueError: unless it is uint8 of that shape: what is normalized here would be normalized again.
    """
    result: Any = pipeline(image=image)["image"]
    if isinstance(result, np.ndarray) and result.dtype == np.uint8 and result.shape == shape:
        return result
    found = f"{result.dtype} {tuple(result.shape)}" if hasattr(result, "dtype") else type(result).__name__
    raise ValueError(
        f"the transforms {_names(pipeline)} make {found} of uint8 {image.shape}: expected uint8 {shape}; leave out "
        "Normalize, ToFloat and ToTensorV2, since batches are normalized later, and end at the size of the images"
    )


def try_out(pipeline: A.Compose, image: np.ndarray, shape: tuple[int, ...]) -> None:
    """Passes an image through a pipeline a few times, before a training is begun with it.

    Raises:
        ValueError: as `transformed`, and if an image that was normalized has been rounded to values such as 0 and 1.
    """
    results = []
    for seed in range(TRIED):
        pipeline.set_random_seed(seed)
        results.append(transformed(pipeline, image, shape))
    if image.max() > 15 and np.max(results) <= 3:
        raise ValueError(
            f"the transforms {_names(pipeline)} make values of 0..{np.max(results)} of 0..{image.max()}: expected "
            "0..255; leave out Normalize, ToFloat and FromFloat, since batches are normalized later"
        )


def _names(pipeline: A.Compose) -> str:
    return ", ".join(type(transform).__name__ for transform in pipeline.transforms)


class Albumentations(ImageAugmentation):
    """Passes each image of a batch through albumentations transforms, one by one on the CPU, in 8 bits.

    For image files, which are augmented in worker processes, see `datamodules.images.image_folder.ImageFolder`.

    Args:
        transform: albumentations transforms, in order; uint8 in and out, of the same size.

    Raises:
        ValueError: if an image comes out in another size or type.
    """

    moves_pixels = True

    def __init__(self, transform: list[A.BasicTransform]) -> None:
        self.transform = A.Compose(transform)

    def check(self, batch: Any, num_classes: int | None) -> None:
        super().check(batch, num_classes)
        image = np.ascontiguousarray(batch.image[0].permute(1, 2, 0).cpu().numpy())
        try_out(self.transform, image, image.shape)

    def image(self, x: Tensor, generator: torch.Generator) -> Tensor:
        seed = np.random.SeedSequence(host_seed(generator)).generate_state(1)[0]
        self.transform.set_random_seed(int(seed))
        pixels = np.ascontiguousarray((255 * x).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
        result = torch.from_numpy(np.stack([transformed(self.transform, image, image.shape) for image in pixels]))
        return result.permute(0, 3, 1, 2).to(x.device, x.dtype) / 255
