"""Backpropagation by hand: a net of eight weights, each of whose gradients is written out. It shows what autograd
does in every other system of the zoo.

B batch. The example of the Extensive Vision AI course, session 3: two inputs, two hidden units, two outputs, a sigmoid
at each unit, no biases.

    i1 --w1,w3--> h1 --w5,w7--> o1        h1 = w1 i1 + w2 i2        o1 = w5 a_h1 + w6 a_h2
    i2 --w2,w4--> h2 --w6,w8--> o2        h2 = w3 i1 + w4 i2        o2 = w7 a_h1 + w8 a_h2

with a_h1 = sigmoid(h1) and so on. The error of an output is half the squared difference from its target t, and the
error of a sample E is the sum of both. The derivative of a sigmoid is a (1 - a), so that the chain rule gives

    dE/dw5 = (a_o1 - t1) a_o1 (1 - a_o1) a_h1
    dE/dw1 = [(a_o1 - t1) a_o1 (1 - a_o1) w5 + (a_o2 - t2) a_o2 (1 - a_o2) w7] a_h1 (1 - a_h1) i1

and the others alike; autograd is used only to check them.
"""

from typing import Any, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MaxMetric

from callbacks.figures.axis import Axis, loss_axis
from zoo.parts.optim.schedules import Constant
from zoo.system import ScheduleCallable, System

WEIGHTS = (0.15, 0.20, 0.25, 0.30, 0.40, 0.45, 0.50, 0.55)  # w1 to w8 at the start, as in the course


def sgd(params: Any, lr: float = 0.5) -> torch.optim.Optimizer:
    """Plain gradient descent."""
    return torch.optim.SGD(params, lr=lr)


class BackpropByHandNet(nn.Module):
    """Two inputs, two hidden units, two outputs, with the weights of the course.

    Attributes:
        hidden: [[w1, w2], [w3, w4]].
        output: [[w5, w6], [w7, w8]].

    Shape: (B, 2) -> (B, 2).

    >>> [round(output, 4) for output in BackpropByHandNet()(torch.tensor([[0.05, 0.10]]))[0].tolist()]
    [0.6065, 0.6305]
    """

    def __init__(self) -> None:
        super().__init__()
        first, second = torch.tensor(WEIGHTS).view(2, 2, 2)
        self.hidden, self.output = nn.Parameter(first.clone()), nn.Parameter(second.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.activations(x)[1]

    def activations(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """a_h and a_o, both (B, 2)."""
        hidden = (x @ self.hidden.T).sigmoid()
        return hidden, (hidden @ self.output.T).sigmoid()

    @torch.no_grad()
    def gradients(self, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The gradient of the mean error of a batch, one formula a weight.

        Args:
            x, target: (B, 2).

        Returns:
            "hidden" and "output", each (2, 2) as the parameter of that name.
        """
        (i1, i2), (t1, t2) = x.unbind(1), target.unbind(1)
        (h1, h2), (o1, o2) = (activation.unbind(1) for activation in self.activations(x))
        (w5, w6), (w7, w8) = self.output.unbind()
        # What an output's error changes by with its sum: dE/d_o = (a_o - t) a_o (1 - a_o)
        d1, d2 = (o1 - t1) * o1 * (1 - o1), (o2 - t2) * o2 * (1 - o2)
        dw5, dw6, dw7, dw8 = d1 * h1, d1 * h2, d2 * h1, d2 * h2
        # The same for the hidden sums, each of which both outputs depend on.
        e1, e2 = (d1 * w5 + d2 * w7) * h1 * (1 - h1), (d1 * w6 + d2 * w8) * h2 * (1 - h2)
        dw1, dw2, dw3, dw4 = e1 * i1, e1 * i2, e2 * i1, e2 * i2
        hidden, output = (
            torch.stack([each.mean() for each in four]).view(2, 2)
            for four in ((dw1, dw2, dw3, dw4), (dw5, dw6, dw7, dw8))
        )
        return {"hidden": hidden, "output": output}


def error(output: Tensor, target: Tensor) -> Tensor:
    """Half the squared differences, added over the outputs, and averaged over the batch; scalar."""
    return (0.5 * (target - output) ** 2).sum(1).mean()


class BackpropByHand(System):
    """Trains a `BackpropByHandNet` by its own gradients: manual optimization, without autograd.

    Batches have inputs (B, 2) first, then targets (B, 2). Evaluation logs `gradient_error`, the largest difference of
    a gradient from autograd's.

    Args:
        optimizer, schedule: see `System`; by default gradient descent at a constant rate of 0.5.
    """

    axes = {
        "loss": loss_axis("half the squared error, of both outputs"),
        "gradient_error": Axis("Gradients", "largest difference from autograd's", "{:.1e}", 1, "min"),
    }

    def __init__(self, optimizer: OptimizerCallable = sgd, schedule: ScheduleCallable = Constant) -> None:
        super().__init__(optimizer, schedule)
        self.save_hyperparameters(ignore=["optimizer", "schedule"])
        self.automatic_optimization = False
        self.net = BackpropByHandNet()
        self.add_metric("loss")
        self.add_metric("gradient_error", MaxMetric, splits=("val", "test"))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2) -> (B, 2)"""
        return self.net(x)

    def step(self, batch: Any, split: str) -> dict[str, Any]:
        x, target = batch[0], batch[1]
        with torch.no_grad():
            output = self.net(x)
            loss = error(output, target)
        gradients = cast(BackpropByHandNet, self.net).gradients(x, target)
        self.log_metric(f"{split}/loss", loss.expand(len(x)))
        if split != "train":
            self.log_metric(f"{split}/gradient_error", self._gradient_error(x, target, gradients))
        return {"loss": loss, "output": output, "gradients": gradients}

    def _gradient_error(self, x: Tensor, target: Tensor, gradients: dict[str, Tensor]) -> Tensor:
        parameters = dict(self.net.named_parameters())
        # Evaluation runs in inference mode, whose tensors autograd does not take.
        with torch.inference_mode(False), torch.enable_grad():
            loss = error(self.net(x.clone()), target.clone())
            theirs = torch.autograd.grad(loss, list(parameters.values()))
        return torch.stack(
            [(gradients[name] - grad).abs().max() for name, grad in zip(parameters, theirs, strict=True)]
        ).max()

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        outputs = self.step(batch, "train")
        for name, parameter in self.net.named_parameters():
            # Without a backward pass, nothing else averages the gradients of several processes.
            parameter.grad = self.trainer.strategy.reduce(outputs["gradients"][name], reduce_op="mean")
        self.optimizers().step()  # type: ignore[union-attr]
        self.lr_schedulers().step()  # type: ignore[union-attr]
        return outputs

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0])
