"""A pipeline of albumentations for data in memory. B batch, C channels, H height, W width."""

from typing import Any

import albumentations as A
import numpy as np
import torch
from torch import Tensor

from datamodules.augment.images import ImageAugmentation, host_seed


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

    def image(self, x: Tensor, generator: torch.Generator) -> Tensor:
        seed = np.random.SeedSequence(host_seed(generator)).generate_state(1)[0]
        self.transform.set_random_seed(int(seed))
        pixels = (255 * x).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        result = torch.from_numpy(np.stack([self._transformed(image) for image in pixels]))
        return result.permute(0, 3, 1, 2).to(x.device, x.dtype) / 255

    def _transformed(self, image: np.ndarray) -> np.ndarray:
        result: Any = self.transform(image=np.ascontiguousarray(image))["image"]
        if getattr(result, "dtype", None) != np.uint8 or result.shape != image.shape:
            found = f"{getattr(result, 'dtype', type(result).__name__)} {tuple(result.shape)}"
            raise ValueError(
                f"the albumentations transforms make {found} of uint8 {image.shape}: expected the same type and size; "
                "leave out Normalize and ToTensorV2, and end at the size of the data"
            )
        return result
