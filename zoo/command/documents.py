"""The documents that are generated: RESULTS.md, and the README's tables of results, commands and studies.

A table of the README stands between two marks, `<!-- NAME: written by `zoo results` -->` and `<!-- end of NAME -->`.
"""

import ast
from collections.abc import Callable
from pathlib import Path

from datamodules.io import atomic_write
from zoo.command import ledger, main, recipes, work

INTRODUCTION = """\
# Results

Written by `zoo results` from `experiments/results.csv`, which only `zoo reproduce` writes; every run, with its
versions, commit and date, is in that file. `result` is the mean over n seeds, ± the standard deviation, at the last
epoch (or over the last epochs, where the recipe says so), `worst` the worst of them. `best` is the best epoch on the
test set, shown for reference and never used for selection. `tflop` is the training work in 10¹² operations as counted
by torch (forward, backward and optimizer), `seconds` the time of `fit` on that device. An empty result has not been
measured yet. The last section shows the values that make a mean, and those that were superseded when the code or the
recipe had changed. What a recipe was tuned on stands in its header, also where that was done after a miss on test.
"""
ALL = ("recipe", "metric", "target", "result", "worst", "n", "met", "best", "tflop", "seconds", "parameters", "device")
WORK = ("recipe", "net", "target", "result", "n", "tflop", "parameters", "samples/s")
RUNS = ("recipe", "seeds that count", "when", "superseded")
SHORT = ("recipe", "metric", "target", "result", "worst", "n", "tflop", "seconds", "parameters")


def table(head: tuple[str, ...], lines: list[dict[str, str]]) -> str:
    """A Markdown table of some columns."""
    rows = [head, ("---",) * len(head), *([line[column] for column in head] for line in lines)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def all_results() -> str:
    """RESULTS.md: all recipes, by shelf."""
    shelves: dict[str, list[dict[str, str]]] = {}
    for name in recipes.names():
        shelves.setdefault(recipes.shelf(name), []).append(ledger.summarize_recipe(name))
    parts = [f"## {shelf.capitalize()}\n\n{table(ALL, lines)}\n" for shelf, lines in sorted(shelves.items())]
    return "\n".join([INTRODUCTION, *parts, f"## Runs\n\n{table(RUNS, runs())}\n"])


def runs() -> list[dict[str, str]]:
    """For each recipe with a result the values of the seeds that count, and of those that do not."""
    lines = []
    for name in recipes.names():
        if counted := ledger.latest(name):
            dates = sorted({row["date"] for row in counted})
            lines.append(
                {
                    "recipe": name,
                    "seeds that count": ", ".join(f"{row['seed']}: {float(row['value']):.4f}" for row in counted),
                    "when": dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}",
                    "superseded": ", ".join(
                        f"{row['seed']}: {float(row['value']):.4f} ({row['date']})" for row in ledger.superseded(name)
                    ),
                }
            )
    return lines


def featured_results() -> str:
    """The recipes that are to be featured and have a result."""
    names = [name for name in recipes.names() if recipes.expectation(name).featured]
    return table(SHORT, [line for line in map(ledger.summarize_recipe, names) if line["result"]])


def work_results() -> str:
    """The recipes that `zoo.command.work` draws, best first."""
    lines = [
        ledger.summarize_recipe(point.recipe) | {"net": point.label}
        for folder in work.folders()
        for point in work.points(folder)
    ]
    return table(WORK, lines)


def commands() -> str:
    lines = [{"command": f"`zoo {name}`", "does": text[0].lower() + text[1:]} for name, text in main.verbs().items()]
    return table(("command", "does"), lines)


def studies() -> str:
    """The first line of each study's docstring, read without importing it."""
    lines = []
    for path in sorted((recipes.ROOT / "studies").glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines.append({"study": f"`{path.stem}`", "shows": docstring.partition("\n")[0].rstrip(".")})
    return table(("study", "shows"), lines)


SECTIONS: dict[str, Callable[[], str]] = {
    "results": featured_results,
    "work": work_results,
    "commands": commands,
    "studies": studies,
}


def marks(section: str) -> tuple[str, str]:
    return f"<!-- {section}: written by `zoo results` -->", f"<!-- end of {section} -->"


def publish() -> list[Path]:
    """Writes RESULTS.md and the tables of the README; returns the files.

    Raises:
        ValueError: if the README lacks one of the marks that enclose the tables.
    """
    root = recipes.ROOT.parent
    readme = (root / "README.md").read_text(encoding="utf-8")
    for section, make in SECTIONS.items():
        begin, end = marks(section)
        if begin not in readme or end not in readme:
            raise ValueError(f"README.md lacks the marks {begin!r} and {end!r} around a table: restore them")
        before, _, rest = readme.partition(begin)
        _, _, after = rest.partition(end)
        readme = f"{before}{begin}\n{make()}\n{end}{after}"
    written = {root / "RESULTS.md": all_results(), root / "README.md": readme}
    for path, text in written.items():
        with atomic_write(path) as file:
            file.write_text(text, encoding="utf-8")
    return list(written)
