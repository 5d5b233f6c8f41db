"""Softmax and the negative log likelihood: the effect of a logit, of a temperature, and of large numbers.

    python -m experiments.studies.softmax_nll [FOLDER]

writes softmax_nll.png and softmax_nll.csv. Left: loss and gradient against the logit of the right class, where the
other nine are 0: the gradient is p - 1, so its size is at most 1, for a confident mistake, and 0 for a confident
success. Middle: the same five logits at four temperatures. Right and in the table, in float32: the direct formula
-log(exp(z) / sum exp); the log-sum-exp trick, which subtracts the largest logit from all of them first; and
`F.cross_entropy`. There are two classes, the right one with the logit 0, the other with z. In the direct formula exp(z)
is infinite from z = 88.8 on, and so is the loss; with the trick it stays right. For very negative z the loss is smaller
than the spacing of floats at 1 and becomes 0, in all three.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from callbacks.figures.style import BLUE, GRAY, GREEN, ORANGE, PURPLE, SKY, VERMILION
from experiments.studies import Row, panels, publish, run

CLASSES, TEMPERATURES = 10, (0.5, 1.0, 2.0, 5.0)
LOGITS = torch.tensor([3.0, 2.0, 1.0, 0.0, -1.0])
SIZES = (0.0, 1.0, 10.0, 88.0, 89.0, 1000.0, -1.0, -10.0, -17.0, -104.0, -1000.0)


def direct(logits: Tensor, right: int) -> Tensor:
    """-log softmax by its formula; (K,) -> ()."""
    powers = logits.exp()
    return -(powers[right] / powers.sum()).log()


def log_sum_exp(logits: Tensor, right: int) -> Tensor:
    """The same with the largest logit m subtracted first: m + log sum exp(z - m) - z_right; (K,) -> ()."""
    largest = logits.max()
    return largest + (logits - largest).exp().sum().log() - logits[right]


def of_torch(logits: Tensor, right: int) -> Tensor:
    """torch's own; (K,) -> ()."""
    return F.cross_entropy(logits[None], torch.tensor([right]))


def loss_and_gradient(compute: Callable[[Tensor, int], Tensor], logits: Tensor, right: int) -> tuple[float, float]:
    """The loss, and its derivative with respect to the logit of the right class."""
    logits = logits.clone().requires_grad_()
    loss = compute(logits, right)
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.item() + 0.0, gradient[right].item() + 0.0  # + 0.0 turns -0 into 0


COMPUTED = {"direct": direct, "log-sum-exp": log_sum_exp, "torch": of_torch}


def row(z: float) -> Row:
    """A line of the table: two classes, of which the right one has the logit 0 and the other z."""
    exact = torch.logaddexp(*torch.tensor([0.0, z], dtype=torch.float64)).item()
    line: Row = {
        "z": z,
        "exact loss": exact,
        "exact gradient": -torch.tensor(z, dtype=torch.float64).sigmoid().item() + 0.0,
    }
    for name, compute in COMPUTED.items():
        line[f"{name}: loss"], line[f"{name}: gradient"] = loss_and_gradient(compute, torch.tensor([0.0, z]), 0)
    return line


def draw() -> Figure:
    titles = ["Loss and gradient, nine other logits at 0", "Softmax at four temperatures", "In float32, two classes"]
    figure, (left, middle, right) = panels("Softmax and negative log likelihood", 1, 3, (14, 4.6), titles)
    places = torch.linspace(-8, 12, 201)
    others = torch.zeros(CLASSES - 1)
    curves = [loss_and_gradient(log_sum_exp, torch.cat([z[None], others]), 0) for z in places]
    for values, color, style, label in zip(
        zip(*curves, strict=True), (BLUE, ORANGE), ("-", "--"), ("loss", "gradient, p - 1"), strict=True
    ):
        left.plot(places, values, color=color, linestyle=style, linewidth=2, label=label)
    left.axhline(math.log(CLASSES), color=GRAY, linestyle=":", linewidth=1)
    left.text(12, math.log(CLASSES) + 0.15, "all equal: log 10", color=GRAY, ha="right", size=9)
    left.set(xlabel="logit of the right class")
    left.legend(frameon=False)

    width = 0.2
    for i, (temperature, color) in enumerate(zip(TEMPERATURES, (VERMILION, BLUE, SKY, PURPLE), strict=True)):
        bars = [place + (i - 1.5) * width for place in range(len(LOGITS))]
        middle.bar(bars, F.softmax(LOGITS / temperature, 0).tolist(), width, color=color, label=f"T = {temperature:g}")
    middle.set(xlabel="logit", ylabel="probability", ylim=(0, 1))
    middle.set_xticks(range(len(LOGITS)), [f"{logit:g}" for logit in LOGITS])
    middle.legend(frameon=False)

    z = torch.linspace(-20, 130, 601)
    for name, color, linewidth in (("log-sum-exp", GREEN, 6), ("direct", VERMILION, 2)):
        losses = torch.stack([COMPUTED[name](torch.stack([torch.zeros(()), value]), 0) for value in z])
        right.plot(z, losses.where(losses.isfinite(), math.nan), color=color, linewidth=linewidth, label=name)
    limit = math.log(torch.finfo(torch.float32).max)
    right.plot(limit, limit, "x", color=VERMILION, markersize=9, markeredgewidth=2.5)
    right.annotate("exp(z) is infinite:\nloss inf, gradient NaN", (limit - 2, 60), color=VERMILION, size=9)
    right.set(xlabel="z, logit of the wrong class; right one: 0", ylabel="loss")
    right.legend(frameon=False, loc="upper left")
    return figure


def main(folder: Path) -> None:
    publish(folder, "softmax_nll", draw(), [row(z) for z in SIZES])


if __name__ == "__main__":
    run(main, __doc__)
