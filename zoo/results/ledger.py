"""The ledger of results, `experiments/results.csv`. Nothing in here imports torch.

Only `zoo reproduce` adds rows. In summaries a newer row of the same recipe and seed supersedes an older one.
"""

import csv
import io
import re
import statistics
from pathlib import Path
from typing import Any

from filelock import FileLock

from datamodules.messages import measured
from zoo.command import recipes

LEDGER = recipes.ROOT / "results.csv"
COLUMNS = (
    "recipe", "seed", "metric", "value", "best", "target", "met", "seconds", "tflop", "parameters",
    "device", "versions", "commit", "date", "samples", "cpu_seconds", "train", "val",
)  # fmt: skip


def rows() -> list[dict[str, str]]:
    """All rows, oldest first."""
    if not LEDGER.is_file():
        return []
    with open(LEDGER, newline="") as file:
        return [dict.fromkeys(COLUMNS, "") | row for row in csv.DictReader(file)]  # old files lack the last columns


def append(row: dict[str, Any]) -> None:
    """Adds a row. Processes that add rows at the same time wait for each other.

    Raises:
        ValueError: if the row has other keys than `COLUMNS`.
    """
    if row.keys() != set(COLUMNS):
        raise ValueError(f"a ledger row has the keys {sorted(row)}: expected {sorted(COLUMNS)}")
    with FileLock(LEDGER.with_suffix(".lock")):
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows([*rows(), row])
        _write(LEDGER, text.getvalue())


def _write(path: Path, text: str) -> None:
    from datamodules.io import atomic_write  # imports numpy, which reading the ledger does without

    with atomic_write(path) as file:
        file.write_text(text)


def latest(recipe: str) -> list[dict[str, str]]:
    """The newest row of each seed of a recipe, by seed, without rows of a net of another size: an older recipe's."""
    own = [row for row in rows() if row["recipe"] == recipe]
    newest = {int(row["seed"]): row for row in own if row["parameters"] == own[-1]["parameters"]}
    return [newest[seed] for seed in sorted(newest)]


def superseded(recipe: str) -> list[dict[str, str]]:
    """The rows of a recipe that no longer count, oldest first: of seeds that were run again, or of another net."""
    counted = latest(recipe)
    return [row for row in rows() if row["recipe"] == recipe and row not in counted]


def summarize_recipe(recipe: str) -> dict[str, str]:
    """A line of the tables: target and result of a recipe over all seeds; without a result, empty strings."""
    expect = recipes.expectation(recipe)
    done = latest(recipe)
    line = {"recipe": recipe, "metric": expect.metric, "target": str(expect), "cost": expect.cost}
    if not done:
        return line | dict.fromkeys(
            ("result", "worst", "best", "n", "met", "tflop", "seconds", "parameters", "device"), ""
        )
    values = [float(row["value"]) for row in done]
    mean = statistics.mean(values)
    # A target is met only by as many seeds as the recipe expects.
    met = expect.met(mean) and len(values) >= expect.seeds
    device = done[-1]["device"]
    return line | {
        "result": measured(mean) + (f" ± {measured(statistics.stdev(values))}" if len(values) > 1 else ""),
        "worst": measured(expect.worst(values)) if len(values) > 1 else "",
        "best": measured(statistics.mean(float(row["best"]) for row in done)),
        "n": str(len(values)),
        "met": "yes" if met else "no",
        "tflop": f"{statistics.mean(float(row['tflop']) for row in done):.3g}",
        "seconds": f"{statistics.mean(float(row['seconds']) for row in done if row['device'] == device):.0f}",
        "parameters": f"{int(done[-1]['parameters']):,}".replace(",", " "),
        "device": device,
    }


def rate(recipe: str, device: str) -> str:
    """Samples a second of a recipe's training on a device; an empty string if no row of it says how many it took.

    Where a row has them, by the seconds of processor time, a thread: other work on the machine does not change those.
    """
    counted = [row for row in latest(recipe) if row["device"] == device and row["samples"]]
    seconds = sum(_busy_seconds(row) for row in counted)
    return f"{sum(int(row['samples']) for row in counted) / seconds:.0f}" if seconds else ""


def _busy_seconds(row: dict[str, str]) -> float:
    threads = re.search(r"(\d+) thread\(s\)", row["device"])
    return float(row["cpu_seconds"]) / int(threads[1]) if row["cpu_seconds"] and threads else float(row["seconds"])
