"""Images a second of `zoo predict` compared with a bare loop that reads, resizes and classifies the same files.

    python -m experiments.benchmarks.predict_throughput

Files are JPEGs of 640 x 480 pixels, for which decoding takes longer than a small net, and of 64 x 64, for which a
ResNet-18 takes longer than decoding. The bare loop opens a file with PIL, resizes it, and applies the net to 64 at a
time; it checks nothing, writes nothing and reads no file while the net is busy. `zoo predict` decodes in threads, so it
may be the faster one. Both take turns in one process; the ratio is the median of those of the turns.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import zoo
from zoo.classification.resnet import ResNet18
from zoo.command.actions.predict import found_in
from zoo.inference.predictor import MAX_BATCH, Predictor

TURNS = 5


def write_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    for i in range(count):
        waves = draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(waves).resize(size, Image.Resampling.BICUBIC).save(folder / f"{i:04}.jpg", quality=90)


def bare(module: Any, data: dict[str, Any], files: list[Path]) -> int:
    """The loop that one would write."""
    channels, height, width = data["image_shape"]
    mean, std = (torch.tensor(data[name])[:, None, None] for name in ("mean", "std"))
    count = 0
    for start in range(0, len(files), MAX_BATCH):
        images: list[Tensor] = []
        for file in files[start : start + MAX_BATCH]:
            image = Image.open(file)
            image.draft(None, (2 * width, 2 * height))
            pixels = np.array(
                image.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
            )
            images.append(torch.from_numpy(pixels.reshape(height, width, channels)).permute(2, 0, 1))
        with torch.inference_mode():
            probability = module((torch.stack(images) / 255 - mean) / std).softmax(1)
        for file, row in zip(files[start:], probability, strict=False):
            confidence, label = row.max(0)
            json.dumps({"file": str(file), "class": data["classes"][int(label)], "confidence": float(confidence)})
            count += 1
    return count


def command(module: Any, data: dict[str, Any], folder: Path) -> int:
    predictor = Predictor(module, data, "benchmark", min_score=0.4)
    return sum(1 for found in found_in(predictor, [str(folder)]) if json.dumps(found.result))


def measure(what: str, module: Any, data: dict[str, Any], count: int, size: tuple[int, int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, count, size)
        files = sorted(folder.iterdir())
        ways: dict[str, Callable[[], int]] = {
            "bare loop": lambda: bare(module, data, files),
            "zoo predict": lambda: command(module, data, folder),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(TURNS + 1):
            for way, run in ways.items():
                began = time.perf_counter()
                assert run() == count
                if turn:  # the first turn warms up
                    seconds[way].append(time.perf_counter() - began)
    for way, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["bare loop"], times, strict=True))
        print(f"{what:<34} {way:<12} {count / statistics.median(times):8.0f} images/s  {ratio:.2f}")


def main() -> None:
    small = zoo.load("digits/small")
    measure("640 x 480 px, digits/small", small, small.card.data, 400, (640, 480))
    torch.manual_seed(0)
    statistics_ = {"mean": [0.5] * 3, "std": [0.25] * 3, "classes": [str(i) for i in range(10)]}
    measure("64 x 64 px, ResNet-18", ResNet18().eval(), {"image_shape": [3, 32, 32], **statistics_}, 100, (64, 64))


if __name__ == "__main__":
    main()
