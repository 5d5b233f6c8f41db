"""What `zoo export` does, see `zoo.command.verbs.export`."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from zoo.command.checkpoints import checkpoint_of, is_ready, load_module, recipe_of, run_of_checkpoint
from zoo.inference import ready
from zoo.inference.export import SUFFIXES, Exported
from zoo.inference.export import export as write_program
from zoo.inference.plans import plan


def run(args: argparse.Namespace, rest: list[str]) -> int:
    exported = export(args.source, args.format, args.out)
    difference = exported.difference
    checked = "not compared, as onnxruntime is missing" if difference is None else f"differs by {difference:.0e}"
    size = exported.path.stat().st_size / 1000
    print(f"{exported.path}  {size:.0f} kB  free: {', '.join(exported.free)}  {checked}", file=sys.stderr)
    print(exported.usage)
    return 0


def export(source: str, format: str = "onnx", out: Path | None = None) -> Exported:
    """Exports a trained model.

    Args:
        source: recipe, RECIPE@ready, folder of a run, checkpoint, or file of `zoo publish`.
        format: "onnx" or "torch".
        out: the file; default the last part of the recipe's name, else the name of the run's folder, in the working
            directory.

    Returns:
        The file, what is free in it, how exact it is, and how it is used.

    Raises:
        ValueError: if the model is none that makes sense as a program, its program differs from it, or packages are
            missing.
        OSError: if the file cannot be written.
    """
    path = checkpoint_of(source)
    module, data = load_module(path, needs=None)
    about: dict[str, Any] = {"module": f"{type(module).__module__}.{type(module).__qualname__}"}
    if is_ready(path):
        card = dataclasses.asdict(ready.read_card(path))
        about |= {name: card[name] for name in ("recipe", "result", "license", "commit", "description")}
        name = path.stem
    else:
        about["recipe"] = recipe_of(path)
        inside = path.parent.name == "checkpoints"
        name = Path(about["recipe"]).name or (run_of_checkpoint(path).resolve().name if inside else path.stem)
    out = out or Path(f"{name}{SUFFIXES[format]}")
    return write_program(plan(module, data), out, format, about)
