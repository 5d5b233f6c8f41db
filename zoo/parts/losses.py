"""Losses that several systems share: distances between images by their features, and distillation. B batch, C
channels, h w height and width of the maps, K classes.

All compute in float32, also under autocast, where sums over thousands of positions would lose their last digits or
overflow.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def gram(features: Tensor) -> Tensor:
    """The Gram matrix: for every two channels the mean of their product over all positions.

    Gatys et al. 2016, "Image Style Transfer Using Convolutional Neural Networks", equation 3; differs from the paper
    in the division by h * w, which makes it a mean: images of different sizes can be compared.

    Shape: (B, C, h, w) -> (B, C, C) float32.

    >>> gram(torch.tensor([[[[1.0, 1.0]], [[2.0, 0.0]]]]))
    tensor([[[1., 1.],
             [1., 2.]]])
    """
    with torch.autocast(features.device.type, enabled=False):
        maps = features.float().flatten(2)
        return maps @ maps.mT / maps.size(2)


def gram_distance(features: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference between the Gram matrix of `features` and `target`, which is a Gram matrix already.

    That is 4 times E of Gatys et al. 2016, equation 4.

    Shape: (B, C, h, w) and (B or 1, C, C) -> (B,) float32.
    """
    return (gram(features) - target).square().mean((1, 2))


def sliced_distance(features: Tensor, target: Tensor, generator: torch.Generator, projections: int = 32) -> Tensor:
    """Sliced Wasserstein distance between the feature vectors of all positions and those of `target`.

    The squared 2-Wasserstein distance between the distributions of the vectors' projections on random directions, a
    mean over the directions; in one dimension sorting solves the transport. Heitz et al. 2021, "A Sliced Wasserstein
    Loss for Neural Texture Synthesis", equations 3 to 5. Where the numbers of positions differ, the target's quantiles
    are interpolated.

    Args:
        features: (B, C, h, w).
        target: (B or 1, C, h', w').
        generator: draws the directions, on the device of the features.
        projections: number of directions; the paper takes C.

    Returns:
        (B,) float32.
    """
    with torch.autocast(features.device.type, enabled=False):
        directions = torch.randn(projections, features.size(1), device=features.device, generator=generator)
        directions = F.normalize(directions, dim=1)
        ours, theirs = ((directions @ maps.float().flatten(2)).sort(2).values for maps in (features, target))
        if ours.size(2) != theirs.size(2):
            theirs = F.interpolate(theirs, ours.size(2), mode="linear", align_corners=False)
        return (ours - theirs).square().mean((1, 2))


def mean_square(target: Tensor) -> Tensor:
    """The mean of all squares, a scalar, but never 0: what a distance is divided by to make it relative."""
    return target.square().mean().clamp_min(1e-12)


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """How far a net's softened probabilities are from those of its teacher: the mean Kullback-Leibler divergence.

    Both logits are divided by a temperature before the softmax. A high one shows which of the wrong classes the teacher
    finds likely, of which its probabilities proper say little. Times the temperature's square, which keeps the size of
    the gradients: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", sections 2 and 2.1.

    Shape: (B, K) and (B, K) -> scalar float32.

    >>> round(distillation(torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 2.0]]), 1.0).item(), 4)
    0.4621
    """
    with torch.autocast(logits.device.type, enabled=False):
        ours, theirs = ((values.float() / temperature).log_softmax(1) for values in (logits, teacher))
        return F.kl_div(ours, theirs, log_target=True, reduction="batchmean") * temperature**2
