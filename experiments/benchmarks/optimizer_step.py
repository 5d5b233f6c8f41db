"""A step of each hand-written optimizer compared with torch's foreach version.

    python -m experiments.benchmarks.optimizer_step

Both step the tensors of a ResNet-18 in turn, in one process; the result is the ratio of the medians.
"""

import statistics
import time

import torch

from zoo.classification.resnet import ResNet
from zoo.parts.optim import classic

PAIRS = {
    "SGD": (classic.SGD, torch.optim.SGD, {"lr": 0.1}, {}),
    "Momentum": (classic.Momentum, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, {}),
    "Nesterov": (classic.Nesterov, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, {"nesterov": True}),
    "AdaGrad": (classic.AdaGrad, torch.optim.Adagrad, {"lr": 0.1}, {}),
    "AdaDelta": (classic.AdaDelta, torch.optim.Adadelta, {"lr": 0.1}, {}),
    "RMSProp": (classic.RMSProp, torch.optim.RMSprop, {"lr": 0.1}, {}),
    "Adam": (classic.Adam, torch.optim.Adam, {"lr": 0.1}, {}),
}
TURNS = 21


def main() -> None:
    for name, (ours, theirs, common, more) in PAIRS.items():
        optimizers = []
        for kind, options in ((ours, common), (theirs, common | more | {"foreach": True})):
            net = ResNet()
            for parameter in net.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizers.append(kind(net.parameters(), **options))
        seconds: list[list[float]] = [[], []]
        for _ in range(TURNS):
            for times, optimizer in zip(seconds, optimizers, strict=True):
                began = time.perf_counter()
                optimizer.step()
                times.append(time.perf_counter() - began)
        mine, reference = (statistics.median(times[1:]) for times in seconds)
        print(f"{name:<10} {1e3 * mine:6.1f} ms  torch {1e3 * reference:6.1f} ms  ratio {mine / reference:.2f}")


if __name__ == "__main__":
    main()
