"""SqueezeNet is torchvision's from its weights, has the parameters that are published, and takes what that takes."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import nn

from zoo.classification.squeezenet import SMALLEST, SqueezeNet, SqueezeNetNet

every_version = pytest.mark.parametrize("version", ["1.0", "1.1"])


def torchvisions(version: str, num_classes: int = 1000) -> nn.Module:
    torch.manual_seed(0)
    net = torchvision.models.get_model(f"squeezenet{version.replace('.', '_')}", num_classes=num_classes)
    nn.init.normal_(net.classifier[1].weight, std=0.1)
    nn.init.normal_(net.classifier[1].bias)
    return net.eval()


@every_version
def test_it_gives_torchvisions_logits_from_torchvisions_weights(version, tmp_path):
    theirs = torchvisions(version, num_classes=7)
    save_file(theirs.state_dict(), tmp_path / "a.safetensors")
    ours = SqueezeNet(7, version=version, weights=str(tmp_path / "a.safetensors")).eval()
    enlarged = SqueezeNet(3, version=version, weights=str(tmp_path / "a.safetensors"), upsample=2).eval()
    x = torch.randn(2, 3, 60, 71)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)
        maps = theirs.features(F.interpolate(x, scale_factor=2, mode="bilinear"))
        torch.testing.assert_close(enlarged.net.stages(enlarged.net.stem(x)), maps, atol=1e-4, rtol=1e-4)
        assert enlarged(x).shape == (2, 3)


@pytest.mark.parametrize(("version", "published"), [("1.0", 1_248_424), ("1.1", 1_235_496)])
def test_parameters_are_as_many_as_published(version, published):
    with torch.device("meta"):
        assert sum(p.numel() for p in SqueezeNetNet(1000, version=version).parameters()) == published


def test_weights_of_the_other_version_are_refused(tmp_path):
    save_file(torchvisions("1.1").state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"not those of squeezenet1_0: .* expected the same architecture"):
        SqueezeNet(1000, weights=str(tmp_path / "a.safetensors"))


@every_version
def test_images_that_the_poolings_leave_nothing_of_are_refused_and_no_others(version):
    smallest = SMALLEST[version]
    net, theirs = SqueezeNetNet(version=version, width=0.1).eval(), torchvisions(version)
    assert net(torch.zeros(1, 3, smallest, 30)).shape == (1, 10)
    small = torch.zeros(1, 3, 30, smallest - 1)
    with pytest.raises(
        ValueError, match=f"the images are {smallest - 1} x 30 pixels: expected {smallest} x {smallest}"
    ):
        net(small)
    with pytest.raises(RuntimeError):
        theirs(small)
    assert SqueezeNetNet(version=version, width=0.1, upsample=2).eval()(small).shape == (1, 10)


def test_an_unknown_version_is_refused():
    with pytest.raises(ValueError, match=r"version is '1\.2': expected one of 1\.0, 1\.1"):
        SqueezeNetNet(version="1.2")


@every_version
def test_the_last_stage_of_a_large_image_is_large_enough_to_look_at(version):
    net, maps = SqueezeNet(version=version, width=0.1).eval(), []
    net.cam_target.register_forward_hook(lambda part, inputs, output: maps.append(output))
    net(torch.zeros(1, 3, 224, 224))
    assert maps[0].shape[2:] == (13, 13)
