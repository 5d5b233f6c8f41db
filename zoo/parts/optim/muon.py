"""Muon, an optimizer for hidden weight matrices."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

# Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks": the coefficients of the quintic whose
# slope at zero is as large as it can be while five iterations still bring every singular value near 1 (0.7 to 1.2).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """The matrix with the same singular vectors and all singular values near 1, by Newton-Schulz iteration.

    In float32, unlike `torch.optim.Muon`, which rounds to bfloat16: that costs little accuracy, but on a processor
    without bfloat16 units it is hundreds of times slower.

    Args:
        matrix: (M, N), any dtype.
        steps: number of iterations.

    Returns:
        (M, N) float32.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.float()
    wide = x if x.size(0) <= x.size(1) else x.T  # the Gram matrix of the short side is the smaller one
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if x.size(0) <= x.size(1) else wide.T


class Muon(torch.optim.Optimizer):
    """Muon for the hidden weight matrices and filters, AdamW for all other parameters.

    A filter (O, I, h, w) counts as the matrix (O, I*h*w). First and last layers, norms and biases are updated by
    AdamW, as Jordan et al. advise: they are recognized by name (`adam`) or by having fewer than two dimensions, so the
    optimizer must be given named parameters. Schedules scale both learning rates.

    Differs from `torch.optim.Muon` in: float32 throughout; takes filters; includes AdamW; the momentum is an average,
    m <- lerp(m, g, 1 - momentum).

    Args:
        params: pairs (name, parameter), as from `net.named_parameters()`.
        lr: of the orthogonalized update, multiplied by sqrt(max(1, rows / columns)).
        momentum: of the average of gradients, applied as Nesterov's.
        weight_decay: decoupled; of Muon's parameters and of AdamW's matrices.
        unit_rows: scale each of Muon's matrices, before it is updated, so that its rows have a norm of 1 in the mean
            square: where a norm follows, the scale of the weights only changes the effective learning rate.
        adam_lr, betas, eps: AdamW's.
        adam: parameters with any of these in their names are AdamW's.
        ns_steps: iterations of `orthogonalize`. Three are cheaper and leave the weakest directions of a gradient, which
            are mostly noise, weak.

    Raises:
        ValueError: if the parameters come without names.

    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    >>> optimizer = Muon(net.named_parameters(), adam=("1.",))
    """

    def __init__(
        self,
        params: Iterable[tuple[str, Tensor]],
        lr: float = 0.05,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        adam_lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        adam: tuple[str, ...] = ("stem", "head", "embed"),
        unit_rows: bool = False,
        ns_steps: int = 5,
    ) -> None:
        self.ns_steps = ns_steps
        params = list(params)
        if not all(isinstance(pair, tuple) for pair in params):
            raise ValueError("Muon got parameters without names: expected (name, parameter); pass named_parameters()")
        muon: list[tuple[str, Tensor]] = []
        matrices: list[tuple[str, Tensor]] = []
        vectors: list[tuple[str, Tensor]] = []
        for name, parameter in params:
            hidden = parameter.ndim >= 2 and not any(part in name for part in adam)
            (muon if hidden else matrices if parameter.ndim >= 2 else vectors).append((name, parameter))
        adamw = {"muon": False, "lr": adam_lr, "betas": betas, "eps": eps}
        groups = [
            {"params": muon, "muon": True, "momentum": momentum, "unit_rows": unit_rows},
            {"params": matrices, **adamw},
            {"params": vectors, **adamw, "weight_decay": 0.0},
        ]
        defaults = {"lr": lr, "weight_decay": weight_decay}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            update = self._muon if group["muon"] else self.update_other
            for parameter in group["params"]:
                if (gradient := parameter.grad) is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update(parameter, gradient, group)
        return loss

    def _muon(self, p: Tensor, gradient: Tensor, group: dict) -> None:
        state = self.state[p]
        if not state:
            state["average"] = torch.zeros_like(p)
        state["average"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(state["average"], group["momentum"]).flatten(1)
        if group["unit_rows"]:
            p.mul_(len(p) ** 0.5 / p.norm())
        rate = group["lr"] * max(1, ahead.size(0) / ahead.size(1)) ** 0.5
        p.add_(orthogonalize(ahead, self.ns_steps).view_as(p), alpha=-rate)

    def update_other(self, p: Tensor, gradient: Tensor, group: dict) -> None:
        """The step of a parameter that is not Muon's: AdamW's. A subclass may have another one."""
        state = self.state[p]
        if not state:
            state.update(step=0, average=torch.zeros_like(p), square=torch.zeros_like(p))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        state["average"].lerp_(gradient, 1 - beta1)
        state["square"].lerp_(gradient.square(), 1 - beta2)
        mean = state["average"] / (1 - beta1 ** state["step"])
        root = (state["square"] / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        p.addcdiv_(mean, root, value=-group["lr"])


class MuonSGD(Muon):
    """Muon for the filters, SGD with Nesterov momentum for the head and the vectors, as in Jordan's airbench94_muon.

    That recipe sums the loss over its 2000 images, and divides the logits by 256. Here the loss is a mean, so that the
    rate of a bias is 2000 times his, 106 for 0.053; and that of the weights of a head whose logits are multiplied by a
    scale is 2000 / (256 * scale)**2 times his: with the scale of `AirbenchNet`, 1.66 for 0.67.

    Args:
        params: pairs (name, parameter).
        lr, momentum, unit_rows, adam, ns_steps: as in `Muon`, where `adam` names the parameters that are SGD's.
        matrix_lr, vector_lr: SGD's rates of matrices and of vectors.
        sgd_momentum: SGD's.
        decay: share of its weights that a step of SGD takes away at its full rate, before momentum.
    """

    def __init__(
        self,
        params: Iterable[tuple[str, Tensor]],
        lr: float = 0.24,
        momentum: float = 0.6,
        unit_rows: bool = True,
        adam: tuple[str, ...] = ("stem", "head", "embed"),
        ns_steps: int = 3,
        matrix_lr: float = 1.66,
        vector_lr: float = 106.0,
        sgd_momentum: float = 0.85,
        decay: float = 0.004,
    ) -> None:
        super().__init__(params, lr, momentum, adam=adam, unit_rows=unit_rows, ns_steps=ns_steps)
        for group in self.param_groups:
            if not group["muon"]:
                rate = matrix_lr if group["params"][0].ndim >= 2 else vector_lr
                group.update(lr=rate, momentum=sgd_momentum, weight_decay=0.0, decay=decay / rate if rate else 0.0)
                del group["betas"], group["eps"]

    def update_other(self, p: Tensor, gradient: Tensor, group: dict) -> None:
        gradient = gradient + group["decay"] * p
        state = self.state[p]
        state["sum"] = gradient + group["momentum"] * state["sum"] if state else gradient
        p.add_(gradient + group["momentum"] * state["sum"], alpha=-group["lr"])
