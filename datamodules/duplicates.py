"""The same image under two names, which would be in training and in test."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from datamodules.messages import report


def same_images(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of files with the same content, of two or more; each path counts once.

    Only files of equal size are read.
    """
    of_size: dict[int, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        if path.is_file():
            of_size[path.stat().st_size].append(path)
    of_content: dict[bytes, list[Path]] = defaultdict(list)
    for alike in of_size.values():
        for path in alike if len(alike) > 1 else ():
            of_content[hashlib.blake2b(path.read_bytes()).digest()].append(path)
    return [group for group in of_content.values() if len(group) > 1]


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
        report(f"{len(groups)} images are in the data more than once, such as {first} and {other}")


def _leak(first: Path, other: Path, split: str, another: str) -> str:
    what = f"{first} and {other} are the same image" if first != other else str(first)
    return (
        f"{what}, in {split} and in {another}: expected splits without images in common, as {another} would not test "
        "anything; remove one"
    )
