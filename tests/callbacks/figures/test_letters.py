"""Letters that matplotlib's own font lacks are drawn in other fonts, or told in one line."""

import warnings

import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from callbacks.figures import letters
from callbacks.figures.style import save_figure


@pytest.fixture
def foreign() -> str:
    """A letter of a font that comes with matplotlib, which its usual one lacks."""
    usual, other = (get_font(findfont(name)).get_charmap() for name in ("DejaVu Sans", "STIXGeneral"))
    return next(chr(code) for code in sorted(other.keys() - usual.keys()) if chr(code).isprintable())


@pytest.fixture
def unknown(monkeypatch) -> str:
    """A letter that no font has."""
    letters.font_with.cache_clear()
    own = [font for font in letters.fontManager.ttflist if font.name.startswith(("DejaVu", letters.PLACEHOLDERS))]
    monkeypatch.setattr(letters.fontManager, "ttflist", own)
    yield "\U0001fffe"
    letters.font_with.cache_clear()


def named(name: str) -> Figure:
    """A figure with a name in its title, as a tick's label, in a legend, and alone."""
    figure = Figure()
    axes = figure.add_subplot()
    axes.plot([0, 1], label=name)
    axes.set_yticks([0, 1], [name, "plain"])
    axes.legend(loc="upper left")
    figure.text(0.5, 0.5, name)
    axes.set_title(name)
    return figure


def test_letters_are_drawn_in_a_font_that_has_them(foreign, tmp_path, capsys):
    figure = named(f"cat {foreign}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        letters.choose_fonts(figure)
        figure.savefig(tmp_path / "figure.png")  # which warns of letters without a font
    assert capsys.readouterr().err == ""


def test_texts_of_usual_letters_keep_their_fonts():
    figure = named("Kätzchen, 7 µm")
    before = [text.get_fontfamily() for text in figure.axes[0].get_yticklabels()]
    letters.choose_fonts(figure)
    assert [text.get_fontfamily() for text in figure.axes[0].get_yticklabels()] == before


def test_letters_that_no_font_has_are_told_once(unknown, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for file in ("first.png", "second.png"):
            save_figure(named(unknown), tmp_path / file)
    assert (tmp_path / "second.png").is_file()
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert unknown in told
