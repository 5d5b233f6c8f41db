"""Tokenizers, which turn text into tokens and back; each is a `tokenizers.Tokenizer`, which fits into a JSON string."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from datamodules.io import atomic_write

KINDS = ("characters", "bpe", "wordpiece", "words")
UNKNOWN = "[UNK]"  # of "wordpiece" and "words"; the other two are lossless


class Lines(NamedTuple):
    """A text that is read line by line.

    digest: a name that no other text has.
    read: gives the lines, with their ends; is called for each pass.
    """

    digest: str
    read: Callable[[], Iterable[str]]


def cache_folder(room: str = "tokenizers") -> Path:
    """`$XDG_CACHE_HOME/litzoo/ROOM`, else the same below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "litzoo" / room


def train_tokenizer(
    text: str | Lines,
    kind: str = "characters",
    vocab_size: int | None = None,
    special_tokens: tuple[str, ...] = (),
    cache_dir: str | os.PathLike | None = None,
) -> Tokenizer:
    """A tokenizer trained on a text.

    Args:
        text: the training text; as `Lines` where it does not need to be in memory, which is not for "characters".
        kind: "characters" (those of the text, in order), "bpe" (merged bytes, so that no text is unknown; as in
            Radford et al. 2019, section 2.2), "wordpiece" (lower case; as in Devlin et al. 2019) or "words" (lower
            case, all words of the text). The last two ignore white space, and map unknown parts to `[UNK]`.
        vocab_size: of "bpe" and "wordpiece", including special tokens; default 512.
        special_tokens: these get the first ids.
        cache_dir: folder that keeps trained tokenizers, by a hash of all arguments; None keeps none.

    Raises:
        ValueError: for an unknown kind, an empty text, or a vocabulary smaller than the alphabet.

    >>> tokenizer = train_tokenizer("to be or not to be", "characters")
    >>> tokenizer.encode("rote").ids, tokenizer.decode([5, 4, 6, 2])
    ([5, 4, 6, 2], 'rote')
    """
    if kind not in KINDS:
        raise ValueError(f"tokenizer is {kind!r}: expected one of {', '.join(KINDS)}")
    if isinstance(text, str) and not text.strip():
        raise ValueError("the text is empty: expected some words to train a tokenizer on")
    special = list(special_tokens)
    if kind in ("wordpiece", "words") and UNKNOWN not in special:
        special.append(UNKNOWN)
    if kind == "characters":
        return _characters("".join(text if isinstance(text, str) else text.read()), special)
    lines = Lines(text, partial(text.splitlines, keepends=True)) if isinstance(text, str) else text
    if kind == "words":
        return _trained(lines, kind, special, None)
    file, size = None, vocab_size or 512
    if cache_dir is not None:
        key = repr((kind, size, special, tokenizers.__version__, lines.digest)).encode()
        file = Path(cache_dir) / f"{kind}-{size}-{hashlib.sha256(key).hexdigest()[:16]}.json"
        with contextlib.suppress(Exception):  # the package raises a plain Exception if it is missing or damaged
            return Tokenizer.from_file(str(file))
    tokenizer = _trained(lines, kind, special, size)
    if tokenizer.get_vocab_size() > size:
        raise ValueError(
            f"vocab_size is {size}, but {kind} needs {tokenizer.get_vocab_size()} tokens for single "
            f"{'bytes' if kind == 'bpe' else 'characters'} and special tokens: expected more; raise it"
        )
    if file is not None:
        # Without the file the next call only takes longer.
        with contextlib.suppress(OSError), atomic_write(file) as temporary:
            tokenizer.save(str(temporary))
    return tokenizer


def _characters(text: str, special: list[str]) -> Tokenizer:
    vocabulary = {token: number for number, token in enumerate([*special, *sorted(set(text))])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))  # without merges
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(special)
    return tokenizer


def _trained(lines: Lines, kind: str, special: list[str], size: int | None) -> Tokenizer:
    options: dict[str, Any] = {"special_tokens": special, "show_progress": False}
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, **options)
    elif kind == "wordpiece":
        return _wordpiece(lines, special, size)
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "removed", invert=True)
        trainer = trainers.WordLevelTrainer(vocab_size=2**31, **options)
    tokenizer.train_from_iterator(lines.read(), trainer)
    return tokenizer


def _wordpiece(lines: Lines, special: list[str], size: int | None) -> Tokenizer:
    """The package numbers the letters inside of words at random, in each process anew, and breaks ties by the numbers.

    So these letters are found first, and then given in order, as if they were special tokens.
    """

    def untrained(vocabulary: dict[str, int]) -> Tokenizer:
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        return tokenizer

    def learned(size: int | None, first: list[str]) -> dict[str, int]:
        tokenizer = untrained({})
        trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=first, show_progress=False)
        tokenizer.train_from_iterator(lines.read(), trainer)
        return tokenizer.get_vocab()

    inside = sorted(token for token in learned(1, special) if token.startswith("##") and token not in special)
    tokenizer = untrained(learned(size, [*special, *inside]))
    tokenizer.add_special_tokens(special)
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> Tensor:
    """The tokens of a text (T,) int64, without special tokens.

    Raises:
        ValueError: if the tokenizer has no token for a character.
    """
    if isinstance(tokenizer.model, models.BPE):  # this model drops unknown characters
        lost = next((c for c in dict.fromkeys(text) if not tokenizer.encode(c, add_special_tokens=False).ids), None)
        if lost is not None:
            known = "".join(sorted(token for token in tokenizer.get_vocab() if len(token) == 1))
            raise ValueError(
                f"character {lost!r} (U+{ord(lost):04X}) is unknown to this tokenizer: "
                f"expected characters among {known!r}; leave it out"
            )
    return torch.tensor(tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids, dtype=torch.int64)
