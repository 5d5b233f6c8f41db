"""Relevance maps equal those of the package grad-cam, though the graph is cut; ROAD tells good maps from bad ones."""

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget, ClassifierOutputTarget
from torch import Tensor, nn

from callbacks.galleries.relevance import METHODS, ONLY_MAPS, relevance, road
from zoo.classification.resnet_mini import ResNetMini
from zoo.classification.vit import ViT

SIZE = 12


class Mixer(nn.Module):
    """Residual depthwise convolutions, the last of them twice; an activation writes into the target's output."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 2, stride=2)
        self.spatial = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.GELU(), nn.BatchNorm2d(6))
        self.channels = nn.Conv2d(6, 6, 1)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))

    @property
    def cam_target(self) -> nn.Module:
        return self.channels

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(2):
            x = self.act(self.channels(x + self.spatial(x)))
        return self.head(x)


def make(kind: str) -> nn.Module:
    torch.manual_seed(1)
    if kind == "ViT":
        return ViT(3, 1, image_size=SIZE, patch_size=2, dim=8, num_layers=2, num_heads=2).eval()
    return Mixer().eval() if kind == "Mixer" else ResNetMini(3, widths=(4, 8, 6), strides=(1, 1, 2)).eval()


def package(module: nn.Module, images: Tensor, classes: list[int], method: str) -> np.ndarray:
    """The package's maps, of the complete graph."""
    reshape = getattr(module, "cam_reshape", None) or (lambda output: output.clone())  # a later layer writes in place
    cam = getattr(pytorch_grad_cam, method)(getattr(module, "net", module), [module.cam_target], reshape)
    try:
        return cam(images, [ClassifierOutputTarget(label) for label in classes])
    finally:
        cam.activations_and_grads.release()


@pytest.mark.parametrize("kind", ["ResNetMini", "ViT", "Mixer"])
def test_maps_equal_the_packages(kind):
    module, images, classes = make(kind), torch.randn(3, 1, SIZE, SIZE), [0, 2, 1]
    for method in METHODS:
        if kind == "ViT" and method in ONLY_MAPS:
            continue
        np.random.seed(0)  # noqa: NPY002 (RandomCAM draws from the global state)
        expected = package(module, images, classes, method)
        np.random.seed(0)  # noqa: NPY002
        maps = relevance(module, images, classes, method).maps
        assert maps.dtype == np.float32
        # ScoreCAM divides by the range of each of the token's maps, which magnifies what rounding leaves.
        np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-3 if method == "ScoreCAM" else 1e-5, err_msg=method)
        assert 0 <= maps.min() < maps.max() <= 1 + 1e-6, method
    assert {"GradCAM", "GradCAMPlusPlus", "HiResCAM", "EigenCAM", "LayerCAM", "XGradCAM", "ScoreCAM"} <= {*METHODS}


@pytest.mark.parametrize("kind", ["ResNetMini", "ViT", "Mixer"])
def test_the_graph_begins_at_the_layer(kind):
    module, below, above = make(kind), [], []
    net = getattr(module, "net", module)
    first = net.stem[0] if kind == "ResNetMini" else net.stem
    hooks = [
        first.register_forward_hook(lambda part, inputs, output: below.append(output.requires_grad)),
        net.register_forward_hook(lambda part, inputs, output: above.append(output.requires_grad)),
    ]
    relevance(module, torch.randn(2, 1, SIZE, SIZE), [0, 1])
    assert (below, above) == ([False], [True])
    relevance(module, torch.randn(2, 1, SIZE, SIZE), [0, 1], "EigenCAM")  # which takes no gradients
    assert (below, above) == ([False] * 2, [True, False])
    for hook in hooks:
        hook.remove()
    assert not any(part._forward_hooks for part in net.modules())


def test_each_map_is_that_of_its_image_alone():
    module, images, classes = make("ResNetMini"), torch.randn(4, 1, SIZE, SIZE), [0, 1, 2, 0]
    together = relevance(module, images, classes).maps
    for i, label in enumerate(classes):
        alone = relevance(module, images[i : i + 1], [label]).maps[0]
        np.testing.assert_allclose(together[i], alone, rtol=0, atol=1e-5)


def test_half_precision_nets_have_float32_maps():
    module = make("ResNetMini").to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        maps = relevance(module, torch.randn(2, 1, SIZE, SIZE), [0, 1]).maps
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()


@pytest.mark.parametrize("method", ONLY_MAPS)
def test_methods_that_cannot_reshape_tokens_are_refused(method):
    with pytest.raises(ValueError, match=f"blocks.1.norm1 of ViT gives tokens.* method is {method}: expected"):
        relevance(make("ViT"), torch.randn(1, 1, SIZE, SIZE), [0], method)


def test_a_layer_whose_output_is_no_tensor_is_refused():
    net = make("Mixer")
    net.channels.forward = lambda x: (x, x)
    net.act.forward = lambda pair: pair[0]
    with pytest.raises(ValueError, match=r"channels of Mixer gives maps of tuple: expected \(B, D, H, W\)"):
        relevance(net, torch.randn(1, 1, SIZE, SIZE), [0])


def test_the_layers_are_in_their_places_after_an_error(monkeypatch):
    net = make("Mixer")
    layers = list(net.modules())

    def fail(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(pytorch_grad_cam.ablation_layer.AblationLayer, "__call__", fail)
    with pytest.raises(MemoryError):
        relevance(net, torch.randn(1, 1, SIZE, SIZE), [0], "AblationCAM")  # which has put its own layer into the net
    assert all(one is other for one, other in zip(net.modules(), layers, strict=True))


class UpperLeft(nn.Module):
    """Two classes: the brightness of the upper left quarter, and zero."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.cam_target = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        bright = self.scale * x[:, 0, :6, :6].mean((1, 2))
        return torch.stack([bright, torch.zeros_like(bright)], 1)


def test_road_is_high_for_faithful_maps_and_zero_for_random_ones():
    net, draw = UpperLeft(), torch.Generator().manual_seed(0)
    images = 0.1 * torch.randn(3, 1, SIZE, SIZE, generator=draw)
    images[:, :, 1:5, 1:5] += 3.0  # in the quarter that the net looks at
    right = np.zeros((3, SIZE, SIZE), np.float32)
    right[:, 1:5, 1:5] = 1.0  # most pixels have the same relevance
    random = np.random.default_rng(0).random((3, SIZE, SIZE), np.float32)
    scores = {name: road(net, images, [0] * 3, maps) for name, maps in
              (("right", right), ("opposite", 1 - right), ("random", random), ("blank", 0 * right))}  # fmt: skip
    assert scores["right"].shape == (3,)
    assert scores["right"].min() > 0.1
    assert scores["opposite"].max() < -0.1
    assert abs(scores["random"].mean()) < 0.05
    assert abs(scores["blank"].mean()) < 0.05


def test_road_equals_the_packages_and_leaves_the_random_state():
    module, images = make("ResNetMini"), torch.randn(2, 1, SIZE, SIZE)
    maps = np.random.default_rng(0).permuted(np.linspace(0, 1, SIZE**2, dtype=np.float32)[None].repeat(2, 0), axis=1)
    maps = maps.reshape(2, SIZE, SIZE)  # no two pixels of a map are equal: there are no ties to break
    before = torch.get_rng_state()
    found = road(module, images, [0, 1], maps**3)  # only the order counts
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(0)
    expected = ROADCombined()(images, maps, [ClassifierOutputSoftmaxTarget(label) for label in (0, 1)], module.net)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
