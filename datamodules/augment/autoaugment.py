"""AutoAugment's policy for CIFAR-10 on batches, with a sub-policy for every sample. B batch, C, H, W as usual.

Cubuk et al. 2019, "AutoAugment: Learning Augmentation Strategies from Data", table 7 (the sub-policies) and table 6
(the ranges of the magnitudes). The operations are torchvision's, each called once for all samples that get it.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from datamodules.augment.images import ImageAugmentation, host_seed

# The two operations of each sub-policy, with their probabilities and magnitudes, 0 to 9 (0 also where there is none).
CIFAR10_POLICY = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)
SYMMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")


def apply(name: str, x: Tensor, level: int, fill: float = 0.0) -> Tensor:
    """One operation on images (B, C, H, W) uint8.

    Args:
        name: as in table 6.
        level: magnitude, 0 to 9; that of the operations in `SYMMETRIC` may be negative.
        fill: gray value in 0..255 of new areas.
    """
    H, W = x.shape[2:]
    moved = partial(
        F.affine,
        x,
        angle=0.0,
        translate=[0, 0],
        scale=1.0,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.NEAREST,
        fill=[fill] * x.shape[1],
    )

    def part(highest: float) -> float:
        """The magnitude of the level on a scale that ends at `highest`; in float32, as torchvision's."""
        return math.copysign(float(torch.linspace(0, highest, 10)[abs(level)]), level)

    def angle() -> float:
        return math.degrees(math.atan(part(0.3)))

    operations: dict[str, Callable[[], Tensor]] = {
        "ShearX": lambda: moved(shear=[angle(), 0.0], center=[0.0, 0.0]),  # about the upper left corner, as the paper's
        "ShearY": lambda: moved(shear=[0.0, angle()], center=[0.0, 0.0]),
        "TranslateX": lambda: moved(translate=[int(part(150 / 331 * W)), 0]),
        "TranslateY": lambda: moved(translate=[0, int(part(150 / 331 * H))]),
        "Rotate": lambda: moved(angle=-part(30)),  # affine turns the other way round than rotate
        "Brightness": lambda: F.adjust_brightness(x, 1 + part(0.9)),
        "Color": lambda: F.adjust_saturation(x, 1 + part(0.9)),
        "Contrast": lambda: F.adjust_contrast(x, 1 + part(0.9)),
        "Sharpness": lambda: F.adjust_sharpness(x, 1 + part(0.9)),
        "Posterize": lambda: F.posterize(x, 8 - round(part(4))),
        "Solarize": lambda: F.solarize(x, 255 - part(255)),
        "AutoContrast": lambda: F.autocontrast(x),
        "Equalize": lambda: F.equalize(x),
        "Invert": lambda: F.invert(x),
    }
    return operations[name]()


class AutoAugment(ImageAugmentation):
    """One of the 25 sub-policies for CIFAR-10 for each image, at random: two operations, each with its probability.

    The images are rounded to 8 bits, on which the operations are defined.

    Args:
        fill: gray value in 0..1 of new areas; the paper's code has the data's mean there, torchvision black.

    Raises:
        ValueError: if `fill` is out of range, or the images are neither gray nor RGB.
    """

    moves_pixels = True

    def __init__(self, fill: float = 0.5) -> None:
        if not 0 <= fill <= 1:
            raise ValueError(f"fill is {fill}: expected a gray value in 0..1")
        self.fill = fill

    def image(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if x.shape[1] not in (1, 3):
            raise ValueError(f"the images have {x.shape[1]} channels: AutoAugment expects 1 (gray) or 3 (RGB)")
        pixels = (255 * x).round().to(torch.uint8)
        for samples in self.draw(len(x), generator):
            groups: dict[tuple[str, int], list[int]] = defaultdict(list)
            for sample, operation in samples.items():
                groups[operation].append(sample)
            for (name, level), members in groups.items():
                index = torch.tensor(members).to(x.device, non_blocking=True)
                pixels[index] = apply(name, pixels[index], level, fill=round(255 * self.fill))
        return pixels.to(x.dtype) / 255

    def draw(self, count: int, generator: torch.Generator) -> tuple[dict[int, tuple[str, int]], ...]:
        """For both places in a sub-policy: sample -> name and level of its operation, where it has one.

        The host groups the samples, so it draws: with a generator that is seeded by the state of the given one.
        """
        draw = np.random.default_rng(host_seed(generator))
        policies = [CIFAR10_POLICY[i] for i in draw.integers(len(CIFAR10_POLICY), size=count)]
        happens, negative = draw.random((2, count)), draw.random((2, count)) < 0.5
        places: tuple[dict[int, tuple[str, int]], ...] = ({}, {})
        for place, samples in enumerate(places):
            for i, policy in enumerate(policies):
                name, probability, level = policy[place]
                if happens[place, i] < probability:
                    samples[i] = name, -level if name in SYMMETRIC and negative[place, i] else level
        return places
