"""What `zoo maximize` does, see `zoo.command.verbs.maximize`."""

import argparse
import json
from pathlib import Path
from typing import Any

from callbacks.figures.grids import columns_for, grid
from callbacks.figures.style import save_figure, shorten
from datamodules.messages import nearest_names
from zoo.analysis.activation_maximization import maximize, width_of
from zoo.command.actions.attack import class_number, find_run, load_classifier, place_of_figure
from zoo.inference.preprocess import Images

OF_CLASSES, OF_CHANNELS = 10.0, 1.0  # default weights of smoothness: classes answer to much more that is not seen


def run(args: argparse.Namespace, rest: list[str]) -> int:
    names = ("source", "layer", "units", "n", "steps", "variation", "seed", "out")
    report = draw_maximized(**{name: getattr(args, name) for name in names})
    if args.json:
        print(json.dumps(report, ensure_ascii=False))
        return 0
    print(f"checkpoint  {report['checkpoint']}")
    width = max(len(name) for name in report["units"])
    for name, before, after in zip(report["units"], report["before"], report["after"], strict=True):
        print(f"{name:{width}}  {before:.3g} → {after:.3g}")
    print(f"figure      {report['figure']}")
    return 0


def draw_maximized(
    source: str,
    layer: str | None = None,
    units: list[str] | None = None,
    n: int = 10,
    steps: int = 200,
    variation: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Finds the images that units of a trained classifier answer to most, and draws them.

    Args:
        source: run folder, checkpoint in one, or recipe, whose newest run counts.
        layer: name of a module of the network; None for its output, whose units are the classes.
        units: names or numbers of classes, or numbers of channels; None for the first `n`.
        n: see `units`.
        steps, variation, seed: see `zoo.analysis.activation_maximization.maximize`.
        out: file of the figure; by default it joins the pictures of the run.

    Returns:
        The names of the units, their activations `before` and `after` the ascent, and the path of the figure.

    Raises:
        ValueError, FileNotFoundError: if there is no such run, it holds no classifier, there is no such layer or unit,
            or a number is out of range.
    """
    for name, number in (("n", n), ("steps", steps)):
        if number < 1:
            raise ValueError(f"{name} is {number}: expected 1 or more")
    if variation is None:
        variation = OF_CLASSES if layer is None else OF_CHANNELS
    if variation < 0:
        raise ValueError(f"variation is {variation:g}: expected 0 or more")
    checkpoint, config = find_run(source)
    model, metadata, _ = load_classifier(checkpoint)
    images = Images(metadata["image_shape"], metadata["mean"], metadata["std"])
    shape = (images.image_shape[0], images.image_shape[1], images.image_shape[2])
    classes = metadata["classes"]
    channels = len(classes) if layer is None else width_of(model.net, layer, shape)
    chosen = list(range(min(n, channels))) if units is None else [parse_unit(unit, layer, classes) for unit in units]
    found = maximize(
        model.net, layer, chosen, shape, lambda image: images.normalize(255 * image), steps, variation=variation,
        seed=seed,
    )  # fmt: skip
    names = [classes[unit] if layer is None else f"channel {unit}" for unit in chosen]
    values = zip(names, found.before.tolist(), found.after.tolist(), strict=True)
    captions = [f"{shorten(name, 16)}: {before:.2g} → {after:.2g}" for name, before, after in values]
    pictures = [(255 * image).round().byte().permute(1, 2, 0).numpy() for image in found.images]
    what = "the classes answer" if layer is None else f"{len(chosen)} of {channels} channels of {layer} answer"
    run, path = place_of_figure(checkpoint, config, "maximized.png", out)
    figure = grid(
        pictures,
        captions,
        f"What {what} to most",
        f"{shorten(str(run or source), 60)}; activation of gray noise → of the image found in {steps} steps",
        columns=columns_for(len(pictures)),
    )
    save_figure(figure, path)
    return {
        "checkpoint": str(checkpoint),
        "layer": layer,
        "units": names,
        "before": found.before.tolist(),
        "after": found.after.tolist(),
        "figure": str(path),
    }


def parse_unit(text: str, layer: str | None, classes: list[str]) -> int:
    """The number of a class given by name or number, or of a channel.

    Raises:
        ValueError: if it is neither.
    """
    if layer is not None:
        if text.isdecimal():
            return int(text)
        raise ValueError(f"units has {text!r}: expected the number of a channel of {layer}, such as 0")
    if (number := class_number(text, classes)) is not None:
        return number
    hint = nearest_names(text, classes, f"the classes are {', '.join(classes[:20])}")
    raise ValueError(f"units has {text!r}: expected one of {len(classes)} classes, by name or number; {hint}")
