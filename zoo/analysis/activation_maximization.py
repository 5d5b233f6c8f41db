"""Activation maximization: images that a unit of a net answers to most. B images, C channels, H height, W width.

Erhan, Bengio, Courville and Vincent 2009, "Visualizing Higher-Layer Features of a Deep Network"; for classes Simonyan,
Vedaldi and Zisserman 2014, "Deep Inside Convolutional Networks", section 2. Without a prior the result is noise of high
frequencies that no one would recognize. Two weak ones are used here (Olah, Mordvintsev and Schubert 2017, "Feature
Visualization"): the image is moved to and fro by some pixels at each step, and its total variation is penalized.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from callbacks.figures.callback import untouched
from callbacks.monitors.hooks import forward_hooks

GRAY_NOISE = 0.02  # standard deviation of what ascent starts from, around gray
NOISES = 32  # stronger noises for units that do not answer to that


class Maximized(NamedTuple):
    """Images that maximize a unit each.

    images: (B, C, H, W) in 0..1.
    before, after: (B,), the activation of each unit for its image at the start and at the end.
    """

    images: Tensor
    before: Tensor
    after: Tensor


def maximize(
    net: nn.Module,
    layer: str | None,
    units: Sequence[int],
    shape: tuple[int, int, int],
    normalize: Callable[[Tensor], Tensor] = lambda image: image,
    steps: int = 200,
    lr: float = 0.05,
    jitter: int = 1,
    variation: float = 0.0,
    seed: int = 0,
) -> Maximized:
    """Gradient ascent from gray noise to images that maximize one unit each, all at once, in evaluation mode.

    The activation of a unit is that of its channel, averaged over places or tokens. A unit that does not answer to gray
    at all, behind a ReLU, has no gradient there: it starts from whichever of some stronger noises excites it most.
    Modes, gradients, hooks and random states are left as they were.

    Args:
        net: maps images (B, C, H, W) to something.
        layer: name of a module in the net; None for its output, such as the logits.
        units: channels of the output of that; one image for each.
        shape: (C, H, W).
        normalize: from 0..1 to what the net expects, such as that of a datamodule.
        steps: of Adam.
        lr: its learning rate, in gray levels of 0..1.
        jitter: the image is moved by up to so many pixels at each step.
        variation: weight of the mean absolute difference of neighboring pixels.
        seed: of the noise and the moves.

    Raises:
        ValueError: if there is no such layer or unit, or the layer gives no tensor of channels.

    >>> linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> found = maximize(linear, None, [0, 1], (1, 2, 2), steps=100, jitter=0)
    >>> torch.equal(found.images.flatten(1) > 0.5, linear[1].weight > 0)
    True
    """
    target = _part(net, layer)
    draw = torch.Generator().manual_seed(seed)
    found: list[Tensor] = []
    weight = next(net.parameters())
    # Evaluation may run in inference mode, whose tensors autograd does not take.
    with torch.inference_mode(False), untouched(net), torch.enable_grad():
        net.eval().requires_grad_(False)
        images = 0.5 + GRAY_NOISE * torch.randn(len(units), *shape, generator=draw)
        images = images.to(weight).requires_grad_()
        noises = 0.5 + torch.linspace(0.05, 0.5, NOISES)[:, None, None, None] * torch.randn(
            NOISES, *shape, generator=draw
        )
        optimizer = torch.optim.Adam([images], lr)

        def activations(shifted: Tensor) -> Tensor:
            found.clear()
            net(normalize(shifted))
            return _of_units(found, units, layer or "the output")

        with forward_hooks([(target, lambda module, inputs, output: found.append(output))]):
            (slope,) = torch.autograd.grad(activations(images).sum(), images)
            with torch.no_grad():
                for i in (slope.flatten(1).abs().amax(1) == 0).nonzero()[:, 0].tolist():
                    candidates = noises.clamp(0, 1).to(images)
                    found.clear()
                    net(normalize(candidates))
                    images[i] = candidates[_of_units(found, [units[i]] * NOISES, "").argmax()]
            before = activations(images).detach()
            for _ in range(steps):
                move = torch.randint(-jitter, jitter + 1, (2,), generator=draw).tolist()
                score = activations(images.roll(move, (2, 3))).sum()
                loss = -score + variation * len(units) * _variation(images)
                (images.grad,) = torch.autograd.grad(loss, [images])
                optimizer.step()
                with torch.no_grad():
                    images.clamp_(0, 1)
            after = activations(images).detach()
    return Maximized(images.detach().cpu(), before.cpu(), after.cpu())


def width_of(net: nn.Module, layer: str | None, shape: tuple[int, int, int]) -> int:
    """How many units a layer has for images of (C, H, W): its channels, or the net's outputs if the layer is None.

    Raises:
        ValueError: if there is no such layer, or it gives no tensor of channels.

    >>> width_of(nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU()), "0", (1, 8, 8))
    5
    """
    found: list[Tensor] = []
    with torch.no_grad(), untouched(net), forward_hooks([(_part(net, layer), lambda *call: found.append(call[2]))]):
        net.eval()(next(net.parameters()).new_zeros(1, *shape))
    return _channels(found, layer or "the output").size(1)


def _part(net: nn.Module, layer: str | None) -> nn.Module:
    parts = dict(net.named_modules()) | {"": net}
    if (found := parts.get(layer or "")) is None:
        named = ", ".join([name for name in parts if name][:6])
        raise ValueError(f"there is no layer {layer!r} in {type(net).__name__}: expected a name such as {named}")
    return found


def _channels(outputs: list[Tensor], name: str) -> Tensor:
    """Of what a layer gave first (B, C), the mean of each channel over places or tokens.

    Channels are the second axis, of tokens the last.
    """
    if not outputs:
        raise ValueError(
            f"{name} is not called in evaluation: expected one on the way to the output; choose another layer"
        )
    output = outputs[0]
    if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4):
        what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"{name} gives {what}: expected (B, C), (B, C, H, W) or tokens (B, T, C); choose another layer"
        )
    return output.mean(1) if output.ndim == 3 else output.flatten(2).mean(2) if output.ndim == 4 else output


def _of_units(outputs: list[Tensor], units: Sequence[int], name: str) -> Tensor:
    """(B,), for each image the activation of its own unit."""
    channels = _channels(outputs, name)
    if not all(0 <= unit < channels.size(1) for unit in units):
        raise ValueError(f"units are {list(units)}: expected channels of {name}, 0 to {channels.size(1) - 1}")
    return channels[torch.arange(len(units)), torch.as_tensor(units)]


def _variation(images: Tensor) -> Tensor:
    """The mean absolute difference of neighboring pixels."""
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()
