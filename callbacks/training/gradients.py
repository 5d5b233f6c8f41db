"""Changes of the gradients between the backward pass and the optimizer's step, before Lightning clips them."""

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch.optim import Optimizer


class GradientNoise(Callback):
    """Adds Gaussian noise that decays with the steps: its variance is eta / (1 + t)^gamma.

    Neelakantan et al. 2015, "Adding Gradient Noise Improves Learning for Very Deep Networks", equation 1. The noise is
    a function of seed and step, so it is the same on all ranks, and a resumed run continues it.

    Args:
        eta: variance at the first step; the paper tries 0.01, 0.3 and 1.
        gamma: of the decay.
        seed: of the noise.

    >>> GradientNoise(eta=0.3).variance(step=0)
    0.3
    """

    def __init__(self, eta: float = 0.3, gamma: float = 0.55, seed: int = 0) -> None:
        if eta < 0:
            raise ValueError(f"eta is {eta}: expected a variance, 0 or more")
        self.eta, self.gamma, self.seed = eta, gamma, seed

    def variance(self, step: int) -> float:
        return self.eta / (1 + step) ** self.gamma

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        std = self.variance(trainer.global_step) ** 0.5
        key = np.random.SeedSequence((self.seed, trainer.global_step)).generate_state(1, np.uint64)[0]
        generator = torch.Generator(pl_module.device).manual_seed(int(key) >> 1)
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    noise = torch.randn(p.shape, generator=generator, device=p.device, dtype=p.dtype)
                    p.grad.add_(noise, alpha=std)


class GradientNormalization(Callback):
    """Divides each parameter's gradient by its norm, so that every step is equally long, however steep the loss.

    Used to train neural cellular automata, whose gradients explode in long rollouts (Mordvintsev et al. 2020, "Growing
    Neural Cellular Automata", section "Experiment 1"). Unlike clipping, it lengthens small gradients too.

    Args:
        eps: added to the norm.
    """

    def __init__(self, eps: float = 1e-8) -> None:
        self.eps = eps

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if gradients:
            norms = torch._foreach_norm(gradients)
            torch._foreach_add_(norms, self.eps)
            torch._foreach_div_(gradients, norms)
