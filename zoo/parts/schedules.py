"""Learning-rate schedules over a whole training, as factors of each group's own learning rate.

All take (optimizer, total_steps, ...), are stepped after every optimiser step, and are told their length
by the trainer (`trainer.estimated_stepping_batches`).
"""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class Constant(LambdaLR):
    """The learning rate as it is."""

    def __init__(self, optimizer: Optimizer, total_steps: int) -> None:
        super().__init__(optimizer, self.factor)

    @staticmethod
    def factor(step: int) -> float:
        return 1.0


class OneCycle(LambdaLR):
    """Up in a straight line to the learning rate, down to (almost) nothing by the last step.

    Smith and Topin 2018, "Super-Convergence", section 3, without its annihilation phase and momentum cycle.

    Args:
        optimizer: its learning rates are the peaks.
        total_steps: of the training.
        peak: where the peak is, as a share of the training, 0 to 1.
        start, end: factors at the first step and behind the last.
        anneal: way down, "linear" or "cos".

    >>> import torch
    >>> steps = OneCycle(torch.optim.SGD([torch.zeros(1)], lr=2.0), total_steps=10, peak=0.5, start=0.0)
    >>> [round(steps.factor(step), 2) for step in (0, 5, 10)]
    [0.0, 1.0, 0.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        peak: float = 0.2,
        start: float = 0.04,
        end: float = 0.0,
        anneal: str = "linear",
    ) -> None:
        if not 0 <= peak <= 1 or anneal not in ("linear", "cos"):
            raise ValueError(f"peak={peak}, anneal={anneal!r}: expected a peak in 0..1 and 'linear' or 'cos'")
        self.total_steps, self.peak, self.start, self.end, self.anneal = total_steps, peak, start, end, anneal
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        done = min(1.0, step / max(1, self.total_steps))  # a training of no steps asks for its first rate, too
        if done < self.peak:
            return self.start + (1 - self.start) * done / self.peak
        left = (1 - done) / (1 - self.peak) if self.peak < 1 else 1.0
        shape = left if self.anneal == "linear" else (1 - math.cos(math.pi * left)) / 2
        return self.end + (1 - self.end) * shape


class Step(LambdaLR):
    """Multiplies the learning rate by `gamma` at each of the `milestones`.

    Args:
        optimizer: with the first learning rates.
        total_steps: of the training.
        milestones: shares of the training, 0 to 1: 0.6 of 5 epochs is the end of the third.
        gamma: factor.

    >>> import torch
    >>> schedule = Step(torch.optim.SGD([torch.zeros(1)], lr=0.2), total_steps=50, milestones=(0.6,), gamma=0.25)
    >>> [schedule.factor(step) for step in (0, 29, 30, 49)]
    [1.0, 1.0, 0.25, 0.25]
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, milestones: tuple[float, ...] = (0.6,), gamma: float = 0.1
    ) -> None:
        self.steps = [round(milestone * total_steps) for milestone in milestones]
        self.gamma = gamma
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        return self.gamma ** sum(step >= at for at in self.steps)
