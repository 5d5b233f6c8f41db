"""Distances between pictures by their features. B batch, C channels, h w height and width of the maps.

All compute in float32, also under autocast, where sums over thousands of places would lose their last digits or
overflow.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def gram(features: Tensor) -> Tensor:
    """Which channels fire together: the mean over the places of the products of every two channels.

    Gatys et al. 2016, "Image Style Transfer Using Convolutional Neural Networks", equation 3; differs from the paper
    in the division by h * w, which makes it a mean: pictures of different sizes can be compared.

    Shape: (B, C, h, w) -> (B, C, C) float32.

    >>> gram(torch.tensor([[[[1.0, 1.0]], [[2.0, 0.0]]]]))
    tensor([[[1., 1.],
             [1., 2.]]])
    """
    with torch.autocast(features.device.type, enabled=False):
        maps = features.float().flatten(2)
        return maps @ maps.mT / maps.size(2)


def gram_distance(features: Tensor, target: Tensor) -> Tensor:
    """Mean square of the difference between the Gram matrices of `features` and `target`, which is one already.

    That is 4 times E of Gatys et al. 2016, equation 4.

    Shape: (B, C, h, w) and (B or 1, C, C) -> (B,) float32.
    """
    return (gram(features) - target).square().mean((1, 2))


def sliced_distance(features: Tensor, target: Tensor, generator: torch.Generator, projections: int = 32) -> Tensor:
    """How far the feature vectors of all places must be moved to become those of `target`, seen along random lines.

    The squared 2-Wasserstein distance between the distributions of the vectors' projections, a mean over the lines.
    Along a line it needs nothing but sorting. Heitz et al. 2021, "A Sliced Wasserstein Loss for Neural Texture
    Synthesis", equations 3 to 5. Where the numbers of places differ, the target's quantiles are interpolated.

    Args:
        features: (B, C, h, w).
        target: (B or 1, C, h', w').
        generator: draws the lines, on the device of the features.
        projections: how many lines; the paper takes C.

    Returns:
        (B,) float32.
    """
    with torch.autocast(features.device.type, enabled=False):
        lines = torch.randn(projections, features.size(1), device=features.device, generator=generator)
        lines = F.normalize(lines, dim=1)
        ours, theirs = ((lines @ maps.float().flatten(2)).sort(2).values for maps in (features, target))
        if ours.size(2) != theirs.size(2):
            theirs = F.interpolate(theirs, ours.size(2), mode="linear", align_corners=False)
        return (ours - theirs).square().mean((1, 2))
