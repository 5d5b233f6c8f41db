"""Continue a text with a trained language model, token by token.

    zoo generate language/gpt-char-cpu --prompt "JULIET:" --temperature 0.7

The text appears as it is generated. Of a recipe the newest run counts, else the model that comes with the package.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=str, metavar="MODEL", help="recipe, RECIPE@ready, folder of a run, or file")
    parser.add_argument("--prompt", type=str, default="\n", help="what the text begins with")
    parser.add_argument("--tokens", type=int, default=500, help="how many to generate")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the most likely token")
    parser.add_argument("--top_k", type=int, default=40, help="sample from the k most likely tokens; 0 from all")
    parser.add_argument(
        "--top_p", type=float, default=1.0, help="nucleus sampling: from the smallest set with this total probability"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sampling")
