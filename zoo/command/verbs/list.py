"""List the recipes with their targets and results.

    zoo list --json

A result is the mean over n seeds, from the ledger; without one, the recipe has not been run yet.
"""

import argparse
import json

from zoo.command import recipes
from zoo.results import ledger


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    lines = [describe(name) for name in recipes.names()]
    if args.json:
        print(json.dumps(lines, indent=2))
        return 0
    widths = {key: max(len(key), *(len(line[key]) for line in lines)) for key in lines[0]}
    for line in [{key: key for key in widths}, *lines]:
        print("  ".join(line[key].ljust(width) for key, width in widths.items()).rstrip())
    return 0


def describe(name: str) -> dict[str, str]:
    """What the list shows of a recipe."""
    content, line = recipes.read(recipes.find(name)), ledger.summarize_recipe(name)
    return {
        "recipe": name,
        "module": content["model"]["class_path"].rpartition(".")[2],
        "data": content["data"]["class_path"].rpartition(".")[2],
        "target": f"{line['metric']} {line['target']}",
        "result": line["result"] + (f" (n={line['n']})" if line["n"] else ""),
        "cost": line["cost"],
    }
