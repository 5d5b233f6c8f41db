"""Pre-activation: the identity is left alone, the projection follows norm and ReLU, parameters as published."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.classification.preact_resnet import PreActBlock, PreActResNet, PreActResNet18


def test_parameters_are_as_many_as_published():
    with torch.device("meta"):
        net = PreActResNet18(num_classes=10).net
    last_norm = sum(p.numel() for p in net.head[0].parameters())  # missing in the public CIFAR-10 variant
    assert sum(p.numel() for p in net.parameters()) - last_norm == 11_171_146


def test_a_block_whose_branch_is_zero_is_the_identity():
    """Also for negative values: neither norm nor ReLU follows the sum."""
    block, x = PreActBlock(4, 4, 1), torch.randn(2, 4, 5, 5)
    nn.init.zeros_(block.branch[-1].weight)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(("outputs", "stride"), [(4, 1), (4, 2), (8, 1), (8, 2)])
def test_a_block_is_what_figure_4e_shows(outputs, stride):
    torch.manual_seed(0)
    block, x = PreActBlock(4, outputs, stride), torch.randn(2, 4, 6, 6)

    def activate(y: Tensor) -> Tensor:
        return F.batch_norm(y, None, None, training=True).relu()

    activated = activate(x)
    (first, _, _), second = block.branch
    y = F.conv2d(activate(F.conv2d(activated, first.weight, None, stride, 1)), second.weight, None, 1, 1)
    same = outputs == 4 and stride == 1
    y = y + (x if same else F.conv2d(activated, block.shortcut.weight, None, stride))
    torch.testing.assert_close(block(x), y)


@pytest.mark.parametrize(("small", "pool", "side"), [(True, False, 8), (True, True, 8), (False, False, 1)])
def test_both_stems_end_in_one_activation_and_the_net_in_another(small, pool, side):
    net, maps = PreActResNet(5, 2, width=4, small_images=small, stem_pool=pool).eval(), []
    net.cam_target.register_forward_hook(lambda part, inputs, output: maps.append(output))
    x = torch.randn(2, 2, 32, 32)
    assert net(x).shape == (2, 5)
    assert maps[0].shape[2:] == (side, side)
    assert net.stem(x).min() >= 0
    assert isinstance(net.stages[0][0].activate, nn.Identity)
    assert net.stages(net.stem(x)).min() < 0 <= net.head[:2](net.stages(net.stem(x))).min()
