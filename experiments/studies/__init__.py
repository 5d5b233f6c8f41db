"""Short scripts, each with one question, one figure and one table.

    python -m experiments.studies.NAME [FOLDER]

writes NAME.png and NAME.csv into the folder (`runs/studies` unless given) and prints the table.
"""

import argparse
import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from callbacks.figures.style import save_figure
from datamodules.io import atomic_write


def run(main: Callable[[Path], None], doc: str) -> None:
    """The command of a study: calls `main` with the folder given, and shows `doc`, the study's docstring, as help."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/studies"))
    main(parser.parse_args().folder)


def panels(
    title: str, rows: int, columns: int, size: tuple[float, float], titles: Sequence[str] = ()
) -> tuple[Figure, list[Axes]]:
    """A figure of size (inches) under a bold title, and its axes, row by row."""
    figure = Figure(size, facecolor="white", layout="constrained")
    figure.suptitle(title, size=13, weight="bold")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for place in axes:
        place.spines[["top", "right"]].set_visible(False)
    for place, text in zip(axes, titles, strict=False):
        place.set_title(text, size=10.5)
    return figure, axes


def publish(folder: Path, name: str, figure: Figure, rows: list[dict]) -> None:
    """Writes `name`.png and `name`.csv into `folder`, and prints the table.

    Args:
        folder: made if it isn't there.
        rows: lines of the table, all with the same keys; None stands for an empty cell.

    Raises:
        ValueError: if a line has other columns than the first, before anything is written.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    save_figure(figure, folder / f"{name}.png")
    with atomic_write(folder / f"{name}.csv") as file:
        file.write_text(text.getvalue())
    print(aligned(rows))


def aligned(rows: list[dict]) -> str:
    """A table as text, numbers to four digits.

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
