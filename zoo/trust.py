"""Which classes and functions a file may have imported by naming them: data must not run code.

A checkpoint names the activations, norms and the like that its module is built with, and a recipe names everything.
jsonargparse imports both, and its policy of import paths is set here. It is also applied to what a name leads to: a
name in a trusted package for something that is defined elsewhere, as `os` in a module that imports it, is refused.
"""

import importlib.util
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from jsonargparse import _common, set_parsing_settings

# What a checkpoint may name: what the nets and optimizers of the zoo's systems are made of. Whole packages would hold
# functions that do something when they are called, such as a download.
PARTS = (
    "zoo.parts", "zoo.classification", "zoo.detection", "zoo.generation", "zoo.language", "zoo.multimodal", "torch.nn",
    "torch.optim", "torchvision.ops",
)  # fmt: skip
# What a recipe may name without a question.
PACKAGES = (
    "zoo", "datamodules", "callbacks", "experiments", "lightning", "torch", "torchvision", "torchmetrics",
    "albumentations", "transformers",
)  # fmt: skip
NEVER = ("zoo.command", "zoo.__main__", "zoo.trust", "torch.nn.parallel")  # they run things by their arguments
DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")

own: set[str] = set()  # modules and packages that the user named, by --trust or in Python


def trust(*names: str) -> None:
    """Lets files name classes and functions of these modules or packages from now on.

    Raises:
        ValueError: if one is no dotted name.
    """
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{name!r} is no name of a module: expected one such as my_package or my_package.layers")
        own.add(name)


@contextmanager
def only(allowed: Iterable[str]) -> Iterator[None]:
    """Inside, values that are parsed can only name what is below one of these paths, or was trusted by `trust`.

    Raises:
        jsonargparse's ImportDenied, a ValueError, at the first name that is not allowed, before it is imported.
    """
    settings = _common.parsing_settings
    before = dict(settings)
    try:
        allowlist = sorted({*allowed, *own} - {*NEVER})
        set_parsing_settings(import_path_denylist=["*", *NEVER], import_path_allowlist=allowlist)
        yield
    finally:
        settings.update(before)


def check_names(module: str, arguments: Any, where: str) -> None:
    """Refuses the class of the module that a checkpoint names, unless it is the zoo's or of a trusted package.

    Also refuses what the names in its arguments lead to where trust would not help. All others are checked when the
    module is built, see `only`.

    Raises:
        ValueError: before anything is imported.
    """
    never = tuple(f"{one}." for one in NEVER)
    if found := sorted(name for name in names_in([module, arguments]) if f"{name}.".startswith(never)):
        raise ValueError(
            f"{where} names {found[0]}, which runs things: expected parts of {', '.join(PARTS)}; take another file"
        )
    if not module.startswith(tuple(f"{package}." for package in ("zoo", *own))):
        raise ValueError(
            f"{where} holds a {module}, which is not one of the zoo's systems: expected one, as loading it would run "
            f"its code; if you trust it, add --trust {module.partition('.')[0]}"
        )


def names_in(content: Any) -> set[str]:
    """All dotted names among the strings of nested dicts and lists.

    >>> sorted(names_in({"act": "my.Act", "layers": [{"class_path": "your.Layer"}], "epochs": 3, "title": "a. b"}))
    ['my.Act', 'your.Layer']
    """
    if isinstance(content, str):
        return {content} if DOTTED.fullmatch(content) else set()
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, (list, tuple)) else ()
    return set().union(*map(names_in, parts))


def foreign(names: Iterable[str]) -> list[str]:
    """Those of the names that lead to a module outside of `PACKAGES` that exists, and so are not just file names."""
    found = []
    for name in sorted(names):
        top = name.partition(".")[0]
        if top not in PACKAGES and importlib.util.find_spec(top) is not None:
            found.append(name)
    return found


def denied(error: Exception) -> str | None:
    """The name that an error of jsonargparse says was refused; None if it says something else."""
    found = re.search(r"Importing '([\w.]+)' is not allowed", str(error))
    return found[1] if found else None


def options(settings: Any) -> list[str]:
    """The options of the command, `--trust PACKAGE`, without which it would refuse what these settings name."""
    return [
        f"--trust {package}" for package in sorted({name.partition(".")[0] for name in foreign(names_in(settings))})
    ]
