"""The classic optimizers, written out: SGD, momentum, Nesterov, AdaGrad, AdaDelta, RMSProp, Adam."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

States = dict[str, list[Tensor]]


class GradientDescent(torch.optim.Optimizer, ABC):
    """Base class of the classic optimizers: parameter groups, closures and weight decay. A subclass defines `descend`.

    All tensors of a group are updated by one call for each operation (foreach), not one by one.

    Args:
        params: parameters, groups of them, or pairs (name, parameter).
        lr: learning rate.
        weight_decay: lambda, pulls weights toward 0.
        decoupled: shrink the weights by lr * lambda (Loshchilov and Hutter 2019, "Decoupled Weight Decay
            Regularization", algorithm 2), or add lambda * weight to the gradient (L2). For `SGD` the two are equal.
        settings: of the subclass, kept in the groups.

    Raises:
        ValueError: if a learning rate or weight decay is negative, or a share is outside 0..1.
        RuntimeError: for sparse gradients.
    """

    state_names: tuple[str, ...] = ()  # averages, which have the parameter's shape and start at zero

    def __init__(
        self, params: Iterable, lr: float, weight_decay: float = 0.0, decoupled: bool = False, **settings: Any
    ) -> None:
        for name, value in {"lr": lr, "weight_decay": weight_decay, **settings}.items():
            share = name not in ("lr", "weight_decay", "eps")
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(0 <= number < (1 if share else math.inf) for number in numbers):
                raise ValueError(f"{name} is {value}: expected 0 or more{', and less than 1' if share else ''}")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "decoupled": decoupled, **settings})

    @abstractmethod
    def descend(self, group: dict, weights: list[Tensor], gradients: list[Tensor], states: States) -> None:
        """Updates the averages, and then the weights, in place.

        Args:
            group: settings.
            weights, gradients: of each parameter.
            states: by name, of each parameter; "step" counts from 1, as () float32.
        """

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            gradients = [p.grad for p in weights]
            if any(g.is_sparse for g in gradients):
                raise RuntimeError(f"{type(self).__name__} takes no sparse gradients; use torch.optim.SparseAdam")
            lr, decay = group["lr"], group["weight_decay"]
            if decay and group["decoupled"]:
                torch._foreach_mul_(weights, 1 - lr * decay)
            elif decay:
                gradients = list(torch._foreach_add(gradients, weights, alpha=decay))
            self.descend(group, weights, gradients, self._states(weights))
        return loss

    def _states(self, weights: list[Tensor]) -> States:
        for weight in weights:
            state = self.state[weight]
            if not state:
                state["step"] = torch.zeros(())
                state |= {name: torch.zeros_like(weight) for name in self.state_names}
        states = {name: [self.state[weight][name] for weight in weights] for name in ("step", *self.state_names)}
        torch._foreach_add_(states["step"], 1)
        return states


class SGD(GradientDescent):
    """Stochastic gradient descent: w <- w - lr * g. Equal to `torch.optim.SGD` without momentum."""

    def __init__(self, params: Iterable, lr: float = 0.1, weight_decay: float = 0.0, decoupled: bool = False) -> None:
        super().__init__(params, lr, weight_decay, decoupled)

    def descend(self, group: dict, weights: list[Tensor], gradients: list[Tensor], states: States) -> None:
        torch._foreach_add_(weights, gradients, alpha=-group["lr"])


class Momentum(GradientDescent):
    """SGD along an average of the gradients: m <- lerp(m, g, 1 - momentum), w <- w - lr * m.

    An average is as long as a gradient. torch sums instead (m <- momentum * m + g), so this is
    `torch.optim.SGD(momentum=...)` at the learning rate lr * (1 - momentum).
    """

    state_names = ("average",)

    def __init__(
        self,
        params: Iterable,
        lr: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay, decoupled, momentum=momentum)

    def descend(self, group: dict, weights: list[Tensor], gradients: list[Tensor], states: States) -> None:
        torch._foreach_lerp_(states["average"], gradients, 1 - group["momentum"])
        torch._foreach_add_(weights, states["average"], alpha=-group["lr"])


class Nesterov(Momentum):
    """Momentum that looks ahead: w <- w - lr * lerp(g, m, momentum), with m updated before.

    Nesterov 1983, in the form of Sutskever et al. 2013, "On the importance of initialization and momentum in deep
    learning", section 2.1. Equal to `torch.optim.SGD(nesterov=True)` at the learning rate lr * (1 - momentum).
    """

    def descend(self, group: dict, weights: list[Tensor], gradients: list[Tensor], states: States) -> None:
        super().descend(group | {"lr": group["lr"] * group["momentum"]}, weights, gradients, states)
        torch._foreach_add_(weights, gradients, alpha=-group["lr"] * (1 - group["momentum"]))


class AdaGrad(GradientDescent):
    """Divides by the root of the sum of all squared gradients so far. Equal to `torch.optim.Adagrad`.

    Duchi, Hazan and Singer 2011, "Adaptive Subgradient Methods", figure 1, with diagonal matrices.
    """

    state_names = ("squares",)

    def __init__(
        self,
        params: Iterable,
        lr: float = 0.01,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay, decoupled, eps=eps)

    def descend(self, group: dict, weights: list[Tensor], gradients: list[Tensor], states: States) -> None:
        torch._foreach_addcmul_(states["squares"], gradients, gradients)
        _descend_over_root(weights, gradients, states["squares"], group)


class AdaDelta(GradientDescent):
    """Divides gradients by their running size and multiplies by that of the updates: a step has the weights' unit.

    Zeiler 2012, "ADADELTA", algorithm 1. Equal to `torch.optim.Adadelta`.
    """

    state_names = ("squares", "squared_updates")

    def __init__(
        self,
        params: Iterable,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay, decoupled, rho=rho, eps=eps)

    def descend(self, group: dict, weights: list[Tensor], gradients: list[Tensor], states: States) -> None:
        rho, eps, before = group["rho"], group["eps"], states["squared_updates"]
        _average_of_squares(states["squares"], gradients, rho)
        updates, roots = torch._foreach_add(before, eps), torch._foreach_add(states["squares"], eps)
        for values in (updates, roots):
            torch._foreach_sqrt_(values)
        torch._foreach_div_(updates, roots)
        torch._foreach_mul_(updates, gradients)
        _average_of_squares(before, updates, rho)
        torch._foreach_add_(weights, updates, alpha=-group["lr"])


class RMSProp(GradientDescent):
    """Divides by the root of a running average of the squared gradients.

    Tieleman and Hinton 2012, lecture 6.5. The average starts at the first squared gradient, not at zero as in
    `torch.optim.RMSprop`, whose first steps are therefore up to 1 / sqrt(1 - alpha) times as long. eps is added to
    the root.
    """

    state_names = ("squares",)

    def __init__(
        self,
        params: Iterable,
        lr: float = 3e-3,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay, decoupled, alpha=alpha, eps=eps)

    def descend(self, group: dict, weights: list[Tensor], gradients: list[Tensor], states: States) -> None:
        for step, squares, gradient in zip(states["step"], states["squares"], gradients, strict=True):
            if step == 1:
                squares.copy_(gradient).square_()
        _average_of_squares(states["squares"], gradients, group["alpha"])
        _descend_over_root(weights, gradients, states["squares"], group)


class Adam(GradientDescent):
    """Momentum divided as in RMSProp; both averages are corrected for their bias toward zero, where they start.

    Kingma and Ba 2015, "Adam", algorithm 1. Equal to `torch.optim.Adam`, and with `decoupled` to `torch.optim.AdamW`.
    """

    state_names = ("average", "squares")

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay, decoupled, betas=tuple(betas), eps=eps)

    def descend(self, group: dict, weights: list[Tensor], gradients: list[Tensor], states: States) -> None:
        (beta1, beta2), steps = group["betas"], [float(step) for step in states["step"]]
        torch._foreach_lerp_(states["average"], gradients, 1 - beta1)
        _average_of_squares(states["squares"], gradients, beta2)
        # average / (1 - b1^t) / (root(squares / (1 - b2^t)) + eps), both corrections on the root: one pass fewer
        roots = torch._foreach_sqrt(states["squares"])
        torch._foreach_mul_(roots, [(1 - beta1**step) / math.sqrt(1 - beta2**step) for step in steps])
        torch._foreach_add_(roots, [group["eps"] * (1 - beta1**step) for step in steps])
        torch._foreach_addcdiv_(weights, states["average"], roots, -group["lr"])


def _average_of_squares(average: list[Tensor], values: list[Tensor] | tuple[Tensor, ...], keep: float) -> None:
    torch._foreach_mul_(average, keep)
    torch._foreach_addcmul_(average, values, values, 1 - keep)


def _descend_over_root(weights: list[Tensor], values: list[Tensor], squares: list[Tensor], group: dict) -> None:
    roots = torch._foreach_sqrt(squares)
    torch._foreach_add_(roots, group["eps"])
    torch._foreach_addcdiv_(weights, values, roots, -group["lr"])
