"""Tables of what was measured, from the ledger and from the files of ready models."""

import math
from fnmatch import fnmatchcase

from datamodules.messages import measured
from zoo.command import recipes
from zoo.inference import ready
from zoo.results import ladder, ledger, work
from zoo.results.documents.prose import about

INTRODUCTION = """\
# Results

Written by `zoo results` from `experiments/results.csv`, which only `zoo reproduce` writes; every run, with its
versions, commit and date, is in that file. `result` is the mean over n seeds, ± the standard deviation, at the last
epoch (or over the last epochs, where the recipe says so), `worst` the worst of them. `best` is the best epoch on the
test set, shown for reference and never used for selection. `tflop` is the training work in 10¹² operations as counted
by torch (forward, backward and optimizer), `seconds` the time of `fit` on that device. An empty result has not been
measured yet. The last section shows the values that make a mean, and those that were superseded: by a run of the same
recipe with newer code, or, where it says "changed since", with another net or another length of training. What a recipe
was tuned on stands in its header, also that it was changed after a miss on test.
"""
ALL = ("recipe", "metric", "target", "result", "worst", "n", "met", "best", "tflop", "seconds", "parameters", "device")
WORK = ("recipe", "net", "target", "result", "n", "tflop", "parameters", "samples/s")
SAME_WORK = 0.01  # relative difference up to which two trainings are of the same work
RUNS = ("recipe", "seeds that count", "when", "superseded")
SHORT = ("recipe", "metric", "target", "result", "worst", "n", "tflop", "seconds", "parameters")
SOME = ("recipe", "what it is", "target", "result", "tflop")
SOURCES = ("recipe", "parameters", "target", "result", "worst", "n", "where the target is from")
MISSED = ("recipe", "target then", "values", "when", "target now", "result now")
READY = ("model", "what", "reaches", "size", "data", "license of the data")


def table(head: tuple[str, ...], lines: list[dict[str, str]]) -> str:
    """A Markdown table of some columns; a bar in a cell is written so that it ends none."""
    rows = [head, ("---",) * len(head), *([line[column].replace("|", "\\|") for column in head] for line in lines)]
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
                    "seeds that count": ", ".join(f"{row['seed']}: {measured(float(row['value']))}" for row in counted),
                    "when": dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}",
                    "superseded": ", ".join(_superseded(row, counted[0]) for row in ledger.superseded(name)),
                }
            )
    return lines


def _superseded(row: dict[str, str], now: dict[str, str]) -> str:
    """A result that no longer counts, whether it was a miss, and whether the system has changed since."""
    missed = ["missed"] if row["met"] == "False" else []
    same_work = math.isclose(float(row["tflop"]), float(now["tflop"]), rel_tol=SAME_WORK)
    changed = [] if same_work and row["parameters"] == now["parameters"] else ["changed since"]
    return f"{row['seed']}: {measured(float(row['value']))} ({', '.join([row['date'], *missed, *changed])})"


def featured_results() -> str:
    """The recipes that are to be featured and have a result."""
    names = [name for name in recipes.names() if recipes.expectation(name).featured]
    return table(SHORT, [line for line in map(ledger.summarize_recipe, names) if line["result"]])


def work_results() -> str:
    """The recipes that `zoo.results.work` draws, best first."""
    lines = [
        ledger.summarize_recipe(point.recipe) | {"net": point.label, "samples/s": point.speed}
        for folder in work.folders()
        for point in work.points(folder)
    ]
    return table(WORK, lines)


def ladders() -> str:
    """The figures of the ladders, see `zoo.results.ladder`."""
    folders = sorted({name.partition("/")[0] for name in recipes.names()})
    return "\n\n".join(
        f"![Test accuracy of each step of the ladder of {folder}, with its target](docs/ladder_{folder}.png)"
        for folder in folders
        if ladder.rungs(folder)
    )


def some_results(*patterns: str) -> str:
    """The recipes whose names match one of some patterns, such as `cifar10/augment-*`, in this order."""
    found = dict.fromkeys(name for pattern in patterns for name in recipes.names() if fnmatchcase(name, pattern))
    return recipe_table(list(found))


def sources(*names: str) -> str:
    """Recipes with their parameters, results and where their targets are from, such as what others report."""
    lines = []
    for name in names:
        line = ledger.summarize_recipe(name)
        lines.append(line | {"recipe": recipe_link(name), SOURCES[-1]: recipes.expectation(name).source})
    return table(SOURCES, lines)


def recipe_table(names: list[str]) -> str:
    """Recipes with what they are, their target and their result."""
    return table(SOME, [recipe_line(name) for name in names])


def recipe_line(name: str) -> dict[str, str]:
    """A line of `recipe_table`; a recipe without `expect`, such as one for the user's own data, has no numbers."""
    line = {"recipe": recipe_link(name), "what it is": about(name), "target": "", "result": "", "tflop": ""}
    if not has_target(name):
        return line
    measured = ledger.summarize_recipe(name)
    result = measured["result"] + (f", n = {measured['n']}" if measured["n"] not in ("", "1") else "")
    pending = "not run yet" + (" (GPU)" if measured["cost"] == "gpu" else "")
    target = f"{measured['metric']} {measured['target']}"
    return line | {"target": target, "result": result or pending, "tflop": measured["tflop"]}


def has_target(name: str) -> bool:
    """Whether a recipe says what it must reach."""
    return "expect" in recipes.read(recipes.find(name))


def recipe_link(name: str) -> str:
    """The name of a recipe as a link to its file, below the checkout."""
    return f"[{name}](experiments/{name}.yaml)"


def missed() -> str:
    """Every result of the ledger that was short of the target of its day, with what the recipe reaches now.

    A line has the results of one commit and day, as the recipe may have changed between two.
    """
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    known = recipes.names()
    for row in ledger.rows():
        if row["met"] == "False":
            groups.setdefault((row["recipe"], row["target"], row["date"], row["commit"]), []).append(row)
    lines = []
    for (name, target, date, _), rows in sorted(groups.items(), key=lambda group: group[0][:3]):  # commits as they came
        now = ledger.summarize_recipe(name) if name in known else {"target": "", "result": "the recipe is gone"}
        lines.append(
            {
                "recipe": recipe_link(name) if name in known else name,
                "target then": f"{rows[0]['metric']} {float(target):g}",
                "values": ", ".join(measured(float(row["value"])) for row in rows),
                "when": date,
                "target now": now["target"],
                "result now": now["result"],
            }
        )
    return table(MISSED, lines)


def ready_models() -> str:
    """The ready models of the package, from the cards in their files."""
    lines = []
    for name in ready.names():
        try:
            card = ready.read_card(ready.path_of(name))
        except ValueError:
            continue  # weights of another kind, such as those of `zoo grow`
        lines.append(
            {
                "model": f"`{name}`",
                "what": card.description or card.module.rpartition(".")[2],
                "reaches": card.reached,
                "size": f"{ready.path_of(name).stat().st_size / 1000:.0f} kB",
                "data": card.dataset.rpartition(".")[2],
                "license of the data": card.license,
            }
        )
    return table(READY, lines)
