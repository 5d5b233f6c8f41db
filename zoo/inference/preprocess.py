"""What turns a user's images and texts into the batch that a trained net takes, as its training data were prepared.

B batch, C channels, H height, W width, T tokens.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from datamodules.captions.base import check_words, encode_sentences
from datamodules.io import read_image
from datamodules.text.sentence_pairs import SPECIAL_TOKENS
from datamodules.text.tokenizers import encode

PAD, CLS, SEP, MASK = SPECIAL_TOKENS
Picture = str | Path | Image.Image | np.ndarray | Tensor


class Images:
    """Converts images to the channels of the training images, resizes them to their size and normalizes them.

    Args:
        image_shape: (C, H, W).
        mean, std: per channel, of pixels in 0..1.

    >>> Images((1, 28, 28), [0.1307], [0.3081])(np.zeros((100, 80, 3), np.uint8)).shape
    torch.Size([1, 1, 28, 28])
    """

    def __init__(self, image_shape: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
        self.image_shape = tuple(image_shape)
        self.mean, self.std = tuple(mean), tuple(std)
        self.mode = "L" if self.image_shape[0] == 1 else "RGB"

    def __repr__(self) -> str:
        channels, height, width = self.image_shape
        kind, factors = ("gray", "") if channels == 1 else ("RGB", " of each channel")
        statistics = " / ".join(f"{m:g}, {s:g}" for m, s in zip(self.mean, self.std, strict=True))
        return (
            f"image in {kind}, resized to {width} x {height} pixels (bilinear), divided by 255, minus the mean and "
            f"divided by the standard deviation{factors} ({statistics}): float32 (B, {channels}, {height}, {width})"
        )

    def __call__(self, images: Picture | Sequence[Picture]) -> Tensor:
        """An image, or a list of them -> (B, C, H, W) float32.

        Args:
            images: the path of a file, an image of PIL, an array (H, W) or (H, W, C) of uint8, or a tensor (C, H, W) of
                uint8; or a list of such.

        Raises:
            ValueError: if a file is no image, an array has another shape or type, or the list is empty.
            FileNotFoundError: if a file does not exist.
        """
        listed: list[Any] = list(images) if isinstance(images, (list, tuple)) else [images]
        if not listed:
            raise ValueError("the list of images is empty: expected one or more")
        return self.normalize(torch.stack([self.pixels(self.open(image)) for image in listed]))

    def open(self, image: Picture, at_least: tuple[int, int] | None = None) -> Image.Image:
        """An image in the training images' mode; a file may be decoded smaller, by default at twice their size."""
        _, height, width = self.image_shape
        if isinstance(image, (str, Path)):
            return read_image(image, self.mode, at_least=at_least or (2 * width, 2 * height))
        return _in_mode(image if isinstance(image, Image.Image) else _from_array(image), self.mode)

    def pixels(self, image: Image.Image) -> Tensor:
        """An image in the training images' mode -> (C, H, W) uint8, resized."""
        channels, height, width = self.image_shape
        resized = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
        return torch.from_numpy(resized.reshape(height, width, channels)).permute(2, 0, 1)

    def normalize(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> float32 with mean 0 and standard deviation 1 over the training set."""
        mean, std = (pixels.new_tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.std))
        return (pixels / 255 - mean) / std


def _from_array(array: np.ndarray | Tensor) -> Image.Image:
    """(H, W) or (H, W, C) uint8, or as a tensor (C, H, W) -> an image."""
    values = (
        array.permute(1, 2, 0).cpu().numpy() if isinstance(array, Tensor) and array.ndim == 3 else np.asarray(array)
    )
    shape = values.shape
    if values.dtype != np.uint8 or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise ValueError(
            f"an image is {values.dtype} {tuple(array.shape)}: expected uint8 of (H, W), (H, W, 1), (H, W, 3) or "
            "(H, W, 4), as a tensor with the channels first; several images come as a list"
        )
    return Image.fromarray(values[..., 0] if shape[2:] == (1,) else values)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """An image of PIL, turned upright, without transparency, in "L" or "RGB"."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        raise ValueError(
            f"an image has PIL's mode {image.mode!r}: expected 8 bits a channel; convert it, or give a file"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


class Texts:
    """Turns texts into the tokens of a language model that continues them.

    Args:
        tokenizer: of the training text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __repr__(self) -> str:
        return f"text as {self.tokenizer.get_vocab_size()} kinds of tokens by the tokenizer: int64 (B, T)"

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """A text, or a list of texts of as many tokens -> (B, T) int64.

        Raises:
            ValueError: if a text is empty or has a character that the tokenizer does not know, or the lengths differ.
        """
        rows = [encode(self.tokenizer, text) for text in _as_list(texts)]
        lengths = sorted({len(row) for row in rows})
        if len(lengths) != 1 or not lengths[0]:
            raise ValueError(
                f"the texts have {' and '.join(map(str, lengths))} tokens: expected one or more, and as many in each, "
                "as nothing is padded; give them one by one"
            )
        return torch.stack(rows)


class MaskedTexts:
    """Turns texts with `[MASK]` in them into what a net takes that was trained on pairs of segments.

    The net has only seen pairs, and half of them were one run of text: so a text is cut in the middle.

    Args:
        tokenizer: of the training text, with BERT's special tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.pad, self.cls, self.sep, self.mask = map(tokenizer.token_to_id, SPECIAL_TOKENS)

    def __repr__(self) -> str:
        return (
            f"text as {self.tokenizer.get_vocab_size()} kinds of tokens by the tokenizer, {MASK} where one is to be "
            f"predicted, cut in the middle: {CLS} first half {SEP} second half {SEP}; int64 (B, T), mask (B, T), which "
            "is false at padding, and segments (B, T), 0 or 1"
        )

    def __call__(self, texts: str | Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Texts -> tokens (B, T) int64, padded at the end; their mask (B, T), false there; their segments (B, T)."""
        rows, firsts = [], []
        for text in _as_list(texts):
            # A byte-level token has the space before a word in it: what the mask stands for brings it along.
            ids = self.tokenizer.encode(re.sub(rf" ?{re.escape(MASK)}", MASK, text), add_special_tokens=False).ids
            half = (len(ids) + 1) // 2
            rows.append(torch.tensor([self.cls, *ids[:half], self.sep, *ids[half:], self.sep]))
            firsts.append(half + 2)
        tokens = pad_sequence(rows, batch_first=True, padding_value=self.pad)
        position = torch.arange(tokens.size(1))
        mask = position < torch.tensor([[len(row)] for row in rows])
        return tokens, mask, (mask & (position >= torch.tensor(firsts)[:, None])).long()


class Sentences:
    """Turns sentences into the tokens of a text encoder, such as CLIP's.

    Args:
        tokenizer: of the training sentences; it adds the end and pads.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __repr__(self) -> str:
        return (
            f"sentence as {self.tokenizer.get_vocab_size()} kinds of words by the tokenizer: int64 (B, T), padded, and "
            "its mask (B, T), false at padding"
        )

    def __call__(self, sentences: str | Sequence[str]) -> tuple[Tensor, Tensor]:
        """Sentences -> tokens (B, T) int64, padded at the end, and their mask (B, T), false there.

        Raises:
            ValueError: if a sentence is empty or has a word that was not in the training data.
        """
        listed = _as_list(sentences)
        for sentence in listed:
            check_words(self.tokenizer, sentence)
        return encode_sentences(self.tokenizer, listed)


def _as_list(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def preprocesses(data: dict[str, Any]) -> dict[str, Any]:
    """What suits a model, by what its checkpoint says of its data: `images`, `texts`, and the `tokenizer`."""
    found: dict[str, Any] = {}
    if all(name in data for name in ("image_shape", "mean", "std")):
        found["images"] = Images(data["image_shape"], data["mean"], data["std"])
    if "tokenizer" in data:
        tokenizer = found["tokenizer"] = Tokenizer.from_str(data["tokenizer"])
        masked = tokenizer.token_to_id(MASK) is not None
        kind = MaskedTexts if masked else Sentences if "images" in found else Texts
        found["texts"] = kind(tokenizer)
    return found
