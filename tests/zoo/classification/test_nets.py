"""The nets of the classifiers are those of their papers: parameters as published, outputs equal to torchvision's."""

import inspect
from functools import partial

import pytest
import torch
import torchvision
from torch import nn

from zoo.classification.googlenet import GoogLeNet
from zoo.classification.mnist_compact import Under8K
from zoo.classification.plain_conv import PlainConv
from zoo.classification.resnet import ResNet, ResNet18
from zoo.classification.resnet_mini import ResNetMini
from zoo.classification.vit import ViT, ViTNet

VIT_B16 = {"image_size": 224, "patch_size": 16, "dim": 768, "num_layers": 12, "num_heads": 12}


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (ResNet18, 11_173_962),  # of the public CIFAR-10 variant
        (partial(ResNet, small_images=False, num_classes=1000), 11_689_512),  # of torchvision's
        (partial(ViTNet, num_classes=1000, **VIT_B16), 86_567_656),  # of torchvision's ViT-B/16
    ],
)
def test_parameters_are_as_many_as_published(make, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in make().parameters()) == count


def test_resnet18_equals_torchvisions():
    torch.manual_seed(0)
    theirs, ours = torchvision.models.resnet18(), ResNet(small_images=False, num_classes=1000)
    x = torch.randn(2, 3, 96, 96)
    theirs(x)  # so that the running statistics are not those of the start
    from_, to = theirs.state_dict(), ours.state_dict()
    assert [value.shape for value in from_.values()] == [value.shape for value in to.values()]
    ours.load_state_dict(dict(zip(to, from_.values(), strict=True)))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), atol=1e-4, rtol=1e-4)


def vit_state(theirs: nn.Module) -> dict[str, torch.Tensor]:
    """torchvision's weights under our names: there queries, keys and values are one matrix."""
    state = theirs.state_dict()
    ours = {
        "stem.cls_token": state["class_token"],
        "stem.position": state["encoder.pos_embedding"],
        **{f"stem.project.{kind}": state[f"conv_proj.{kind}"] for kind in ("weight", "bias")},
        **{f"norm.{kind}": state[f"encoder.ln.{kind}"] for kind in ("weight", "bias")},
        **{f"head.{kind}": state[f"heads.head.{kind}"] for kind in ("weight", "bias")},
    }
    names = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "mlp.0": "mlp.0",
        "mlp.2": "mlp.3",
        "attention.out": "self_attention.out_proj",
    }
    for i in range(len(theirs.encoder.layers)):
        block = f"encoder.layers.encoder_layer_{i}"
        for kind in ("weight", "bias"):
            ours |= {f"blocks.{i}.{a}.{kind}": state[f"{block}.{b}.{kind}"] for a, b in names.items()}
            parts = state[f"{block}.self_attention.in_proj_{kind}"].chunk(3)
            ours |= {
                f"blocks.{i}.attention.{n}.{kind}": p for n, p in zip(("query", "key", "value"), parts, strict=True)
            }
    return ours


def small_torchvision_vit() -> nn.Module:
    torch.manual_seed(0)
    vit = torchvision.models.VisionTransformer(
        32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=64, num_classes=7
    )
    nn.init.normal_(vit.heads.head.weight)  # torchvision starts it at zero
    return vit.eval()


def test_vit_equals_torchvisions_in_values_and_gradients():
    theirs, ours = small_torchvision_vit(), ViTNet(7, 3, image_size=32, patch_size=8, dim=16, num_layers=2, num_heads=2)
    ours.load_state_dict(vit_state(theirs))
    x = torch.randn(3, 3, 32, 32, requires_grad=True)
    outputs = [net.eval()(x) for net in (ours, theirs)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(output.square().sum(), x)[0] for output in outputs]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(224, 160), (16, 24), (32, 32)])
def test_vit_takes_images_of_any_multiple_of_the_patch(size):
    """Also where it was built for another size: the learned positions are interpolated."""
    for built_for in (size, 32):
        net = ViTNet(5, 3, image_size=built_for, patch_size=8, dim=16, num_layers=1, num_heads=2)
        assert net(torch.randn(2, 3, *size)).shape == (2, 5)
        assert net.cam_reshape(torch.zeros(2, 1 + size[0] * size[1] // 64, 16)).shape[2:] == (
            size[0] // 8,
            size[1] // 8,
        )


def test_vit_refuses_images_that_patches_do_not_cover():
    net = ViTNet(5, 3, image_size=32, patch_size=8, dim=16, num_layers=1, num_heads=2)
    with pytest.raises(ValueError, match="the images are 30 x 32 pixels: expected multiples of the patch size 8"):
        net(torch.zeros(1, 3, 32, 30))


def test_vit_interpolates_positions_without_changing_a_smooth_field():
    net = ViTNet(5, 3, image_size=32, patch_size=8, dim=2, num_layers=0, num_heads=1)
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    with torch.no_grad():
        net.stem.position[0, 1:] = torch.stack([y, x], -1).flatten(0, 1)
    net.stem.grid = (8, 8)
    maps = net.stem._positions()[0, 1:].view(8, 8, 2)
    assert maps[2:-2, 2:-2, 0].diff(dim=0).mean().item() == pytest.approx(0.5, abs=0.1)
    assert maps[2:-2, 2:-2, 1].diff(dim=1).mean().item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("system", [PlainConv, ResNetMini, Under8K, ResNet18, ViT, GoogLeNet])
def test_the_cam_target_has_maps_large_enough_to_look_at(system):
    channels = inspect.signature(system).parameters["in_channels"].default
    model, maps = system().eval(), []
    handle = model.cam_target.register_forward_hook(lambda part, inputs, output: maps.append(output))
    model(torch.zeros(1, channels, *((28, 28) if channels == 1 else (32, 32))))
    handle.remove()
    (found,) = maps
    found = model.cam_reshape(found) if model.cam_reshape else found
    assert min(found.shape[2:]) >= 5
