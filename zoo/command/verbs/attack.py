"""Attack a trained classifier with adversarial images of its test set.

    zoo attack fashion_mnist/one-cycle --epsilon 8/255 --targets least-likely --limit 1000

Reports the accuracy on the images as they are and after the fast gradient sign method, and how often six targeted steps
make the network see the class aimed at. Draws some images, what was added to them, and the results. Options of the
recipe may follow, such as --data.data_dir.
"""

import argparse
from pathlib import Path

TAKES_OPTIONS = True
LEAST_LIKELY = "least-likely"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=str,
        metavar="RUN_OR_RECIPE",
        help="run folder or checkpoint; or recipe: its newest run, or ready model",
    )
    parser.add_argument(
        "--targets", type=str, default=LEAST_LIKELY,
        help="the class to aim at: least-likely (for each image, by the network), random (another than the true one), "
        "or the name or number of a class",
    )  # fmt: skip
    parser.add_argument("--epsilon", type=str, default="8/255", help="largest change of a pixel, of images in 0..1")
    parser.add_argument("--steps", type=int, default=6, help="of the targeted attack")
    parser.add_argument("--limit", type=int, help="attack so many images of the test set; default all")
    parser.add_argument("--n", type=int, default=10, help="images to draw, the first of the test set")
    parser.add_argument("--seed", type=int, default=0, help="of random targets")
    parser.add_argument("--out", type=Path, help="file of the figure; default pictures/attack.png in the run folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
