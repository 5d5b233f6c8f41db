"""The tokenizer of sentences, the data set in memory, and the base class of the datamodules for images with sentences.

S sentences, T tokens.
"""

import re
from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, processors
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batches import Paired
from datamodules.image import ImageData
from datamodules.messages import nearest_names
from datamodules.text.tokenizers import UNKNOWN, train_tokenizer

PADDING, END = "[PAD]", "[EOS]"


def word_tokenizer(sentences: Iterable[str]) -> Tokenizer:
    """A tokenizer of the words and punctuation marks of the sentences, in lower case; it appends `[EOS]` and pads."""
    tokenizer = train_tokenizer("\n".join(sentences), "words", special_tokens=(PADDING, UNKNOWN, END))
    end = tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(f"$A {END}", special_tokens=[(END, end)])
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PADDING), pad_token=PADDING)
    return tokenizer


def encode_sentences(tokenizer: Tokenizer, sentences: Iterable[str]) -> tuple[Tensor, Tensor]:
    """Sentences -> tokens (S, T) int64, padded at the end, and their mask (S, T), false at padding."""
    encodings = tokenizer.encode_batch(list(sentences))
    mask = torch.tensor([encoding.attention_mask for encoding in encodings], dtype=torch.bool)
    return torch.tensor([encoding.ids for encoding in encodings]), mask


def check_words(tokenizer: Tokenizer, sentence: str) -> None:
    """Raises ValueError if a sentence is empty or has a word that the net was not trained on."""
    known = tokenizer.get_vocab()
    encoding = tokenizer.encode(sentence)
    for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True):
        if token == UNKNOWN:
            word = sentence[start:end]
            nearest = nearest_names(word.lower(), known, otherwise=f"such as {', '.join(sorted(known)[:30])}")
            raise ValueError(
                f"the net never saw the word {word!r}: expected words of its training sentences; {nearest}"
            )
    if len(encoding.tokens) < 2:
        raise ValueError(f"the sentence {sentence!r} is empty: expected some words")


class PairedInMemory(Dataset):
    """A data set of images with sentences, held in memory; a batch is one indexing operation.

    Args:
        columns: all samples as one batch.
    """

    def __init__(self, columns: Paired) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns.label)

    def __getitem__(self, index: int | Tensor) -> Paired:
        return Paired(*(column[index] for column in self.columns))

    __getitems__ = __getitem__


class Captioned(ImageData):
    """Base class of the datamodules whose images have sentences.

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
