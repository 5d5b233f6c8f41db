"""What is told to the user: parts that error messages share, and remarks on their data."""

import difflib
import sys
from collections.abc import Iterable


def report(line: str) -> None:
    """Tells the user a line about their data, once, whatever the number of processes."""
    from lightning.pytorch.utilities import rank_zero_only  # here, as messages are also needed where nothing is trained

    rank_zero_only(print)(line, file=sys.stderr)


def measured(value: float) -> str:
    """A measured value in four decimals, or in powers of ten where those would all be zero.

    >>> measured(0.93599999), measured(3e-8), measured(0.0)
    ('0.9360', '3.0e-08', '0.0000')
    """
    return f"{value:.4f}" if abs(value) >= 5e-5 or value == 0 else f"{value:.1e}"


def nearest_names(word: str, known: Iterable[str], otherwise: str = "", cutoff: float = 0.6) -> str:
    """The known names that are most like a misspelled word, as the end of an error message.

    Args:
        word: as given.
        known: all valid names.
        otherwise: the text to return if none is similar.
        cutoff: least similarity, 0 to 1; see `difflib.get_close_matches`.

    >>> nearest_names("Adan", ["SGD", "Adam", "AdamW"])
    'nearest: Adam, AdamW'
    """
    near = difflib.get_close_matches(word, list(dict.fromkeys(known)), 3, cutoff=cutoff)
    return f"nearest: {', '.join(near)}" if near else otherwise
