"""What `zoo publish` does, see `zoo.command.verbs.publish`."""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.command import recipes
from zoo.command.actions.schedule import NO_TRAINING_OPTIONS
from zoo.command.checkpoints import (
    AtomicCheckpointIO,
    checkpoint_of,
    config_of,
    is_ready,
    load_module,
    recipe_of,
)
from zoo.command.lightning_cli import ZooCLI
from zoo.command.machine import commit
from zoo.generation.base import ImageOptimizer
from zoo.inference import ready
from zoo.inference.ready import Card

TOLERANCE = 1e-3  # by which half precision may change the result, as a share of it where it is above 1
ROOM = 5_000_000  # bytes for all ready models together, as they are part of the package


def run(args: argparse.Namespace, rest: list[str]) -> int:
    names = ("source", "half", "name", "out", "recipe", "license", "description")
    path, card = publish(**{name: getattr(args, name) for name in names})
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB  {card.reached}")
    if args.out is not None:
        print(f"zoo.load({str(path)!r})  # in Python; the command takes the file where it takes a run")
        return 0
    used = sum(ready.path_of(name).stat().st_size for name in ready.names())
    print(f"all ready models take {used / 1e6:.1f} MB of {ROOM / 1e6:g}", file=sys.stderr)
    return 0


def publish(
    source: str,
    half: bool = False,
    name: str | None = None,
    out: Path | None = None,
    recipe: str | None = None,
    license: str = "",
    description: str = "",
) -> tuple[Path, Card]:
    """Writes the model of a run as one file, and evaluates what is written on the data of the run.

    Args:
        source: folder of a run, checkpoint in one, or recipe, whose newest run counts.
        half: see `zoo.inference.ready.write`.
        name: of the ready model; default that of the recipe.
        out: file to write instead of a ready model of this package.
        recipe: that the run was trained by; default what its folder says.
        license: of the data; default what the datamodule says.
        description: a few words.

    Returns:
        The file and its card.

    Raises:
        ValueError: if the source is not a run, its recipe or the license of its data is not known, the name or file is
            not one, or half precision changes the result.
    """
    checkpoint = checkpoint_of(source)
    if is_ready(checkpoint):
        raise ValueError(f"{source} is a ready model already: expected the folder of a run; `zoo fit` makes one")
    config = config_of(checkpoint)
    recipe = recipe or recipe_of(checkpoint)
    if not recipe:
        raise ValueError(
            f"the run of {checkpoint} does not say its recipe: expected a run.json that does; give --recipe"
        )
    path = _target(name or recipe, out)
    model, data = load_module(checkpoint, needs=None)
    if isinstance(model, ImageOptimizer):
        raise ValueError(
            f"{checkpoint} holds a {type(model).__name__}, whose image is all that it learned: expected a net that "
            "takes inputs; the image is in the run's folder pictures"
        )
    training_only = getattr(type(model), "training_state", ())
    state = model.state_dict()
    card = Card(
        recipe=recipe,
        module=f"{type(model).__module__}.{type(model).__qualname__}",
        hyper_parameters=_arguments(checkpoint),
        data=data,
        dataset=recipes.read(config)["data"]["class_path"],
        license=license,
        metric=(recipes.read(config).get("expect") or {}).get("metric", ""),
        result={},
        seed=recipes.read(config).get("seed_everything"),
        commit=_commit(checkpoint),
        date=time.strftime("%Y-%m-%d"),
        description=description,
        left_out={name: list(state[name].shape) for name in training_only if name in state},
    )
    kept = {name: tensor for name, tensor in state.items() if name not in training_only}
    card = _evaluated(card, config, kept, half, needs_license=out is None)
    return ready.write(path, card, kept, half), card


def _target(name: str, out: Path | None) -> Path:
    """The file to write."""
    if out is not None:
        if out.suffix != ready.SUFFIX:
            raise ValueError(f"--out is {out}: expected the name of a file that ends in {ready.SUFFIX}")
        return out
    parts = Path(name).parts
    if len(parts) != 2 or ".." in parts or Path(name).is_absolute():
        raise ValueError(f"the name is {name}: expected FOLDER/NAME, as recipes have; give --name, or --out FILE")
    return ready.path_of(name)


def _arguments(checkpoint: Path) -> dict[str, Any]:
    """The arguments of the module, without what Lightning adds to them."""
    saved = AtomicCheckpointIO().load_checkpoint(checkpoint, map_location="cpu")["hyper_parameters"]
    return {name: value for name, value in saved.items() if not name.startswith("_")}


def _commit(checkpoint: Path) -> str:
    """The commit at which the training started, if a callback kept it; else that of this checkout."""
    callbacks = AtomicCheckpointIO().load_checkpoint(checkpoint, map_location="cpu").get("callbacks", {})
    kept = (state["commit"] for state in callbacks.values() if isinstance(state, dict) and "commit" in state)
    return next(kept, None) or commit()


def _evaluated(card: Card, config: Path, state: dict[str, Tensor], half: bool, needs_license: bool) -> Card:
    """The card with what its model reaches, once it is written and read again, and the license of the data."""
    with tempfile.TemporaryDirectory() as folder:
        options = [*NO_TRAINING_OPTIONS, "--trainer.callbacks=null", "--trainer.fast_dev_run=false"]
        cli = ZooCLI(str(config), options, folder=Path(folder))
        license = card.license or getattr(cli.datamodule, "license", "")
        if needs_license and not license:
            raise ValueError(f"the license of {card.dataset} is not known: expected one that allows it; give --license")
        card = Card(**{**vars(card), "license": license or "not stated"})
        evaluate = cli.trainer.validate if card.metric.startswith("val/") else cli.trainer.test
        results = {}
        for precision in (False, True) if half else (False,):
            path = ready.write(Path(folder, f"model{ready.SUFFIX}"), card, state, half=precision)
            found = evaluate(load_module(path, needs=None)[0], cli.datamodule, verbose=False)
            results[precision] = {name: value for each in found for name, value in each.items()}
    before, result = results[False].get(card.metric, 0.0), results[half].get(card.metric, 0.0)
    if abs(result - before) > TOLERANCE * max(1.0, abs(before)):
        raise ValueError(
            f"half precision changes {card.metric} from {before:.4f} to {result:.4f}: expected no change of more than "
            f"{TOLERANCE * max(1.0, abs(before)):g}; leave out --half"
        )
    return Card(**{**vars(card), "result": results[half]})
