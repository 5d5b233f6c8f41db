"""L1 regularisation, and how sparse it leaves the weights."""

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.optim import Optimizer


class L1(Callback):
    """Adds `strength` times the sum of all |weights| to what is minimised; biases and norms are left out.

    It adds the gradient of that sum, strength * sign(w), to the gradient of the loss, so the loss that is logged stays
    comparable. After each epoch it logs `sparsity`, the share of weights smaller than `zero`, and at the end it reports
    each layer's.

    Tibshirani 1996, "Regression Shrinkage and Selection via the Lasso".

    Args:
        strength: lambda.
        zero: sizes below it count as none. Gradient descent jumps about zero by lr * strength, so use more than that.

    Attributes:
        sparsity: share of small weights, by the parameter's name.
    """

    def __init__(self, strength: float = 1e-5, zero: float = 1e-3) -> None:
        if strength < 0:
            raise ValueError(f"strength is {strength}: expected 0 or more")
        self.strength, self.zero, self.sparsity = strength, zero, {}

    @staticmethod
    def weights(pl_module: LightningModule) -> dict[str, nn.Parameter]:
        """Matrices and filters, by name."""
        return {name: p for name, p in pl_module.net.named_parameters() if p.ndim > 1 and p.requires_grad}

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
