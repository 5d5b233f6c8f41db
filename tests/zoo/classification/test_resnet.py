"""The residual networks are those of the papers and of torchvision: parameters, logits, groups, shortcuts."""

import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.classification.resnet import (
    RENAMES,
    Bottleneck,
    ResNet,
    ResNet18,
    ResNet34,
    ResNet50,
    ResNet56,
    ResNet101,
    ResNet152,
    ResNeXt29,
    ResNeXt50,
)

OF_TORCHVISION = [ResNet18, ResNet34, ResNet50, ResNet101, ResNet152, ResNeXt50]


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (ResNet18, 11_173_962),  # of the public CIFAR-10 variant
        (ResNet56, 853_018),  # 0.85 million: He et al., table 6
        (ResNeXt29, 34_426_698),  # 8x64d, 34.4 million: Xie et al., table 7
        (partial(ResNeXt29, cardinality=16), 68_155_210),  # 16x64d, 68.1 million
        (partial(ResNeXt29, cardinality=32, base_width=4), 4_774_218 + 1536),  # public variant, but for its 1x1 stem
    ],
)
def test_parameters_are_as_many_as_published(make, parameters):
    with torch.device("meta"):
        assert count(make(num_classes=10)) == parameters


@pytest.mark.parametrize("system", OF_TORCHVISION)
def test_torchvisions_state_dict_is_ours_under_other_names(system):
    with torch.device("meta"):
        ours, theirs = system(1000, small_images=False).net, torchvision.models.get_model(system.model)
    found = {}
    for name, value in theirs.state_dict().items():
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        found[name] = value.shape
    assert found == {name: value.shape for name, value in ours.state_dict().items()}
    weights = torchvision.models.get_model_weights(system.model).DEFAULT
    assert count(ours) == weights.meta["num_params"]


@pytest.mark.parametrize("system", [ResNet18, ResNet50, ResNeXt50])
def test_with_torchvisions_weights_logits_are_torchvisions(system, tmp_path):
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(system.model)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        theirs.train()(x)  # so that the running statistics are not those of the start
        expected = theirs.eval()(x)
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    ours = system(1000, small_images=False, weights=str(tmp_path / "weights.safetensors"))
    for a, b in zip(ours.net.buffers(), theirs.buffers(), strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([(True, False), (True, True), (False, False)]))
def test_images_may_have_any_size(height, width, stem):
    small_images, stem_pool = stem
    side = 1 + stem_pool  # two pixels at least where the stem pools
    net = ResNet(5, 2, depths=(1, 1, 1), width=4, small_images=small_images, stem_pool=stem_pool).eval()
    assert net(torch.randn(1, 2, max(side, height), max(side, width))).shape == (1, 5)


@pytest.mark.parametrize("system", [ResNet18, ResNet50, ResNet56, partial(ResNeXt29, base_width=2)])
@pytest.mark.parametrize("stem_pool", [False, True])
def test_the_cam_target_has_maps_of_8x8(system, stem_pool):
    net, maps = system(width=8, stem_pool=stem_pool).net.eval(), []
    net.cam_target.register_forward_hook(lambda part, inputs, output: maps.append(output))
    net(torch.zeros(1, 3, 32, 32))
    assert maps[0].shape[2:] == (8, 8)


def test_resnet56_has_56_layers_with_weights_and_none_in_its_shortcuts():
    net = ResNet56().net
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in net.modules()) == 56
    assert not any(list(block.shortcut.parameters()) for stage in net.stages for block in stage)


def test_a_bottleneck_with_groups_is_a_sum_of_separate_paths():
    """Figure 3 of Xie et al.: what is computed as a grouped convolution (c) are paths side by side (a)."""
    torch.manual_seed(0)
    groups, block = 3, Bottleneck(8, 12, 2, ratio=1 / 2, groups=3).eval()
    x = torch.randn(2, 8, 6, 6)

    def norm(layer: nn.BatchNorm2d, y: Tensor, part: slice = slice(None)) -> Tensor:
        values = layer.running_mean, layer.running_var, layer.weight, layer.bias
        return F.batch_norm(y, *(value[part] for value in values))

    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
    (conv1, norm1, _), (conv2, norm2, _), (conv3, norm3) = block.branch
    total = 0.0
    for group in range(groups):
        part = slice(2 * group, 2 * group + 2)
        y = norm(norm1, F.conv2d(x, conv1.weight[part]), part).relu()
        y = norm(norm2, F.conv2d(y, conv2.weight[part], stride=2, padding=1), part).relu()
        total = total + F.conv2d(y, conv3.weight[:, part])
    torch.testing.assert_close(block(x), (norm(norm3, total) + block.shortcut(x)).relu())


def test_channels_that_cannot_be_divided_into_groups_are_an_error():
    with pytest.raises(ValueError, match="a 3x3 convolution has 16 channels in 32 groups: expected a multiple"):
        ResNeXt50(width=8)
    with pytest.raises(ValueError, match="a 3x3 convolution has 0 channels in 1 groups"):
        ResNeXt29(width=8, cardinality=1, base_width=0)
