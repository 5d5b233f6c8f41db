"""Fill the masked places of a text with a trained masked language model.

    zoo fill language/bert-mini "to be or [MASK] to be"

Each [MASK] stands for one token; several in a row for several. Prints the text with the most likely tokens, and for
each place the best ones with their probabilities. A place is filled without regard to what the others are filled with.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=str, metavar="MODEL", help="recipe, RECIPE@ready, folder of a run, or file")
    parser.add_argument("text", type=str, metavar="TEXT", help="with [MASK] where a token is to be filled in")
    parser.add_argument("--top", type=int, default=5, help="tokens to show for each place")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
