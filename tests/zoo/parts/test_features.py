"""Features equal torchvision's own, however they are taken, and the losses on them equal their formulas."""

import itertools
import math
import os
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zoo.parts.features import Features, hooked_features, layer_names
from zoo.parts.losses import gram, gram_distance, sliced_distance

# Feature maps


def shape_of(backbone: str) -> nn.Sequential:
    with torch.device("meta"):  # the classifiers behind them would take seconds
        return torchvision.models.get_model(backbone, weights=None).features


def both(backbone: str, layers: list, folder: Path) -> tuple[Features, nn.Module]:
    """`Features` with weights drawn by lot, and torchvision's with the same ones, whose ReLUs work in place."""
    look = Features(backbone, layers, str(drawn(backbone, len(layers) + 4, folder)))
    net = shape_of(backbone)[: len(look.net)].eval()
    net.load_state_dict(dict(look.net.named_buffers()), assign=True)
    assert any(getattr(layer, "inplace", False) for layer in net.modules())
    return look, net


def drawn(backbone: str, depth: int, folder: Path) -> Path:
    """A safetensors file of the first layers."""
    draw = torch.Generator().manual_seed(0)
    state = {
        f"features.{name}": torch.rand(value.shape, generator=draw) - 0.3 * (value.ndim > 1)
        if value.is_floating_point()
        else torch.zeros((), dtype=value.dtype)
        for name, value in shape_of(backbone)[:depth].state_dict().items()
    }
    save_file(state, folder / "drawn.safetensors")
    return folder / "drawn.safetensors"


@pytest.mark.parametrize(
    ("backbone", "layers"),
    [
        ("squeezenet1_0", ["relu1", "conv1", "fire4", "pool1"]),
        ("squeezenet1_1", ["fire2", "1"]),
        ("vgg11_bn", ["conv1_1", "norm1_1", "relu1_1", "relu2_1", "conv2_1"]),
        ("vgg16", ["conv2_1", "conv1_1", "relu1_1", 2]),
        ("vgg19", ["relu1_2", "pool1"]),
    ],
)
def test_the_loop_equals_hooks_on_torchvisions_net(backbone, layers, tmp_path):
    look, net = both(backbone, layers, tmp_path)
    image, places = torch.rand(2, 3, 40, 36), [str(place) for place in look.places.values()]
    found = look(image)
    assert list(found) == layers
    mean, std = (torch.tensor(value)[:, None, None] for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = hooked_features(net, places, (image - mean) / std)
    for maps, theirs, raw in zip(
        found.values(), expected.values(), hooked_features(net, places, image).values(), strict=True
    ):
        torch.testing.assert_close(maps, theirs)
        assert not torch.allclose(maps, raw), "normalisation is inside"


def test_a_relu_in_place_does_not_reach_back(tmp_path):
    look, net = both("vgg16", ["conv1_1", "relu1_1"], tmp_path)
    maps = look(torch.rand(1, 3, 16, 16))
    hooked = hooked_features(net, ["0", "1"], torch.randn(1, 3, 32, 32))
    for before, after in (maps.values(), hooked.values()):
        assert (before < 0).any()
        assert torch.equal(after, before.relu())


def test_any_net_has_features_by_hooks():
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None).eval()
    x = torch.randn(1, 3, 64, 64)
    found = hooked_features(net, ["layer2", "layer1", "fc"], x)
    assert [tuple(maps.shape) for maps in found.values()] == [(1, 128, 8, 8), (1, 64, 16, 16), (1, 1000)]
    torch.testing.assert_close(found["fc"], net(x))


def test_hooks_are_always_removed():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True))
    hooked_features(net, ["0", "1"], torch.rand(1, 3, 4, 4))
    with pytest.raises(RuntimeError):
        hooked_features(net, ["0"], torch.rand(1, 5, 4, 4))
    with pytest.raises(ValueError, match="Sequential has no layer '2'"):
        hooked_features(net, ["0", "2"], torch.rand(1, 3, 4, 4))
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(
    ("backbone", "places"),
    [  # as often published
        ("vgg16", {"conv1_1": 0, "relu1_2": 3, "pool1": 4, "relu2_2": 8, "relu3_3": 15, "relu4_1": 18, "relu5_3": 29}),
        ("vgg19", {"relu1_1": 1, "relu2_1": 6, "relu3_1": 11, "relu4_1": 20, "conv4_2": 21, "relu5_4": 35}),
        ("squeezenet1_0", {"conv1": 0, "pool1": 2, "fire2": 3, "fire4": 5, "pool4": 6, "fire8": 10, "fire9": 12}),
        ("vgg11_bn", {"conv1_1": 0, "norm1_1": 1, "relu1_1": 2, "pool1": 3, "conv2_1": 4}),
    ],
)
def test_layers_have_the_names_of_the_papers(backbone, places):
    net = shape_of(backbone)
    names = layer_names(backbone, net)
    assert {name: names.index(name) for name in places} == places
    assert len(set(names)) == len(names) == len(net)


def test_it_is_frozen_and_holds_nothing(tmp_path):
    look = Features("vgg11_bn", ["norm1_1"], str(drawn("vgg11_bn", 2, tmp_path)))
    assert list(look.parameters()) == []
    assert look.state_dict() == {}
    assert len(look.net) == 2, "no deeper than asked for"
    holder = nn.Sequential(look).train()
    assert not any(module.training for module in look.modules())
    image = torch.rand(2, 3, 8, 8, requires_grad=True)
    maps = holder(image)["norm1_1"]
    maps.square().sum().backward()
    assert image.grad.abs().sum() > 0
    torch.testing.assert_close(look(image[:1])["norm1_1"], maps[:1])  # as norms in evaluation do
    assert not any(buffer.grad_fn or buffer.requires_grad for buffer in look.buffers())
    assert {buffer.dtype for buffer in look.double().buffers() if buffer.is_floating_point()} == {torch.float64}


# Weights


def test_a_file_tells_its_own_normalisation(vgg_weights):
    look = Features("vgg16", ["conv1_1"], str(vgg_weights))
    state, image = load_file(vgg_weights), torch.rand(1, 3, 9, 7)
    pixels = 255 * (image - torch.tensor([0.5, 0.4, 0.3])[:, None, None])
    expected = F.conv2d(
        pixels, state["features.0.weight"].float(), state["features.0.bias"].float(), padding=1
    )  # and they are half precision in the file
    torch.testing.assert_close(look(image)["conv1_1"], expected, atol=1e-2, rtol=1e-4)
    assert {buffer.dtype for buffer in look.buffers()} == {torch.float32}


def test_a_file_without_a_word_is_imagenets(vgg_weights, tmp_path):
    save_file(load_file(vgg_weights), tmp_path / "plain.safetensors")
    look = Features("vgg16", ["relu1_1"], str(tmp_path / "plain.safetensors"))
    torch.testing.assert_close(look.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))


def test_a_relative_path_is_looked_for_under_zoo_data(vgg_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_DATA", str(vgg_weights.parent.parent))
    Features("vgg16", ["relu1_1"], f"{vgg_weights.parent.name}/{vgg_weights.name}")
    with pytest.raises(FileNotFoundError, match=r"a/b\.safetensors are not there.*ZOO_DATA.*DEFAULT.*downloads"):
        Features("vgg16", ["relu1_1"], "a/b.safetensors")


def test_a_part_of_a_net_is_enough_if_it_reaches(vgg_weights):
    assert len(Features("vgg16", ["relu4_1"], str(vgg_weights)).net) == 19
    with pytest.raises(ValueError, match=r"features\.19\.weight is missing, expected \(512, 512, 3, 3\)"):
        Features("vgg16", ["conv4_2"], str(vgg_weights))


def test_weights_that_do_not_fit_are_an_error(vgg_weights, tmp_path):
    with pytest.raises(ValueError, match=r"do not fit: features\.0\.weight is \(64, 3, 3, 3\), expected \(96, 3, 7, 7"):
        Features("squeezenet1_0", ["relu1"], str(vgg_weights))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(vgg_weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is no whole safetensors file"):
        Features("vgg16", ["relu1_1"], str(damaged))


def test_no_network_and_no_file_name_both_remedies(monkeypatch):
    def no_network(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setenv("TORCH_HOME", "/nowhere")
    with pytest.raises(FileNotFoundError, match=r"DEFAULT of vgg16 .*connect to the network.*safetensors file"):
        Features("vgg16", ["relu1_1"], "DEFAULT")


def test_untrained_nets_are_as_torchvision_starts_them():
    torch.manual_seed(0)
    look = Features("squeezenet1_0", ["fire2"], weights=None)
    torch.manual_seed(0)
    net = torchvision.models.squeezenet1_0(weights=None).features
    torch.testing.assert_close(look.net[3].squeeze.weight, net[3].squeeze.weight.detach())


def test_torchvisions_weights_bring_their_normalisation(monkeypatch):
    state = torchvision.models.squeezenet1_0(weights=None).state_dict()
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *args, **kwargs: state)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", lambda *args, **kwargs: state)
    look = Features("squeezenet1_0", ["relu1"], "DEFAULT")
    torch.testing.assert_close(look.net[0].weight, state["features.0.weight"])
    torch.testing.assert_close(look.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vgg61", ["relu1_1"], None), "torchvision has no backbone 'vgg61'.*nearest: vgg"),
        (("vgg16", ["relu6_1"], "DEFAULT"), "vgg16 has no layer 'relu6_1'.*nearest: .*relu.*_1"),
        (("vgg16", [31], "DEFAULT"), "vgg16 has no layer 31"),
        (("vgg16", [], "DEFAULT"), "no layers of vgg16"),
        (("resnet18", ["layer1"], None), "resnet18 has no `features` in a row.*hooked_features"),
        (("vgg16", ["relu1_1"], "IMAGENET"), "has no weights 'IMAGENET': expected IMAGENET1K_V1.*safetensors"),
    ],
)
def test_wrong_words_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        Features(*arguments)


@pytest.mark.data
def test_the_real_weights_see_what_their_card_says():
    from datamodules.images.single_image import picture

    photos = [picture(path, (224, 224)) for path in sorted((Path(os.environ["ZOO_DATA"]) / "images/content").iterdir())]
    layers = ["relu1_2", "relu2_2", "relu3_3", "relu4_3"]
    maps = Features("vgg16", layers, "weights/vgg16_hed_features.safetensors")(torch.cat(photos))
    for layer, zeros, mean in zip(layers, (0.73, 0.94, 0.87, 0.80), (21.8, 4.8, 3.1, 1.25), strict=True):
        assert float((maps[layer] == 0).float().mean()) == pytest.approx(zeros, abs=0.1)
        assert float(maps[layer].mean()) == pytest.approx(mean, rel=0.4)


# Losses


def seeded(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


sizes = st.integers(1, 6)


@given(b=sizes, c=sizes, h=sizes, w=sizes, seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_gram_is_the_mean_product_of_two_channels(b, c, h, w, seed):
    maps = seeded(seed, b, c, h, w)
    found = gram(maps)
    for i in range(b):
        for j in range(c):
            for k in range(c):
                torch.testing.assert_close(found[i, j, k], (maps[i, j] * maps[i, k]).mean(), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(gram(maps.repeat(1, 1, 2, 3)), found)  # blind to the size of the picture
    order = torch.randperm(h * w)
    torch.testing.assert_close(gram(maps.flatten(2)[:, :, order].unflatten(2, (h, w))), found)  # and to places


def test_gram_distance_is_four_times_the_papers():
    maps, target = seeded(0, 1, 5, 4, 3), seeded(1, 1, 5, 6, 6)
    n, m = 5, 12
    ours, theirs = (torch.einsum("chw,dhw->cd", x[0], x[0]) for x in (maps, target * math.sqrt(12 / 36)))
    paper = (ours - theirs).square().sum() / (4 * n**2 * m**2)
    torch.testing.assert_close(gram_distance(maps, gram(target))[0], 4 * paper)
    assert gram_distance(maps.repeat(3, 1, 1, 1), gram(maps)).tolist() == pytest.approx([0, 0, 0], abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_are_float32_under_autocast(dtype):
    maps, target = 300 * seeded(0, 2, 4, 16, 16).to(dtype), 300 * seeded(1, 1, 4, 16, 16).to(dtype)
    plain = gram(maps.float()), sliced_distance(maps.float(), target.float(), torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gram(maps), sliced_distance(maps, target, torch.Generator().manual_seed(0))
        distance = gram_distance(maps, gram(target))
    assert distance.dtype == torch.float32
    assert distance.isfinite().all()
    for x, y in zip(found, plain, strict=True):
        assert x.dtype == torch.float32
        assert torch.equal(x, y)
    assert plain[0].max() > torch.finfo(torch.float16).max, "float16 would have overflowed: the test shows nothing"


def lines(channels: int, projections: int, seed: int = 0) -> Tensor:
    draw = torch.randn(projections, channels, generator=torch.Generator().manual_seed(seed))
    return draw / draw.norm(dim=1, keepdim=True)


def test_sliced_distance_is_the_cheapest_matching_along_each_line():
    maps, target = seeded(0, 1, 3, 2, 2), seeded(1, 1, 3, 2, 2)
    expected = 0.0
    for line in lines(3, 7):
        ours, theirs = ((line @ x[0].flatten(1)) for x in (maps, target))
        expected += min(float((ours - theirs[list(p)]).square().mean()) for p in itertools.permutations(range(4))) / 7
    found = sliced_distance(maps, target, torch.Generator().manual_seed(0), projections=7)
    assert found.tolist() == pytest.approx([expected], rel=1e-4)


def test_sliced_distance_of_what_was_moved_is_how_far():
    maps, shift = seeded(0, 2, 3, 5, 5), torch.tensor([1.0, -2.0, 0.5])
    found = sliced_distance(maps + shift[:, None, None], maps, torch.Generator().manual_seed(3), projections=9)
    expected = (lines(3, 9, seed=3) @ shift).square().mean()
    torch.testing.assert_close(found, expected.expand(2), atol=1e-5, rtol=1e-4)


def test_sliced_distance_knows_neither_places_nor_sizes():
    maps = seeded(0, 1, 3, 4, 4)
    mixed = maps.flatten(2)[:, :, torch.randperm(16)].unflatten(2, (2, 8))
    larger = maps.repeat(1, 1, 2, 1)
    draws = torch.Generator().manual_seed(0)
    assert float(sliced_distance(mixed, maps, draws)) == pytest.approx(0, abs=1e-9)
    assert float(sliced_distance(maps, larger, draws)) == pytest.approx(0, abs=1e-9)
    assert float(sliced_distance(larger, maps, draws)) < 0.05 < float(sliced_distance(maps + 1, maps, draws))


def test_sliced_distance_interpolates_quantiles():
    nothing, target = torch.zeros(1, 1, 2, 2), torch.tensor([0.0, 1.0])[None, None, None]
    found = sliced_distance(nothing, target, torch.Generator().manual_seed(0))  # with one channel a line is 1 or -1
    assert found.tolist() == pytest.approx([(0**2 + 0.25**2 + 0.75**2 + 1**2) / 4])


def test_sliced_distance_moves_points_onto_the_target():
    maps, target = seeded(0, 1, 3, 6, 6).requires_grad_(), 2 + 0.5 * seeded(1, 1, 3, 6, 6)
    draws, optimizer = torch.Generator().manual_seed(0), torch.optim.Adam([maps], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        sliced_distance(maps, target, draws).sum().backward()
        optimizer.step()
    torch.testing.assert_close(maps.mean((2, 3)), target.mean((2, 3)), atol=0.05, rtol=0.05)
    torch.testing.assert_close(maps.std((2, 3)), target.std((2, 3)), atol=0.1, rtol=0.1)
