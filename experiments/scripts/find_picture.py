"""Find the picture for a sentence: python experiments/scripts/find_picture.py CHECKPOINT SENTENCE [FOLDER] [OUT]

The checkpoint is one of a CLIP, such as `zoo fit multimodal/clip-shapes` leaves in runs/. Without a folder of pictures
it looks among 200 scenes drawn anew. The best ten go into OUT (found.png), and their names and cosines to the screen.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torchvision.transforms.v2 import functional as image_ops

from callbacks.images import save_figure
from callbacks.retrieval import contact_sheet
from datamodules.captions import Captions, check_words, encode_sentences
from datamodules.image_folder import SUFFIXES, read_image
from zoo.predict import load

SHOWN, DRAWN = 10, 200


def pictures(folder: str | None, shape: tuple[int, int, int]) -> tuple[list[str], Tensor]:
    """Names and images (N, C, H, W) in 0..1, at the size that the net sees."""
    _, height, width = shape
    if folder is None:
        drawn = Captions(height, train_size=0, val_size=0, test_size=DRAWN)
        drawn.setup("test")
        return [f"scene {i}" for i in range(DRAWN)], drawn.sets["test"].columns.image / 255
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{folder} holds no picture: expected files such as .jpg and .png; check the path")
    images = [torch.from_numpy(np.array(read_image(file))).permute(2, 0, 1) / 255 for file in files]
    resized = [image_ops.resize(image, [height, width], antialias=True) for image in images]
    return [str(file) for file in files], torch.stack(resized)


def find(checkpoint: str, sentence: str, folder: str | None = None, out: str = "found.png") -> list[tuple[str, float]]:
    """Draws the best pictures into `out`; returns their names and cosines, best first.

    Raises:
        ValueError, FileNotFoundError: for a checkpoint of something else, a word that the net never saw, no pictures.
    """
    model, data = load(Path(checkpoint))
    if not hasattr(model, "rank") or "tokenizer" not in data:
        raise ValueError(
            f"{checkpoint} is a {type(model).__name__}: expected a module that ranks pictures, such as CLIP"
        )
    tokenizer = Tokenizer.from_str(data["tokenizer"])
    check_words(tokenizer, sentence)
    names, images = pictures(folder, data["image_shape"])
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


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 5:
        sys.exit(__doc__.splitlines()[0])
    try:
        for name, cosine in find(*sys.argv[1:]):
            print(f"{cosine:.2f}  {name}")
    except (ValueError, OSError) as error:
        sys.exit(f"find_picture: {error}")
