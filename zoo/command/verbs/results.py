"""Write RESULTS.md, the README's table and the figures of the ladders from the ledger.

    zoo results

The files are in the folder that holds `experiments`.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This verb has no arguments."""


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from zoo.command import documents, ladder  # draws, and so imports matplotlib

    print(*documents.publish(), *ladder.publish(), sep="\n")
    return 0
