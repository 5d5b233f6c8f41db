"""Drawn scenes (`datamodules.scenes`) with true sentences. S side of an image, T tokens, K classes, P phrasings."""

import re
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batches import Paired
from datamodules.boxes.shapes import Shapes
from datamodules.captions.base import Captioned, PairedInMemory, encode_sentences, word_tokenizer
from datamodules.scenes import COLORS, SHAPES, SIZES, Scene

# Each split has its own phrasings, so that a net must read sentences and cannot memorize them. Every word of the
# held-out phrasings occurs in training. The sentences are data that trained nets know, so "colour" keeps its spelling.
PHRASINGS = {
    "train": (
        "a {size} {color} {shape}",
        "there is a {size} {color} {shape} in this picture",
        "this is a {color} {shape} and it is {size}",
        "the {shape} in the picture is {size} and {color}",
        "one can see a {shape} that is {color} and {size}",
        "the picture shows a {size} {shape} in {color}",
        "a {shape} of {color} colour and {size} size",
        "here a {color} {shape} of {size} size is drawn",
        "someone drew a {shape} in {color} and made it {size}",
        "what we see here is {size} and {color} and it is a {shape}",
        "look at this {size} {shape} and its {color} colour",
        "it is {color} and {size} and it is a {shape}",
    ),
    "val": (
        "here is a {shape} and it is {size} and {color}",
        "this picture shows a {color} {shape} of {size} size",
        "here we see a {shape} that is {size} and {color}",
        "in this picture there is one {color} {shape} of {size} size",
        "look here and see a {size} {shape} in {color} colour",
        "it is a {color} {shape} and someone made it {size}",
    ),
    "test": (
        "a picture of one {size} {shape} in {color}",
        "someone made this {shape} {color} and {size}",
        "we can see that the {color} {shape} is {size}",
        "the {size} {shape} drawn here is {color}",
    ),
}
SCENE_SCALE = 2  # images are windows of scenes that are this much larger, so that small shapes have enough pixels


def phrase(phrasing: str, words: tuple[str, str, str]) -> str:
    """The sentence of a phrasing for (size, color, shape).

    >>> phrase("there is a {color} {shape}", ("small", "orange", "star"))
    'there is an orange star'
    """
    size, color, shape = words
    text = phrasing.format(size=size, color=color, shape=shape)
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


class Captions(Captioned):
    """Drawn scenes of one shape each, and a sentence that states its size, color and shape. No files are needed.

    The classes are all combinations of these three. The phrasings of validation and test are held out, and with `new`
    some of the combinations too.

    Args:
        size: S in pixels.
        train_size, val_size, test_size: numbers of images; these are the same whatever the seed of a run.
        shapes, colors: to choose from.
        new: number of pairs of color and shape that are held out of training, in both sizes.
        options: see `ImageData`.

    Attributes:
        new_classes: the labels that are held out of training.

    Raises:
        ValueError: for an unknown shape or color, or if `new` would leave a color or a shape out of training.

    >>> Captions().classes[:3]
    ('small red circle', 'small red square', 'small red triangle')
    """

    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    license = "MIT: drawn by litzoo"

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
            size=SCENE_SCALE * size, train_size=train_size, val_size=val_size, test_size=test_size,
            max_objects=1, min_objects=1, shapes=shapes, colors=colors,
        )  # fmt: skip
        self.image_shape = (3, size, size)
        self.words = list(product(SIZES, colors, shapes))
        self.classes = tuple(" ".join(words) for words in self.words)
        self.tokenizer = word_tokenizer(self.phrased("train").flat)
        pairs = [(colors[i % len(colors)], shapes[(i + i // len(colors)) % len(shapes)]) for i in range(new)]
        trained = set(product(colors, shapes)) - set(pairs)
        if new < 0 or {color for color, _ in trained} != set(colors) or {shape for _, shape in trained} != set(shapes):
            raise ValueError(
                f"new is {new}: expected 0 or more, and few enough to leave each color and shape in training"
            )
        self.new_classes = [label for label, (_, *pair) in enumerate(self.words) if tuple(pair) in pairs]

    def phrased(self, split: str) -> np.ndarray:
        """The sentences (P, K) of a split: each phrasing of each class."""
        return np.array([[phrase(phrasing, words) for words in self.words] for phrasing in PHRASINGS[split]])

    def prompts(self, split: str) -> tuple[Tensor, Tensor]:
        """The sentences of a split to choose from: tokens (P, K, T) and their mask (P, K, T)."""
        texts = self.phrased(split)
        ids, mask = encode_sentences(self.tokenizer, texts.flat)
        return ids.unflatten(0, texts.shape), mask.unflatten(0, texts.shape)

    def make_datasets(self) -> dict[str, Dataset]:
        return {split: self._paired(split) for split, count in self.drawn.sizes.items() if count}

    def _paired(self, split: str) -> PairedInMemory:
        texts, draw = self.phrased(split), np.random.default_rng(list(PHRASINGS).index(split))
        scenes = [(self.window(scene, draw), self.words.index(scene.words[0])) for scene in self.drawn.scenes(split)]
        if split == "train":
            scenes = [scene for scene in scenes if scene[1] not in self.new_classes]
        images, labels = zip(*scenes, strict=True)
        ids, mask = encode_sentences(self.tokenizer, texts[draw.integers(len(texts), size=len(labels)), labels])
        return PairedInMemory(Paired(torch.stack(images), ids, mask, torch.tensor(labels)))

    def window(self, scene: Scene, draw: np.random.Generator) -> Tensor:
        """A random part (3, S, S) of the scene that contains its shape."""
        size, scene_size = self.image_shape[1], scene.image.shape[1]
        low = np.ceil(scene.boxes[0, 2:].numpy() - size).clip(0).astype(int)
        high = np.floor(scene.boxes[0, :2].numpy().clip(0, scene_size - size)).astype(int)
        left, top = draw.integers(low, high, endpoint=True)
        return scene.image[:, top : top + size, left : left + size]
