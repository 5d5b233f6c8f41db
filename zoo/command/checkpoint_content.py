"""What a checkpoint holds: the types of its entries, and how they fit each other and the module that is built of them.

A file from elsewhere may hold anything: what is wrong in it is told in one line, with the name of the entry.
"""

import importlib
import inspect
from pathlib import Path
from typing import Any, get_args, get_origin

from packaging.version import InvalidVersion, Version
from tokenizers import Tokenizer
from torch import Tensor

from zoo import trust
from zoo.system import System

TRAINING = ("loops", "optimizer_states", "lr_schedulers")  # without which a training cannot go on
REQUIRED = ("state_dict", "pytorch-lightning_version")  # that Lightning reads from every checkpoint
ENTRIES: dict[str, Any] = {
    "state_dict": dict[str, Tensor], "pytorch-lightning_version": str, "epoch": int, "global_step": int,
    "module": str, "hyper_parameters": dict[str, object], "hparams_name": str, "data": dict[str, object],
    "loops": dict, "callbacks": dict, "optimizer_states": list[dict], "lr_schedulers": list[dict],
    "random_states": dict, "train_metrics": dict,
}  # fmt: skip
DATA: dict[str, Any] = {
    "classes": list[str | int], "image_shape": list[int], "mean": list[int | float], "std": list[int | float],
    "tokenizer": str, "context": int,
}  # fmt: skip


def check_content(checkpoint: Any, path: str | Path) -> None:
    """Raises ValueError unless what a file holds is a checkpoint, whose entries are of the types that are read."""
    missing = [key for key in REQUIRED if not isinstance(checkpoint, dict) or key not in checkpoint]
    if missing:
        raise ValueError(
            f"{path} does not say which module and data it belongs to (it is a {type(checkpoint).__name__} without "
            f"{missing[0]}): expected a checkpoint of `zoo fit`; take one of a run's folder checkpoints"
        )
    # The states of a datamodule and of the parts of a Trainer are under the names of their classes.
    states = {key: dict for key in checkpoint if isinstance(key, str) and key[:1].isupper()}
    _check_types(checkpoint, ENTRIES | states, path)
    try:
        Version(checkpoint["pytorch-lightning_version"])
    except InvalidVersion:
        raise _wrong("pytorch-lightning_version", path, checkpoint, "a version such as 2.6.0") from None
    data = {f"data.{name}": value for name, value in checkpoint.get("data", {}).items()}
    _check_types(data, {f"data.{name}": kind for name, kind in DATA.items()}, path)
    if (shape := data.get("data.image_shape")) is None:
        return
    if len(shape) != 3:
        raise _wrong("data.image_shape", path, data, "channels, height and width")
    for key in ("data.mean", "data.std"):
        if key in data and len(data[key]) != shape[0]:
            raise _wrong(key, path, data, f"a number for each channel, of which data.image_shape has {shape[0]}")


def _check_types(content: dict[str, Any], kinds: dict[str, Any], path: str | Path) -> None:
    for key, kind in kinds.items():
        if key in content and not _is_a(content[key], kind):
            raise _wrong(key, path, content, f"a {kind if get_origin(kind) else kind.__name__}")


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of a type, and what it holds of the types that are given for that."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is dict:
        return isinstance(value, dict) and all(_is_a(k, inner[0]) and _is_a(v, inner[1]) for k, v in value.items())
    if origin is list:
        return isinstance(value, (list, tuple)) and all(_is_a(one, inner[0]) for one in value)
    return isinstance(value, kind)


def _wrong(key: str, path: str | Path, content: dict[str, Any], expected: str) -> ValueError:
    value = " ".join(repr(content[key])[:60].split())
    return ValueError(f"{key} in {path} is {value}: expected {expected}; take another file")


def missing_for_training(checkpoint: dict[str, Any]) -> str | None:
    """The first entry that a training needs to go on from a checkpoint, and that it does not have."""
    return next((key for key in TRAINING if key not in checkpoint), None)


def system_of(checkpoint: dict[str, Any], path: Path) -> type[System]:
    """The class of the module of a checkpoint.

    Raises:
        ValueError: if it is not trusted, see `zoo.trust`, or is not a system.
    """
    name = checkpoint["module"]
    trust.check_names(name, checkpoint.get("hyper_parameters"), str(path))
    module, _, attribute = name.rpartition(".")
    try:
        kind, reason = getattr(importlib.import_module(module), attribute), "it is none"
    except (ImportError, AttributeError) as error:
        kind, reason = None, str(error)
    if not (inspect.isclass(kind) and issubclass(kind, System)):
        raise ValueError(
            f"module in {path} is {name}: expected a system ({reason}); see `zoo list`, or take the version of the zoo "
            "that wrote the file"
        )
    return kind


def check_fit(module: System, data: dict[str, Any], path: Path) -> None:
    """Raises ValueError unless a module has the sizes of the data that its checkpoint tells of."""
    sizes = {}
    if "classes" in data:
        sizes["classes"] = "num_classes", len(data["classes"])
    if "image_shape" in data:
        sizes["image_shape"] = "in_channels", data["image_shape"][0]
    if "tokenizer" in data:
        try:
            sizes["tokenizer"] = "vocab_size", Tokenizer.from_str(data["tokenizer"]).get_vocab_size()
        except Exception:  # tokenizers has no type of its own
            raise _wrong("data.tokenizer", path, {"data.tokenizer": data["tokenizer"]}, "one of tokenizers") from None
    for name, (size, found) in sizes.items():
        own = getattr(module, size, module.hparams.get(size))
        if own is not None and own != found:
            raise ValueError(f"data.{name} in {path} is for a {size} of {found}: expected {own}; take another file")
