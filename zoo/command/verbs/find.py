"""Find the images that a sentence describes, with a trained CLIP.

    zoo find multimodal/clip-shapes "a large red circle" --folder PICTURES

Without a folder of images it searches among 200 newly drawn scenes. The best ten are drawn into a figure, and their
cosines and names are printed.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torchvision.transforms.v2 import functional as image_ops

from callbacks.figures.retrieval import contact_sheet
from callbacks.figures.style import save_figure
from datamodules.captions.base import check_words, encode_sentences
from datamodules.captions.drawn import Captions
from datamodules.io import IMAGE_SUFFIXES, read_image
from zoo.command.checkpoints import checkpoint_of, load_module

SHOWN, DRAWN = 10, 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RECIPE_OR_CKPT", help="checkpoint, or recipe whose newest run counts")
    parser.add_argument("sentence", metavar="SENTENCE")
    parser.add_argument("--folder", help="of images, searched with its subfolders")
    parser.add_argument("--out", default="found.png", help="figure of the best images")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    for name, cosine in find(args.source, args.sentence, args.folder, args.out):
        print(f"{cosine:.2f}  {name}")
    return 0


def read_images(folder: str | None, shape: tuple[int, int, int]) -> tuple[list[str], Tensor]:
    """Names and images (N, C, H, W) in 0..1, at the size that the net sees."""
    _, height, width = shape
    if folder is None:
        drawn = Captions(height, train_size=0, val_size=0, test_size=DRAWN)
        drawn.setup("test")
        return [f"scene {i}" for i in range(DRAWN)], drawn.datasets["test"].columns.image / 255
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{folder} holds no picture: expected files such as .jpg and .png; check the path")
    images = [torch.from_numpy(np.array(read_image(file))).permute(2, 0, 1) / 255 for file in files]
    resized = [image_ops.resize(image, [height, width], antialias=True) for image in images]
    return [str(file) for file in files], torch.stack(resized)


def find(source: str, sentence: str, folder: str | None = None, out: str = "found.png") -> list[tuple[str, float]]:
    """Draws the best pictures into `out`; returns their names and cosines, best first.

    Raises:
        ValueError, FileNotFoundError: for a checkpoint of something else, a word that the net never saw, no pictures.
    """
    path = checkpoint_of(source)
    model, data = load_module(path)
    if not hasattr(model, "rank") or "tokenizer" not in data:
        raise ValueError(f"{path} holds a {type(model).__name__}: expected a module that ranks pictures, such as CLIP")
    tokenizer = Tokenizer.from_str(data["tokenizer"])
    check_words(tokenizer, sentence)
    names, images = read_images(folder, data["image_shape"])
    mean, std = (torch.tensor(data[name])[:, None, None] for name in ("mean", "std"))
    order, cosine = (
        best[0, :SHOWN] for best in model.rank((images - mean) / std, *encode_sentences(tokenizer, [sentence]))
    )
    found = [(names[i], round(value, 4)) for i, value in zip(order.tolist(), cosine.tolist(), strict=True)]
    cells = [(images[i].permute(1, 2, 0).numpy(), value, None) for i, (_, value) in zip(order, found, strict=True)]
    subtitle = f"The best of {len(names)} pictures, with their cosines"
    figure = contact_sheet([(sentence, cells)], SHOWN, "Find the picture for this sentence", subtitle)
    save_figure(figure, Path(out))
    return found
