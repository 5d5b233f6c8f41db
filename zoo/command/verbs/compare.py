"""Compare runs of any recipes on one web page: curves laid over each other, settings that differ, figures, galleries.

    zoo compare fashion_mnist/batch-norm fashion_mnist/group-norm runs/fashion_mnist/layer-norm/TIME

Beside the page it writes the curves as a picture. Runs must have a metric in common. Of a recipe the newest run counts.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=str, metavar="RUN", nargs="+", help="folder of a run, or recipe: its newest run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page; default runs/compare/TIME.html")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from zoo.report.comparison import write_comparison

    page, picture = write_comparison(args.runs, args.out)
    print(f"page     {page}\npicture  {picture}")
    return 0
