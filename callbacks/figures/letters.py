"""Letters that matplotlib's font lacks, such as Chinese ones in names of classes, in fonts that have them."""

import functools
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.text import Text

from datamodules.messages import report

PLACEHOLDERS = "Last Resort"  # the name of a font that has every letter, as a box


def choose_fonts(figure: Figure) -> None:
    """Adds to the fonts of each text in a figure those of the letters that they lack.

    Letters that no font has are reported, as they are drawn as boxes.
    """
    for axes in figure.axes:
        if axes.axison:  # the labels of ticks are only made on demand
            axes.get_xticklabels(), axes.get_yticklabels()
    nowhere: set[str] = set()
    for text in figure.findobj(Text):
        letters = {letter for letter in text.get_text() if not letter.isascii() and not letter.isspace()}
        if letters:
            usual = get_font(findfont(text.get_fontproperties()))
            lacking = sorted(letter for letter in letters if not usual.get_char_index(ord(letter)))
            fonts = {letter: font_with(letter) for letter in lacking}
            nowhere |= {letter for letter, font in fonts.items() if font is None}
            further = dict.fromkeys(font for font in fonts.values() if font is not None)
            text.set_fontfamily([*text.get_fontfamily(), *further])
    if nowhere:
        _report_once("".join(sorted(nowhere)))


@contextmanager
def quiet_fonts() -> Iterator[None]:
    """Keeps matplotlib from warning of each letter, and of fonts that come in one weight only."""
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            yield
    finally:
        logger.setLevel(level)


@functools.cache
def font_with(letter: str) -> str | None:
    """The name of an installed font that has a letter; None if there is none."""
    for entry in fontManager.ttflist:
        if not entry.name.startswith(PLACEHOLDERS) and get_font(entry.fname).get_char_index(ord(letter)):
            return entry.name
    return None


@functools.cache
def _report_once(letters: str) -> None:
    report(
        f"no installed font has the letters {letters}: figures show boxes in their place, the report shows them; "
        "install a font for them, such as Noto Sans CJK"
    )
