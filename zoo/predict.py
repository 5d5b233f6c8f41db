"""`zoo predict`: a trained classifier on image files."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torchvision.transforms.v2 import functional as image_ops

from datamodules.image_folder import read_image
from zoo.checkpoints import CheckpointFiles, newest_checkpoint


def load(path: Path) -> tuple[LightningModule, dict[str, Any]]:
    """The module of a checkpoint, ready to predict, and how its data look (classes, mean, std, image_shape).

    Raises:
        ValueError: if the file is no checkpoint, or one that the zoo did not write.
    """
    checkpoint = CheckpointFiles().load_checkpoint(path, map_location="cpu", weights_only=True)
    if not isinstance(checkpoint, dict) or not checkpoint.get("module") or "classes" not in checkpoint.get("data", {}):
        raise ValueError(f"{path} does not say which module and data it belongs to: expected a checkpoint of `zoo fit`")
    module, _, name = checkpoint["module"].rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    return kind.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval(), checkpoint["data"]


def predict(source: str, files: list[str]) -> Iterator[dict[str, Any]]:
    """Classifies image files.

    Each is made grey if the training images were, scaled to their size and normalised like them.

    Args:
        source: checkpoint file or recipe; of a recipe the newest run counts.
        files: pictures.

    Yields:
        For each file its name, the class, the confidence (0..1) and the three likeliest classes.

    Raises:
        ValueError, FileNotFoundError: if checkpoint or picture cannot be read; before any result.
    """
    model, data = load(Path(source) if source.endswith(".ckpt") else newest_checkpoint(source))
    channels, height, width = data["image_shape"]
    images = [read_image(file, "L" if channels == 1 else "RGB") for file in files]
    mean, std = (torch.tensor(data[name])[:, None, None] for name in ("mean", "std"))
    for file, image in zip(files, images, strict=True):
        pixels = torch.from_numpy(np.array(image)).float().reshape(*image.size[::-1], channels).permute(2, 0, 1) / 255
        pixels = image_ops.resize(pixels, [height, width], antialias=True)
        with torch.inference_mode():
            probability = model(((pixels - mean) / std)[None]).float().softmax(1)[0]
        top = probability.topk(min(3, len(probability)))
        likeliest = [
            {"class": data["classes"][label], "confidence": round(p, 4)}
            for p, label in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        ]
        yield {"file": file, **likeliest[0], "top3": likeliest}
