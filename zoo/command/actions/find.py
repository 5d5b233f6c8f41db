"""What `zoo find` does, see `zoo.command.verbs.find`."""

import argparse
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from callbacks.figures.retrieval import contact_sheet
from callbacks.figures.style import save_figure
from datamodules.captions.base import PairedInMemory
from datamodules.captions.drawn import Captions
from datamodules.io import user_images
from datamodules.messages import report
from zoo.command.checkpoints import checkpoint_of, load_module
from zoo.command.sources import in_threads
from zoo.inference.predictor import THREADS
from zoo.inference.preprocess import Images, preprocesses

MAX_SHOWN, NUM_SCENES = 10, 200


def run(args: argparse.Namespace, rest: list[str]) -> int:
    for name, cosine in find(args.source, args.sentence, folder=args.folder, out=args.out):
        print(f"{cosine:.2f}  {name}")
    return 0


def read_images(folder: str | Path | None, images: Images) -> tuple[list[str], Tensor]:
    """Names and pixels (N, C, H, W) uint8 as the net takes them: of a folder's images, or of drawn scenes.

    Files that cannot be read as images are left out, and said.

    Raises:
        ValueError: if none is left.
        FileNotFoundError: if the folder does not exist or holds no image.
    """
    if folder is None:
        drawn = Captions(size=images.image_shape[1], train_size=0, val_size=0, test_size=NUM_SCENES)
        drawn.setup("test")
        scenes = cast(PairedInMemory, drawn.datasets["test"])
        pixels = [images.pixels(images.open(scene)) for scene in scenes.columns.image]
        return [f"scene {i}" for i in range(NUM_SCENES)], torch.stack(pixels)
    files, _ = user_images(Path(folder))
    if not files:
        raise FileNotFoundError(f"{folder} holds no image: expected files such as .jpg and .png; check the path")

    def read(file: Path) -> Tensor | str:
        try:
            return images.pixels(images.open(file))
        except (ValueError, OSError) as error:
            return str(error)

    found = dict(zip(map(str, files), in_threads(read, files, THREADS), strict=True))
    readable = {file: one for file, one in found.items() if isinstance(one, Tensor)}
    errors = [one for one in found.values() if isinstance(one, str)]
    if not readable:
        raise ValueError(f"none of the {len(files)} files in {folder} can be read as an image: {errors[0]}")
    if errors:
        report(f"{len(errors)} of {len(files)} files cannot be read as images and are left out: {errors[0]}")
    return list(readable), torch.stack(list(readable.values()))


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
        ValueError: for a checkpoint of another kind of system, a word that was not in the training data, or images of
            which none can be read.
        FileNotFoundError: if there are no images.
    """
    path = checkpoint_of(source)
    model, data = load_module(path)
    if not hasattr(model, "rank") or "tokenizer" not in data:
        raise ValueError(f"{path} holds a {type(model).__name__}: expected a module that ranks images, such as CLIP")
    made = preprocesses(data)
    words = made["texts"](sentence)
    names, pixels = read_images(folder, made["images"])
    order, cosine = model.rank(made["images"].normalize(pixels), *words)
    best, cosines = order[0, :MAX_SHOWN].tolist(), cosine[0, :MAX_SHOWN].tolist()
    found = [(names[i], round(value, 4)) for i, value in zip(best, cosines, strict=True)]
    cells = [(pixels[i].permute(1, 2, 0).numpy(), value, None) for i, (_, value) in zip(best, found, strict=True)]
    subtitle = f"The best of {len(names)} image{'s' * (len(names) > 1)}, with their cosines"
    figure = contact_sheet([(sentence, cells)], MAX_SHOWN, "Images for this sentence", subtitle)
    save_figure(figure, Path(out))
    return found
