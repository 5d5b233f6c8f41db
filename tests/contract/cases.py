"""The systems that the contract suite runs, each with small arguments and small data.

All subclasses of `System` are found by walking the package `zoo`. A classifier needs no entry here: it is built with
its default arguments and fed with images of the size that those imply. Other systems, and classifiers whose default net
is too large for a test, have an entry in `CASES`; a system that has neither fails the suite.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import zoo
from datamodules.base import Data
from datamodules.boxes.shapes import Shapes
from datamodules.captions.drawn import Captions
from datamodules.images.digit_pairs import DigitPairs
from datamodules.images.single_image import ImagePair
from datamodules.loader import InMemory
from datamodules.text.sentence_pairs import SentencePairs
from datamodules.text.text import Text
from datamodules.vectors import Vectors
from helpers import Synthetic, draw_picture, verse
from zoo.classification.base import Classifier
from zoo.parts.optim.schedules import Constant
from zoo.system import System

ADAMW = partial(torch.optim.AdamW, lr=3e-3)
BACKBONE = {"backbone": "squeezenet1_0", "weights": "weights.safetensors"}


class Case(NamedTuple):
    """How the suite builds a system.

    options: arguments of the system.
    data: called with a folder that `write_files` filled; gives a datamodule with batches of `batch_size` 4.
    learned: share of the first loss that is left once a batch is learned by heart.
    """

    options: dict[str, Any]
    data: Callable[[Path], Data]
    learned: float = 0.2


def text(folder: Path) -> Data:
    return Text(str(folder / "verse.txt"), context=16, batch_size=4, epoch_windows=24)


def sentence_pairs(folder: Path) -> Data:
    return SentencePairs(str(folder / "verse.txt"), segment=8, vocab_size=280, batch_size=4)


def image_pair(folder: Path) -> Data:
    return ImagePair(str(folder / "content.png"), str(folder / "style.png"), size=32, length=6)


def captions(folder: Path) -> Data:
    return Captions(size=24, train_size=24, val_size=8, test_size=8, batch_size=4, eval_batch_size=4)


def shapes(folder: Path) -> Data:
    return Shapes(size=48, train_size=24, val_size=8, test_size=8, batch_size=4, eval_batch_size=4)


class NoisePairs(DigitPairs):
    """Noise in place of MNIST."""

    def prepare_data(self) -> None:
        pass

    def read(self, train: bool) -> InMemory:
        draw, n = torch.Generator().manual_seed(0), 33 if train else 9
        noise = torch.randint(0, 256, (n, 1, 28, 28), generator=draw, dtype=torch.uint8)
        return InMemory(noise, torch.randint(10, (n,), generator=draw))


def digit_pairs(folder: Path) -> Data:
    return NoisePairs(val_size=9, batch_size=4, eval_batch_size=4)


def vectors(folder: Path) -> Data:
    return Vectors([[0.05, 0.1], [0.4, 0.2]], [[0.01, 0.99], [0.3, 0.6]], repeats=12, batch_size=4)


def images(channels: int, size: int) -> Callable[[Path], Data]:
    shape = (channels, size, size)
    return lambda folder: Synthetic((24, 9, 9), shape, batch_size=4, eval_batch_size=4)


TRANSFORMER = {"num_layers": 2, "num_heads": 2, "dim": 32}
STYLE = BACKBONE | {"content_layers": {"fire2": 1.0}}
CASES = {
    "GPT": Case({**TRANSFORMER, "context": 16}, text),
    "BERT": Case({**TRANSFORMER, "context": 19}, sentence_pairs),
    "CLIP": Case({"dim": 16, "widths": (8, 16), "text_width": 16, "text_depth": 1, "text_heads": 2}, captions),
    "YOLO": Case({"anchors": [[0.2, 0.2], [0.4, 0.4]], "widths": (8, 16, 16), "depth": 1, "passthrough": 4}, shapes),
    "ImageOptimization": Case({}, image_pair),
    "StyleTransfer": Case({**STYLE, "style_layers": {"relu1": 1.0}}, image_pair, learned=0.8),
    "ContentReconstruction": Case(STYLE, image_pair, learned=0.8),
    "TextureNCA": Case(
        {
            **BACKBONE,
            "layers": ("relu1",),
            "grid": 16,
            "samples": 2,
            "pool_size": 4,
            "steps": (4, 8),
            "eval_steps": (4, 8),
        },
        image_pair,
        learned=0.95,
    ),
    "BackpropByHand": Case({}, vectors, learned=0.9),  # its sigmoids are flat, and steps of AdamW are small
    "TwoInputs": Case({"widths": (8, 16)}, digit_pairs),
    "Airbench": Case({"widths": (8, 16, 16)}, images(3, 32)),
    "CCT": Case({**TRANSFORMER, "stochastic_depth": 0.0}, images(3, 32)),
    "ConvMixer": Case({"dim": 16, "depth": 2}, images(3, 32)),
    "CustomResNet": Case({"width": 8}, images(3, 32)),
    "Dilated": Case({"stem_width": 8, "widths": (8, 12, 16, 16)}, images(3, 32)),
    "GoogLeNet": Case({"width": 0.1}, images(3, 32)),
    "HybridViT": Case({"widths": (8, 16, 16, 16), "num_heads": 2}, images(3, 32)),
    "PreActResNet18": Case({"width": 8}, images(3, 32)),
    "ResNeXt29": Case({"width": 8, "cardinality": 2, "base_width": 8}, images(3, 32)),
    "ResNeXt50": Case({"width": 16, "stem_pool": True}, images(3, 32)),  # of which 32 groups are a part
    **{f"ResNet{depth}": Case({"width": 8}, images(3, 32)) for depth in (18, 34, 56)},
    **{f"ResNet{depth}": Case({"width": 4, "stem_pool": True}, images(3, 32)) for depth in (50, 101, 152)},
    "SqueezeNet": Case({"width": 0.2}, images(3, 32)),
    **{f"VGG{depth}": Case({"width": 0.1}, images(3, 32)) for depth in (11, 13, 16, 19)},
    "Ultimus": Case({"residual": True, "pre_norm": True}, images(3, 32)),  # in its literal form outputs hardly vary
    "ViT": Case({"dim": 48, "num_layers": 2, "num_heads": 2}, images(3, 32)),
    "ViTAsConvMixer": Case({"dim": 16, "depth": 2, "num_heads": 2}, images(3, 32)),
    "ViTB16": Case({**TRANSFORMER, "image_size": 32, "patch_size": 4}, images(3, 32)),
}


@cache
def systems() -> list[type[System]]:
    """Every system in the package `zoo`: the concrete subclasses of `System` but for the shelves' base classes."""
    for module in pkgutil.walk_packages(zoo.__path__, "zoo."):
        if not module.name.startswith(("zoo.command", "zoo.__main__")):
            importlib.import_module(module.name)
    found: set[type[System]] = set()
    waiting: list[type[System]] = [System]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if (
            kind.__module__.startswith("zoo.")
            and not inspect.isabstract(kind)
            and not kind.__module__.endswith(".base")
        ):
            found.add(kind)
    return sorted(found, key=lambda kind: kind.__name__)


def case_of(system: type[System]) -> Case:
    """The case of a system.

    Raises:
        LookupError: if it has none and is not a classifier.
    """
    if system.__name__ in CASES:
        return CASES[system.__name__]
    if not issubclass(system, Classifier):
        raise LookupError(f"{system.__name__} has no case: add one to tests/contract/cases.py")
    given = inspect.signature(system).parameters.get("in_channels")
    channels = 3 if given is None else given.default
    return Case({}, images(channels, 28 if channels == 1 else 32))


def write_files(folder: Path) -> Path:
    """What the datamodules of the cases read."""
    (folder / "verse.txt").write_text(verse(3000))
    for seed, name in enumerate(("content", "style")):
        draw_picture(seed, (48, 40)).save(folder / f"{name}.png")
    torch.manual_seed(0)
    layers = torchvision.models.squeezenet1_0(weights=None).features[:4].state_dict()
    save_file({f"features.{name}": value for name, value in layers.items()}, folder / "weights.safetensors")
    return folder


def make(system: type[System], data: Data, seed: int = 0, **options: Any) -> System:
    """A system as its case says, with the sizes of the data, trained by AdamW at a constant rate."""
    torch.manual_seed(seed)
    takes = parameters(system)
    sizes = {name: getattr(data, name) for name in System.from_data if name in takes and hasattr(data, name)}
    steps = {"optimizer": ADAMW, "schedule": Constant}
    return system(**(sizes | case_of(system).options | steps | options))


def parameters(kind: type) -> dict[str, inspect.Parameter]:
    """What a class takes, also through `**options` that its bases take."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        own = inspect.signature(base.__init__).parameters
        found |= {name: value for name, value in own.items() if name not in found and name != "self"}
        if not any(value.kind is value.VAR_KEYWORD for value in own.values()):
            break
    return found


def children(net: nn.Module) -> list[str]:
    return [name for name, _ in net.named_children()]
