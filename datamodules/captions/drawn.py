"""Images with sentences: drawn scenes whose sentences are known to be true, and the user's own list.

B batch, S sentences, T tokens, K classes, P phrasings.
"""

import re
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.boxes.shapes import Shapes
from datamodules.captions.base import Captioned, PairedInMemory, encode_sentences, word_tokenizer
from datamodules.scenes import COLORS, SHAPES, SIZES, Scene

# Each split has phrasings of its own, so that a net has to read rather than to know sentences by heart. Every word of
# those held out occurs in training.
PHRASINGS = {
    "train": (
        "a {size} {colour} {shape}",
        "there is a {size} {colour} {shape} in this picture",
        "this is a {colour} {shape} and it is {size}",
        "the {shape} in the picture is {size} and {colour}",
        "one can see a {shape} that is {colour} and {size}",
        "the picture shows a {size} {shape} in {colour}",
        "a {shape} of {colour} colour and {size} size",
        "here a {colour} {shape} of {size} size is drawn",
        "someone drew a {shape} in {colour} and made it {size}",
        "what we see here is {size} and {colour} and it is a {shape}",
        "look at this {size} {shape} and its {colour} colour",
        "it is {colour} and {size} and it is a {shape}",
    ),
    "val": (
        "here is a {shape} and it is {size} and {colour}",
        "this picture shows a {colour} {shape} of {size} size",
    ),
    "test": (
        "a picture of one {size} {shape} in {colour}",
        "someone made this {shape} {colour} and {size}",
        "we can see that the {colour} {shape} is {size}",
        "the {size} {shape} drawn here is {colour}",
    ),
}
ZOOM = 2  # pictures are windows of scenes that are this much larger, so that small shapes have enough pixels


def phrase(phrasing: str, words: tuple[str, str, str]) -> str:
    """The sentence of a phrasing for (size, colour, shape).

    >>> phrase("there is a {colour} {shape}", ("small", "orange", "star"))
    'there is an orange star'
    """
    text = phrasing.format(**dict(zip(("size", "colour", "shape"), words, strict=True)))
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


class Captions(Captioned):
    """Drawn scenes of one shape each, and a sentence that tells its size, colour and shape. No files are needed.

    The classes are all combinations. The phrasings of validation and test are held out, and so, if asked for, are
    some of the combinations.

    Args:
        size: side of the pictures in pixels.
        train_size, val_size, test_size: how many; the same pictures whatever the seed of a run.
        shapes, colours: to choose from.
        new: how many pairs of colour and shape are never trained, from all sizes.
        options: see `ImageData`.

    Attributes:
        new_classes: the labels that are never trained.

    Raises:
        ValueError: for an unknown shape or colour, or if `new` would leave a colour or a shape unseen.

    >>> Captions().classes[:3]
    ('small red circle', 'small red square', 'small red triangle')
    """

    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def __init__(
        self,
        size: int = 48,
        train_size: int = 6000,
        val_size: int = 500,
        test_size: int = 2000,
        shapes: tuple[str, ...] = SHAPES,
        colors: tuple[str, ...] = tuple(COLORS),
        new: int = 0,
        batch_size: int = 128,
        eval_batch_size: int = 250,
        **options: Any,
    ) -> None:
        super().__init__(val_size=val_size, batch_size=batch_size, eval_batch_size=eval_batch_size, **options)
        self.drawn = Shapes(
            ZOOM * size, train_size, val_size, test_size, max_objects=1, min_objects=1, shapes=shapes, colors=colors
        )
        self.image_shape = (3, size, size)
        self.words = list(product(SIZES, colors, shapes))
        self.classes = tuple(" ".join(words) for words in self.words)
        self.tokenizer = word_tokenizer(self.phrased("train").flat)
        pairs = [(colors[i % len(colors)], shapes[(i + i // len(colors)) % len(shapes)]) for i in range(new)]
        trained = set(product(colors, shapes)) - set(pairs)
        if new < 0 or {colour for colour, _ in trained} != set(colors) or {s for _, s in trained} != set(shapes):
            raise ValueError(f"new is {new}: expected 0 or more, and each colour and shape left in training")
        self.new_classes = [label for label, (_, *pair) in enumerate(self.words) if tuple(pair) in pairs]

    def phrased(self, split: str) -> np.ndarray:
        """The sentences (P, K) of a split: each phrasing of each class."""
        return np.array([[phrase(phrasing, words) for words in self.words] for phrasing in PHRASINGS[split]])

    def prompts(self, split: str) -> tuple[Tensor, Tensor]:
        """The sentences of a split to choose from: tokens (P, K, T) and their mask (P, K, T)."""
        texts = self.phrased(split)
        return tuple(part.unflatten(0, texts.shape) for part in encode_sentences(self.tokenizer, texts.flat))

    def make_datasets(self) -> dict[str, Dataset]:
        return {split: self._paired(split) for split, count in self.drawn.sizes.items() if count}

    def _paired(self, split: str) -> PairedInMemory:
        texts, draw = self.phrased(split), np.random.default_rng(list(PHRASINGS).index(split))
        scenes = [(self.window(scene, draw), self.words.index(scene.words[0])) for scene in self.drawn.scenes(split)]
        if split == "train":
            scenes = [scene for scene in scenes if scene[1] not in self.new_classes]
        images, labels = zip(*scenes, strict=True)
        tokens = encode_sentences(self.tokenizer, texts[draw.integers(len(texts), size=len(labels)), labels])
        return PairedInMemory(torch.stack(images), *tokens, torch.tensor(labels))

    def window(self, scene: Scene, draw: np.random.Generator) -> Tensor:
        """A part of the scene that holds its shape, (3, S, S)."""
        size, whole = self.image_shape[1], scene.image.shape[1]
        low = np.ceil(scene.boxes[0, 2:].numpy() - size).clip(0).astype(int)
        high = np.floor(scene.boxes[0, :2].numpy().clip(0, whole - size)).astype(int)
        left, top = draw.integers(low, high, endpoint=True)
        return scene.image[:, top : top + size, left : left + size]
