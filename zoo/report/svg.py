"""Curves as SVG inside a page: drawn by matplotlib, in the colors of the page, with the values under the pointer.

What is shown under the pointer needs no script: each epoch has an invisible column, and a style sheet shows what is in
the column that the pointer is over.
"""

import io
import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from callbacks.figures.axis import Axis
from callbacks.figures.curves import (
    PARTS_LEFT,
    Curve,
    Parts,
    bars_height,
    draw_bars,
    draw_lines,
    draw_parts,
    epochs_of,
    label_of,
)
from callbacks.figures.letters import quiet_fonts
from callbacks.figures.style import COLORS, GRAY, GRID, add_axes
from zoo.report.render import environment

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
WIDTH, HEIGHT = 4.6, 2.7  # inches of a figure; it is scaled to the width that the page has
MAX_COLUMNS = 120  # under the pointer; of more epochs only some are told
LETTER = 4.6  # points: about the width of a letter of what is told
# A color -> its name in the style sheet, which has another value of it on a dark page.
VARIABLES = {"#000000": "ink", "#ffffff": "card", GRAY.lower(): "muted", GRID.lower(): "grid"} | {
    color.lower(): f"c{number}" for number, color in enumerate(COLORS)
}

ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


class Panel(NamedTuple):
    """A plot and what is written around it.

    svg: the plot.
    label: what the vertical axis shows.
    summary: the plot in words.
    """

    svg: Markup
    label: str
    summary: str


def panel(axis: Axis, curves: Sequence[Curve], over: str, key: str) -> Panel:
    """Draws the curves of a metric.

    Args:
        axis: how it is plotted.
        curves: one for each split or run.
        over: what the values are counted by, "epoch" or "step".
        key: another one for each plot of a page.
    """
    few = epochs_of(curves) < 2
    height = bars_height(curves) + 0.5 if few else HEIGHT
    with _style(key):
        figure = Figure((WIDTH, height))
        axes = add_axes(figure, 0.55, 0.42, WIDTH - 0.65, height - 0.5)
        (draw_bars if few else draw_lines)(axes, curves, axis, over)
        label = (axes.get_xlabel() if few else axes.get_ylabel()).replace(r"\$", "$")
        axes.set(ylabel="", **({"xlabel": ""} if few else {}))
        pointer = "" if few else _columns(axes, curves, axis, over)
        summary = f"{axis.title}, {' '.join(label.split())}: " + "; ".join(label_of(curve, axis) for curve in curves)
        return Panel(_inline(_text(figure), summary, pointer), label, summary)


def parts_panel(parts: Parts, key: str) -> Panel:
    """Draws the last values of the parts of a metric; the arguments are as for `panel`."""
    with _style(key):
        figure = Figure((WIDTH, parts.height + 0.5))
        axes = add_axes(figure, PARTS_LEFT, 0.42, WIDTH - PARTS_LEFT - 1.2, parts.height)
        draw_parts(axes, parts)
        label = axes.get_xlabel().replace(r"\$", "$")
        axes.set_xlabel("")
        told = [f"{name} {', '.join(label_of(curve, axis) for curve in curves)}" for name, axis, curves in parts.rows]
        summary = f"{parts.axis.title}, {label}: {'; '.join(told)}"
        return Panel(_inline(_text(figure), summary, ""), label, summary)


def _style(key: str) -> AbstractContextManager[None]:
    """Every point as it is, text as text, and ids that are the same each time."""
    return matplotlib.rc_context({"path.simplify": False, "svg.fonttype": "none", "svg.hashsalt": key})


def _text(figure: Figure) -> str:
    file = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with quiet_fonts():
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    return file.getvalue()


def variable(color: str) -> str:
    """A color as the style sheet of a page names it."""
    name = VARIABLES.get(color.lower())
    return f"var(--{name})" if name else color


def _inline(text: str, label: str, more: str) -> Markup:
    """A file of matplotlib as an element of a page: no ids but those needed, no fonts, the colors of the page."""
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):  # the style would hold for the complete page
                parent.remove(child)
    used = set(re.findall(r"#([\w-]+)", text))
    for element in root.iter():
        element.tail = None
        element.text = (element.text or "").strip() or None
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        if style := element.get("style"):
            style = re.sub(r"#[0-9a-f]{6}\b", lambda found: variable(found[0]), style)
            element.set("style", re.sub(r"font-family: [^;]*;? ?", "", style))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    for name, value in (("class", "plot"), ("role", "img"), ("aria-label", label)):
        root.set(name, value)
    body = ElementTree.tostring(root, encoding="unicode")
    return Markup(body.removesuffix("</svg>") + more + "</svg>")


def _columns(axes: Axes, curves: Sequence[Curve], axis: Axis, over: str) -> str:
    """For each epoch a column that shows its values while the pointer is over it; lengths in points."""
    scale, height = 72 / axes.figure.dpi, 72 * HEIGHT
    places = sorted({place for curve in curves for place in curve.values})
    if len(places) > MAX_COLUMNS:
        places = sorted({places[round(i * (len(places) - 1) / (MAX_COLUMNS - 1))] for i in range(MAX_COLUMNS)})

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y))
        return across * scale, height - up * scale

    box = axes.bbox
    start, end, top, bottom = box.x0 * scale, box.x1 * scale, height - box.y1 * scale, height - box.y0 * scale
    middles = [at(place, axes.get_ylim()[0])[0] for place in places]
    borders = [start, *((a + b) / 2 for a, b in pairwise(middles)), end]
    columns = []
    for place, x, (left, right) in zip(places, middles, pairwise(borders), strict=True):
        lines: list[dict[str, Any]] = []
        for curve in (curve for curve in curves if place in curve.values):
            value = axis.factor * curve.values[place]
            text = f"{curve.name} {axis.text.format(value)}".strip()
            y = at(place, value)[1] if math.isfinite(value) else None
            lines.append({"text": text, "color": variable(curve.color), "y": y})
        title = f"{over} {place}"
        width = round(LETTER * max(len(title), *(len(line["text"]) for line in lines)) + 18)
        beside = x + 6 if x < (start + end) / 2 else x - 6 - width
        box_left = min(max(beside, 1), 72 * WIDTH - width - 1)
        columns.append(
            {"title": title, "x": x, "start": left, "end": right, "left": box_left, "width": width, "lines": lines}
        )
    template = environment().get_template("pointer.svg.j2")
    return template.render(columns=columns, top=round(top, 1), bottom=round(bottom, 1))
