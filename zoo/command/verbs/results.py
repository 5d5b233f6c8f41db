"""Write RESULTS.md, the README's table and the figures of ladders and work from the ledger.

    zoo results

The files are in the folder that holds `experiments`.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This verb has no arguments."""


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from zoo.results import documents, ladder, work  # they draw, and so import matplotlib

    print(*documents.publish(), *ladder.publish(), *work.publish(), sep="\n")
    return 0
