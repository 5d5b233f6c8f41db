"""Short scripts, each with one question, one figure and one table.

    python -m experiments.studies.NAME [FOLDER]

writes NAME.png and NAME.csv into the folder (default `runs/studies`) and prints the table.
"""

import argparse
import csv
import functools
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from callbacks.figures.style import heading, plain_axes, save_figure
from datamodules.images.digits import Digits
from datamodules.io import atomic_write
from datamodules.loader import InMemory

Row = dict[str, str | int | float | None]  # a line of a table; None is an empty cell


def run(main: Callable[[Path], None], doc: str | None) -> None:
    """The command of a study: calls `main` with the folder; `doc`, the docstring of the study, is the help."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/studies"))
    main(parser.parse_args().folder)


def panels(
    title: str, rows: int, columns: int, size: tuple[float, float], titles: Iterable[str] = ()
) -> tuple[Figure, list[Axes]]:
    """A figure of `size` (inches) with a heading, and its axes, row by row, with titles."""
    figure = Figure(size, layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - 0.45 / size[1])))
    heading(figure, title)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for place in axes:
        plain_axes(place, grid=False)
    for place, text in zip(axes, titles, strict=False):
        place.set_title(text, loc="left", size=11)
    return figure, axes


def publish(folder: Path, name: str, figure: Figure, rows: list[Row]) -> None:
    """Writes `name`.png and `name`.csv into `folder`, and prints the table.

    Args:
        folder: created if it does not exist.
        name: of the study.
        figure: its figure.
        rows: lines of the table, all with the same keys.

    Raises:
        ValueError: if a line has other columns than the first, before anything is written.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    save_figure(figure, folder / f"{name}.png")
    with atomic_write(folder / f"{name}.csv") as file:
        file.write_text(text.getvalue())
    print(aligned(rows))


def aligned(rows: list[Row]) -> str:
    """A table as text, with numbers to four digits.

    >>> print(aligned([{"beta": 0.5, "name": "short"}, {"beta": 2 / 3, "name": None}]))
    beta    name
    0.5     short
    0.6667
    """
    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


@functools.cache
def digits(split: str) -> tuple[Tensor, Tensor]:
    """scikit-learn's digits: images (N, 1, 8, 8), normalized, and labels (N,) of "train" (1437) or "test"."""
    data = cast(InMemory, Digits(val_size=0).make_datasets()[split])
    return (data.images / 255 - Digits.mean[0]) / Digits.std[0], data.labels
