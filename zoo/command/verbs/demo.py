"""Train the flagship on Fashion-MNIST and draw curves, mistakes and Grad-CAM.

    zoo demo --trainer.max_epochs 2

Options of the recipe may follow. Where Fashion-MNIST is missing and cannot be downloaded, the demo says so and takes
scikit-learn's digits instead.
"""

import argparse

TAKES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This verb has no arguments of its own."""
