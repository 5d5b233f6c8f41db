"""The nets of MNIST's drill and the smallest ones: parameters as stated, fields of view, and what they refuse."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import Synthetic, quiet_trainer
from zoo.analysis.receptive_field import Layer, receptive_field
from zoo.classification.drill import Drill
from zoo.classification.mnist_compact import SeparableNet, ShiftNorm, Under8K
from zoo.command import recipes
from zoo.parts.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm

DRILL = {  # step: parameters in the course, and here
    1: (6_379_786, 6_379_786),
    2: (194_884, 194_884),
    3: (10_790, 10_790),
    4: (10_970, 10_970),
    5: (10_970, 10_970),
    6: (6_070, 6_050),  # no norm and ReLU on the logits here
    7: (11_994, 11_994),
    8: (13_808, 13_828),  # a norm in the transition here
    9: (13_808, 13_828),
    10: (13_808, 13_828),
}
LIMITS = {"under-20k": 20_000, "under-8k": 7_900, "two-k": 2_000, "one-k": 1_000, "seven-hundred": 700}
NORMS = {"norms-bn-l1": BatchNorm, "norms-gn": GroupNorm, "norms-ln": LayerNorm, "norms-in": InstanceNorm}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def module_of(recipe: str) -> nn.Module:
    """The module of a recipe of MNIST, with its plain arguments and its norm."""
    model = recipes.read(recipes.find(f"mnist/{recipe}"))["model"]
    package, _, name = model["class_path"].rpartition(".")
    arguments = {key: value for key, value in model["init_args"].items() if key not in ("optimizer", "schedule")}
    if arguments.get("norm"):
        path, _, norm = arguments["norm"]["class_path"].rpartition(".")
        made, options = getattr(importlib.import_module(path), norm), arguments["norm"].get("init_args", {})
        arguments["norm"] = lambda channels: made(channels, **options)
    return getattr(importlib.import_module(package), name)(**arguments)


@pytest.mark.parametrize("step", DRILL)
def test_each_step_of_the_drill_has_the_parameters_of_the_course(step):
    found = module_of(f"drill-{step:02}")
    assert count(found) == DRILL[step][1]
    assert abs(DRILL[step][1] - DRILL[step][0]) <= 20
    assert found.eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_the_steps_of_the_drill_are_ten_rungs_with_labels():
    expected = [recipes.expectation(f"mnist/drill-{step:02}") for step in DRILL]
    assert [expect.rung for expect in expected] == list(DRILL)
    assert len({expect.label for expect in expected}) == len(DRILL)
    assert [
        expect.rung for name in recipes.names() if (expect := recipes.expectation(name)).rung and "mnist/drill" in name
    ] == list(DRILL)


def test_step_8_pools_where_the_field_of_view_is_5_and_step_7_at_7():
    for step, field in ((7, 7), (8, 5)):
        layers = receptive_field(module_of(f"drill-{step:02}").net.eval(), (1, 28, 28))
        pool = next(i for i, layer in enumerate(layers) if layer.name.startswith("stages") and layer.stride == (2, 2))
        assert layers[pool - 1].field == (field, field)


def test_dropout_stands_in_one_place_or_after_each_convolution():
    once, each = (
        [m for m in Drill(dropout=0.1, dropout_after=where).modules() if isinstance(m, nn.Dropout)]
        for where in ("once", "each")
    )
    assert (len(once), len(each)) == (1, 6)
    net = Drill(dropout=0.1, dropout_after="once").net
    assert isinstance(net.stages[0][-1], nn.Dropout)  # after the second convolution, before the pooling


def test_the_class_activation_map_has_five_pixels_or_more():
    for step in DRILL:
        module, found = module_of(f"drill-{step:02}").eval(), []
        module.cam_target.register_forward_hook(lambda m, inputs, output, found=found: found.append(output.shape[2]))
        module(torch.zeros(1, 1, 28, 28))
        assert found[0] >= 5


def test_images_of_a_size_that_the_net_cannot_take_are_refused():
    with pytest.raises(ValueError, match="image_size is 8, of which 7 layers leave nothing: expected larger images"):
        Drill(image_size=8)
    with pytest.raises(ValueError, match="padding has 1 values, and there are 2 blocks: expected as many"):
        Drill(padding=(1,))
    data = Synthetic(image_shape=(1, 32, 32))
    with pytest.raises(ValueError, match=r"image_size is 28, but the images are 32x32 pixels: expected the same"):
        quiet_trainer().validate(Drill(head="kernel"), datamodule=data, verbose=False)
    quiet_trainer().validate(Drill(), datamodule=data, verbose=False)  # an average takes any size


@pytest.mark.parametrize("name", LIMITS)
def test_the_smallest_nets_keep_their_limits(name):
    assert 0.9 * LIMITS[name] - 2000 < count(module_of(name)) <= LIMITS[name]
    content = recipes.read(recipes.find(f"mnist/{name}"))
    assert content["data"]["init_args"]["val_size"] == 0
    assert content["expect"]["seeds"] >= (3 if name == "under-20k" else 5)


def test_the_recipes_of_the_norms_differ_in_the_norm_and_the_penalty_alone():
    contents = {name: recipes.read(recipes.find(f"mnist/{name}")) for name in NORMS}
    norms = {name: content["model"]["init_args"].pop("norm") for name, content in contents.items()}
    assert {name: norm["class_path"] for name, norm in norms.items()} == {
        name: f"{norm.__module__}.{norm.__name__}" for name, norm in NORMS.items()
    }
    callbacks = contents["norms-bn-l1"]["trainer"]["callbacks"]
    assert callbacks.pop(0)["class_path"] == "callbacks.training.l1.L1"
    first = contents.pop("norms-bn-l1")
    assert all(content == first for content in contents.values())


def test_under_8k_is_the_net_of_its_results():
    module = Under8K()
    assert count(module) == 7774
    assert [name for name, _ in module.net.head.named_children()] == ["0", "1", "2"]  # dropout adds a layer


def test_a_scale_is_redundant_before_a_relu_and_a_convolution():
    norm, full, x = ShiftNorm(3), nn.BatchNorm2d(3), torch.randn(4, 3, 5, 5)
    nn.init.normal_(norm.bias)
    scale = torch.tensor([0.5, 2.0, 3.0])
    with torch.no_grad():
        full.weight.copy_(scale)
        full.bias.copy_(scale * norm.bias)
    conv = torch.randn(2, 3, 3, 3)
    torch.testing.assert_close(F.conv2d(full(x).relu(), conv), F.conv2d(norm(x).relu(), conv * scale[:, None, None]))
    assert [name for name, _ in norm.named_parameters()] == ["bias"]


def last_stage(net: nn.Module) -> Layer:
    return [layer for layer in receptive_field(net, (1, 28, 28)) if layer.name.startswith("stages")][-1]


@pytest.mark.parametrize("recipe", ["two-k", "one-k", "seven-hundred"])
def test_the_last_filters_of_a_separable_net_see_as_much_as_the_whole_digit(recipe):
    net = module_of(recipe).net
    assert isinstance(net, SeparableNet)
    assert (last_stage(net).field, last_stage(net).out) == ((28, 28), (2, 2))
    plain = last_stage(SeparableNet(dilations=(1, 1, 1, 1)))
    assert (plain.field, plain.out) == ((20, 20), (6, 6))


@pytest.mark.parametrize("num_classes", [2, 10, 11])
def test_its_logits_are_the_averages_of_normalized_maps_of_classes(num_classes):
    torch.manual_seed(0)
    net, x = SeparableNet(num_classes), torch.randn(16, 1, 28, 28)
    maps = net.stages(net.stem(x))
    assert maps.shape == (16, num_classes, 2, 2)
    mean, variance = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), unbiased=False, keepdim=True)
    expected = 4 * F.adaptive_avg_pool2d((maps - mean) / (variance + 1e-5).sqrt(), 1).flatten(1)
    torch.testing.assert_close(net.head(maps), expected)
    assert [p.numel() for p in net.head.parameters()] == [1]


def test_its_norms_learn_a_shift_and_no_scale_and_the_last_one_nothing():
    learned = [tuple(p.shape) for name, p in SeparableNet().named_parameters() if p.ndim == 1]
    assert learned == [(6,), (7,), (10,), (10,)]


def test_other_numbers_of_dilations_than_of_widths_are_an_error():
    with pytest.raises(ValueError, match=r"dilations are \(1, 2\) and widths \(6, 7, 10\): expected as many"):
        SeparableNet(widths=(6, 7, 10), dilations=(1, 2))


def test_with_opposites_it_is_the_net_with_each_first_filter_twice_once_negated():
    torch.manual_seed(0)
    net, plain = SeparableNet(widths=(10, 7, 9, 9), opposites=True), SeparableNet(widths=(10, 7, 9, 9))
    filters = net.stem[0].weight
    state = {name.replace("stem.3.", "stem.2."): value for name, value in net.state_dict().items()}
    plain.load_state_dict({**state, "stem.0.weight": torch.cat([filters, -filters])})
    x = torch.randn(4, 1, 28, 28)
    torch.testing.assert_close(net(x), plain(x))
    assert count(plain) - count(net) == 5 * 9


def test_opposites_of_an_odd_number_of_channels_are_an_error():
    with pytest.raises(ValueError, match=r"widths\[0\] is 7: expected an even number with opposites"):
        SeparableNet(widths=(7, 7, 10, 9), opposites=True)
