"""Sections that describe commands, studies, the systems of a shelf and classes, from docstrings and recipes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from zoo.command import main, recipes
from zoo.results import ledger
from zoo.results.documents.measured import has_target, recipe_link, recipe_table, table
from zoo.results.documents.prose import docstring_of, heading_of, plain, sentences

CLASSES = ("name", "what it is", "recipes with it")
EXAMPLES = 2  # recipes that are named as users of a class; of more the number is told
# Bases of what is a part of something that a recipe names, and not named itself.
PARTS = {
    *("NamedTuple", "Protocol", "Enum", "Dataset", "ExperimentWriter", "TorchFunctionMode"),
    *("KeyboardInterrupt", "ValueError"),
}
COMMENT = re.compile(r"(?m)^\s*#.*$")


def commands() -> str:
    """The verbs of the command and their first lines."""
    lines = [{"command": f"`zoo {name}`", "does": text[0].lower() + text[1:]} for name, text in main.verbs().items()]
    return table(("command", "does"), lines)


def studies() -> str:
    """The first line of each study's docstring."""
    lines = [{"study": f"`{path.stem}`", "shows": text.partition("\n")[0].rstrip(".")} for path, text in _studies()]
    return table(("study", "shows"), lines)


def gallery() -> str:
    """Each study with its docstring and, where docs/studies has one, its figure."""
    parts = []
    for path, text in _studies():
        first, _, rest = text.partition("\n\n")
        figure = f"docs/studies/{path.stem}.webp"
        parts += [f"### {path.stem}", f"**{first}**"]
        if (recipes.ROOT.parent / figure).is_file():
            parts.append(f"![The figure of the study {path.stem}]({figure})")
        parts.append(rest)
    return "\n\n".join(parts)


def _studies() -> Iterator[tuple[Path, str]]:
    """The file of each study and its docstring."""
    for path in sorted((recipes.ROOT / "studies").glob("[!_]*.py")):
        yield path, docstring_of(path)


def systems(*shelves: str) -> str:
    """The systems of shelves: what each is and what it is for, its file, and its recipes with their results."""
    classes_of = {name: recipes.read(recipes.find(name))["model"]["class_path"] for name in recipes.names()}
    return "\n\n".join(_system(path, classes_of) for shelf in shelves for path in _modules(Path("zoo", shelf)))


def _system(path: Path, classes_of: dict[str, str]) -> str:
    """A section on the systems of a file, which is given below the checkout."""
    name, text = heading_of(plain(docstring_of(recipes.ROOT.parent / path)))
    module = ".".join(path.with_suffix("").parts)
    trained = {recipe: one for recipe, one in classes_of.items() if one.rpartition(".")[0] == module}
    file = f"[{path.as_posix()}]({path.as_posix()})"
    if trained:
        file += ": " + ", ".join(sorted({f"`{one.rpartition('.')[2]}`" for one in trained.values()}))
    parts = [f"### {name}", " ".join(text), file, recipe_table(list(trained)) if trained else "No recipe trains it."]
    return "\n\n".join(part for part in parts if part)


def _modules(folder: Path) -> Iterator[Path]:
    """The files of systems on a shelf, below the checkout."""
    for path in sorted((recipes.ROOT.parent / folder).glob("*.py")):
        if path.stem not in ("__init__", "base"):
            yield path.relative_to(recipes.ROOT.parent)


def classes(*places: str) -> str:
    """The public classes of files and folders, such as `callbacks/galleries`, and the recipes that name them."""
    texts = {name: COMMENT.sub("", recipes.find(name).read_text(encoding="utf-8")) for name in recipes.names()}
    measured = {row["recipe"] for row in ledger.rows()}
    found = [(file, node) for place in places for file in _files(place) for node in _classes(file)]
    derived_from = {_name(base) for _, node in found for base in node.bases}
    lines = []
    for file, node in found:
        named = re.compile(rf"\.{file.stem}\.{node.name}\b")
        users = [name for name, text in texts.items() if named.search(text)]
        if users or node.name not in derived_from:
            lines.append(
                {
                    "name": f"[`{node.name}`]({file.relative_to(recipes.ROOT.parent).as_posix()})",
                    "what it is": sentences(plain(ast.get_docstring(node) or "")[0])[0].rstrip("."),
                    "recipes with it": _few(sorted(users, key=lambda name: name not in measured)),
                }
            )
    return table(CLASSES, lines)


def _files(place: str) -> list[Path]:
    """A file of the checkout, or those in a folder of it."""
    path = recipes.ROOT.parent / place
    return [path] if path.suffix else sorted(path.glob("*.py"))


def _classes(file: Path) -> list[ast.ClassDef]:
    """The classes of a file that a recipe might name: public, described, and neither base classes nor records."""
    nodes = [node for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    return [node for node in nodes if not node.name.startswith("_") and _is_offered(node)]


def _is_offered(node: ast.ClassDef) -> bool:
    bases = {_name(base) for base in node.bases}
    text = ast.get_docstring(node) or ""
    return bool(bases and text and not node.decorator_list and not bases & PARTS) and not text.startswith("Base class")


def _name(base: ast.expr) -> str:
    """The name of a base class, without its module and its type arguments."""
    return ast.unparse(base).partition("[")[0].rpartition(".")[2]


def _few(names: list[str]) -> str:
    """The first recipes of a list with their results, and how many more there are."""
    results = {name: ledger.summarize_recipe(name)["result"] for name in names[:EXAMPLES] if has_target(name)}
    told = [f"{recipe_link(name)} {results.get(name, '')}".rstrip() for name in names[:EXAMPLES]]
    more = len(names) - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")
