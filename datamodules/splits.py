"""The splits of a data set, by the names that are in use for them."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from datamodules.io import is_users, user_folders
from datamodules.messages import report

SPLIT_NAMES = {  # in lower case, without what separates words
    "train": ("train", "training", "trainval", "trn", "tr"),
    "val": ("val", "vali", "valid", "validate", "validation", "crossvalidation", "cv", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst", "te", "holdout"),
}
FILLERS = {"data", "dataset", "set", "images", "image", "imgs", "img", "split", "folder", "dir", "v"}  # mean nothing


def _parsed(name: str) -> tuple[str | None, tuple[str, ...]]:
    """The split that a name contains, of several the last, and its other words; not digits, nor words like "set".

    >>> [_parsed(name) for name in ("Test_Set", "01_train", "seg_val2", "cross-validation", "testify")]
    [('test', ()), ('train', ()), ('val', ('seg',)), ('val', ()), (None, ('testify',))]
    """
    words = [re.sub(r"(?<=.)(set|images|data)$", "", word) for word in re.findall(r"[^\W\d_]+", name.lower())]
    words = [word for word in words if word not in FILLERS]
    split_of = {word: split for split, names in SPLIT_NAMES.items() for word in names}
    if (joined := "".join(words)) in split_of:
        return split_of[joined], ()
    last = next((i for i in reversed(range(len(words))) if words[i] in split_of), None)
    if last is None:
        return None, tuple(words)
    return split_of[words[last]], (*words[:last], *words[last + 1 :])


def split_named(word: str) -> str | None:
    """The split that a name stands for: "train", "val" or "test".

    >>> [split_named(name) for name in ("valid", "Test_Set", "train2017", "test tube")]
    ['val', 'test', 'train', None]
    """
    split, others = _parsed(word)
    return None if others else split


def split_in(text: str) -> str | None:
    """The split that one of the words of a name stands for, of several the last.

    >>> [split_in(name) for name in ("instances_train2017", "bccd_test", "boxes")]
    ['train', 'test', None]
    """
    return _parsed(text)[0]


def split_in_parts(parts: Sequence[str]) -> str | None:
    """The split after which the last of the parts of a path that contains one is named.

    >>> split_in_parts(["train", "images", "0001"])
    'train'
    """
    return next((split for part in reversed(parts) if (split := split_in(part)) is not None), None)


def splits_of(folder: Path) -> dict[str, Path]:
    """The subfolders that are splits, "train", "val" and "test", under the names that are in use for them.

    These are names such as `valid`, `Test_Set` and `train2017`, or else names that differ only in that word, such as
    `seg_train` and `seg_test`. One line names the other subfolders. A split that holds nothing but a folder of its own
    name, as in many archives, is that one.

    Raises:
        ValueError: if two subfolders have names of one split, if there are splits and none of them is for training, or
            if it is not clear which of them belong together.
    """
    folders = user_folders(folder)
    groups: dict[tuple[str, ...], list[tuple[str, Path]]] = defaultdict(list)  # by the words that name no split
    for path in folders:
        split, others = _parsed(path.name)
        if split is not None:
            groups[others].append((split, path))
    kinds = {others: {split for split, _ in members} for others, members in groups.items()}
    plain = kinds.get((), set())
    if "train" in plain or len(plain) > 1:  # a single folder called "test" may be a class
        found = _one_each(folder, groups[()])
    elif len(complete := [groups[others] for others in kinds if others and kinds[others] > {"train"}]) == 1:
        found = _one_each(folder, complete[0])
    elif complete or (sum(map(len, groups.values())) == len(folders) and {"train"} < set().union(*kinds.values())):
        raise ValueError(
            f"{folder} contains {[path.name for path in folders if split_in(path.name)]}, which look like splits but "
            "do not belong together: expected train, val and test, or names that differ only in these words; rename "
            "them"
        )
    else:
        return {}
    if left := [path.name for path in folders if path not in found.values()]:
        taken = [path.name for path in found.values()]
        report(f"{folder}: the splits are {taken}; not read, as these are not names of other splits: {left}")
    return {split: _inner(path) for split, path in found.items()}


def _one_each(folder: Path, members: list[tuple[str, Path]]) -> dict[str, Path]:
    """The folder of each split, with the errors of `splits_of`."""
    found: dict[str, Path] = {}
    for split, path in members:
        if split in found:
            raise ValueError(
                f"{folder} contains {found[split].name} and {path.name}, which both are names for {split}: expected "
                "one; remove the other, or join them"
            )
        found[split] = path
    if "train" not in found:
        names = [path.name for path in found.values()]
        raise ValueError(f"{folder} contains the splits {names} and none for training: expected train; add it")
    return found


def _inner(folder: Path) -> Path:
    """The folder of the same name in a folder, if it is all that the folder holds."""
    inner = folder / folder.name
    return inner if [path for path in folder.iterdir() if is_users(path.name)] == [inner] and inner.is_dir() else folder
