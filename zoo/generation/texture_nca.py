"""Textures that grow by themselves, out of a neural cellular automaton.

B batch, C channels, H height, W width.

Niklasson et al. 2021, "Self-Organising Textures", Distill. Differs from the paper in the scale of the filters (see
`NCA`), in a style loss that is relative to the picture's, and in what is reseeded: the state that went furthest astray.
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
from zoo.parts.losses import gram, gram_distance, sliced_distance
from zoo.parts.nca import NCA, colour
from zoo.parts.optim.schedules import OneCycle
from zoo.system import ScheduleCallable

MAX_DECAY = 1.5  # as many times worse a texture may become with time
ADAM = partial(torch.optim.Adam, lr=5e-3)


class TextureNCA(GenerativeSystem):
    """Trains an `NCA` to grow a texture in the style of a picture, and to keep it.

    Each training step takes `samples` states out of a pool, runs them on for a while, compares their style with the
    picture's, and puts them back; so the automaton learns to go on for ever from what it made itself. In one of
    `reseed_every` steps, one of them starts from the seed again. All random draws follow from a number that is saved
    with the module, the rank and the step: a resumed training is the one that was stopped.

    The style loss is a sum over the layers: the distance of the Gram matrices by the mean square of the picture's.
    The overflow loss is the mean by which states leave -1..1. Tested are `style_drop`, the style loss of the seed by
    that after `eval_steps[0]` steps, and `stability`, that after `eval_steps[1]` steps by that after `eval_steps[0]`. There, images
    are clamped to 0..1, as one sees them.

    On the way back through dozens of steps gradients explode or vanish, only their direction stays of use: train with
    the callback `GradientNormalization`, as the recipes do.

    Args:
        channels, hidden: see `NCA`.
        grid: side of the torus that it is trained on, in cells. It runs at any size.
        samples: states in a training step, on each device.
        pool_size: states in the pool, of which each process has its own; a checkpoint holds that of the first.
        steps: least and most steps of a run.
        reseed_every: see above.
        judged: steps after which a texture is grown, and old.
        overflow: weight of the overflow loss.
        style: "gram", or "sliced" for sliced optimal transport (Heitz et al. 2021) instead.
        backbone, layers, weights: see `Features`; needed for training and testing only.
        optimizer, schedule: see `System`.

    Raises:
        ValueError: for numbers that make no sense; and as `Features`, once trained or tested.
    """

    axes = GenerativeSystem.axes | {"loss": loss_axis("style loss + overflow loss")}
    steps_per_frame = 4  # of `rollout`

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
        self.net = NCA(channels, hidden)
        self.register_buffer("pool", self.net.seed(pool_size, grid, grid))
        self.register_buffer("draws", torch.randint(2**31, ()))  # what all random draws follow from
        self.features: Features | None = None
        self.target: dict[str, Tensor] | None = None

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.features = self.features or Features(self.hparams.backbone, self.hparams.layers, self.hparams.weights)
        self.target = None
        # Or DDP would give all ranks the first one's pool, and the features again in each step.
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers()]

    def losses(self, batch: ContentStyle, split: str) -> dict[str, Tensor]:
        if self.target is None:  # it stays the same all the time
            with torch.no_grad():
                maps = self.features(batch.content)
            self.target = {name: gram(m) if self.hparams.style == "gram" else m.float() for name, m in maps.items()}
        return {"train": self._grow, "val": self._watch, "test": self._judge}[split](self._generator())

    def _grow(self, generator: torch.Generator) -> dict[str, Tensor]:
        (least, most), device = self.hparams.steps, self.pool.device
        chosen = torch.randperm(len(self.pool), device=device, generator=generator)[: self.hparams.samples]
        steps = int(torch.randint(least, most + 1, (), device=device, generator=generator))
        x = self.pool[chosen]
        if self.global_step % self.hparams.reseed_every == 0:
            x[x.abs().amax((1, 2, 3)).argmax()] = 0  # the one that went furthest astray
        x = self.net.run(x, steps, generator)
        self.pool[chosen] = x.detach().to(self.pool)
        style, overflow = self.style_loss(colour(x), generator), (x - x.clamp(-1, 1)).abs().mean()
        return {"loss": style + self.hparams.overflow * overflow, "style": style, "overflow": overflow}

    def _watch(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": self.style_loss(self.sample(2 * self.hparams.samples), generator)}

    def _judge(self, generator: torch.Generator) -> dict[str, Tensor]:
        x, found = self.net.seed(2 * self.hparams.samples, *self.pool.shape[2:]), []
        for steps in (0, self.hparams.eval_steps[0], self.hparams.eval_steps[1] - self.hparams.eval_steps[0]):
            x = self.net.run(x, steps, generator)
            found.append(self.style_loss(colour(x).clamp(0, 1), generator))
        seed, grown, old = found
        if old > MAX_DECAY * grown:
            rank_zero_warn(f"the texture does not last: style loss {grown:.2f}, and {old:.2f} in the end")
        return {"loss": grown, "style_drop": seed / grown, "stability": old / grown}

    def style_loss(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, 3, H, W) in 0..1 -> how far their style is from the picture's, a mean over the images."""
        total = 0.0
        for layer, maps in self.features(image.to(self.dtype)).items():
            target = self.target[layer]
            if self.hparams.style == "gram":
                distance = gram_distance(maps, target)
            else:
                distance = sliced_distance(maps, target, generator, projections=maps.size(1))
            total = total + distance.mean() / target.square().mean().clamp_min(1e-12)
        return total

    def _generator(self) -> torch.Generator:
        key = np.random.SeedSequence((int(self.draws), self.global_rank, self.global_step))
        return torch.Generator(self.pool.device).manual_seed(int(key.generate_state(1, np.uint64)[0]) >> 1)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Images (n, 3, H, W) in 0..1 that have grown for `eval_steps[0]` steps, always by the same random draws."""
        generator = torch.Generator(self.pool.device).manual_seed(0)
        x = self.net.run(self.net.seed(n, *self.pool.shape[2:]), self.hparams.eval_steps[0], generator)
        return colour(x).clamp(0, 1)

    def reference_images(self) -> dict[str, Tensor]:
        return {"picture": self.trainer.datamodule.pictures.content[0]}

    def rollout(self, frames: int) -> Iterator[Tensor]:
        """Images (3, H, W) in 0..1: the seed, then what has grown after each further `steps_per_frame` steps."""
        return self.net.rollout(tuple(self.pool.shape[2:]), frames, self.steps_per_frame)
