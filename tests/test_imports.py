"""Imports go down the four floors only, rooms are not too full, and the packages with generic names are ours."""

import ast
import importlib
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("datamodules", "callbacks", "zoo", "experiments")  # from the bottom to the top
NO_SHELVES = ("parts", "analysis", "inference", "report", "results", "command", "weights")  # rooms that hold no systems
MANY_FILES = ("zoo/parts", "zoo/command/verbs", "experiments/studies")  # may be long and flat, and so may shelves


def modules_in(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def shelves() -> list[Path]:
    return [path.parent for path in sorted((ROOT / "zoo").glob("*/__init__.py")) if path.parent.name not in NO_SHELVES]


def imported(path: Path) -> set[str]:
    """The dotted names that a file imports, also inside its functions."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert not any(node.level for node in froms), f"{path}: relative import"
    return plain | {f"{node.module}.{alias.name}" for node in froms for alias in node.names}


def of_packages(names: set[str], *packages: str) -> set[str]:
    return {name for name in names if name.startswith(tuple(f"{package}." for package in packages)) or name in packages}


@pytest.mark.parametrize("floor", FLOORS)
def test_no_import_goes_up(floor):
    above = FLOORS[FLOORS.index(floor) + 1 :]
    found = {path: up for path in modules_in(floor) if (up := of_packages(imported(path), *above))}
    assert found == {}
    assert len(modules_in(floor)) > 10


def test_callbacks_import_no_datamodule():
    for path in modules_in("callbacks"):
        names = of_packages(imported(path), "datamodules")
        assert names == of_packages(names, "datamodules.io", "datamodules.messages"), path


def test_parts_import_nothing_but_parts_and_files():
    for path in modules_in("zoo/parts"):
        names = of_packages(imported(path), *FLOORS)
        assert names == of_packages(names, "zoo.parts", "datamodules.io", "datamodules.messages"), path
        assert not of_packages(imported(path), "lightning"), path


def test_systems_import_parts_and_the_base_of_their_shelf_but_no_other_system():
    assert {"classification", "generation", "detection", "language", "multimodal"} <= {path.name for path in shelves()}
    for shelf in shelves():
        base = f"zoo.{shelf.name}.base"
        allowed = ("zoo.parts", "zoo.system", base, "datamodules.batches", "callbacks.figures.axis")
        for path in shelf.glob("*.py"):
            names = of_packages(imported(path), *FLOORS) - {"zoo"}  # zoo.load: a teacher comes in by this door
            assert names == of_packages(names, *allowed), path


def test_there_is_no_circle():
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for f in FLOORS for path in modules_in(f)}
    graph = {
        name: {found for full in imported(path) for found in (full, full.rpartition(".")[0]) if found in modules}
        for name, path in modules.items()
    }
    while free := {name for name, needs in graph.items() if not needs & graph.keys() - {name}}:
        graph = {name: needs for name, needs in graph.items() if name not in free}
    assert sorted(graph) == []


def test_figures_are_drawn_without_lightning():
    for path in modules_in("callbacks/figures"):
        if path.name != "callback.py":
            assert not of_packages(imported(path), "lightning"), path


def test_no_folder_is_too_full():
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    counts = Counter(str(Path(name).parent) for name in listed if not name.endswith("__init__.py"))
    allowed = {*MANY_FILES, *(str(shelf.relative_to(ROOT)) for shelf in shelves())}
    assert {folder: count for folder, count in counts.items() if count > 15 and folder not in allowed} == {}


@pytest.mark.parametrize("package", FLOORS)
def test_the_package_with_the_generic_name_is_ours(package):
    assert Path(importlib.import_module(package).__file__).resolve().parent == ROOT / package
