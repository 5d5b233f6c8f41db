"""The neural cellular automaton. B batch, C channels, D hidden units, H height, W width.

Niklasson et al. 2021, "Self-Organising Textures", Distill: with 12 channels and 96 hidden units it has their 5 856
parameters, with 4 and 8 it has 168. (Mordvintsev and Niklasson 2021, "uNCA: Texture Generation with Ultra-Compact
Neural Cellular Automata", go down to 68.) Differs from the paper in filters that are scaled to about 1, which allows
a larger learning rate.
"""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FILTERS = (  # what a cell perceives of a channel: its own value, the two slopes (Sobel), the curvature (Laplacian)
    ((0, 0, 0), (0, 1, 0), (0, 0, 0)),
    ((-1 / 8, 0, 1 / 8), (-2 / 8, 0, 2 / 8), (-1 / 8, 0, 1 / 8)),
    ((-1 / 8, -2 / 8, -1 / 8), (0, 0, 0), (1 / 8, 2 / 8, 1 / 8)),
    ((1 / 8, 2 / 8, 1 / 8), (2 / 8, -12 / 8, 2 / 8), (1 / 8, 2 / 8, 1 / 8)),
)


class NCA(nn.Module):
    """A cellular automaton on a torus whose update rule is a small network that sees the neighboring cells.

    A step is x + mask * brain(perception(x)): the perception applies each filter to each channel, the brain is two
    1x1 convolutions, and the random mask leaves each cell as it is with probability 1 - `update_rate`, so that the
    cells share no clock. The last layer starts at zero: an untrained automaton does not change.

    Perception and first layer are both linear, hence together one 3x3 convolution. They are computed as one, which is
    equal, and several times as fast on a CPU.

    Args:
        channels: C; the first three are the color.
        hidden: D.
        update_rate: share of the cells that are updated in a step.

    Raises:
        ValueError: for fewer than three channels.

    >>> [sum(p.numel() for p in net.parameters()) for net in (NCA(4, 8), NCA(12, 96))]
    [168, 5856]
    """

    filters: Tensor

    def __init__(self, channels: int = 4, hidden: int = 8, update_rate: float = 0.5) -> None:
        super().__init__()
        if channels < 3:
            raise ValueError(f"channels is {channels}: expected 3 or more, as the first three are the color")
        self.channels, self.update_rate = channels, update_rate
        self.register_buffer("filters", torch.tensor(FILTERS), persistent=False)
        first = nn.Conv2d(len(FILTERS) * channels, hidden, 1)
        last = nn.Conv2d(hidden, channels, 1, bias=False)
        self.brain = nn.Sequential(first, nn.ReLU(), last)
        nn.init.zeros_(last.weight)

    def forward(self, x: Tensor, masks: Iterable[Tensor]) -> Tensor:
        """(B, C, H, W) and for each step a mask (B or 1, 1, H, W) of zeros and ones -> (B, C, H, W), in float32."""
        weight, bias, out = (parameter.float() for parameter in self.brain.parameters())
        x, weight = x.float(), weight.view(-1, self.channels, len(FILTERS))  # as a depthwise convolution orders them
        with torch.autocast(x.device.type, enabled=False):  # rounding errors would add up over hundreds of steps
            kernel = torch.einsum("dcf,fij->dcij", weight, self.filters.float())
            for mask in masks:
                hidden = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), kernel, bias).relu()
                x = torch.addcmul(x, F.conv2d(hidden, out), mask)
        return x

    def run(self, x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """`forward` for `steps` steps with masks from `generator`, which is on the device of x."""
        shape = (len(x), 1, *x.shape[2:])
        draws = (torch.rand(shape, device=x.device, generator=generator) for _ in range(steps))
        return self(x, ((draw < self.update_rate).float() for draw in draws))

    def seed(self, count: int, height: int, width: int) -> Tensor:
        """The seed state, all zeros (mid-gray): (count, C, height, width)."""
        return torch.zeros(count, self.channels, height, width, device=self.filters.device)

    @torch.no_grad()
    def rollout(self, size: tuple[int, int], frames: int, every: int, seed: int = 0) -> Iterator[Tensor]:
        """Yields images (3, H, W) in 0..1: the seed state, then the state after each further `every` steps.

        Args:
            size: (H, W).
            frames: number of images.
            every: steps from image to image.
            seed: of the random masks.
        """
        generator = torch.Generator(self.filters.device).manual_seed(seed)
        x = self.seed(1, *size)
        for frame in range(frames):
            x = self.run(x, every, generator) if frame else x
            yield to_rgb(x)[0].clamp(0, 1)


def to_rgb(x: Tensor) -> Tensor:
    """States (B, C, H, W) -> images (B, 3, H, W), about 0..1: zero is mid-gray."""
    return x[:, :3] + 0.5
