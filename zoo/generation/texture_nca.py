"""Textures grown by a neural cellular automaton: every cell follows one small learned rule and sees only its
neighbors. It makes textures of any size that move and heal, from a few hundred parameters.

B batch, C channels, H height, W width.

Niklasson et al. 2021, "Self-Organising Textures", Distill. Differs from the paper in the scale of the filters (see
`NCA`), in a style loss that is relative to the image's, and in what is reseeded: the state with the largest value.
"""

from collections.abc import Iterator
from functools import partial
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from callbacks.figures.axis import loss_axis
from datamodules.batches import ContentStyle
from zoo.generation.base import GenerativeSystem
from zoo.parts.features import Features
from zoo.parts.losses import gram, gram_distance, mean_square, sliced_distance
from zoo.parts.nca import NCA, to_rgb
from zoo.parts.optim.schedules import OneCycle
from zoo.system import ScheduleCallable

MAX_LOSS_GROWTH = 1.5  # style loss of the old texture divided by that of the grown one; above it, it does not last
ADAM = partial(torch.optim.Adam, lr=5e-3)


class TextureNCA(GenerativeSystem):
    """Trains an `NCA` to grow a texture in the style of an image, and to keep it.

    Each training step takes `samples` states out of a pool, runs them for a random number of steps, compares their
    style with the image's, and puts them back; so the automaton learns to continue from its own results for ever.
    Every `reseed_every` steps, one of them starts from the seed state again. All random numbers follow from a number
    that is saved with the module, the rank and the step, so that a resumed training equals an uninterrupted one.

    The style loss is a sum over the layers: the distance of the Gram matrices divided by the mean square of the
    image's. The overflow loss is the mean by which states leave -1..1. The test compares three ages: the seed state,
    grown (after `eval_steps[0]` steps) and old (after `eval_steps[1]`). It logs `style_drop`, the style loss of the
    seed divided by that of the grown texture, and `stability`, that of the old one divided by that of the grown one;
    there, images are clamped to 0..1, as they are displayed.

    Through dozens of steps gradients explode or vanish, and only their direction stays useful: train with the callback
    `GradientNormalization`, as the recipes do.

    Args:
        channels, hidden: see `NCA`.
        grid: side of the torus that it is trained on, in cells. It runs at any size.
        samples: states in a training step, on each device.
        pool_size: states in the pool, of which each process has its own; a checkpoint holds that of rank 0.
        steps: least and most steps of a run.
        reseed_every: see above.
        eval_steps: steps after which a texture is grown, and old.
        overflow: weight of the overflow loss.
        style: "gram", or "sliced" for sliced optimal transport (Heitz et al. 2021) instead.
        backbone, layers, weights: see `Features`; needed for training and testing only.
        optimizer, schedule: see `System`.

    Raises:
        ValueError: for impossible numbers; see also `Features`, in training and testing.
    """

    axes = GenerativeSystem.axes | {"loss": loss_axis("style loss + overflow loss")}
    steps_per_frame = 4  # of `rollout`
    net: NCA
    features: Features
    pool: Tensor
    draws: Tensor

    def __init__(
        self,
        channels: int = 4,
        hidden: int = 8,
        grid: int = 64,
        samples: int = 4,
        pool_size: int = 256,
        steps: tuple[int, int] = (32, 80),
        reseed_every: int = 8,
        eval_steps: tuple[int, int] = (200, 2000),
        overflow: float = 10.0,
        style: Literal["gram", "sliced"] = "gram",
        backbone: str = "vgg16",
        layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1"),
        weights: str | None = "DEFAULT",
        optimizer: OptimizerCallable = ADAM,
        schedule: ScheduleCallable = OneCycle,
    ) -> None:
        super().__init__(optimizer, schedule)
        if min(grid, samples, pool_size - samples + 1, steps[0], steps[1] - steps[0] + 1, reseed_every) < 1:
            raise ValueError(
                f"grid={grid}, samples={samples}, pool_size={pool_size}, steps={steps}, reseed_every={reseed_every}: "
                "expected 1 or more of each, no more samples than states in the pool, and steps from least to most"
            )
        self.save_hyperparameters(ignore=["optimizer", "schedule"])
        self.samples, self.steps, self.reseed_every, self.eval_steps = samples, steps, reseed_every, eval_steps
        self.overflow, self.style = overflow, style
        self.net = NCA(channels, hidden)
        self.register_buffer("pool", self.net.seed(pool_size, grid, grid))
        self.register_buffer("draws", torch.randint(2**31, ()))  # what all random numbers follow from
        self.make_features = partial(Features, backbone, layers, weights)
        self.targets: dict[str, Tensor] = {}

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if not hasattr(self, "features"):
            self.features = self.make_features()
        self.targets = {}
        # Or DDP would give all ranks the pool of rank 0, and broadcast the features in each step.
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers()]

    def losses(self, batch: ContentStyle, split: str) -> dict[str, Tensor]:
        if not self.targets:  # they never change
            with torch.no_grad():
                maps = self.features(batch.content)
            self.targets = {name: gram(m) if self.style == "gram" else m.float() for name, m in maps.items()}
        key = np.random.SeedSequence((int(self.draws), self.global_rank, self.global_step))
        seed = int(key.generate_state(1, np.uint64)[0]) >> 1
        generator = torch.Generator(self.pool.device).manual_seed(seed)
        losses = {"train": self._training_losses, "val": self._validation_losses, "test": self._test_losses}
        return losses[split](generator)

    def _training_losses(self, generator: torch.Generator) -> dict[str, Tensor]:
        (least, most), device = self.steps, self.pool.device
        chosen = torch.randperm(len(self.pool), device=device, generator=generator)[: self.samples]
        steps = int(torch.randint(least, most + 1, (), device=device, generator=generator))
        x = self.pool[chosen]
        if self.global_step % self.reseed_every == 0:
            x[x.abs().amax((1, 2, 3)).argmax()] = 0
        x = self.net.run(x, steps, generator)
        self.pool[chosen] = x.detach().to(self.pool)
        style, overflow = self.style_loss(to_rgb(x), generator), (x - x.clamp(-1, 1)).abs().mean()
        return {"loss": style + self.overflow * overflow, "style": style, "overflow": overflow}

    def _validation_losses(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": self.style_loss(self.sample(2 * self.samples), generator)}

    def _test_losses(self, generator: torch.Generator) -> dict[str, Tensor]:
        x, losses = self.net.seed(2 * self.samples, *self.pool.shape[2:]), []
        for steps in (0, self.eval_steps[0], self.eval_steps[1] - self.eval_steps[0]):
            x = self.net.run(x, steps, generator)
            losses.append(self.style_loss(to_rgb(x).clamp(0, 1), generator))
        seed, grown, old = losses
        if old > MAX_LOSS_GROWTH * grown:
            rank_zero_warn(f"the texture does not last: style loss {grown:.2f}, and {old:.2f} in the end")
        return {"loss": grown, "style_drop": seed / grown, "stability": old / grown}

    def style_loss(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """The distance of the style of images (B, 3, H, W) in 0..1 from the target's, a mean over the images."""
        total = image.new_zeros((), dtype=torch.float32)
        for layer, maps in self.features(image.to(self.dtype)).items():
            target = self.targets[layer]
            if self.style == "gram":
                distance = gram_distance(maps, target)
            else:
                distance = sliced_distance(maps, target, generator, projections=maps.size(1))
            total = total + distance.mean() / mean_square(target)
        return total

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Images (n, 3, H, W) in 0..1, grown for `eval_steps[0]` steps, always with the same random masks."""
        generator = torch.Generator(self.pool.device).manual_seed(0)
        x = self.net.run(self.net.seed(n, *self.pool.shape[2:]), self.eval_steps[0], generator)
        return to_rgb(x).clamp(0, 1)

    def reference_images(self) -> dict[str, Tensor]:
        return {"target": self.images.content[0]}

    def rollout(self, frames: int) -> Iterator[Tensor]:
        """Images (3, H, W) in 0..1: the seed state, then the state after each further `steps_per_frame` steps."""
        height, width = self.pool.shape[2:]
        return self.net.rollout((height, width), frames=frames, every=self.steps_per_frame)
