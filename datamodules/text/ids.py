"""The tokens of a text as numbers in the smallest integer type, in memory or in a memory-mapped file.

A cached file holds the numbers of the training part and of the validation part, and in its last bytes a description in
JSON with their type, their counts and a checksum: it is data, and nothing in it is run. Its name is a hash of the text,
the place of the split and the tokenizer, so that a file of that name belongs to no other text.
"""

import json
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import tokenizers
import torch
from filelock import FileLock
from tokenizers import Tokenizer
from torch import Tensor

from datamodules.io import atomic_write
from datamodules.messages import report
from datamodules.text.corpus import CODE_POINTS, PIECE, Corpus, code_points, cut_at_words
from datamodules.text.tokenizers import cache_folder

SMALL = 2**22  # bytes of a text that is encoded in memory each time: it takes less than a second
FOOTER = 256  # bytes of the description
KEPT_DAYS = 30  # without use
WORDS = 2**15  # characters that a tokenizer of words gets at a time, and that many times
AT_A_TIME = 16
TYPES = ("uint8", "uint16", "uint32")


class Ids:
    """Tokens (N,) in whatever integer type: what is taken out of them by a slice or by positions is an int64 tensor.

    >>> ids = Ids(np.array([7, 8, 9], np.uint8))
    >>> ids[1:], ids[torch.tensor([[0, 2]])], len(ids)
    (tensor([8, 9]), tensor([[7, 9]]), 3)
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, at: slice | Tensor) -> Tensor:
        taken = self.values[at.numpy() if isinstance(at, Tensor) else at]
        return torch.from_numpy(taken.astype(np.int64))

    def __reduce__(self) -> tuple[Any, ...]:
        """Of a memory-mapped file another process gets the place, not the content."""
        values = self.values
        if not isinstance(values, np.memmap):
            return Ids, (values,)
        return _mapped, (values.filename, values.dtype.name, values.offset, len(values))


def _mapped(path: Path, dtype: str, offset: int, count: int) -> Ids:
    return Ids(np.memmap(path, dtype, "r", offset, (count,)) if count else np.zeros(0, dtype))


def encode_parts(corpus: Corpus, tokenizer: Tokenizer, kind: str, split: int) -> dict[str, Ids]:
    """The tokens of a text before and after the character `split`, as "train" and "val".

    Those of a large text are kept in `cache_folder("texts")`, memory-mapped; where that folder cannot be written, and
    for small texts, they are held in memory.

    Args:
        corpus: the text.
        tokenizer: that of the text.
        kind: as in `train_tokenizer`.
        split: characters of the training part.
    """
    dtype = np.min_scalar_type(tokenizer.get_vocab_size() - 1).name
    read = partial(_encoded, corpus, tokenizer, kind, dtype)
    if corpus.size < SMALL:
        return {"train": _in_memory(read(0, split), dtype), "val": _in_memory(read(split, None), dtype)}
    key = json.dumps([corpus.digest, split, dtype, kind, tokenizer.to_str(), tokenizers.__version__])
    path = cache_folder("texts") / f"{blake2b(key.encode(), digest_size=16).hexdigest()}.ids"
    if (found := open_ids(path)) is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # another process may be writing it
            if (found := open_ids(path)) is None:
                report(f"encoding {corpus.path} ({corpus.size / 1e6:.0f} MB); the tokens are kept in {path.parent}")
                _remove_unused(path.parent)
                with atomic_write(path) as temporary, open(temporary, "wb") as file:
                    _write(file, {"train": read(0, split), "val": read(split, None)}, dtype)
                found = open_ids(path)
    except OSError as error:
        report(f"the tokens of {corpus.path} are held in memory, as they cannot be kept: {error}")
        found = None
    return found or {"train": _in_memory(read(0, split), dtype), "val": _in_memory(read(split, None), dtype)}


def _encoded(
    corpus: Corpus, tokenizer: Tokenizer, kind: str, dtype: str, start: int, stop: int | None
) -> Iterator[np.ndarray]:
    """The tokens of a part of a text, piece by piece."""
    if kind == "characters":
        table = np.zeros(CODE_POINTS, dtype)
        table[code_points(corpus.alphabet)] = [tokenizer.token_to_id(character) for character in corpus.alphabet]
        yield from (table[code_points(text)] for text in corpus.pieces(start, stop))
        return
    pieces = cut_at_words(corpus.pieces(start, stop, size=min(PIECE, WORDS * AT_A_TIME)), WORDS)
    while some := list(islice(pieces, AT_A_TIME)):
        for encoding in tokenizer.encode_batch_fast(some, add_special_tokens=False):
            yield np.array(encoding.ids, dtype)


def _in_memory(parts: Iterator[np.ndarray], dtype: str) -> Ids:
    return Ids(np.concatenate([np.zeros(0, dtype), *parts]))


def _write(file: IO[bytes], splits: dict[str, Iterator[np.ndarray]], dtype: str) -> None:
    """Writes the tokens of the splits, one after the other, and the description."""
    counts, checksum = dict.fromkeys(splits, 0), 0
    for split, parts in splits.items():
        for part in parts:
            file.write(part.data)
            counts[split] += len(part)
            checksum = zlib.crc32(part.data, checksum)
    footer = json.dumps({"dtype": dtype, "checksum": checksum, **counts})
    file.write(footer.ljust(FOOTER).encode())


def open_ids(path: Path) -> dict[str, Ids] | None:
    """The memory-mapped tokens of a cached file; None if it does not exist, or is not as it was written."""
    try:
        with open(path, "rb") as file:
            size = file.seek(-FOOTER, os.SEEK_END)
            about, checksum = json.loads(file.read()), 0
            counts = {split: int(about[split]) for split in ("train", "val")}
            width = np.dtype(TYPES[TYPES.index(about["dtype"])]).itemsize
            if min(counts.values()) < 0 or width * sum(counts.values()) != size:
                return None
            file.seek(0)
            while left := size - file.tell():
                checksum = zlib.crc32(file.read(min(left, PIECE)), checksum)
        if checksum != about["checksum"]:
            return None
        with suppress(OSError):
            os.utime(path)  # it is in use
        train, val = counts.values()
        return {
            "train": _mapped(path, about["dtype"], 0, train),
            "val": _mapped(path, about["dtype"], width * train, val),
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove_unused(folder: Path) -> None:
    """Removes cached files, and the locks of some, that were not used for a long time."""
    for path in folder.glob("*.*"):
        with suppress(OSError):
            if path.suffix in (".ids", ".lock") and time.time() - path.stat().st_mtime > KEPT_DAYS * 86400:
                path.unlink()
