"""What MkDocs calls while it builds the site: pages that are made of files elsewhere in the checkout, and their links.

- README.md, RESULTS.md, CHANGELOG.md, CONTRIBUTING.md and LICENSE become pages;
- each folder of recipes becomes a page with the recipes as they are, the script of each notebook one with its cells;
- each module of the packages becomes a page of the API reference, which mkdocstrings fills from the source;
- links to files of the checkout, which work where the files are read as they are, lead to these pages;
- no line ends within a number.

Nothing of the packages is imported.
"""

import ast
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGES = ("zoo", "datamodules", "callbacks")
LEFT_OUT = ("zoo/command/verbs",)  # a verb is described by its help
AT_ROOT = {
    "README.md": "index.md",
    "RESULTS.md": "results.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.md",
}
WIDE = dict.fromkeys(("index.md", "results.md"), "---\nhide: [navigation]\n---\n\n")  # leaves room for wide tables
LINK = re.compile(r"(?<=\]\()([^()\s#:]+)(#[^()\s]*)?(?=\))")
FENCE = re.compile(r"(?ms)^( *)(```|~~~).*?^\1\2 *$")
CODE_OR_TAG = re.compile(r"(?s)(<pre\b.*?</pre>|<code\b.*?</code>|<[^>]*>)")
NUMBER = re.compile(  # a date, powers of ten, an uncertainty, groups of three digits, an inequality, a count of seeds
    r"\d{4}-\d\d-\d\d|(?:&[gl]t;= )?(?:\d[\d.]*e-\d+|\d[\d.]* ± [\d.]*\d|\d{1,3}(?: \d{3})+\b)"
    r"|(?:&[gl]t;|\bn )= [\d.]*\d"
)


def modules() -> list[Path]:
    """The public modules below the checkout, packages first within their folder."""
    found = []
    for package in PACKAGES:
        for path in sorted(
            (ROOT / package).rglob("*.py"), key=lambda path: (path.parent, path.stem != "__init__", path)
        ):
            relative = path.relative_to(ROOT)
            is_public = path.stem == "__init__" or not path.stem.startswith("_")
            if is_public and not relative.as_posix().startswith(LEFT_OUT):
                found.append(relative)
    return found


def recipe_folders() -> dict[str, list[Path]]:
    """The recipes by folder, below the checkout."""
    folders: dict[str, list[Path]] = {}
    for path in sorted((ROOT / "experiments").glob("*/[!_]*.yaml"), key=lambda path: (path.parent, path.stem)):
        if "\nmodel:" in path.read_text(encoding="utf-8"):
            folders.setdefault(path.parent.name, []).append(path.relative_to(ROOT))
    return folders


def reference_page(module: Path) -> str:
    """Where the page of a module is."""
    page = module.parent / "index.md" if module.stem == "__init__" else module.with_suffix(".md")
    return f"reference/{page.as_posix()}"


def target_of(path: str) -> str | None:
    """The page on which a file or folder of the checkout is shown; None if it is on none."""
    name = PurePosixPath(path)
    if path in AT_ROOT:
        return AT_ROOT[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if name.parts[:1] == ("experiments",) and name.suffix == ".yaml":
        return f"recipes/{name.parts[1]}.md#{name.stem}"
    if name.parts[:2] == ("experiments", "studies") and name.suffix == ".py":
        return f"studies.md#{name.stem}"
    if name.parts[:2] == ("experiments", "notebooks") and name.suffix == ".ipynb":
        return f"{name.stem}.md"
    if name.parts[0] in PACKAGES and not path.startswith(LEFT_OUT):
        module = Path(path) if name.suffix == ".py" else Path(path, "__init__.py")
        return reference_page(module) if (ROOT / module).is_file() else None
    return None


def origin_of(page: str) -> str:
    """The file of the checkout that a page is made of, to which its links are relative."""
    at_root = {target: name for name, target in AT_ROOT.items()}
    return at_root.get(page, f"docs/{page}")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the generated pages to the navigation."""
    reference: dict[str, Any] = {}
    for module in modules():
        entries = reference
        folders = module.parent.parts
        for folder in folders:
            entries = entries.setdefault(folder, {})
        entries["" if module.stem == "__init__" else module.stem] = reference_page(module)
    assert config.nav is not None
    config.nav += [
        {"Recipes": [{folder: f"recipes/{folder}.md"} for folder in recipe_folders()]},
        {"API": ["reference/index.md", *_nested(reference)]},
        {"Project": [{"Results": "results.md"}, {"Contributing": "contributing.md"}, {"Changelog": "changelog.md"}]},
    ]
    config.nav[-1]["Project"].append({"License": "license.md"})
    return config


def _nested(entries: dict[str, Any]) -> list[Any]:
    return [
        value if name == "" else {name: _nested(value) if isinstance(value, dict) else value}
        for name, value in entries.items()
    ]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made of files elsewhere in the checkout."""
    for page, text in _generated():
        files.append(File.generated(config, page, content=text))
    return files


def _generated() -> Iterator[tuple[str, str]]:
    for name, page in AT_ROOT.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        yield page, f"# License\n\n```text\n{text}```\n" if name == "LICENSE" else WIDE.get(page, "") + text
    for folder, paths in recipe_folders().items():
        parts = [
            f"# Recipes: {folder}\n\n`zoo fit {folder}/NAME` trains one; `zoo list` shows all and their results.\n"
        ]
        for path in paths:
            parts.append(f"## {path.stem}\n\n```yaml\n{(ROOT / path).read_text(encoding='utf-8')}```\n")
        yield f"recipes/{folder}.md", "\n".join(parts)
    for path in sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb")):
        yield f"{path.stem}.md", _notebook(path)
    lines = []
    for module in modules():
        name = ".".join(module.parent.parts if module.stem == "__init__" else module.with_suffix("").parts)
        yield reference_page(module), f"# {name}\n\n::: {name}\n"
        if module.stem == "__init__":
            first = (ast.get_docstring(ast.parse((ROOT / module).read_text(encoding="utf-8"))) or "").partition("\n")[0]
            lines.append(f"| [{name}]({reference_page(module).removeprefix('reference/')}) | {first} |")
    text = "\n".join(["# API reference", "", "| package | what is in it |", "| --- | --- |", *lines, ""])
    yield "reference/index.md", text


def _notebook(path: Path) -> str:
    """A notebook as a page."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts) + f"\n\nThis page is the notebook `{path.relative_to(ROOT).as_posix()}`.\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads links to files of the checkout to the pages that show them."""
    here = page.file.src_uri
    if here.startswith(("reference/", "recipes/")):
        return markdown
    origin = os.path.dirname(origin_of(here))

    def changed(link: re.Match[str]) -> str:
        path = os.path.normpath(os.path.join(origin, link[1]))
        if (target := target_of(path)) is None:
            raise PluginError(f"{origin_of(here)} links to {link[1]}, which is on no page: link to something that is")
        where, _, anchor = target.partition("#")
        relative = os.path.relpath(where, os.path.dirname(here) or ".")
        return relative + (link[2] or (f"#{anchor}" if anchor else ""))

    parts, place = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(changed, markdown[place : fence.start()]), fence[0]]
        place = fence.end()
    return "".join([*parts, LINK.sub(changed, markdown[place:])])


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keeps numbers such as 60 000 and 0.9958 ± 0.0012 on one line, outside code."""
    parts = CODE_OR_TAG.split(html)
    parts[::2] = [NUMBER.sub(r'<span class="number">\g<0></span>', text) for text in parts[::2]]
    return "".join(parts)
