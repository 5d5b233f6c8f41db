"""Which image files a user means: files, folders, patterns, and lists on standard input."""

import glob
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import TypeVar, cast

from datamodules.io import IMAGE_SUFFIXES, image_size, is_users, user_images

STDIN = "-"
CHUNK = 65536  # bytes that are read from standard input at once, at most

In = TypeVar("In")
Out = TypeVar("Out")


def image_files(words: list[str]) -> Iterator[list[str]]:
    """The image files that words on a command line stand for, in groups: what is known now is not waited with.

    A word is a file; a folder, of which all images count, at any depth; a pattern such as `photos/**/*.jpg`; or `-` for
    a list on standard input, a file in each line. A group is what comes before the list, or as many lines of it as are
    there already, so that a slow list is worked on as it comes and one of any length takes no memory.

    Raises:
        ValueError: if a file is not an image, or a folder or pattern holds none; before any group.
        FileNotFoundError: if a file does not exist.
    """
    if not words:
        raise ValueError("no image is given: expected files, folders or patterns, or - for a list on standard input")
    return _groups([None if word == STDIN else _expand(word) for word in words])


def _groups(parts: list[list[str] | None]) -> Iterator[list[str]]:
    known: list[str] = []
    for part in parts:
        if part is not None:
            known += part
            continue
        if known:
            yield known
        known = []
        yield from _lines_as_they_come()
    if known:
        yield known


def _lines_as_they_come() -> Iterator[list[str]]:
    """Lines of standard input: all that are there, and only if there is none it waits for the next."""
    rest, stream = b"", cast(BufferedReader, sys.stdin.buffer)
    while chunk := stream.read1(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        if names := _names(lines):
            yield names
    if names := _names([rest]):
        yield names


def _names(lines: list[bytes]) -> list[str]:
    return [name for line in lines if (name := line.decode(errors="surrogateescape").strip())]


def _expand(word: str) -> list[str]:
    """The files that a word stands for, but a list on standard input."""
    path = Path(word)
    if path.is_dir():
        found = [str(file) for file in user_images(path)[0]]
    elif not path.exists() and glob.has_magic(word):
        matches = [name for name in sorted(glob.glob(word, recursive=True)) if _is_meant(Path(name), path)]
        found = [name for name in matches if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    else:
        image_size(word)  # raises if it does not exist or is not an image
        return [word]
    if not found:
        raise ValueError(f"{word} contains no image: expected files such as .jpg and .png; check the path")
    return found


def _is_meant(match: Path, pattern: Path) -> bool:
    """Whether a person put a file there, or named in the pattern what systems add, such as `__MACOSX`."""
    return all(is_users(part) for part in match.parts if part not in pattern.parts)


def in_threads(function: Callable[[In], Out], items: Iterable[In], threads: int) -> Iterator[Out]:
    """`map` with a few threads that work ahead, which decodes images while a net is busy with those before.

    Raises:
        What the function raises, in the turn of its item.
    """
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[Out]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
