"""Train and test a recipe, compare the result with its target, and add it to the ledger.

    zoo reproduce mnist/under-8k --seeds 0 1 2 3 4
    zoo reproduce --missing --cost gpu --minutes 60 --data FOLDER

The second form runs all that the ledger lacks, the most wanted first, and starts nothing that does not fit into the
time left; it can be stopped and started again. A training that was interrupted goes on by `--resume RUN`. Options of
the recipe may follow, for a trial; then nothing is added to the ledger. The exit status is 0 if the target is met and 1
if it is missed.
"""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from datamodules.messages import measured

TAKES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=str, nargs="?", metavar="RECIPE", help="name, or path of a YAML file")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0, 1, ..., as many as the recipe expects")
    parser.add_argument("--resume", type=str, metavar="RUN", help="go on with an interrupted run, given by its folder")
    parser.add_argument("--missing", action="store_true", help="run all recipes and seeds that the ledger lacks")
    parser.add_argument(
        "--cost", type=str, choices=("cpu", "gpu"), help="of which recipes; default: what this machine has"
    )
    parser.add_argument("--minutes", type=float, help="start no run that would end later; default: no limit")
    parser.add_argument("--data", type=str, metavar="FOLDER", help="the data folder; default $ZOO_DATA, else data")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    if (args.recipe is None) != args.missing:
        raise ValueError(
            f"{'both a recipe and' if args.missing else 'neither a recipe nor'} --missing is given: expected one of "
            "them; see `zoo reproduce --help`"
        )
    if not args.missing and (args.cost or args.minutes is not None):
        raise ValueError("--cost and --minutes are given without --missing, to which they belong: add it")
    if args.missing and args.seeds:
        raise ValueError(
            f"--seeds is {args.seeds} beside --missing, which runs the seeds that the ledger lacks: leave it out"
        )
    if args.resume is not None and (args.missing or args.seeds or rest):
        other = "--missing" if args.missing else "--seeds" if args.seeds else rest[0]
        raise ValueError(f"--resume is {args.resume} beside {other}: expected a recipe and nothing else; leave it out")
    if args.data is not None:
        if not Path(args.data).is_dir():
            raise ValueError(f"--data is {args.data}, which is no folder: expected the folder that holds the data sets")
        os.environ["ZOO_DATA"] = str(Path(args.data).resolve())
    from zoo.command.actions.reproduce import reproduce, reproduce_missing

    with contextlib.redirect_stdout(sys.stderr):
        if args.missing:
            reports = reproduce_missing(args.cost, minutes=args.minutes, options=rest)
        else:
            reports = [reproduce(args.recipe, seeds=args.seeds, options=rest, resume=args.resume)]
    if args.json:
        print(json.dumps(reports if args.missing else reports[0]))
    else:
        print(*map(verdict, reports), sep="\n")
        if not args.missing:
            where_and_next(reports[0])
    return 0 if all(report["met"] for report in reports) else 1


def where_and_next(report: dict[str, Any]) -> None:
    """Tells where the pages on the runs are, and a command that uses what was trained."""
    from zoo.report.page import NAME
    from zoo.report.summary import say, say_where

    for folder in map(Path, report["folders"].values()):
        page = folder / NAME
        say_where(folder, page if page.is_file() else None)
    say("next", report["next"])


def verdict(report: dict[str, Any]) -> str:
    """A line on a recipe that was run: its mean, the values of the seeds, and whether its target is met."""
    if "error" in report:
        return f"{report['recipe']}: failed: {report['error']}"
    values = ", ".join(map(measured, report["values"].values()))
    met = "met" if report["met"] else "missed"
    return f"{report['recipe']}: {report['metric']} {measured(report['mean'])} ({values}); {met}: {report['target']:g}"
