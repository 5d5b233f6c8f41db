"""The drawing itself: it needs no Lightning, has one style, and writes complete files."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import callbacks.figures
from callbacks.figures import style
from callbacks.figures.animation import write_gif
from callbacks.figures.grids import columns_for, grid

FOLDER = Path(callbacks.figures.__file__).parent
ROOT = FOLDER.parents[1]


def imports_of(file: Path) -> set[str]:
    """The modules that a file imports at its top, and those that these import, as far as they are ours."""
    todo, seen = [file], set()
    while todo:
        for node in ast.parse(todo.pop().read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            new = set(names) - seen
            seen |= new
            todo += [path for name in new if (path := ROOT / f"{name.replace('.', '/')}.py").is_file()]
    return seen


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_only_the_base_of_the_callbacks_knows_lightning(name):
    found = {module.partition(".")[0] for module in imports_of(FOLDER / f"{name}.py")}
    assert ("lightning" in found) == (name == "callback")


def test_axes_and_headings_are_placed_in_inches():
    figure = Figure((8, 4))
    axes = style.add_axes(figure, 1, 2, 4, 1, xlim=(0, 7))
    assert axes.get_position().bounds == pytest.approx((1 / 8, 2 / 4, 4 / 8, 1 / 4))
    assert axes.get_xlim() == (0, 7)
    style.heading(figure, "title", "subtitle", size=9)
    title, subtitle = figure.texts
    assert (title.get_text(), title.get_weight(), subtitle.get_text(), subtitle.get_size()) == (
        "title", "bold", "subtitle", 9,
    )  # fmt: skip
    assert [text.get_position()[0] * 8 for text in figure.texts] == pytest.approx([0.1, 0.1])


def test_plain_axes_have_no_frame_and_faint_lines():
    axes = Figure().add_subplot()
    style.plain_axes(axes, "title")
    assert [axes.spines[side].get_visible() for side in ("top", "right", "left", "bottom")] == [
        False,
        False,
        True,
        True,
    ]
    assert axes.get_title(loc="left") == "title"
    assert axes.yaxis.get_gridlines()[0].get_visible()
    assert not axes.xaxis.get_gridlines()[0].get_visible()


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_images_are_saved_as_they_are(tmp_path, channels, mode):
    image = torch.rand(channels, 5, 7)
    saved = style.pixels(image)
    style.save_image(saved, tmp_path / "new" / "image.png")
    with Image.open(tmp_path / "new" / "image.png") as found:
        assert (found.size, found.mode) == ((7, 5), mode)
        assert np.array_equal(np.asarray(found).reshape(5, 7, channels), saved)
    assert np.array_equal(saved, (image * 255).round().byte().permute(1, 2, 0).numpy())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["image.png"]


def test_long_names_are_shortened():
    assert style.shorten("short") == "short"
    assert style.shorten("a" * 24) == "a" * 24
    assert style.shorten("a" * 25) == "a" * 23 + "…"


def test_grids_of_many_images_are_about_square():
    assert [columns_for(count) for count in (1, 5, 6, 9, 10)] == [1, 5, 3, 3, 4]


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (7, 3), (3, 8)])
def test_grids_hold_every_image_under_its_name(assert_legible, texts_of, count, columns):
    images = [np.full((8, 6 + i, 1 + 2 * (i % 2)), i, np.uint8) for i in range(count)]
    figure = grid(images, [f"name {i}" for i in range(count)], "title", "subtitle", columns)
    assert [int(axes.images[0].get_array().max()) for axes in figure.axes] == list(range(count))
    assert {f"name {i}" for i in range(count)} <= set(texts_of(figure))
    assert_legible(figure)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_animation_has_every_frame(tmp_path, channels):
    write_gif(tmp_path / "a.gif", [np.full((8, 8, channels), 20 * i, np.uint8) for i in range(9)], fps=10)
    with Image.open(tmp_path / "a.gif") as animation:
        assert (animation.n_frames, animation.size, animation.info["loop"]) == (9, (256, 256), 0)
