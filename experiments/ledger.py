"""The ledger of results (`results.csv`), and the tables made from it. Nothing here imports torch.

Only `zoo reproduce` writes rows. Newer rows of the same recipe and seed supersede older ones in the tables.
"""

import csv
import fcntl
import io
import re
import statistics
from pathlib import Path

from datamodules.files import at_once
from experiments import recipes

LEDGER = recipes.ROOT / "results.csv"
COLUMNS = (
    "recipe", "seed", "metric", "value", "best", "target", "met", "seconds", "tflop", "parameters",
    "device", "versions", "commit", "date",
)  # fmt: skip
BEGIN, END = "<!-- results: written by `zoo results` -->", "<!-- end of results -->"


def rows() -> list[dict[str, str]]:
    """All rows, oldest first."""
    if not LEDGER.is_file():
        return []
    with open(LEDGER, newline="") as file:
        return list(csv.DictReader(file))


def append(row: dict) -> None:
    """Adds a row; processes that add at the same time wait for each other.

    Raises:
        ValueError: if the row has other keys than `COLUMNS`.
    """
    if row.keys() != set(COLUMNS):
        raise ValueError(f"a ledger row has the keys {sorted(row)}: expected {sorted(COLUMNS)}")
    with open(LEDGER.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows([*rows(), row])
        with at_once(LEDGER) as file:
            file.write_text(text.getvalue())


def latest(recipe: str) -> list[dict[str, str]]:
    """The newest row of each seed of a recipe, by seed; rows of a net of another size are of an older recipe."""
    own = [row for row in rows() if row["recipe"] == recipe]
    newest = {int(row["seed"]): row for row in own if row["parameters"] == own[-1]["parameters"]}
    return [newest[seed] for seed in sorted(newest)]


def summary(recipe: str) -> dict[str, str]:
    """What a table says of a recipe: its result over all seeds, or empty strings where there is none."""
    expect = recipes.Expect(**recipes.read(recipes.find(recipe))["expect"])
    done = latest(recipe)
    line = {"recipe": recipe, "metric": expect.metric, "target": str(expect), "cost": expect.cost}
    if not done:
        return line | dict.fromkeys(("result", "best", "n", "met", "tflop", "seconds", "parameters", "device"), "")
    values = [float(row["value"]) for row in done]
    mean = statistics.mean(values)
    # A figure is met only by as many seeds as it asks for.
    met = expect.met(mean) and len(values) >= expect.seeds
    return line | {
        "result": f"{mean:.4f}" + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""),
        "best": f"{statistics.mean(float(row['best']) for row in done):.4f}",
        "n": str(len(values)),
        "met": "yes" if met else "no",
        "tflop": f"{statistics.mean(float(row['tflop']) for row in done):.3g}",
        "seconds": f"{statistics.mean(float(row['seconds']) for row in done):.0f}",
        "parameters": f"{int(done[-1]['parameters']):,}".replace(",", " "),
        "device": done[-1]["device"],
    }


def _table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])


def render() -> tuple[str, str]:
    """RESULTS.md (every recipe, every run) and the short table of the README (recipes that have a result)."""
    summaries = [summary(name) for name in recipes.names()]
    columns = ["recipe", "metric", "target", "result", "n", "met", "best", "tflop", "seconds", "parameters", "device"]
    overview = _table(columns, [[line[c] for c in columns] for line in summaries])
    runs = _table(list(COLUMNS), [[row[c] for c in COLUMNS] for row in rows()])
    results = (
        "# Results\n\nWritten by `zoo results` from `experiments/results.csv`, which only `zoo reproduce` writes.\n"
        "`result` is the mean over n seeds, ± the standard deviation, at the last epoch (or over the last epochs,\n"
        "where the recipe says so). `best` is the best epoch on the test set: a second column, chosen by nobody.\n"
        "`tflop` is the work of training as counted by torch (forward, backward and optimiser), `seconds` the time of\n"
        f"`fit` on that device. An empty result has not been measured yet.\n\n{overview}\n\n## Every run\n\n{runs}\n"
    )
    short = ["recipe", "metric", "target", "result", "n", "tflop", "seconds", "parameters"]
    return results, _table(short, [[line[c] for c in short] for line in summaries if line["result"]])


def publish() -> list[Path]:
    """Writes RESULTS.md and the README's table; returns the files.

    Raises:
        ValueError: if the README lacks the two marks between which the table stands.
    """
    root = recipes.ROOT.parent
    results, short = render()
    readme = (root / "README.md").read_text()
    if BEGIN not in readme or END not in readme:
        raise ValueError(f"README.md lacks the marks {BEGIN!r} and {END!r}: the table goes between them; put them back")
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    written = {
        root / "RESULTS.md": results,
        root / "README.md": pattern.sub(lambda _: f"{BEGIN}\n{short}\n{END}", readme),
    }
    for path, text in written.items():
        with at_once(path) as file:
            file.write_text(text)
    return list(written)
