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

FILTERS = (  # what a cell sees of a channel: itself, the slopes (Sobel) and the curvature (Laplacian) about it
    ((0, 0, 0), (0, 1, 0), (0, 0, 0)),
    ((-1 / 8, 0, 1 / 8), (-2 / 8, 0, 2 / 8), (-1 / 8, 0, 1 / 8)),
    ((-1 / 8, -2 / 8, -1 / 8), (0, 0, 0), (1 / 8, 2 / 8, 1 / 8)),
    ((1 / 8, 2 / 8, 1 / 8), (2 / 8, -12 / 8, 2 / 8), (1 / 8, 2 / 8, 1 / 8)),
)


class NCA(nn.Module):
    """One small net in every cell of a torus, which changes the cell's state by what the cell sees of its neighbours.

    A step is x + mask * brain(perception(x)): the perception applies each filter to each channel, the brain is two
    1x1 convolutions, and the mask lets each cell sleep through a step with probability 1 - `update_rate`, so that no
    clock is shared by all. The last layer starts at zero: an untrained automaton stands still.

    Perception and first layer are both linear, hence together one 3x3 convolution. As such they run: that is equal,
    and on a CPU several times as fast.

    Args:
        channels: C; the first three are the colour.
        hidden: D.
        update_rate: share of the cells that are awake in a step.

    Raises:
        ValueError: for fewer than three channels.

    >>> [sum(p.numel() for p in net.parameters()) for net in (NCA(4, 8), NCA(12, 96))]
    [168, 5856]
    """

    def __init__(self, channels: int = 4, hidden: int = 8, update_rate: float = 0.5) -> None:
        super().__init__()
        if channels < 3:
            raise ValueError(f"channels is {channels}: expected 3 or more, as the first three are the colour")
        self.channels, self.update_rate = channels, update_rate
        self.register_buffer("filters", torch.tensor(FILTERS), persistent=False)
        self.brain = nn.Sequential(
            nn.Conv2d(len(FILTERS) * channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1, bias=False)
        )
        nn.init.zeros_(self.brain[-1].weight)

    def forward(self, x: Tensor, masks: Iterable[Tensor]) -> Tensor:
        """(B, C, H, W) and for each step a mask (B or 1, 1, H, W) of zeros and ones -> (B, C, H, W), in float32."""
        first, _, last = self.brain
        x, bias, out = x.float(), first.bias.float(), last.weight.float()
        weight = first.weight.float().view(-1, self.channels, len(FILTERS))  # as a depthwise convolution orders them
        with torch.autocast(x.device.type, enabled=False):  # roundings would add up over hundreds of steps
            kernel = torch.einsum("dcf,fij->dcij", weight, self.filters.float())
            for mask in masks:
                hidden = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), kernel, bias).relu()
                x = torch.addcmul(x, F.conv2d(hidden, out), mask)
        return x

    def run(self, x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """`forward` for so many steps with masks from `generator`, which is on the device of x."""
        shape = (len(x), 1, *x.shape[2:])
        draws = (torch.rand(shape, device=x.device, generator=generator) for _ in range(steps))
        return self(x, ((draw < self.update_rate).float() for draw in draws))

    def seed(self, count: int, height: int, width: int) -> Tensor:
        """What everything grows from, a grey nothing: (count, C, height, width)."""
        return torch.zeros(count, self.channels, height, width, device=self.filters.device)

    @torch.no_grad()
    def rollout(self, size: tuple[int, int], frames: int, every: int, seed: int = 0) -> Iterator[Tensor]:
        """Images (3, H, W) in 0..1: the seed, then what has grown after each further `every` steps."""
        generator = torch.Generator(self.filters.device).manual_seed(seed)
        x = self.seed(1, *size)
        for frame in range(frames):
            x = self.run(x, every, generator) if frame else x
            yield colour(x)[0].clamp(0, 1)


def colour(x: Tensor) -> Tensor:
    """States (B, C, H, W) -> images (B, 3, H, W), about 0..1: zero is grey."""
    return x[:, :3] + 0.5
