"""Feature maps of trained nets, for losses that compare pictures. B batch, C channels, H height, W width."""

import difflib
import re
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from fractions import Fraction

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from datamodules.io import find_file

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and std that torchvision's weights were trained with

Layer = str | int


class Features(nn.Module):
    """Feature maps of a frozen net whose layers stand in a row: torchvision's vgg16, vgg19, squeezenet1_0 and the like.

    It runs layer by layer and only as far as the last layer asked for; layers behind that are not even built. It has
    no parameters: the weights are buffers that are neither trained nor saved in checkpoints, so that a module which
    looks at pictures through this one holds nothing but its own. It stays in evaluation mode. Normalisation is inside.

    Args:
        backbone: name of a torchvision model that has `features`.
        layers: names such as "relu3_1" (see `layer_names`), or places among the layers, 0 or "0" and so on.
        weights: torchvision's name, such as "DEFAULT", which downloads; or a safetensors file, which is looked for
            as it is and below `$ZOO_DATA` (else `data`); None for an untrained net.

    A file has torchvision's keys ("features.0.weight"), and may end at the last layer asked for. If its metadata
    say under "input" something with "mean (r,g,b), std (r,g,b)", numbers or fractions, that is the
    normalisation; else it is ImageNet's.

    Shape: (B, 3, H, W) in 0..1 -> {layer: (B, C, h, w)}, in the order asked for.

    Raises:
        ValueError: for an unknown backbone, layer or name of weights, or a file that does not fit.
        FileNotFoundError: if the weights are not there and can't be downloaded.

    >>> look = Features("squeezenet1_0", ("relu1", "fire2"), weights=None)
    >>> {layer: tuple(maps.shape) for layer, maps in look(torch.rand(1, 3, 64, 64)).items()}
    {'relu1': (1, 96, 29, 29), 'fire2': (1, 128, 14, 14)}
    """

    def __init__(
        self,
        backbone: str = "vgg16",
        layers: Iterable[Layer] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1"),
        weights: str | None = "DEFAULT",
    ) -> None:
        super().__init__()
        with nullcontext() if weights is None else torch.device("meta"):  # their classifiers are large, and not needed
            net = _in_a_row(backbone)
        self.places = _places(backbone, net, layers)
        self.net = net[: max(self.places.values()) + 1]
        mean, std = IMAGENET
        if weights is not None:
            state, (mean, std) = _load(backbone, weights)
            _fill(self.net, state, f"the weights {weights} of {backbone}")
        for name, value in {"mean": mean, "std": std}.items():
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)
        _freeze(self.net)
        self.eval()

    def train(self, mode: bool = True) -> "Features":
        return super().train(False)

    def forward(self, image: Tensor) -> dict[Layer, Tensor]:
        x, maps = (image - self.mean) / self.std, {}
        for place, layer in enumerate(self.net):
            maps[place] = x = layer(x)
        return {layer: maps[place] for layer, place in self.places.items()}


def hooked_features(net: nn.Module, layers: Iterable[str], x: Tensor) -> dict[str, Tensor]:
    """The outputs of any layers of any net, by forward hooks, which are gone afterwards whatever happens.

    They are copies: a ReLU that works in place would change what the layer before it gave. Of a layer that the net
    uses several times, the last output counts.

    Args:
        net: takes x.
        layers: dotted names, as in `net.named_modules()`.
        x: already normalised.

    Raises:
        ValueError: for an unknown layer; names the nearest.

    >>> net = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    >>> hooked_features(net, ["0", "1"], torch.tensor([-1.0, 1.0]))
    {'0': tensor([-1.,  1.]), '1': tensor([0., 1.])}
    """
    modules, maps = dict(net.named_modules()), {}
    with ExitStack() as hooks:
        for name in layers:
            if name not in modules:
                raise ValueError(_unknown("layer", name, type(net).__name__, modules))

            def keep(module: nn.Module, inputs: tuple, output: Tensor, name: str = name) -> None:
                maps[name] = output.clone()

            hooks.enter_context(modules[name].register_forward_hook(keep))
        net(x)
    return {name: maps[name] for name in layers}


def layer_names(backbone: str, net: nn.Sequential) -> list[str]:
    """A name for each layer in the row: those of the papers.

    In VGG blocks end with a pooling: conv1_1, relu1_1, conv1_2, relu1_2, pool1, conv2_1 (Simonyan and Zisserman 2015,
    table 1). In other nets what has weights is counted: conv1, relu1, pool1, fire2 (Iandola et al. 2016, table 1).

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3))
    >>> layer_names("vgg11", net), layer_names("squeezenet1_0", net)
    (['conv1_1', 'relu1_1', 'pool1', 'conv2_1'], ['conv1', 'relu1', 'pool1', 'conv2'])
    """
    kinds = {nn.Conv2d: "conv", nn.ReLU: "relu", nn.MaxPool2d: "pool", nn.BatchNorm2d: "norm"}
    block, inside, names = int(backbone.startswith("vgg")), 0, []
    for layer in net:
        kind = kinds.get(type(layer), type(layer).__name__.lower())
        inside += kind not in ("relu", "pool", "norm")
        names.append(f"{kind}{block}" if block and kind == "pool" else f"{kind}{f'{block}_' * bool(block)}{inside}")
        if block and kind == "pool":
            block, inside = block + 1, 0
    return names


def _in_a_row(backbone: str) -> nn.Sequential:
    known = torchvision.models.list_models(torchvision.models)
    if backbone not in known:
        raise ValueError(_unknown("backbone", backbone, "torchvision", known))
    net = getattr(torchvision.models.get_model(backbone, weights=None), "features", None)
    if not isinstance(net, nn.Sequential):
        raise ValueError(
            f"{backbone} has no `features` in a row: expected a net such as vgg16, vgg19 or squeezenet1_0; "
            "use hooked_features for it"
        )
    for layer in net.modules():
        if hasattr(layer, "inplace"):
            layer.inplace = False  # or it would change the maps of the layer before it
    return net


def _places(backbone: str, net: nn.Sequential, layers: Iterable[Layer]) -> dict[Layer, int]:
    names = layer_names(backbone, net)
    layers, known = list(layers), {}
    for place, name in enumerate(names):
        known |= {name: place, place: place, str(place): place}
    for layer in layers:
        if layer not in known:
            raise ValueError(_unknown("layer", layer, backbone, names))
    if not layers:
        raise ValueError(f"no layers of {backbone} are asked for: expected one or more, such as {names[1]}")
    return {layer: known[layer] for layer in layers}


def _unknown(what: str, word: Layer, where: str, known: Iterable[str]) -> str:
    known = [name for name in known if name]
    near = difflib.get_close_matches(str(word), known, 3, cutoff=0.5)
    return f"{where} has no {what} {word!r}: expected one of its {len(known)}; " + (
        f"nearest: {', '.join(near)}" if near else f"from {known[0]} to {known[-1]}"
    )


def _load(backbone: str, weights: str) -> tuple[dict[str, Tensor], tuple[tuple[float, ...], tuple[float, ...]]]:
    """Weights with the normalisation (mean, std) that they expect."""
    if weights.endswith(".safetensors"):
        return _load_file(backbone, weights)
    known = torchvision.models.get_model_weights(backbone).__members__
    if weights not in known:
        raise ValueError(
            f"{backbone} has no weights {weights!r}: expected {', '.join(known)}, or the path of a .safetensors file"
        )
    try:
        state = known[weights].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"the weights {weights} of {backbone} could not be downloaded ({error}): connect to the network, "
            "or have a safetensors file with torchvision's keys, and give its path as weights"
        ) from error
    preset = known[weights].transforms()
    return state, (tuple(preset.mean), tuple(preset.std))


def _load_file(backbone: str, weights: str) -> tuple[dict[str, Tensor], tuple[tuple[float, ...], tuple[float, ...]]]:
    path = find_file(weights, f"a safetensors file of {backbone} (or DEFAULT, which downloads torchvision's weights)")
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            said = (file.metadata() or {}).get("input", "")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); get it again") from None
    numbers = re.search(r"mean \(([\d\s.,/]+)\), std \(([\d\s.,/]+)\)", said)
    if not numbers:
        return state, IMAGENET
    mean, std = (tuple(float(Fraction(number.strip())) for number in part.split(",")) for part in numbers.groups())
    return state, (mean, std)


def _fill(net: nn.Sequential, state: dict[str, Tensor], whose: str) -> None:
    """Puts `state` (keys "features.0.weight") into a net on the meta device."""
    wanted, found = net.state_dict(), {}
    for name, tensor in wanted.items():
        there = state.get(f"features.{name}")
        if there is None or there.shape != tensor.shape:
            raise ValueError(
                f"{whose} do not fit: features.{name} is {tuple(there.shape) if there is not None else 'missing'}, "
                f"expected {tuple(tensor.shape)}; take those of this backbone, or layers that they reach"
            )
        found[name] = there.float() if there.is_floating_point() else there
    net.load_state_dict(found, assign=True)


def _freeze(net: nn.Module) -> None:
    """Turns parameters into buffers, and keeps all buffers out of `state_dict`."""
    for module in net.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
        module._non_persistent_buffers_set.update(module._buffers)
