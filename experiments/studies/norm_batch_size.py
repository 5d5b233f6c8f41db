"""Batch norm against group norm, by batch size.

    python -m experiments.studies.norm_batch_size [FOLDER]

writes norm_batch_size.png and norm_batch_size.csv. A net of three convolutions (zoo.classification.plain_conv) learns
scikit-learn's digits with the norms of zoo.parts.norms, at batch sizes from 2 to 64: in the same four epochs, with the
same samples in the same order, and with a learning rate in proportion to the batch size, as Wu and He 2018, "Group
Normalization", section 4.1, have it. The table: test errors, as mean and standard deviation over five seeds, and the
difference of the two norms, seed by seed, with its standard error. On ImageNet group norm's error stays as it is at
small batches, batch norm's rises (the paper's figure 1: by batches of 2, ten points above group norm's).
Here the curves do not cross: batch norm is ahead at every size by 0.3 to 0.9 points, which is about what five seeds
leave uncertain, and batches of 2 harm neither. What hurts deep nets is not to be seen in one of three layers.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from callbacks.figures.style import BLUE, VERMILION
from datamodules.images.digits import Digits
from experiments.studies import panels, publish, run
from zoo.classification.plain_conv import PlainConvNet
from zoo.parts.norms import BatchNorm, GroupNorm, NormCallable
from zoo.parts.optim.classic import Momentum

SIZES = (2, 4, 8, 16, 32, 64)
RATE = 1 / 32  # learning rate for each sample of a batch; as torch's momentum at 0.1 for 32, the paper's
NORMS: dict[str, tuple[NormCallable, str]] = {
    "batch norm": (BatchNorm, VERMILION),
    "group norm": (functools.partial(GroupNorm, groups=4), BLUE),
}


@functools.cache
def digits(split: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 8, 8), normalised, and labels (N,)."""
    data = Digits(val_size=0).make_datasets()[split]
    return (data.images / 255 - Digits.mean[0]) / Digits.std[0], data.labels


def error_of(norm: NormCallable, batch_size: int, seed: int, epochs: int) -> float:
    """Trains a net and gives the percentage of test digits that it gets wrong."""
    torch.manual_seed(seed)
    net, (x, y) = PlainConvNet(widths=(16, 32), norm=norm), digits("train")
    lr = RATE * batch_size
    optimiser = Momentum(net.parameters(), lr)
    draw = torch.Generator().manual_seed(seed)  # its own: a net with biases draws more numbers from torch's
    order = torch.cat([torch.randperm(len(x), generator=draw) for _ in range(epochs)])
    batches = order[: len(order) // max(SIZES) * max(SIZES)].split(batch_size)  # the same samples whatever the size
    for step, index in enumerate(batches):
        optimiser.param_groups[0]["lr"] = lr * (1 - step / len(batches))
        optimiser.zero_grad()
        F.cross_entropy(net(x[index]), y[index]).backward()
        optimiser.step()
    net.eval()
    with torch.no_grad():
        wrong = net(digits("test")[0]).argmax(1) != digits("test")[1]
    return 100 * wrong.float().mean().item()


def measure(sizes: Sequence[int], seeds: int, epochs: int) -> dict[tuple[str, int], Tensor]:
    """Test errors in percent of all seeds, by norm and batch size."""
    return {
        (name, size): torch.tensor([error_of(norm, size, seed, epochs) for seed in range(seeds)])
        for size in sizes
        for name, (norm, _) in NORMS.items()
    }


def table(errors: dict[tuple[str, int], Tensor]) -> list[dict]:
    rows = []
    for size in sorted({size for _, size in errors}):
        rows.append({"batch size": size, "lr": RATE * size})
        batch, group = (errors[name, size] for name in NORMS)
        for name, values in zip(NORMS, (batch, group), strict=True):
            rows[-1] |= {f"{name}: error, %": values.mean().item(), f"{name}: std": values.std(correction=0).item()}
        difference = group - batch  # seed by seed
        standard = difference.std().item() / len(difference) ** 0.5 if len(difference) > 1 else None
        rows[-1] |= {"group - batch": difference.mean().item(), "standard error": standard}
    return rows


def draw(errors: dict[tuple[str, int], Tensor]) -> Figure:
    sizes = sorted({size for _, size in errors})
    title = "Test error by norm and batch size: seeds, their mean and standard deviation"
    figure, (axes,) = panels(title, 1, 1, (8.5, 5))
    for shift, (name, (_, colour)) in zip((0.97, 1.03), NORMS.items(), strict=True):
        values = torch.stack([errors[name, size] for size in sizes])  # (sizes, seeds)
        places = torch.tensor(sizes) * shift
        axes.scatter(places[:, None].expand_as(values), values, s=12, color=colour, alpha=0.5, linewidths=0)
        options = {"color": colour, "linewidth": 2, "capsize": 4, "marker": "o", "label": name}
        axes.errorbar(places, values.mean(1), values.std(1, correction=0), **options)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set(xlabel="batch size", ylabel="test error, %", ylim=(0, None))
    axes.legend(frameon=False, loc="lower left")
    return figure


def main(folder: Path, sizes: Sequence[int] = SIZES, seeds: int = 5, epochs: int = 4) -> None:
    errors = measure(sizes, seeds, epochs)
    publish(folder, "norm_batch_size", draw(errors), table(errors))


if __name__ == "__main__":
    run(main, __doc__)
