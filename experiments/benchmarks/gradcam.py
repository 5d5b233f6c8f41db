"""Grad-CAM compared with a forward pass.

    python -m experiments.benchmarks.gradcam

ResNet-18 on batches of 32 px images, on one thread. Forward passes, maps with the graph cut below the target layer
(`callbacks.galleries.relevance`) and maps as the package computes them, from the complete graph and image by image,
take turns; the last column is the median, over the turns, of the speed relative to the forward pass of that turn, in
CPU seconds, with which other work on the machine interferes least. A forward and a backward pass through the last
stage, a quarter of the net's work, would leave 0.8 of the forward speed.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from callbacks.galleries.relevance import relevance
from zoo.classification.resnet import ResNet18

BATCH, TURNS = 50, 9


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, images, classes = ResNet18().eval(), torch.randn(BATCH, 3, 32, 32), [i % 10 for i in range(BATCH)]

    def forward() -> None:
        with torch.inference_mode():
            model.net(images)

    def package(size: int) -> np.ndarray:
        with GradCAM(model.net, [model.cam_target]) as cam:
            parts = zip(images.split(size), torch.tensor(classes).split(size), strict=True)
            return np.concatenate([cam(part, [ClassifierOutputTarget(i) for i in labels]) for part, labels in parts])

    ways: dict[str, Callable[[], object]] = {
        "forward pass": forward,
        "maps, graph cut": lambda: relevance(model, images, classes),
        "maps, package": lambda: package(BATCH),
        "maps, package, one by one": lambda: package(1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(1 + TURNS):
        for name, way in ways.items():
            began = time.process_time()
            way()
            if turn:  # the first turn warms up
                seconds[name].append(time.process_time() - began)
    for name, times in seconds.items():
        ratio = statistics.median(f / t for f, t in zip(seconds["forward pass"], times, strict=True))
        print(f"{name:<26} {BATCH / statistics.median(times):6.1f} images/s  {ratio:.2f} of forward")
    print(f"largest difference of maps {abs(relevance(model, images, classes).maps - package(BATCH)).max():.1e}")


if __name__ == "__main__":
    main()
