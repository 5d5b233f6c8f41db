"""Learning-rate schedules over a whole training, as factors of each group's own learning rate.

All take (optimizer, total_steps, ...), are stepped after every optimiser step, and are told their length
by the trainer (`trainer.estimated_stepping_batches`, which knows of gradient accumulation and of many devices).
`Plateau` alone is stepped after each validation.
"""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau


class Schedule(LambdaLR):
    """Base: a subclass defines `factor(step)`, and `momentum_at(step)` if momentum changes too."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """Of the learning rates, at the `step`-th optimiser step, counted from 0."""
        raise TypeError(f"{type(self).__name__} must define `factor`")

    def momentum_at(self, step: int) -> float | None:
        """SGD's momentum or Adam's first beta; None leaves it alone."""
        return None

    def step(self, epoch: int | None = None) -> None:
        super().step(epoch)
        momentum = self.momentum_at(self.last_epoch)
        for group in self.optimizer.param_groups if momentum is not None else ():
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum


class Constant(Schedule):
    """The learning rate as it is."""

    def __init__(self, optimizer: Optimizer, total_steps: int) -> None:
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        return 1.0


class OneCycle(Schedule):
    """Up to the learning rate, down again, and if asked a last phase of almost none: annihilation.

    Smith and Topin 2018, "Super-Convergence", section 3; the momentum cycle, which runs against the learning rate's:
    Smith 2018, "A disciplined approach", section 4.3.

    Args:
        optimizer: its learning rates are the peaks.
        total_steps: of the training.
        peak: where the peak is, as a share of the training, 0 to 1: 5 / 24 is the end of the fifth of 24 epochs.
        start: factor at the first step.
        end: factor at the end of the way down.
        anneal: way down, "linear" or "cos".
        annihilation: share of the training, at its end, in which the factor falls from `end` to nothing.
        momentum: (highest, lowest), reached where the rate is lowest and highest; None leaves momentum alone.

    Raises:
        ValueError: for shares outside 0..1, an unknown way down, or an optimiser without momentum to cycle.

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
        annihilation: float = 0.0,
        momentum: tuple[float, float] | None = None,
    ) -> None:
        if not 0 <= peak <= 1 or anneal not in ("linear", "cos"):
            raise ValueError(f"peak={peak}, anneal={anneal!r}: expected a peak in 0..1 and 'linear' or 'cos'")
        if not 0 <= annihilation <= 1 - peak:
            raise ValueError(f"annihilation={annihilation}: expected a share of what follows the peak, 0..{1 - peak:g}")
        if momentum is not None and not all("betas" in g or "momentum" in g for g in optimizer.param_groups):
            raise ValueError(
                f"momentum={momentum}, but {type(optimizer).__name__} has none: expected an optimiser with momentum or "
                "betas; choose one, or leave momentum out"
            )
        self.total_steps, self.peak, self.start, self.end, self.anneal = total_steps, peak, start, end, anneal
        self.annihilation, self.momentum = annihilation, momentum
        super().__init__(optimizer)

    def _cycle(self, step: int) -> tuple[float, float]:
        """Height in the cycle, 0 at its ends to 1 at the peak, and the factor at its near end."""
        done = min(1.0, step / max(1, self.total_steps))  # a training of no steps asks for its first rate, too
        if done < self.peak:
            return done / self.peak, self.start
        fall = 1 - self.peak - self.annihilation
        left = (1 - self.annihilation - done) / fall if fall > 1e-9 else float(done <= self.peak)
        if left < 0:
            return 0.0, self.end * (1 - done) / self.annihilation
        return left if self.anneal == "linear" else (1 - math.cos(math.pi * left)) / 2, self.end

    def factor(self, step: int) -> float:
        height, low = self._cycle(step)
        return low + (1 - low) * height

    def momentum_at(self, step: int) -> float | None:
        if self.momentum is None:
            return None
        high, low = self.momentum
        return high + (low - high) * self._cycle(step)[0]


class Step(Schedule):
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
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        return self.gamma ** sum(step >= at for at in self.steps)


class TimeDecay(Schedule):
    """The learning rate over 1 + decay * t, the time t from 0 at the first step to 1 at the end of training.

    Robbins and Monro 1951 ask of a step size that it fall so: its sum without bound, that of its squares bounded.

    Args:
        optimizer: with the first learning rates.
        total_steps: of the training.
        decay: 9 ends at a tenth of the first rate.

    >>> import torch
    >>> schedule = TimeDecay(torch.optim.SGD([torch.zeros(1)], lr=0.2), total_steps=100, decay=9)
    >>> [round(schedule.factor(step), 2) for step in (0, 50, 100)]
    [1.0, 0.18, 0.1]
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, decay: float = 9.0) -> None:
        self.total_steps, self.decay = total_steps, decay
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        return 1 / (1 + self.decay * step / max(1, self.total_steps))


class Triangular(Schedule):
    """Up and down in straight lines, `cycles` times.

    Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.1: "triangular" with gamma 1,
    "triangular2" with gamma 0.5.

    Args:
        optimizer: its learning rates are the highest.
        total_steps: of the training.
        cycles: how many.
        low: factor at the ends of a cycle.
        gamma: each cycle is so much as high above `low` as the one before.

    >>> import torch
    >>> schedule = Triangular(torch.optim.SGD([torch.zeros(1)], lr=2.0), total_steps=40, cycles=2, low=0.0, gamma=0.5)
    >>> [schedule.factor(step) for step in (0, 5, 10, 20, 30, 40)]
    [0.0, 0.5, 1.0, 0.0, 0.5, 0.0]
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, cycles: int = 1, low: float = 0.1, gamma: float = 1.0
    ) -> None:
        if cycles < 1:
            raise ValueError(f"cycles={cycles}: expected 1 or more")
        self.length, self.low, self.gamma = max(1, total_steps) / cycles, low, gamma
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        cycle, at = divmod(step / self.length, 1)
        return self.low + (1 - self.low) * (1 - abs(2 * at - 1)) * self.gamma**cycle


class Plateau(ReduceLROnPlateau):
    """Multiplies the learning rate by `factor` once a metric has not improved for more than `patience` validations.

    Args:
        optimizer: with the first learning rates.
        total_steps: of the training; not needed, as the metric decides.
        monitor: a metric that is logged in validation.
        factor, patience, threshold, mode, threshold_mode, cooldown, min_lr: as in torch's `ReduceLROnPlateau`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        monitor: str = "val/loss",
        factor: float = 0.1,
        patience: int = 2,
        threshold: float = 1e-4,
        mode: str = "min",
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(optimizer, mode, factor, patience, threshold, threshold_mode, cooldown, min_lr)
        self.monitor = monitor
