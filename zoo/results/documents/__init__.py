"""The documents that are generated: RESULTS.md, and sections of README.md and of the pages in docs.

A section stands between two marks, `<!-- NAME ARGUMENTS: written by `zoo results` -->` and `<!-- end of NAME -->`. Its
name is a key of `SECTIONS`; the arguments, if there are any, are words such as the name of a shelf. What a section says
is read from the ledger, the recipes and the docstrings, without importing what they describe.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from datamodules.io import atomic_write
from datamodules.messages import nearest_names
from zoo.command import recipes
from zoo.results.documents.described import classes, commands, gallery, studies, systems
from zoo.results.documents.measured import (
    all_results,
    featured_results,
    ladders,
    missed,
    ready_models,
    runs,
    some_results,
    sources,
    work_results,
)

__all__ = ["SECTIONS", "fill", "marks", "publish", "runs", "studies", "work_results"]

SECTIONS: dict[str, Callable[..., str]] = {
    "results": featured_results,
    "work": work_results,
    "ladders": ladders,
    "recipes": some_results,
    "sources": sources,
    "missed": missed,
    "ready": ready_models,
    "commands": commands,
    "studies": studies,
    "gallery": gallery,
    "systems": systems,
    "classes": classes,
}
BEGIN = re.compile(r"<!-- ([\w-]+)((?: [^\s:]+)*): written by `zoo results` -->")
LINK = re.compile(r"(?<=\]\()(?!https?:)([\w./-]+)")  # the target of a link to a file of the checkout


def marks(section: str, *arguments: str) -> tuple[str, str]:
    """The lines that enclose a section.

    >>> marks("systems", "detection")
    ('<!-- systems detection: written by `zoo results` -->', '<!-- end of systems -->')
    """
    return f"<!-- {' '.join((section, *arguments))}: written by `zoo results` -->", f"<!-- end of {section} -->"


def fill(text: str, name: str = "README.md") -> tuple[str, set[str]]:
    """A document with its sections written anew.

    Args:
        text: of the document.
        name: its path below the checkout, to which links are relative.

    Returns:
        The text, and the names of the sections in it.

    Raises:
        ValueError: if a section is unknown, or its second mark is missing.
    """
    parts, place, found = [], 0, set[str]()
    while mark := BEGIN.search(text, place):
        section, arguments = mark[1], mark[2].split()
        if section not in SECTIONS:
            raise ValueError(
                f"{name} has the mark of a section {section!r}: expected one of {', '.join(SECTIONS)}; "
                f"{nearest_names(section, list(SECTIONS), 'correct it')}"
            )
        end = text.find(marks(section)[1], mark.end())
        following = BEGIN.search(text, mark.end())
        if end < 0 or (following and following.start() < end):
            raise ValueError(f"{name} has {mark[0]!r} without {marks(section)[1]!r} after it: restore it")
        content = _relative(SECTIONS[section](*arguments), os.path.dirname(name))
        parts += [text[place : mark.end()], "\n", content, "\n"]
        place = end
        found.add(section)
    return "".join([*parts, text[place:]]), found


def _relative(text: str, folder: str) -> str:
    """A text with links to files of the checkout made relative to a folder in it."""
    return LINK.sub(lambda link: os.path.relpath(link[1], folder), text)


def publish() -> list[Path]:
    """Writes RESULTS.md and the sections of README.md and of the pages in docs; returns the files.

    Raises:
        ValueError: if a section is in none of them, or see `fill`; before anything is written.
    """
    root = recipes.ROOT.parent
    written, found = {root / "RESULTS.md": all_results()}, set[str]()
    for path in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        text, sections = fill(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix())
        found |= sections
        if sections:
            written[path] = text
    if lost := [section for section in SECTIONS if section not in found]:
        begin, end = marks(lost[0])
        raise ValueError(f"README.md lacks the marks {begin!r} and {end!r}, and so do the pages in docs: restore them")
    for path, text in written.items():
        with atomic_write(path) as file:
            file.write_text(text, encoding="utf-8")
    return list(written)
