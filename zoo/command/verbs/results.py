"""Write RESULTS.md, the README's table and the ladder's figure from the ledger.

zoo results
"""

import argparse

from zoo.command import ledger


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from zoo.command import ladder  # draws, and so imports matplotlib

    print(*ledger.publish(), *ladder.publish(), sep="\n")
    return 0
