"""Text files of any size, which are read piece by piece."""

import codecs
import hashlib
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

PIECE = 2**20  # bytes that are read at a time
CODE_POINTS = 0x110000  # of Unicode
END_OF_WORD = re.compile(r"\S(?=[ \n])")


class Corpus:
    """A UTF-8 file, of which no more than a piece is in memory. A byte order mark does not belong to the text.

    Args:
        path: of the file, which is read once here.

    Attributes:
        digest: of the content, in hexadecimal.
        size: of the file in bytes.
        num_chars: characters.
        alphabet: the different characters, in order.

    Raises:
        ValueError: if the file is not UTF-8, has only white space, or is a folder.
    """

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            raise ValueError(f"{path} is a folder: expected a UTF-8 text file; name a file in it")
        self.path, self._opened = path, _version(path)
        seen, digest = np.zeros(CODE_POINTS, bool), hashlib.blake2b(digest_size=16)
        decoder = codecs.getincrementaldecoder("utf-8")()
        with open(path, "rb") as file:
            chars, offset = 0, len(codecs.BOM_UTF8) * (file.read(3) == codecs.BOM_UTF8)
            file.seek(offset)
            self._marks = [(chars, offset)]  # characters and bytes before each piece
            content = None
            while content != b"":
                content, begun = file.read(PIECE), offset - self._marks[-1][1]  # bytes of a character cut in two
                try:
                    text = decoder.decode(content, final=not content)
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset "
                        f"{offset - begun + error.start} ({error.reason}); convert it, for instance by `iconv -t UTF-8`"
                    ) from None
                digest.update(content)
                seen[code_points(text)] = True
                chars, offset = chars + len(text), offset + len(content)
                self._marks.append((chars, offset - len(decoder.getstate()[0])))
        self.size, self.num_chars, self.digest = offset, chars, digest.hexdigest()
        self.alphabet = "".join(map(chr, np.flatnonzero(seen)))
        if not self.alphabet.strip():
            raise ValueError(f"{path} contains no text ({offset} bytes): expected some; choose another file")

    def pieces(self, start: int = 0, stop: int | None = None, size: int = PIECE) -> Iterator[str]:
        """The characters from `start` to `stop`, in pieces of at most `size` bytes.

        Raises:
            ValueError: if the file has changed since it was opened.
        """
        left = (self.num_chars if stop is None else stop) - start
        chars, offset = self._marks[bisect_right(self._marks, start, key=lambda mark: mark[0]) - 1]
        skip = start - chars
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # errors are those of a changed file, see below
        with open(self.path, "rb") as file:
            file.seek(offset)
            while left > 0 and (content := file.read(size)):
                text = decoder.decode(content)
                text, skip = text[skip : skip + left], max(0, skip - len(text))
                left -= len(text)
                if text:
                    yield text
        if _version(self.path) != self._opened:
            raise ValueError(f"{self.path} was changed while it was read: expected a file that stays; start again")

    def lines(self, start: int = 0, stop: int | None = None) -> Iterator[str]:
        """The lines of the characters from `start` to `stop`, with their ends; long ones in parts, cut at words."""
        rest = ""
        for text in self.pieces(start, stop):
            *lines, rest = (rest + text).splitlines(keepends=True)  # the last one may go on
            yield from lines
            if len(rest) > PIECE:
                *parts, rest = cut_at_words([rest], PIECE)
                yield from parts
        yield from [rest] if rest else []


def _version(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def code_points(text: str) -> np.ndarray:
    """The numbers of the characters (N,) uint32."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def cut_at_words(pieces: Iterable[str], size: int) -> Iterator[str]:
    """The same text in pieces of `size` characters or a few more, each of which ends with a word.

    The white space after the word begins the next piece. Tokenizers never join a word with the white space after it,
    and what they make of that depends on nothing before it: so they give for the pieces what they give for the text.

    >>> list(cut_at_words(["to be or", " not  to be"], 4))
    ['to be', ' or not', '  to', ' be']
    """
    rest = ""
    for piece in pieces:
        rest, start = rest + piece, 0
        while end := END_OF_WORD.search(rest, start + size - 1):
            yield rest[start : end.end()]
            start = end.end()
        rest = rest[start:]
    if rest:
        yield rest
