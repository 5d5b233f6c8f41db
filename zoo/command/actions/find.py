"""What `zoo find` does, see `zoo.command.verbs.find`."""

import argparse
from pathlib import Path
from typing import cast

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torchvision.transforms.v2 import functional as image_ops

from callbacks.figures.retrieval import contact_sheet
from callbacks.figures.style import save_figure
from datamodules.captions.base import PairedInMemory, check_words, encode_sentences
from datamodules.captions.drawn import Captions
from datamodules.io import read_image, user_images
from zoo.command.checkpoints import checkpoint_of, load_module

MAX_SHOWN, NUM_SCENES = 10, 200


def run(args: argparse.Namespace, rest: list[str]) -> int:
    for name, cosine in find(args.source, args.sentence, folder=args.folder, out=args.out):
        print(f"{cosine:.2f}  {name}")
    return 0


def read_images(folder: str | Path | None, shape: tuple[int, int, int]) -> tuple[list[str], Tensor]:
    """Names and images (N, C, H, W) in 0..1, at the size that the net sees: those of a folder, or drawn scenes."""
    _, height, width = shape
    if folder is None:
        drawn = Captions(size=height, train_size=0, val_size=0, test_size=NUM_SCENES)
        drawn.setup("test")
        scenes = cast(PairedInMemory, drawn.datasets["test"])
        return [f"scene {i}" for i in range(NUM_SCENES)], scenes.columns.image / 255
    files, _ = user_images(Path(folder))
    if not files:
        raise FileNotFoundError(f"{folder} holds no image: expected files such as .jpg and .png; check the path")
    images = [torch.from_numpy(np.array(read_image(file))).permute(2, 0, 1) / 255 for file in files]
    resized = [image_ops.resize(image, [height, width], antialias=True).clamp(0, 1) for image in images]
    return [str(file) for file in files], torch.stack(resized)


def find(
    source: str, sentence: str, folder: str | Path | None = None, out: str | Path = "found.png"
) -> list[tuple[str, float]]:
    """Draws the best images into a figure; returns their names and cosines, best first.

    Args:
        source: recipe, RECIPE@ready, folder of a run, checkpoint, or file of `zoo publish`.
        sentence: of words that the net was trained on.
        folder: of images, searched with its subfolders; without one, drawn scenes are searched.
        out: file of the figure.

    Raises:
        ValueError: for a checkpoint of another kind of system, or a word that was not in the training data.
        FileNotFoundError: if there are no images.
    """
    path = checkpoint_of(source)
    model, data = load_module(path)
    if not hasattr(model, "rank") or "tokenizer" not in data:
        raise ValueError(f"{path} holds a {type(model).__name__}: expected a module that ranks images, such as CLIP")
    tokenizer = Tokenizer.from_str(data["tokenizer"])
    check_words(tokenizer, sentence)
    names, images = read_images(folder, data["image_shape"])
    mean, std = (torch.tensor(data[name])[:, None, None] for name in ("mean", "std"))
    order, cosine = model.rank((images - mean) / std, *encode_sentences(tokenizer, [sentence]))
    best, cosines = order[0, :MAX_SHOWN].tolist(), cosine[0, :MAX_SHOWN].tolist()
    found = [(names[i], round(value, 4)) for i, value in zip(best, cosines, strict=True)]
    cells = [(images[i].permute(1, 2, 0).numpy(), value, None) for i, (_, value) in zip(best, found, strict=True)]
    subtitle = f"The best of {len(names)} image{'s' * (len(names) > 1)}, with their cosines"
    figure = contact_sheet([(sentence, cells)], MAX_SHOWN, "Images for this sentence", subtitle)
    save_figure(figure, Path(out))
    return found
