"""Make the notebooks out of their scripts.

    python -m experiments.notebooks.convert

A script has cells: `# %% [markdown]` begins one of text, in lines that start with `# `, and `# %%` one of code. The
notebook, NAME.ipynb next to NAME.py, holds the same cells without results; change the script, not the notebook.
"""

import re
from pathlib import Path
from typing import NamedTuple

from datamodules.io import atomic_write

FOLDER = Path(__file__).parent
SCRIPTS = ("quickstart.py",)
CELL = re.compile(r"(?m)^# %%(.*)\n")


class Cell(NamedTuple):
    """A part of a notebook: "markdown" or "code", and its text."""

    kind: str
    source: str


def cells(script: str) -> list[Cell]:
    """The cells of a script; what comes before the first belongs to none.

    >>> cells("# %% [markdown]\\n# # Sums\\n#\\n# Easy.\\n\\n# %%\\nprint(1 + 1)\\n")
    [Cell(kind='markdown', source='# Sums\\n\\nEasy.'), Cell(kind='code', source='print(1 + 1)')]
    """
    _, *parts = CELL.split(script)
    found = []
    for mark, text in zip(parts[::2], parts[1::2], strict=True):
        is_text = "markdown" in mark
        source = re.sub(r"(?m)^# ?", "", text) if is_text else text
        found.append(Cell("markdown" if is_text else "code", source.strip()))
    return found


def convert(script: Path) -> Path:
    """Writes the notebook of a script next to it."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    made = [
        (new_code_cell if cell.kind == "code" else new_markdown_cell)(cell.source, id=f"cell-{number}")
        for number, cell in enumerate(cells(script.read_text(encoding="utf-8")))
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = new_notebook(cells=made, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    nbformat.validate(notebook)
    path = script.with_suffix(".ipynb")
    with atomic_write(path) as file:
        nbformat.write(notebook, file)
    return path


if __name__ == "__main__":
    for name in SCRIPTS:
        print(convert(FOLDER / name))
