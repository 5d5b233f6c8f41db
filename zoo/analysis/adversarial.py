"""Adversarial images: small changes that make a classifier err, by the fast gradient sign method or step by step.

Goodfellow, Shlens and Szegedy 2015, "Explaining and Harnessing Adversarial Examples". Kurakin, Goodfellow and Bengio
2017, "Adversarial Examples in the Physical World". Dong et al. 2018, "Boosting Adversarial Attacks with Momentum".
B batch, C channels, H height, W width, K classes.

All functions take images as the network sees them, normalized with `mean` and `std` per channel. `epsilon` and the
valid range are in the units of the image before that, 0 to 1: 8 / 255 are eight of the 256 levels of a PNG file.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from callbacks.figures.callback import untouched

EPSILON = 8 / 255
Statistics = Sequence[float] | Tensor


def fgsm(
    net: nn.Module, images: Tensor, labels: Tensor, mean: Statistics, std: Statistics, epsilon: float = EPSILON
) -> Tensor:
    """The fast gradient sign method: one step of length epsilon that raises the loss of the true class.

    x + epsilon * sign(d loss / d x), clipped to 0..1; section 4 of Goodfellow et al. 2015.

    Args:
        net: maps images (B, C, H, W) to logits (B, K). It is run in evaluation mode and stays as it is.
        images: (B, C, H, W), normalized.
        labels: (B,) int64, the true classes.
        mean, std: per channel, of images in 0..1.
        epsilon: largest change of a pixel, in 0..1.

    Returns:
        Adversarial images (B, C, H, W), normalized.

    Raises:
        ValueError: if epsilon is outside 0..1, or labels are not (B,) int64.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    >>> net[1].weight.data = torch.tensor([[1.0], [-1.0]])
    >>> fgsm(net, torch.full((1, 1, 1, 1), 0.5), torch.tensor([0]), (0.0,), (1.0,), epsilon=0.25).item()
    0.25
    """
    return _ascend(net, images, labels, mean, std, epsilon=epsilon, lengths=[epsilon])


def targeted(
    net: nn.Module,
    images: Tensor,
    targets: Tensor,
    mean: Statistics,
    std: Statistics,
    epsilon: float = EPSILON,
    steps: int = 6,
    step_size: float | None = None,
    momentum: float = 0.5,
) -> Tensor:
    """The targeted iterative attack: steps that lower the loss of a target class, each followed by clipping.

    x' = clip(x - step_size * sign(m)), where clip keeps each pixel within epsilon of the original image and within
    0..1; sections 2.2 and 2.3 of Kurakin et al. 2017. m is momentum * m plus the gradient of the loss, divided by the
    sum of its absolute values; equation 6 of Dong et al. 2018. Differs from Kurakin et al. in this momentum and in the
    length of the steps, which is 1 / 255 there, with up to 1.25 * epsilon * 255 of them: six steps reach more targets
    with momentum, and if they are long at first and get shorter. On 1000 images of CIFAR-10 with the net of
    cifar10_budget/airbench they reach 0.957 of the least likely classes and 0.923 of random ones; without momentum, and
    with 2.5 * epsilon in all, 0.927 and 0.891.

    Args:
        targets: (B,) int64, the class that each image is to be taken for; see `least_likely` and `random_others`.
        steps: number of steps.
        step_size: of each, in 0..1; by default their lengths fall evenly to nearly 0, and add up to 4 * epsilon.
        momentum: share of the last direction that is kept, 0 to 1.
        net, images, mean, std, epsilon: see `fgsm`.

    Returns, Raises:
        see `fgsm`; also ValueError if steps are below 1, step_size is not above 0, or momentum is outside 0..1.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: expected 1 or more")
    if step_size is not None and step_size <= 0:
        raise ValueError(f"step_size is {step_size}: expected more than 0; leave it out for falling lengths")
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum is {momentum}: expected 0 to 1, such as 0.5")
    total = steps * (steps + 1) / 2
    falling = [4 * epsilon * left / total for left in range(steps, 0, -1)]
    lengths = [-length for length in (falling if step_size is None else [step_size] * steps)]
    return _ascend(net, images, targets, mean, std, epsilon=epsilon, lengths=lengths, momentum=momentum)


def least_likely(net: nn.Module, images: Tensor) -> Tensor:
    """The class that the network finds least likely for each image, the hardest target: (B, C, H, W) -> (B,) int64.

    Section 2.3 of Kurakin et al. 2017.
    """
    return logits_of(net, images).argmin(1)


def random_others(labels: Tensor, num_classes: int, seed: int = 0) -> Tensor:
    """For each label another class, all equally likely: (B,) int64 -> (B,) int64.

    Raises:
        ValueError: if there is no other class.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}: expected 2 or more")
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(1, num_classes, labels.shape, generator=generator).to(labels.device)
    return (labels + steps) % num_classes


def logits_of(net: nn.Module, images: Tensor) -> Tensor:
    """The logits (B, K) in float32 that a network in evaluation mode gives for images (B, C, H, W)."""
    with untouched(net), torch.no_grad():
        return net.eval()(images).float()


def _ascend(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    mean: Statistics,
    std: Statistics,
    *,
    epsilon: float,
    lengths: list[float],
    momentum: float = 0.0,
) -> Tensor:
    """Steps along the sign of the gradient of the loss, against it where a length is negative; clipped after each.

    With momentum, the directions of the steps before count as well; see `targeted`.
    """
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon is {epsilon:g}: expected 0 to 1, the range of the images, such as 8 / 255")
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(
            f"the labels are {tuple(labels.shape)} {labels.dtype}: expected class indices ({len(images)},), "
            "torch.int64; give one for each image"
        )
    center, scale = (torch.as_tensor(value).to(images)[:, None, None] for value in (mean, std))
    # The bounds of each pixel: the image plus and minus epsilon, inside of 0..1. A pixel that lies outside, by rounding
    # or as the edges of rotated images do, stays there.
    low = torch.maximum(images - epsilon / scale, torch.minimum(-center / scale, images))
    high = torch.minimum(images + epsilon / scale, torch.maximum((1 - center) / scale, images))
    # Evaluation may run in inference mode, whose tensors know no gradients: they are cloned outside it.
    with torch.inference_mode(False), untouched(net), torch.enable_grad():
        net.eval().requires_grad_(False)
        labels, low, high, scale = labels.clone(), low.clone(), high.clone(), scale.clone()
        found = images.detach().clone()
        direction = torch.zeros_like(found)
        for length in lengths:
            found.requires_grad_()
            outputs = net(found)
            logits = outputs if isinstance(outputs, Tensor) else outputs[0]
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits.float(), labels, reduction="sum"), found)
            size = gradient.abs().sum((1, 2, 3), keepdim=True)
            direction = momentum * direction + gradient / size.clamp(min=torch.finfo(size.dtype).tiny)
            found = torch.clamp(found.detach() + length / scale * direction.sign(), low, high)
    return found
