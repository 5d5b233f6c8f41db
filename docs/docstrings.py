"""How docstrings become Markdown for the API reference: an extension of griffe, which reads the source.

Docstrings are written to be read as they are: examples stand among the text, shapes in a line of their own, fields of a
record one below the other. Here they get the marks that Markdown wants for that.
"""

import re
from typing import Any

import griffe

FIELD = re.compile(r"[a-z_`][\w, `]*: ")


def as_markdown(text: str) -> str:
    """A docstring with its examples, shapes and lists of fields marked as such.

    >>> as_markdown("Adds.\\n\\nShape: (B, C) -> (B,).\\n\\n>>> 2**2\\n4")
    'Adds.\\n\\n**Shape:** (B, C) -> (B,).\\n\\n```pycon\\n>>> 2**2\\n4\\n```'
    """
    return "\n\n".join(_paragraph(part) for part in re.split(r"\n{2,}", text))


def _paragraph(part: str) -> str:
    if part.startswith(">>>"):
        return f"```pycon\n{part}\n```"
    if part.startswith("    "):  # a block of code, as Markdown has it
        return part
    part = re.sub(r"(?<=\w)\*\*(?=\w)", r"\\*\\*", part)
    part = re.sub(r"\AShape: ", "**Shape:** ", part)
    lines = part.split("\n")
    if len(lines) > 1 and all(FIELD.match(line) or line.startswith(" ") for line in lines):
        return "\n".join(line if line.startswith(" ") else f"- {line}" for line in lines)
    return part


class PlainDocstrings(griffe.Extension):
    """Applies `as_markdown` to every docstring."""

    def on_object(self, *, obj: griffe.Object, **options: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
