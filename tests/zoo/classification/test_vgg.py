"""VGG is torchvision's from its weights, has the parameters that are published, and refuses too small images."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from zoo.classification.vgg import VGG11, VGG13, VGG16, VGG19, VGGNet

SYSTEMS = {"A": VGG11, "B": VGG13, "D": VGG16, "E": VGG19}
NARROW = 16  # times narrower than torchvision's


def narrow_torchvision_vgg(configuration: str, batch_norm: bool, num_classes: int) -> nn.Module:
    """torchvision's net a sixteenth as wide, with weights and statistics that are not those of the start."""
    torch.manual_seed(0)
    with torch.device("meta"):  # its linear layers have 120 million parameters
        net = torchvision.models.VGG(nn.Identity(), init_weights=False)
    channels = [v if v == "M" else v // NARROW for v in cfgs[configuration]]
    net.features = make_layers(channels, batch_norm)
    units = 4096 // NARROW
    hidden = nn.Linear(512 // NARROW * 49, units), nn.ReLU(), nn.Dropout(), nn.Linear(units, units), nn.ReLU()
    net.classifier = nn.Sequential(*hidden, nn.Dropout(), nn.Linear(units, num_classes))
    for p in net.parameters():
        nn.init.kaiming_normal_(p) if p.ndim > 1 else nn.init.uniform_(p, 0.2, 1.0)
    for _ in range(5):
        net(torch.randn(4, 3, 32, 32))
    return net.eval()


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("configuration", SYSTEMS)
def test_it_gives_torchvisions_logits_from_torchvisions_weights(configuration, batch_norm, tmp_path):
    theirs = narrow_torchvision_vgg(configuration, batch_norm, num_classes=7)
    save_file(theirs.state_dict(), tmp_path / "vgg.safetensors")
    norm = nn.BatchNorm2d if batch_norm else None
    options = {"small_images": False, "norm": norm, "weights": str(tmp_path / "vgg.safetensors")}
    ours = SYSTEMS[configuration](num_classes=7, width=1 / NARROW, **options).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)
        assert ours(x).std() > 1e-2
    other = SYSTEMS[configuration](num_classes=3, width=1 / NARROW, **options).eval()
    assert other(x).shape == (2, 3)
    assert torch.equal(other.net.head[6].weight, theirs.classifier[3].weight)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_parameters_are_as_many_as_published(depth, batch_norm):
    """Without norms exactly as many as torchvision's; with norms the biases before them are left out."""
    with torch.device("meta"):
        theirs = torchvision.models.get_model(f"vgg{depth}{'_bn' * batch_norm}", init_weights=False)
        ours = VGGNet(depth, 1000, small_images=False, norm=nn.BatchNorm2d if batch_norm else None)
    left_out = sum(m.num_features for m in theirs.modules() if isinstance(m, nn.BatchNorm2d))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) - left_out
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in ours.modules()) == depth
    if depth == 16:
        assert round(sum(p.numel() for p in ours.parameters()) / 1e6) == 138  # table 2


def test_the_small_form_has_one_linear_layer_and_as_many_parameters_as_published():
    with torch.device("meta"):
        net = VGGNet(16)
    convolutions = sum(m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d))
    assert sum(p.numel() for p in net.parameters()) + convolutions == 14_728_266  # of the public CIFAR-10 variant
    assert [m.in_features for m in net.modules() if isinstance(m, nn.Linear)] == [512]


@pytest.mark.parametrize("small_images", [True, False])
def test_each_stage_but_the_first_halves_the_image(small_images):
    net, sizes = VGGNet(11, width=0.02, small_images=small_images).eval(), []
    for part in (net.stem, *net.stages):
        part.register_forward_hook(lambda part, inputs, output: sizes.append(tuple(output.shape[2:])))
    assert net(torch.zeros(1, 3, 32, 64)).shape == (1, 10)
    assert sizes == [(32, 64), (32, 64), (16, 32), (8, 16), (4, 8), (2, 4)]


def test_images_that_five_poolings_reduce_to_nothing_are_refused():
    net = VGGNet(11, width=0.02).eval()
    with pytest.raises(ValueError, match="the images are 40 x 31 pixels: expected 32 x 32 or more"):
        net(torch.zeros(1, 3, 31, 40))


def test_an_unknown_depth_is_refused():
    with pytest.raises(ValueError, match="depth is 12: expected one of 11, 13, 16, 19"):
        VGGNet(12)


def test_the_cam_target_has_maps_large_enough_to_look_at():
    for size, options in ((32, {}), (224, {"small_images": False})):
        net, maps = VGGNet(16, width=0.02, **options).eval(), []
        net.cam_target.register_forward_hook(lambda part, inputs, output, maps=maps: maps.append(output))
        net(torch.zeros(1, 3, size, size))
        assert maps[0].shape[2:] == {32: (8, 8), 224: (14, 14)}[size]
