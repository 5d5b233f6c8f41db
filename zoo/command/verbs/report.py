"""Write a web page on a run, in one file: curves, confusions, mistakes, pictures and settings.

    zoo report runs/fashion_mnist/flagship/TIME

`zoo fit` and `zoo test` write it into the run folder by themselves, as report.html. The page loads nothing from
anywhere and can be sent as it is. A run that still goes on, or was interrupted, has a page, too.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=str, metavar="RUN", help="folder of a run, or recipe: its newest run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page; default report.html in the run folder")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from zoo.report.page import write_report
    from zoo.report.run import find_run

    print(write_report(find_run(args.run), args.out))
    return 0
