"""The splits of a data set, by the names that are in use for them."""

import re
from pathlib import Path

from datamodules.io import is_users

SPLIT_NAMES = {  # in lower case, without what separates words, and without "set", "images" or "data" at the end
    "train": ("train", "training", "trainval", "trn", "tr"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}


def split_named(word: str) -> str | None:
    """The split that a name stands for: "train", "val" or "test".

    >>> [split_named(name) for name in ("valid", "Test_Set", "testify")]
    ['val', 'test', None]
    """
    name = re.sub(r"[\W_]|set$|images$|data$", "", word.lower())
    return next((split for split, names in SPLIT_NAMES.items() if name in names), None)


def split_in(text: str) -> str | None:
    """The split that one of the words of a name stands for, of several the last.

    >>> [split_in(name) for name in ("instances_train2017", "bccd_test", "boxes")]
    ['train', 'test', None]
    """
    words = re.split(r"[\W_\d]+", text)
    return next((split for word in reversed(words) if (split := split_named(word)) is not None), None)


def splits_of(folder: Path) -> dict[str, Path]:
    """The subfolders that are splits, "train", "val" and "test", under the names that are in use for them.

    Raises:
        ValueError: if two subfolders have names of one split, or there are splits and none of them is for training.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        split = split_named(path.name)
        if split is None or not path.is_dir() or not is_users(path.name):
            continue
        if split in found:
            raise ValueError(
                f"{folder} contains {found[split].name} and {path.name}, which both are names for {split}: expected "
                "one; remove the other, or join them"
            )
        found[split] = path
    if len(found) > 1 and "train" not in found:
        names = [path.name for path in found.values()]
        raise ValueError(f"{folder} contains the splits {names} and none for training: expected train; add it")
    return found if "train" in found else {}  # a single folder called "test" may be a class
