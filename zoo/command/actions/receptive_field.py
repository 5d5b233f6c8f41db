"""What `zoo receptive-field` does, see `zoo.command.verbs.receptive_field`."""

import argparse
import importlib
import inspect
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image, ImageOps
from torch import nn

from callbacks.figures.receptive_field import Field, field_figure, text
from callbacks.figures.style import save_figure
from datamodules.io import find_file, read_image
from datamodules.messages import nearest_names
from datamodules.scenes import draw_scene
from zoo.analysis.graph import size_text
from zoo.analysis.receptive_field import Layer, receptive_field

COLUMNS = ("layer", "kernel", "stride", "dilation", "padding", "jump", "field", "out")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    given = None if args.input is None else parse_shape(args.input)
    net, data = build(args.net, rest, channels=given[0] if given else None)
    shape = given or known_shape(args.net, data)
    leaves, pointwise = (tuple(import_object(path) for path in paths) for paths in (args.leaf, args.pointwise))
    layers = receptive_field(net, shape, leaves, pointwise)
    chosen = choose(layers, args.layer)
    image, what = find_image(args.image, shape, data)
    layer = layers[chosen]
    name = args.net if "/" in args.net else args.net.rpartition(".")[2]
    title = f"{name}: a unit of {layer.name} sees {size_text(layer.field)} pixels"
    subtitle = f"{what} at {size_text(shape[1:])} pixels; the unit in the middle of {size_text(layer.out)}"
    center = middle(central_box(layer))
    fields = [Field(one.name, one.field, one.box(*nearest_unit(one, center))) for one in layers]
    fields[chosen] = fields[chosen]._replace(box=central_box(layer))
    if (box := fields[chosen].box) and (min(box) < 0 or box[2] > shape[2] or box[3] > shape[1]):
        subtitle += "; gray: beyond the border"
    save_figure(field_figure(image, fields, chosen, title, subtitle), args.out)
    if args.json:
        print(json.dumps([describe(one) for one in layers]))
    else:
        print(*table(layers if args.all else worth_listing(layers)), args.out, sep="\n")
    return 0


def build(source: str, options: list[str], channels: int | None = None) -> tuple[nn.Module, Any]:
    """The network of a recipe and its datamodule; or of a class, without data.

    Args:
        source: a recipe, or the dotted path of a class.
        options: of the recipe, or the arguments of the class.
        channels: `in_channels` of a class that has such an argument and is not given it.

    Raises:
        ValueError: if there is no such class or recipe, or it cannot be built.
    """
    if "/" in source or source.endswith((".yaml", ".yml")) or "." not in source:
        from zoo.command.actions.schedule import NO_TRAINING_OPTIONS
        from zoo.command.lightning_cli import ZooCLI  # here, as it takes seconds and classes do not need it

        cli = ZooCLI(source, [*options, *NO_TRAINING_OPTIONS], folder=Path())
        return net_of(cli.model), cli.datamodule
    kind, arguments = import_object(source), keyword_arguments(options)
    if channels is not None and callable(kind) and "in_channels" in inspect.signature(kind).parameters:
        arguments.setdefault("in_channels", channels)
    try:
        try:
            with torch.device("meta"):  # without memory, and without the time to draw the weights
                module = kind(**arguments)
        except (NotImplementedError, RuntimeError):  # its code needs numbers
            module = kind(**arguments)
    except TypeError as error:
        raise ValueError(
            f"{source} cannot be built ({error}): expected its arguments as options, such as --num_classes 10"
        ) from None
    if not isinstance(module, nn.Module):
        raise ValueError(f"{source} makes a {type(module).__name__}: expected a torch.nn.Module; name another class")
    return net_of(module), None


def net_of(module: nn.Module) -> nn.Module:
    """The network in a LightningModule of the zoo; of another module itself."""
    is_lightning = any(base.__name__ == "LightningModule" for base in type(module).__mro__)
    return getattr(module, "net", module) if is_lightning else module


def import_object(path: str) -> Any:
    """The class or function that a dotted path names.

    Raises:
        ValueError: if there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        found = importlib.import_module(module)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{path} cannot be imported ({error}): expected the dotted path of a class") from None
    if not hasattr(found, name):
        hint = nearest_names(name, dir(found), f"see dir({module})")
        raise ValueError(f"{path} does not exist: expected a class in {module}; {hint}")
    return getattr(found, name)


def keyword_arguments(options: list[str]) -> dict[str, Any]:
    """Options as arguments of a class, with values in YAML.

    >>> keyword_arguments(["--depths", "[2, 2]", "--small_images=false"])
    {'depths': [2, 2], 'small_images': False}
    """
    arguments, rest = {}, list(options)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--") or not (equals or rest):
            raise ValueError(f"the option {name!r} has no name or no value: expected --name value")
        arguments[name[2:]] = yaml.safe_load(value if equals else rest.pop(0))
    return arguments


def parse_shape(text: str) -> tuple[int, int, int]:
    """(C, H, W) of the input, from CHANNELSxHEIGHTxWIDTH.

    Raises:
        ValueError: if it is not of this form.

    >>> parse_shape("3x224x160")
    (3, 224, 160)
    """
    if not (found := re.fullmatch(r"(\d+)[x,](\d+)[x,](\d+)", text)):
        raise ValueError(f"--input is {text}: expected CHANNELSxHEIGHTxWIDTH, such as 3x224x224")
    channels, height, width = map(int, found.groups())
    return channels, height, width


def known_shape(source: str, data: Any) -> tuple[int, int, int]:
    """(C, H, W) of a recipe's images.

    Raises:
        ValueError: if it is not known.
    """
    if (known := getattr(data, "image_shape", None)) is None:
        raise ValueError(f"the input of {source} is not known: expected images; give --input, such as 3x224x224")
    return tuple(known)


def choose(layers: list[Layer], name: str | None) -> int:
    """The index of the layer with this name; without one, of the last layer that has several units.

    Raises:
        ValueError: if there is no such layer.
    """
    if not layers:
        raise ValueError("the network computes nothing from its input: expected one layer or more")
    if name is None:
        several = [i for i, layer in enumerate(layers) if max(layer.out) > 1]
        return several[-1] if several else len(layers) - 1
    names = [layer.name for layer in layers]
    if name not in names:
        raise ValueError(f"there is no layer {name!r}: expected one such as {names[-1]}; {nearest_names(name, names)}")
    return len(names) - 1 - names[::-1].index(name)


def central_box(layer: Layer) -> tuple[int, int, int, int]:
    """What the unit in the middle of a layer sees; nothing, as after some transposed convolutions, is an empty box."""
    return layer.box(layer.out[0] // 2, layer.out[1] // 2) or (0, 0, 0, 0)


def middle(box: tuple[int, int, int, int]) -> tuple[float, float]:
    """(y, x) of a box."""
    return (box[1] + box[3]) / 2, (box[0] + box[2]) / 2


def nearest_unit(layer: Layer, point: tuple[float, float]) -> tuple[int, int]:
    """The unit whose field has its middle next to a point (y, x)."""

    def along(i: int) -> int:
        intervals = layer.axes[i].intervals(layer.out[i])
        distances = [abs((x[0] + x[1] + 1) / 2 - point[i]) if x else math.inf for x in intervals]
        return distances.index(min(distances))

    return along(0), along(1)


def find_image(given: str | None, shape: tuple[int, int, int], data: Any) -> tuple[np.ndarray, str]:
    """An image (H, W, 3) in 0..1 of the input's size to draw on, and what it is.

    Raises:
        ValueError, FileNotFoundError: if the given file cannot be read.
    """
    channels, height, width = shape
    if given is not None:
        image, what = read_image(find_file(given, "an image file")), Path(given).name
    else:
        try:  # without `prepare_data`, which may download
            data.setup("test")
            pixels, what = next(iter(data.test_dataloader())).image[0], "A test image"
        except (AttributeError, KeyError, OSError, RuntimeError, StopIteration, ValueError):
            pixels, what = draw_scene(4, size=max(height, width)).image, "Drawn shapes"
        pixels = pixels if len(pixels) == 3 else pixels[:1].expand(3, -1, -1)
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    if channels == 1:
        image = image.convert("L").convert("RGB")
    return np.asarray(ImageOps.fit(image, (width, height))) / 255, what


def worth_listing(layers: list[Layer]) -> list[Layer]:
    """Without activations, norms and the like, which leave the field as it is."""
    kept, field = [], (0, 0)
    for layer in layers:
        plain = layer.kernel == layer.stride == (1, 1) and layer.field == field and not layer.note
        if not plain or layer.function in ("conv2d", "linear"):
            kept.append(layer)
            field = layer.field
    return kept


def table(layers: list[Layer]) -> list[str]:
    rows = [[layer.name, *(text(pair) for pair in layer[1:8]), layer.note] for layer in layers]
    widths = [max(len(row[i]) for row in [COLUMNS, *rows]) for i in range(len(COLUMNS))]
    lines = []
    for first, *numbers in [[*COLUMNS, ""], *rows]:
        aligned = (number.rjust(width) for number, width in zip(numbers, widths[1:], strict=False))
        lines.append(f"{first.ljust(widths[0])}  {'  '.join(aligned)}  {numbers[-1]}".rstrip())
    return lines


def describe(layer: Layer) -> dict[str, Any]:
    """A layer as plain data; `box` is what the unit in the middle sees."""
    return {name: value for name, value in layer._asdict().items() if name != "axes"} | {"box": central_box(layer)}
