"""What images with sentences share."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, processors
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batches import Paired
from datamodules.image import ImageData
from datamodules.text.tokenizers import UNKNOWN, train_tokenizer

PADDING, END = "[PAD]", "[EOS]"


def word_tokenizer(sentences: Iterable[str]) -> Tokenizer:
    """A token for each word and mark of the sentences, in lower case; an end behind each, then padding."""
    tokenizer = train_tokenizer("\n".join(sentences), "words", special_tokens=(PADDING, UNKNOWN, END))
    end = tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(f"$A {END}", special_tokens=[(END, end)])
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PADDING), pad_token=PADDING)
    return tokenizer


def encode_sentences(tokenizer: Tokenizer, sentences: Iterable[str]) -> tuple[Tensor, Tensor]:
    """Sentences -> tokens (S, T) int64, padded at the end, and their mask (S, T), false at padding."""
    found = tokenizer.encode_batch(list(sentences))
    return torch.tensor([e.ids for e in found]), torch.tensor([e.attention_mask for e in found], dtype=torch.bool)


def check_words(tokenizer: Tokenizer, sentence: str) -> None:
    """Raises ValueError if a sentence has a word that the net never saw, for which it could only guess."""
    known = tokenizer.get_vocab()
    found = tokenizer.encode(sentence)
    for token, (start, end) in zip(found.tokens, found.offsets, strict=True):
        if token == UNKNOWN:
            near = difflib.get_close_matches(sentence[start:end].lower(), known, 3)
            raise ValueError(
                f"the net never saw the word {sentence[start:end]!r}: expected words of its training sentences; "
                + (f"nearest: {', '.join(near)}" if near else f"such as {', '.join(sorted(known)[:30])}")
            )
    if len(found.tokens) < 2:
        raise ValueError(f"the sentence {sentence!r} is empty: expected some words")


class PairedInMemory(Dataset):
    """Images (N, C, H, W) uint8 with sentences (N, T), their mask, and labels (N,)."""

    def __init__(self, *columns: Tensor) -> None:
        self.columns = Paired(*columns)

    def __len__(self) -> int:
        return len(self.columns.label)

    def __getitem__(self, index: int) -> Paired:
        return self.__getitems__(index)

    def __getitems__(self, indices: Tensor) -> Paired:
        return Paired(*(column[indices] for column in self.columns))


class Captioned(ImageData):
    """Base of the datamodules whose pictures have sentences.

    Attributes:
        tokenizer: of the training sentences.
        vocab_size: number of its tokens.
    """

    tokenizer: Tokenizer

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.get_vocab_size()

    def metadata(self) -> dict[str, Any]:
        return super().metadata() | {"tokenizer": self.tokenizer.to_str()}

    def sentences(self, input_ids: Tensor) -> list[str]:
        """Tokens (S, T) -> sentences."""
        texts = self.tokenizer.decode_batch(input_ids.tolist())
        return [re.sub(r" (?=[.,;:!?])", "", text) for text in texts]
