"""Features equal the outputs of torchvision's own layers; where their weights come from, and what else may be given."""

import copy
import os
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zoo.parts.features import Features, layer_names

# Feature maps


def meta_net(backbone: str) -> nn.Module:
    with torch.device("meta"):  # the classifiers would take seconds
        return torchvision.models.get_model(backbone, weights=None)


def random_weights(backbone: str, depth: int, folder: Path) -> Path:
    """A safetensors file of the first `depth` layers of `features`, with random weights."""
    draw = torch.Generator().manual_seed(0)
    state = {
        f"features.{name}": torch.rand(value.shape, generator=draw) - 0.3 * (value.ndim > 1)
        if value.is_floating_point()
        else torch.zeros((), dtype=value.dtype)
        for name, value in meta_net(backbone).features[:depth].state_dict().items()
    }
    save_file(state, folder / "random.safetensors")
    return folder / "random.safetensors"


def outputs_by_hooks(net: nn.Module, names: list[str], x: Tensor) -> list[Tensor]:
    """The outputs of layers, copied by forward hooks before another layer can change them in place."""
    outputs: dict[str, Tensor] = {}
    for name in names:
        net.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: outputs.__setitem__(name, output.clone())
        )
    net(x)
    return [outputs[name] for name in names]


@pytest.mark.parametrize(
    ("backbone", "layers"),
    [
        ("squeezenet1_0", ["relu1", "conv1", "fire4", "pool1"]),
        ("squeezenet1_1", ["fire2", "1"]),
        ("vgg11_bn", ["conv1_1", "norm1_1", "relu1_1", "relu2_1", "conv2_1"]),
        ("vgg16", ["conv2_1", "conv1_1", "relu1_1", 2]),
        ("vgg19", ["relu1_2", "pool1"]),
        ("squeezenet1_0", ["features.3.squeeze", "fire2", 3]),  # within a layer, and one layer by two names
    ],
)
def test_features_equal_hooks_on_torchvisions_net(backbone, layers, tmp_path):
    path = random_weights(backbone, len(layers) + 4, tmp_path)
    features = Features(backbone, layers, str(path))
    net = meta_net(backbone).features[: len(layers) + 4].eval()
    net.load_state_dict({name.removeprefix("features."): value for name, value in load_file(path).items()}, assign=True)
    assert any(getattr(layer, "inplace", False) for layer in net.modules())
    image, names = torch.rand(2, 3, 40, 36), [node.removeprefix("features.") for node in features.nodes.values()]
    maps = features(image)
    assert list(maps) == layers
    mean, std = (torch.tensor(value)[:, None, None] for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = outputs_by_hooks(net, names, (image - mean) / std)
    for found, theirs, raw in zip(maps.values(), expected, outputs_by_hooks(net, names, image), strict=True):
        assert torch.equal(found, theirs)
        assert not torch.allclose(found, raw), "images are normalized inside"


def test_a_relu_in_place_does_not_change_the_layer_before(tmp_path):
    features = Features("vgg16", ["conv1_1", "relu1_1"], str(random_weights("vgg16", 2, tmp_path)))
    before, after = features(torch.rand(1, 3, 16, 16)).values()
    assert (before < 0).any()
    assert torch.equal(after, before.relu())


def test_any_network_of_torchvision_has_features():
    torch.manual_seed(0)
    features = Features("resnet18", ["layer2", "layer1", "layer1.0.relu"], weights=None)
    torch.manual_seed(0)
    net, x = torchvision.models.resnet18(weights=None).eval(), torch.rand(1, 3, 64, 64)
    maps = features(x)
    assert [tuple(m.shape) for m in maps.values()] == [(1, 128, 8, 8), (1, 64, 16, 16), (1, 64, 16, 16)]
    expected = outputs_by_hooks(net, ["layer2", "layer1"], (x - features.mean) / features.std)
    for found, theirs in zip((maps["layer2"], maps["layer1"]), expected, strict=True):
        assert torch.equal(found, theirs)
    assert not any("layer3" in name for name, _ in features.named_buffers()), "no deeper than requested"


def test_a_copy_gives_equal_features():
    features, image = Features("squeezenet1_0", ["fire2"], weights=None), torch.rand(1, 3, 40, 40)
    copied = copy.deepcopy(features)  # as for an average of the weights of a system that uses them
    assert torch.equal(copied.train()(image)["fire2"], features(image)["fire2"])
    assert copied.state_dict() == {}


@pytest.mark.parametrize(
    ("backbone", "indices"),
    [  # as often published
        ("vgg16", {"conv1_1": 0, "relu1_2": 3, "pool1": 4, "relu2_2": 8, "relu3_3": 15, "relu4_1": 18, "relu5_3": 29}),
        ("vgg19", {"relu1_1": 1, "relu2_1": 6, "relu3_1": 11, "relu4_1": 20, "conv4_2": 21, "relu5_4": 35}),
        ("squeezenet1_0", {"conv1": 0, "pool1": 2, "fire2": 3, "fire4": 5, "pool4": 6, "fire8": 10, "fire9": 12}),
        ("vgg11_bn", {"conv1_1": 0, "norm1_1": 1, "relu1_1": 2, "pool1": 3, "conv2_1": 4}),
    ],
)
def test_layers_have_the_names_of_the_papers(backbone, indices):
    layers = meta_net(backbone).features
    names = layer_names(backbone, layers)
    assert {name: names.index(name) for name in indices} == indices
    assert len(set(names)) == len(names) == len(layers)


def test_it_is_frozen_and_saves_nothing(tmp_path):
    features = Features("vgg11_bn", ["norm1_1"], str(random_weights("vgg11_bn", 2, tmp_path)))
    assert list(features.parameters()) == []
    assert features.state_dict() == {}
    layers = {name.rpartition(".")[0] for name, _ in features.net.named_buffers()}
    assert layers == {"features.0", "features.1"}, "no deeper than requested"
    holder = nn.Sequential(features).train()
    assert not any(module.training for module in features.modules())
    image = torch.rand(2, 3, 8, 8, requires_grad=True)
    maps = holder(image)["norm1_1"]
    maps.square().sum().backward()
    assert image.grad.abs().sum() > 0
    torch.testing.assert_close(features(image[:1])["norm1_1"], maps[:1])  # as norms in evaluation do
    assert not any(buffer.grad_fn or buffer.requires_grad for buffer in features.buffers())
    assert {buffer.dtype for buffer in features.double().buffers() if buffer.is_floating_point()} == {torch.float64}


# Weights


def test_the_metadata_of_a_file_say_how_images_are_normalized(vgg_weights):
    features = Features("vgg16", ["conv1_1"], str(vgg_weights))
    state, image = load_file(vgg_weights), torch.rand(1, 3, 9, 7)
    pixels = 255 * (image - torch.tensor([0.5, 0.4, 0.3])[:, None, None])
    expected = F.conv2d(
        pixels, state["features.0.weight"].float(), state["features.0.bias"].float(), padding=1
    )  # they are half precision in the file
    torch.testing.assert_close(features(image)["conv1_1"], expected, atol=1e-2, rtol=1e-4)
    assert {buffer.dtype for buffer in features.buffers()} == {torch.float32}


def test_without_metadata_images_are_normalized_as_imagenet(vgg_weights, tmp_path):
    save_file(load_file(vgg_weights), tmp_path / "plain.safetensors")
    features = Features("vgg16", ["relu1_1"], str(tmp_path / "plain.safetensors"))
    torch.testing.assert_close(features.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))


def test_a_relative_path_is_searched_in_zoo_data(vgg_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_DATA", str(vgg_weights.parent.parent))
    Features("vgg16", ["relu1_1"], f"{vgg_weights.parent.name}/{vgg_weights.name}")
    with pytest.raises(FileNotFoundError, match=r"a/b\.safetensors does not exist.*DEFAULT.*downloads.*ZOO_DATA"):
        Features("vgg16", ["relu1_1"], "a/b.safetensors")


def test_the_first_layers_are_enough_if_no_other_is_requested(vgg_weights):
    assert Features("vgg16", ["relu4_1"], str(vgg_weights)).nodes == {"relu4_1": "features.18"}
    with pytest.raises(ValueError, match=r"features\.19\.weight is missing, expected \(512, 512, 3, 3\)"):
        Features("vgg16", ["conv4_2"], str(vgg_weights))


def test_weights_that_do_not_fit_are_an_error(vgg_weights, tmp_path):
    with pytest.raises(ValueError, match=r"do not fit: features\.0\.weight is \(64, 3, 3, 3\), expected \(96, 3, 7, 7"):
        Features("squeezenet1_0", ["relu1"], str(vgg_weights))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(vgg_weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is truncated or not a safetensors file"):
        Features("vgg16", ["relu1_1"], str(damaged))


def test_without_network_and_file_both_remedies_are_named(monkeypatch):
    def no_network(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setenv("TORCH_HOME", "/nowhere")
    with pytest.raises(FileNotFoundError, match=r"DEFAULT of vgg16 .*connect to the network.*safetensors file"):
        Features("vgg16", ["relu1_1"], "DEFAULT")


def test_untrained_nets_are_initialized_as_by_torchvision():
    torch.manual_seed(0)
    features = Features("squeezenet1_0", ["fire2"], weights=None)
    torch.manual_seed(0)
    net = torchvision.models.squeezenet1_0(weights=None).features
    torch.testing.assert_close(features.net.get_submodule("features.3.squeeze").weight, net[3].squeeze.weight.detach())


def test_torchvisions_weights_say_how_images_are_normalized(monkeypatch):
    state = torchvision.models.squeezenet1_0(weights=None).state_dict()
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *args, **kwargs: state)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", lambda *args, **kwargs: state)
    features = Features("squeezenet1_0", ["relu1"], "DEFAULT")
    torch.testing.assert_close(features.net.get_submodule("features.0").weight, state["features.0.weight"])
    torch.testing.assert_close(features.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vgg61", ["relu1_1"], None), "torchvision has no backbone 'vgg61'.*nearest: vgg"),
        (("vgg16", ["relu6_1"], "DEFAULT"), "vgg16 has no layer 'relu6_1'.*nearest: .*relu.*_1"),
        (("vgg16", [31], "DEFAULT"), "vgg16 has no layer 31"),
        (("vgg16", [], "DEFAULT"), "no layers of vgg16"),
        (("resnet18", ["layer9"], None), "resnet18 has no layer 'layer9'.*nearest: layer"),
        (("vgg16", ["relu1_1"], "IMAGENET"), "has no weights 'IMAGENET': expected IMAGENET1K_V1.*safetensors"),
    ],
)
def test_unknown_names_are_errors_that_name_the_nearest(arguments, message):
    with pytest.raises(ValueError, match=message):
        Features(*arguments)


@pytest.mark.data
def test_the_real_weights_have_the_statistics_of_their_documentation():
    from datamodules.images.single_image import read_resized

    photos = [
        read_resized(path, (224, 224)) for path in sorted((Path(os.environ["ZOO_DATA"]) / "images/content").iterdir())
    ]
    layers = ["relu1_2", "relu2_2", "relu3_3", "relu4_3"]
    maps = Features("vgg16", layers, "weights/vgg16_hed_features.safetensors")(torch.cat(photos))
    for layer, zeros, mean in zip(layers, (0.73, 0.94, 0.87, 0.80), (21.8, 4.8, 3.1, 1.25), strict=True):
        assert float((maps[layer] == 0).float().mean()) == pytest.approx(zeros, abs=0.1)
        assert float(maps[layer].mean()) == pytest.approx(mean, rel=0.4)
