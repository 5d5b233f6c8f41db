"""Training on a CPU with glibc keeping the memory that is freed, compared with its default.

    python -m experiments.benchmarks.kept_memory

Training steps of nets on batches of random images, on one thread. Each measurement is a process of its own, as glibc
adapts its default to what it has seen; those with `zoo.command.machine.keep_freed_memory` and those without it take
turns. The ratio is the median, over the turns, of their CPU seconds, with which other work on the machine interferes
least. What the default costs grows with the activations, and shrinks with the work that is done on each of their
numbers.
"""

import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch
from lightning import LightningModule

from zoo.classification.drill import Drill
from zoo.classification.mnist_compact import Separable, Under20K
from zoo.classification.resnet_mini import ResNetMini
from zoo.command.machine import keep_freed_memory

BATCH, STEPS, TURNS = 128, 15, 5
MODULES: dict[str, Callable[[], LightningModule]] = {
    "drill, 10 channels": Drill,
    "697 parameters": Separable,
    "1 903 parameters": lambda: Separable(widths=(12, 17, 20, 19)),
    "18 830 parameters": Under20K,
    "small ResNet": ResNetMini,
}


def seconds_of_step(name: str, kept: bool) -> float:
    """CPU seconds of a training step."""
    if kept:
        keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module, images, labels = MODULES[name](), torch.randn(BATCH, 1, 28, 28), torch.arange(BATCH) % 10
    for step in range(2 + STEPS):
        if step == 2:  # those before warm up
            began = time.process_time()
        torch.nn.functional.cross_entropy(module(images), labels).backward()
    return (time.process_time() - began) / STEPS


def main() -> None:
    if platform.libc_ver()[0] != "glibc":
        sys.exit(f"C library {platform.libc_ver()[0] or 'unknown'}: expected glibc, whose memory this is about")
    print(f"{'net':<22}{'default':>10}{'kept':>10}{'ratio':>8}")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in MODULES:
            pairs = [[pool.apply(seconds_of_step, (name, kept)) for kept in (False, True)] for _ in range(TURNS)]
            default, kept = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(b / a for a, b in pairs)
            print(f"{name:<22}{default:>7.1f} ms{kept:>7.1f} ms{ratio:>8.2f}")


if __name__ == "__main__":
    main()
