"""Images that maximize units: what theory says they are, better than before, and without a trace."""

import pytest
import torch
from torch import nn

from helpers import fingerprint_of_global_randomness
from zoo.analysis.activation_maximization import maximize, width_of
from zoo.classification.resnet_mini import ResNetMini


def test_a_filter_is_maximized_by_its_own_sign():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 4), nn.Flatten())  # one place
    found = maximize(net, "0", [2, 0], (2, 4, 4), steps=200, jitter=0)
    for image, unit in zip(found.images, (2, 0), strict=True):
        assert torch.equal(image > 0.5, net[0].weight[unit] > 0)
        best = net[0].weight[unit].clamp_min(0).sum() + net[0].bias[unit]
    assert found.after[1].item() == pytest.approx(best.item(), rel=1e-2)


def test_units_of_a_net_answer_more_than_before_and_images_stay_in_range():
    torch.manual_seed(0)
    net = ResNetMini().net
    for layer in (None, "stages.1", "stem"):
        found = maximize(net, layer, [0, 3], (1, 28, 28), steps=20)
        alive = found.before != 0 if layer else torch.ones(2, dtype=torch.bool)  # untrained, behind a ReLU
        assert alive.any()
        assert (found.after > found.before)[alive].all()
        assert 0 <= found.images.min() <= found.images.max() <= 1


def test_a_unit_that_does_not_answer_to_gray_starts_from_noise_that_excites_it():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.ReLU())
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, 1.0, 1.0]]))
        net[1].bias.copy_(torch.tensor([-0.3, 0.0]))
    found = maximize(net, None, [0, 1], (1, 2, 2), steps=100, jitter=0)
    torch.testing.assert_close(found.after, torch.tensor([1.7, 4.0]), atol=1e-3, rtol=0)


def test_variation_makes_images_smoother():
    torch.manual_seed(0)
    net = ResNetMini().net
    rough, smooth = (maximize(net, None, [1], (1, 28, 28), steps=40, variation=v).images for v in (0.0, 20.0))
    assert smooth.diff(dim=3).abs().mean() < 0.7 * rough.diff(dim=3).abs().mean()


def test_tokens_are_averaged_and_each_image_has_its_own_unit():
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    tokens = nn.Sequential(nn.Flatten(2), layer)  # (B, C, 4) -> (B, C, 3), C tokens
    found = maximize(tokens, "1", [1], (5, 2, 2), steps=200, jitter=0)
    assert torch.equal(found.images[0].flatten(1) > 0.5, (layer.weight[1] > 0).expand(5, -1))


def test_nothing_is_left_behind_also_within_inference_mode():
    net, seed = ResNetMini().train().net, fingerprint_of_global_randomness()
    wanted = [p.requires_grad for p in net.parameters()]
    with torch.inference_mode():
        first = maximize(net, "stem", [0], (1, 28, 28), steps=2)
    assert net.training
    assert [p.requires_grad for p in net.parameters()] == wanted
    assert all(p.grad is None for p in net.parameters())
    assert not net.stem._forward_hooks
    assert fingerprint_of_global_randomness() == seed
    assert torch.equal(first.images, maximize(net, "stem", [0], (1, 28, 28), steps=2).images)


def test_layers_and_units_that_do_not_exist_are_refused():
    net = ResNetMini().net
    with pytest.raises(ValueError, match="there is no layer 'steam' in ResNetMiniNet: expected a name such as stem"):
        maximize(net, "steam", [0], (1, 28, 28))
    with pytest.raises(ValueError, match=r"units are \[10\]: expected channels of the output, 0 to 9"):
        maximize(net, None, [10], (1, 28, 28))


def test_the_units_of_a_layer_are_counted_and_one_off_the_way_is_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Conv2d(1, 6, 3), nn.Conv2d(1, 7, 3)
            self.norm = nn.BatchNorm2d(6)

        def forward(self, x):
            return self.norm(self.used(x)).flatten(1)

    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert (width_of(net, "used", (1, 5, 5)), width_of(net, None, (1, 5, 5))) == (6, 6 * 9)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    for call in (lambda: width_of(net, "unused", (1, 5, 5)), lambda: maximize(net, "unused", [0], (1, 5, 5))):
        with pytest.raises(ValueError, match="unused is not called in evaluation: expected one on the way"):
            call()
