"""Learning-rate schedules over a complete training, as factors of each group's own learning rate.

All take (optimizer, total_steps, ...), are stepped after every optimizer step, and get their length from the trainer
(`trainer.estimated_stepping_batches`, which includes gradient accumulation and several devices). Only `Plateau` is
stepped after each validation.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from datamodules.messages import report


class Schedule(LambdaLR, ABC):
    """Base class of the schedules. A subclass defines `factor`, and `momentum_at` if momentum changes too.

    A training that is resumed goes on with this schedule at the step that it had reached. If it is to become longer
    or shorter than it was, the rates are those of the new length, which a line says.

    Args:
        optimizer: with the rates at factor 1.
        total_steps: of the training.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int) -> None:
        self.total_steps = total_steps
        super().__init__(optimizer, self.factor)

    @abstractmethod
    def factor(self, step: int) -> float:
        """The factor of the learning rates at the `step`-th optimizer step, counted from 0."""

    def momentum_at(self, step: int) -> float | None:
        """SGD's momentum or Adam's first beta at that step; None leaves it unchanged."""
        return None

    def step(self, epoch: int | None = None) -> None:
        super().step(epoch)
        self._set_momentum()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on at the step of a state; length, shape and rates are those of this schedule."""
        self.last_epoch, self._step_count = state["last_epoch"], state["_step_count"]
        factor, before = self.factor(self.last_epoch), state.get("total_steps", self.total_steps)
        self._last_lr = [rate * factor for rate in self.base_lrs]
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate
        self._set_momentum()
        if before != self.total_steps:
            report(
                f"the training is now {self.total_steps} steps long instead of {before}, and its schedule as well: it "
                f"goes on after step {self.last_epoch} at {factor:.3g} times the learning rate"
            )

    def _set_momentum(self) -> None:
        momentum = self.momentum_at(self.last_epoch)
        for group in self.optimizer.param_groups if momentum is not None else ():
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum


class Constant(Schedule):
    """A constant learning rate."""

    def factor(self, step: int) -> float:
        return 1.0


class OneCycle(Schedule):
    """One cycle: up to the peak learning rate, down again, and optionally a last phase near zero, the annihilation.

    Smith and Topin 2018, "Super-Convergence", section 3; the momentum cycle, which is opposite to the learning rate's:
    Smith 2018, "A disciplined approach", section 4.3.

    Args:
        optimizer: its learning rates are the peaks.
        total_steps: of the training.
        peak: where the peak is, as a share of the training, 0 to 1: 5 / 24 is the end of the fifth of 24 epochs.
        start: factor at the first step.
        end: factor at the end of the descent.
        anneal: shape of the descent, "linear" or "cos".
        annihilation: share of the training, at its end, in which the factor falls from `end` to 0.
        momentum: (highest, lowest), reached where the rate is lowest and highest; None leaves momentum unchanged.

    Raises:
        ValueError: for shares outside 0..1, an unknown shape, or an optimizer without momentum to cycle.

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
                f"momentum={momentum}, but {type(optimizer).__name__} has none: expected an optimizer with momentum or "
                "betas; choose one, or leave momentum out"
            )
        self.peak, self.start, self.end, self.anneal = peak, start, end, anneal
        self.annihilation, self.momentum = annihilation, momentum
        super().__init__(optimizer, total_steps)

    def _cycle(self, step: int) -> tuple[float, float]:
        """Height in the cycle, 0 at its ends to 1 at the peak, and the factor at the nearer end."""
        done = min(1.0, step / max(1, self.total_steps))  # a training of 0 steps also needs its first rate
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
        optimizer: with the initial learning rates.
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
        super().__init__(optimizer, total_steps)

    def factor(self, step: int) -> float:
        return self.gamma ** sum(step >= at for at in self.steps)


class TimeDecay(Schedule):
    """The learning rate divided by 1 + decay * t, with the time t from 0 at the first step to 1 at the end of training.

    It satisfies the condition of Robbins and Monro 1951 on step sizes: an infinite sum, and a finite sum of squares.

    Args:
        optimizer: with the initial learning rates.
        total_steps: of the training.
        decay: 9 ends at a tenth of the initial rate.

    >>> import torch
    >>> schedule = TimeDecay(torch.optim.SGD([torch.zeros(1)], lr=0.2), total_steps=100, decay=9)
    >>> [round(schedule.factor(step), 2) for step in (0, 50, 100)]
    [1.0, 0.18, 0.1]
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, decay: float = 9.0) -> None:
        self.decay = decay
        super().__init__(optimizer, total_steps)

    def factor(self, step: int) -> float:
        return 1 / (1 + self.decay * step / max(1, self.total_steps))


class Triangular(Schedule):
    """A triangular wave: up and down linearly, `cycles` times.

    Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.1: "triangular" with gamma 1,
    "triangular2" with gamma 0.5.

    Args:
        optimizer: its learning rates are the highest.
        total_steps: of the training.
        cycles: number of cycles.
        low: factor at the ends of a cycle.
        gamma: factor of the height above `low` from each cycle to the next.

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
        super().__init__(optimizer, total_steps)

    def factor(self, step: int) -> float:
        cycle, at = divmod(step / self.length, 1)
        return self.low + (1 - self.low) * (1 - abs(2 * at - 1)) * self.gamma**cycle


class Plateau(ReduceLROnPlateau):
    """Multiplies the learning rate by `factor` once a metric has not improved for more than `patience` validations.

    Args:
        optimizer: with the initial learning rates.
        total_steps: not needed, as the metric decides.
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
        mode: Literal["min", "max"] = "min",
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(
            optimizer,
            mode=mode,
            factor=factor,
            patience=patience,
            threshold=threshold,
            threshold_mode=threshold_mode,
            cooldown=cooldown,
            min_lr=min_lr,
        )
        self.monitor = monitor
