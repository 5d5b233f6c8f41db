"""Measure how much the averages that a net pools vary from image to image.

    python experiments/scripts/pooled_averages.py mnist/norms-in mnist/norms-bn-l1 --n 500

Each RUN is a run, or a recipe, which stands for its newest run, of a classifier with global average pooling. Printed is
the standard deviation of an average over test images as a share of its mean, averaged over the channels: what hardly
varies tells little about the class.
"""

import argparse
from typing import Any

import torch
from torch import Tensor, nn

from zoo.command.actions.attack import find_run, normalized_batches
from zoo.command.actions.schedule import NO_TRAINING_OPTIONS
from zoo.command.checkpoints import load_module
from zoo.command.lightning_cli import ZooCLI


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN_OR_RECIPE")
    parser.add_argument("--n", type=int, default=500, help="images, the first of the test set")
    args = parser.parse_args()
    for run in args.runs:
        checkpoint, config = find_run(run)
        module, _ = load_module(checkpoint)
        data: Any = ZooCLI(str(config), NO_TRAINING_OPTIONS, folder=checkpoint.parent).datamodule
        batches = normalized_batches(data, args.n, torch.device("cpu"))
        averages = torch.cat([pooled(module.net, images) for images, _ in batches])
        print(f"{variation(averages):4.0%}  {run}, {averages.size(1)} averages of {len(averages)} images")


@torch.no_grad()
def pooled(net: nn.Module, images: Tensor) -> Tensor:
    """The averages (B, C) that the last global average pooling of a net gives for images (B, C', H, W)."""
    pools = [layer for layer in net.modules() if isinstance(layer, nn.AdaptiveAvgPool2d)]
    if not pools:
        raise SystemExit(f"{type(net).__name__} has no nn.AdaptiveAvgPool2d: expected a net that pools averages")
    found: list[Tensor] = []
    handle = pools[-1].register_forward_hook(lambda layer, args, output: found.append(output.flatten(1)))
    net(images)
    handle.remove()
    return found[0]


def variation(averages: Tensor) -> float:
    """The standard deviation over images, as a share of the mean, of averages (N, C); channels that are 0 count not."""
    mean, std = averages.mean(0), averages.std(0)
    return float((std / mean)[mean > 0].mean())


if __name__ == "__main__":
    main()
