"""Trained models by name or file, ready to be used in Python; `zoo.load` is `load`."""

from pathlib import Path
from typing import Any

from zoo.command import recipes
from zoo.command.checkpoints import is_ready, load_module, newest_checkpoint
from zoo.inference import ready
from zoo.inference.preprocess import preprocesses


def load(source: str | Path) -> Any:
    """A trained model in evaluation mode, with what it takes to use it. Needs neither data nor network.

    The module has these attributes more than its class: `classes`, names in the order of the logits; `preprocess`, to
    turn images (files, images of PIL, arrays, a list of them) or, for a language model, texts into the batch that the
    module takes; `preprocess_text` beside it where it takes both; `tokenizer`; and of a ready model `card`, what it was
    trained on and what it reaches.

    Args:
        source: name of a ready model, such as "digits/small"; or a file of `zoo publish`, the folder of a run, or a
            checkpoint.

    Raises:
        ValueError: if there is no such model; gives the nearest names. Or if the file is not one, or names classes that
            are not trusted, see `zoo.trust`.
        FileNotFoundError: if the file does not exist.

    >>> import numpy as np
    >>> model = load("digits/small")
    >>> model(model.preprocess(np.zeros((8, 8), np.uint8))).shape, model.classes[:3]
    (torch.Size([1, 10]), ['0', '1', '2'])
    """
    path = _path(str(source))
    model, data = load_module(path, needs=None)
    found = preprocesses(data)
    model.classes = data.get("classes")
    model.tokenizer = found.get("tokenizer")
    model.preprocess = found.get("images", found.get("texts"))
    model.preprocess_text = found.get("texts")
    model.card = ready.read_card(path) if is_ready(path) else None
    return model


def _path(source: str) -> Path:
    if Path(source).suffix in (".ckpt", ready.SUFFIX):
        return Path(source)
    if recipes.run_of(source) is not None:
        return newest_checkpoint(source)
    return ready.find(source.removesuffix(recipes.READY))
