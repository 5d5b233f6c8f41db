"""The same image under two names, which would be in training and in test."""

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from datamodules.messages import report

MIDDLE = 2**12  # bytes


def same_images(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of files with the same content, of two or more; each path counts once.

    Only what has to be read is read: nothing of a file whose size no other has, and of large files first a part.
    """
    of_size: dict[int, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        with suppress(OSError):
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode):
                of_size[status.st_size].append(path)
    found = []
    for size, alike in of_size.items():
        groups = _equal(alike, partial(_middle, size=size))
        found += groups if size <= MIDDLE else [same for group in groups for same in _equal(group, _content)]
    return found


def originals(paths: Iterable[Path]) -> dict[Path, Path]:
    """Each file, in order, with the first that has the same content; one line says how many there are of such.

    Where a data set is divided, an image goes where its original goes: a net would be tested on what it was trained on.
    """
    first_of = {path: path for path in paths}
    groups = same_images(first_of)
    for group in groups:
        first_of.update(dict.fromkeys(group, group[0]))
    if groups:
        first, other = groups[0][:2]
        report(
            f"images that occur more than once: {len(groups)}, such as {first} and {other}; copies stay in one split"
        )
    return first_of


def _equal(paths: list[Path], key: Callable[[Path], bytes]) -> list[list[Path]]:
    """The groups of two or more paths with equal keys."""
    groups: dict[bytes, list[Path]] = defaultdict(list)
    for path in paths if len(paths) > 1 else ():
        groups[key(path)].append(path)
    return [group for group in groups.values() if len(group) > 1]


def _middle(path: Path, size: int) -> bytes:
    """Bytes about the middle of a file, all of a small one; headers are often equal, and borders of one color."""
    file = os.open(
        path, os.O_RDONLY | getattr(os, "O_BINARY", 0)
    )  # thousands of files: `open` takes three times as long
    try:
        os.lseek(file, max(0, (size - MIDDLE) // 2), os.SEEK_SET)
        return hashlib.blake2b(os.read(file, MIDDLE), digest_size=16).digest()
    finally:
        os.close(file)


def _content(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def check_splits(splits: Mapping[str, Iterable[Path]]) -> None:
    """Refuses an image that is in two splits, whatever its name; says how many are twice within one.

    Args:
        splits: the image files of each split.

    Raises:
        ValueError: names both files and splits.
    """
    split_of: dict[Path, str] = {}
    for split, paths in splits.items():
        for path in paths:
            if split_of.setdefault(path, split) != split:
                raise ValueError(_leak(path, path, split_of[path], split))
    groups = same_images(split_of)
    for first, *others in groups:
        for other in others:
            if split_of[first] != split_of[other]:
                raise ValueError(_leak(first, other, split_of[first], split_of[other]))
    if groups:
        first, other = groups[0][:2]
        report(f"images that are in the data more than once: {len(groups)}, such as {first} and {other}")


def _leak(first: Path, other: Path, split: str, another: str) -> str:
    what = f"{first} and {other} are the same image" if first != other else str(first)
    return (
        f"{what}, in {split} and in {another}: expected splits without images in common, as {another} would not test "
        "anything; remove one"
    )
