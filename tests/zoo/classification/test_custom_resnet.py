"""David Page's net: its parameters, its layers written out, images of other sizes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.classification.custom_resnet import CustomResNet, CustomResNetNet


def test_parameters_are_as_many_as_published():
    with torch.device("meta"):
        assert sum(p.numel() for p in CustomResNet(num_classes=10).parameters()) == 6_573_120


def test_its_layers_are_those_of_the_description():
    torch.manual_seed(0)
    net = CustomResNetNet(7, 3, width=4, logit_scale=0.5)
    filters = [module.weight for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert [len(weight) for weight in filters] == [4, 8, 8, 8, 16, 32, 32, 32]
    prep, layer1, *residual1, layer2, layer3 = filters[:6]
    residual3 = filters[6:]

    def layer(x: Tensor, weight: Tensor, pool: int = 1) -> Tensor:
        y = F.max_pool2d(F.conv2d(x, weight, padding=1), pool)
        return F.batch_norm(y, None, None, training=True).relu()

    x = torch.randn(2, 3, 32, 32)
    y = layer(layer(x, prep), layer1, 2)
    y = y + layer(layer(y, residual1[0]), residual1[1])
    y = layer(layer(y, layer2, 2), layer3, 2)
    y = y + layer(layer(y, residual3[0]), residual3[1])
    assert y.shape == (2, 32, 4, 4)
    logits = 0.5 * F.max_pool2d(y, 4).flatten(1) @ net.head[2].weight.T
    torch.testing.assert_close(net(x), logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (28, 36), (64, 64)])
def test_images_may_have_other_sizes(size):
    assert CustomResNetNet(5, 1, width=4)(torch.randn(2, 1, *size)).shape == (2, 5)


def test_the_cam_target_has_maps_of_8x8():
    net, maps = CustomResNetNet(width=4), []
    net.cam_target.register_forward_hook(lambda part, inputs, output: maps.append(output))
    net(torch.zeros(2, 3, 32, 32))
    assert maps[0].shape[2:] == (8, 8)
