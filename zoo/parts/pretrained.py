"""Weights of trained classifiers for nets that are built like torchvision's, whatever their layers are called."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from datamodules.io import find_file

State = dict[str, Tensor]
Renames = Sequence[tuple[str, str]]


def load_weights(
    net: nn.Module,
    weights: str,
    model: str,
    renames: Renames,
    convert: Callable[[State], State] | None = None,
) -> None:
    """Puts the weights of a torchvision classifier into a net, in place.

    Args:
        net: with a child `head`, whose last layer with weights is the classifier. It keeps its own values where the
            weights are for another number of classes.
        weights: torchvision's name, such as "DEFAULT" or "IMAGENET1K_V1", which downloads; or a .safetensors, .pth or
            .pt file with torchvision's keys, relative to the working directory or to `$ZOO_DATA` (else `data`).
        model: torchvision's name of the model, such as "resnet18".
        renames: pairs of a regular expression and its replacement, which are applied in this order to the keys of
            torchvision to get those of `net`.
        convert: applied to the weights before that, where the layers themselves differ.

    Raises:
        ValueError: if there are no weights of that name, or they are no weights, or of another architecture.
        FileNotFoundError: if the file does not exist, or the weights cannot be downloaded.
    """
    state = torchvision_state(model, weights)
    if convert is not None:
        state = convert(state)
    found = {_renamed(name, renames): tensor for name, tensor in state.items()}
    own = net.state_dict()
    classifier = _classifier(net)
    for name in classifier:
        if name in found and found[name].shape[1:] == own[name].shape[1:] and len(found[name]) != len(own[name]):
            found[name] = own[name]
    _check(own, found, f"the weights {weights} are not those of {model}")
    net.load_state_dict(
        {name: tensor.to(own[name].dtype) for name, tensor in found.items() if name in own}, strict=False
    )


def torchvision_state(model: str, weights: str) -> State:
    """The state dict that `weights`, a name or a file, stands for; see `load_weights`."""
    if Path(weights).suffix in (".safetensors", ".pth", ".pt"):
        return _read(find_file(weights, f"a file with torchvision's weights of {model}"))
    known = torchvision.models.get_model_weights(model).__members__
    name = weights.rpartition(".")[2]  # torchvision itself also takes "ResNet18_Weights.DEFAULT"
    if name not in known:
        raise ValueError(
            f"{model} has no weights {weights!r}: expected {', '.join(known)}, or the path of a .safetensors, .pth or "
            ".pt file"
        )
    try:
        return dict(known[name].get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"the weights {weights} of {model} could not be downloaded ({error}): connect to the network, or have a "
            "file with torchvision's weights, and give its path as weights"
        ) from error


def _read(path: Path) -> State:
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path} is truncated or no file of weights ({reason}): get it again") from None
    except Exception as error:  # `pickle.UnpicklingError` and what unpickling a broken file may raise
        raise ValueError(
            f"{path} is truncated, or holds more than tensors ({type(error).__name__}): expected a state dict; save it "
            "with torch.save(net.state_dict(), path)"
        ) from None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            f"{path} holds a {type(state).__name__} that is not a state dict: expected names and tensors; save it with "
            "torch.save(net.state_dict(), path)"
        )
    return state


def _renamed(name: str, renames: Renames) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def _classifier(net: nn.Module) -> list[str]:
    """The keys of the last layer with weights in `net.head`, in the state dict of `net`."""
    head = net.get_submodule("head")
    layers = [name for name, layer in head.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    prefix = ".".join(part for part in ("head", layers[-1]) if part)
    return [f"{prefix}.weight", f"{prefix}.bias"]


def _check(own: State, found: State, problem: str) -> None:
    """Raises ValueError if a tensor is missing, left over or of another shape; batch norm may lack its counters."""
    for name in own | found:
        if name.endswith("num_batches_tracked"):
            continue
        here, there = (tuple(state[name].shape) if name in state else None for state in (own, found))
        if here != there:
            raise ValueError(
                f"{problem}: {name} is {there or 'missing'} there and {here or 'missing'} in this net; expected the "
                "same architecture, width and stem; give other weights, or change the arguments of the net"
            )
