"""Templates -> a page in one file: style and script inside, nothing loaded, and nothing but this script runs."""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from datamodules.io import atomic_write


@cache
def environment() -> Environment:
    """The templates, in which every value is escaped."""
    made = Environment(
        loader=PackageLoader("zoo.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["thousands"] = lambda number: f"{number:,}".replace(",", "\u202f")
    made.filters["code"] = marked_code
    made.filters["percent"] = lambda share, digits=1: f"{100 * share:.{digits}f} %"
    return made


def marked_code(text: str) -> Markup:
    """Text in which what stands between back quotes is code.

    >>> print(marked_code("`zoo demo` & <more>"))
    <code>zoo demo</code> &amp; &lt;more&gt;
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def render(template: str, **content: Any) -> str:
    """A page.

    A policy in it forbids the browser to load anything and to run any script but the page's own: a class that is called
    like an HTML element does no harm even if a template should forget to escape it.

    Args:
        template: name of the file.
        content: what the template reads.
    """
    style, script = (files("zoo.report").joinpath("templates", name).read_text() for name in ("page.css", "page.js"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    return environment().get_template(template).render(style=style, script=script, policy=policy, **content)


def write_page(path: Path, page: str) -> None:
    """Writes a page."""
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
