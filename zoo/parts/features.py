"""Feature maps of trained networks, for losses that compare images. B batch, C channels, H height, W width."""

import re
from collections.abc import Iterable
from contextlib import nullcontext
from fractions import Fraction

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from datamodules.io import find_file
from datamodules.messages import nearest_names

Layer = str | int
MeanStd = tuple[tuple[float, ...], tuple[float, ...]]

IMAGENET: MeanStd = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and std that torchvision's weights expect


class Features(nn.Module):
    """Feature maps of a frozen torchvision network, such as vgg16, squeezenet1_0 or resnet18.

    What follows the last of the requested layers is neither built nor run. The network has no parameters: its weights
    are buffers that are neither trained nor saved in checkpoints, so that a module that uses it saves only its own
    state. It stays in evaluation mode. Images are normalized inside.

    Args:
        backbone: name of a torchvision model.
        layers: names such as "relu3_1" (see `layer_names`) or their indices, 0 or "0" and so on, if the model has a
            sequence of layers `features`; for every model dotted names, such as "layer1.0.relu".
        weights: torchvision's name, such as "DEFAULT", which downloads; or a safetensors file, relative to the working
            directory or to `$ZOO_DATA` (else `data`); None for an untrained network.

    A file has torchvision's keys ("features.0.weight"), and may end at the last requested layer. If its metadata say
    under "input" something with "mean (r,g,b), std (r,g,b)", numbers or fractions, images are normalized by that; else
    by ImageNet's mean and standard deviation.

    Shape: (B, 3, H, W) in 0..1 -> {layer: (B, C, h, w)}, in the requested order.

    Raises:
        ValueError: for an unknown backbone, layer or name of weights, or a file that does not fit.
        FileNotFoundError: if the weights do not exist and cannot be downloaded.

    >>> features = Features("squeezenet1_0", ("relu1", "fire2"), weights=None)
    >>> {layer: tuple(maps.shape) for layer, maps in features(torch.rand(1, 3, 64, 64)).items()}
    {'relu1': (1, 96, 29, 29), 'fire2': (1, 128, 14, 14)}
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str = "vgg16",
        layers: Iterable[Layer] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1"),
        weights: str | None = "DEFAULT",
    ) -> None:
        super().__init__()
        with nullcontext() if weights is None else torch.device("meta"):  # classifiers are large, and not needed
            net = _backbone(backbone)
        self.nodes = _nodes(backbone, net, layers)
        names = {node: node for node in self.nodes.values()}
        self.net = create_feature_extractor(net, names, suppress_diff_warning=True)
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
        maps = self.net((image - self.mean) / self.std)
        return {layer: maps[node] for layer, node in self.nodes.items()}


def layer_names(backbone: str, layers: nn.Sequential) -> list[str]:
    """The names that papers give to a sequence of layers, one for each.

    In VGG each block ends with a pooling: conv1_1, relu1_1, conv1_2, relu1_2, pool1, conv2_1 (Simonyan and Zisserman
    2015, table 1). In other networks the layers with weights are counted: conv1, relu1, pool1, fire2 (Iandola et al.
    2016, table 1).

    >>> layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3))
    >>> layer_names("vgg11", layers), layer_names("squeezenet1_0", layers)
    (['conv1_1', 'relu1_1', 'pool1', 'conv2_1'], ['conv1', 'relu1', 'pool1', 'conv2'])
    """
    kinds = {nn.Conv2d: "conv", nn.ReLU: "relu", nn.MaxPool2d: "pool", nn.BatchNorm2d: "norm"}
    block, inside, names = int(backbone.startswith("vgg")), 0, []
    for layer in layers:
        kind = kinds.get(type(layer), type(layer).__name__.lower())
        inside += kind not in ("relu", "pool", "norm")
        names.append(f"{kind}{block}" if block and kind == "pool" else f"{kind}{f'{block}_' * bool(block)}{inside}")
        if block and kind == "pool":
            block, inside = block + 1, 0
    return names


def _backbone(name: str) -> nn.Module:
    known = torchvision.models.list_models(torchvision.models)
    if name not in known:
        raise ValueError(_unknown("backbone", name, "torchvision", known))
    net = torchvision.models.get_model(name, weights=None)
    for layer in net.modules():
        if hasattr(layer, "inplace"):
            layer.inplace = False  # or it would change the maps of the layer before it
    return net


def _nodes(backbone: str, net: nn.Module, layers: Iterable[Layer]) -> dict[Layer, str]:
    """The requested layers -> their dotted names in `net`."""
    known: dict[Layer, str] = {}
    names, features = [], getattr(net, "features", None)
    if isinstance(features, nn.Sequential):
        names = layer_names(backbone, features)
        for index, (child, _) in enumerate(features.named_children()):
            known |= dict.fromkeys((names[index], index, str(index)), f"features.{child}")
    dotted = [name for name, _ in net.named_modules() if name]
    known, names = dict(zip(dotted, dotted, strict=True)) | known, names + dotted
    layers = list(layers)
    for layer in layers:
        if layer not in known:
            raise ValueError(_unknown("layer", layer, backbone, names))
    if not layers:
        raise ValueError(f"no layers of {backbone} are requested: expected one or more, such as {names[1]}")
    return {layer: known[layer] for layer in layers}


def _unknown(what: str, word: Layer, where: str, known: list[str]) -> str:
    nearest = nearest_names(str(word), known, f"from {known[0]} to {known[-1]}", cutoff=0.5)
    return f"{where} has no {what} {word!r}: expected one of its {len(known)}; {nearest}"


def _load(backbone: str, weights: str) -> tuple[dict[str, Tensor], MeanStd]:
    """Weights, and the normalization that they expect."""
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


def _load_file(backbone: str, weights: str) -> tuple[dict[str, Tensor], MeanStd]:
    path = find_file(weights, f"a safetensors file of {backbone} (or DEFAULT, which downloads torchvision's weights)")
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
            preprocessing = (file.metadata() or {}).get("input", "")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or not a safetensors file ({error}); get it again") from None
    numbers = re.search(r"mean \(([\d\s.,/]+)\), std \(([\d\s.,/]+)\)", preprocessing)
    if not numbers:
        return state, IMAGENET
    mean, std = (tuple(float(Fraction(number.strip())) for number in part.split(",")) for part in numbers.groups())
    return state, (mean, std)


def _fill(net: nn.Module, state: dict[str, Tensor], whose: str) -> None:
    """Puts what `net`, which is on the meta device, needs of `state` into it, as float32."""
    needed, found = net.state_dict(), {}
    for name, tensor in needed.items():
        given = state.get(name)
        if given is None or given.shape != tensor.shape:
            raise ValueError(
                f"{whose} do not fit: {name} is {tuple(given.shape) if given is not None else 'missing'}, "
                f"expected {tuple(tensor.shape)}; use weights of this backbone, or layers that they include"
            )
        found[name] = given.float() if given.is_floating_point() else given
    net.load_state_dict(found, assign=True)


def _freeze(net: nn.Module) -> None:
    """Turns parameters into buffers, and keeps all buffers out of `state_dict`."""
    for module in net.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
        module._non_persistent_buffers_set.update(module._buffers)
