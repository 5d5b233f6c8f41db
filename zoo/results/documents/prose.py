"""Sentences out of docstrings and of the comments above recipes, read without importing anything."""

import ast
import re
from pathlib import Path

from zoo.command import recipes

# The end of a sentence: not in "et al. 2016", not before a lower-case word.
END = re.compile(r"(?<!\bal\.)(?<!\bvs\.)(?<=[.?!])\s+(?=[A-Z`(\"])")
# "B batch, C channels, ..." or "B, C, H, W as usual.": which letter stands for which dimension.
LEGEND = re.compile(r"^(?:[B-Z] [a-z]|[B-Z], [A-Z]|[A-Z] batch)")
SOURCE = re.compile(r"\b(?:1[89]|20)\d\d(?:,|:| \()|\bet al\.")  # a reference with its year


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph.

    >>> sentences("From He et al. 2015. Two 3x3 convolutions; nothing follows. It is fast.")
    ['From He et al. 2015.', 'Two 3x3 convolutions; nothing follows.', 'It is fast.']
    """
    return END.split(" ".join(text.split()))


def plain(docstring: str) -> list[str]:
    """The sentences with which a docstring opens: what it describes and what that is for, in words.

    They end where the second paragraph does, or where it is about sources or notation.

    >>> plain("Nets that add. B batch, C channels.\\n\\nThey train well. They are deep.\\n\\nHe et al. 2015, figure 2.")
    ['Nets that add.', 'They train well.', 'They are deep.']
    """
    first, *others = docstring.split("\n\n") or [""]
    second = others[0] if others and not _is_technical(others[0]) else ""
    return [one for part in (first, second) if part for one in sentences(part) if not LEGEND.match(one)]


def _is_technical(paragraph: str) -> bool:
    """Whether a paragraph is about notation or sources, or a section such as arguments or an example."""
    start = paragraph.lstrip()
    return bool(
        LEGEND.match(start) or SOURCE.search(start) or re.match(r"(?:[A-Z]\w+: *\n|Shape:|>>>|\||- )", start)
    ) or paragraph.startswith(" ")


def heading_of(text: list[str]) -> tuple[str, list[str]]:
    """A short heading and the remaining sentences: what precedes a colon in the first, else the first itself.

    >>> heading_of(["CLIP: embeds images and sentences.", "It searches."])
    ('CLIP', ['Embeds images and sentences.', 'It searches.'])
    >>> heading_of(["Vision transformers.", "They need data."])
    ('Vision transformers', ['They need data.'])
    """
    name, colon, rest = text[0].partition(": ")
    if not colon:
        return text[0].rstrip("."), text[1:]
    return name, [rest[:1].upper() + rest[1:], *text[1:]]


def docstring_of(path: Path) -> str:
    """The docstring of a file of Python."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def about(recipe: str) -> str:
    """The first sentence of the comment above a recipe."""
    comment = recipes.header(recipes.find(recipe))
    return sentences(" ".join(comment))[0].rstrip(".") if comment else ""
