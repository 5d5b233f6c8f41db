"""L1 regularization, and how sparse it makes the weights."""

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.optim import Optimizer


class L1(Callback):
    """Adds `strength` times the sum of all |weights| to the objective; biases and norms are left out.

    It adds the gradient of that sum, strength * sign(w), to the gradient of the loss, so the logged loss stays
    comparable. After each epoch it logs `sparsity`, the share of weights smaller than `zero`, and at the end it prints
    that of each layer.

    Tibshirani 1996, "Regression Shrinkage and Selection via the Lasso".

    Args:
        strength: lambda.
        zero: absolute values below it count as zero. Gradient descent moves weights to and fro about zero by
            lr * strength, so it should be larger than that.

    Attributes:
        sparsity: share of small weights, by the parameter's name.

    Raises:
        ValueError: for a negative strength.
    """

    def __init__(self, strength: float = 1e-5, zero: float = 1e-3) -> None:
        if strength < 0:
            raise ValueError(f"strength is {strength}: expected 0 or more")
        self.strength, self.zero = strength, zero
        self.sparsity: dict[str, float] = {}

    @staticmethod
    def weights(pl_module: LightningModule) -> dict[str, nn.Parameter]:
        """Matrices and filters, by name."""
        parameters = pl_module.get_submodule("net").named_parameters()
        return {name: p for name, p in parameters if p.ndim > 1 and p.requires_grad}

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        for weight in self.weights(pl_module).values():
            if weight.grad is not None:
                weight.grad.add_(weight.sign(), alpha=self.strength)

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        small = {name: (w.abs() < self.zero).sum().item() for name, w in self.weights(pl_module).items()}
        count = {name: w.numel() for name, w in self.weights(pl_module).items()}
        self.sparsity = {name: small[name] / count[name] for name in small}
        pl_module.log("sparsity", sum(small.values()) / max(1, sum(count.values())))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        lines = [f"{name:<40} {100 * share:5.1f} %" for name, share in self.sparsity.items()]
        rank_zero_info("\n".join([f"weights smaller than {self.zero:g}:", *lines]))
