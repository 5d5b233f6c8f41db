"""Receptive fields: those measured by the gradient on random nets, the published ones, and what cannot be followed."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import Bottleneck

from zoo.analysis.receptive_field import Layer, receptive_field

WIDTH = 2  # channels of the random nets


class SumPool(nn.Module):
    """Sums over the windows of a max-pooling. The gradient of a maximum reaches one of the pixels that it depends on,
    that of a sum all of them."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        pool = self.pool
        kernel = x.new_ones(x.shape[1], 1, *pool.kernel_size)
        return F.conv2d(x, kernel, None, pool.stride, pool.padding, pool.dilation, groups=x.shape[1])


class Residual(nn.Module):
    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.branch(x).add_(self.shortcut(x)))


class Concatenation(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.mix = nn.Conv2d(WIDTH * len(branches), WIDTH, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(torch.cat([branch(x) for branch in self.branches], dim=1))


class Functional(nn.Module):
    """Written with functions, down to slices, padding on one side, and a detour over channels last."""

    def __init__(self, left: int, top: int) -> None:
        super().__init__()
        self.left, self.top = left, top
        self.weight = nn.Parameter(torch.empty(WIDTH, WIDTH, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (self.left, 0, self.top, 1))
        x = F.relu(F.conv2d(x, self.weight, stride=(1, 2)))
        x = F.avg_pool2d(x[:, :, 1:, ::2], 2, stride=1)
        tokens = x.flatten(2).transpose(1, 2)
        return (tokens * 2).transpose(1, 2).reshape(x.shape).permute(0, 2, 3, 1).flip(2).flip(2).permute(0, 3, 1, 2)


def same_size(draw: random.Random) -> nn.Module:
    """A random layer that keeps height and width; an even kernel is padded unequally."""
    kernel, dilation = (draw.randint(1, 5), draw.randint(1, 5)), draw.randint(1, 3)
    conv = nn.Conv2d(WIDTH, WIDTH, kernel, padding="same", dilation=dilation, bias=False)
    reflected = nn.Conv2d(WIDTH, WIDTH, (3, 5), padding=(1, 2), padding_mode="reflect", bias=False)
    pool = nn.MaxPool2d((3, 5), 1, padding=(1, 2))
    return draw.choice([conv, reflected, pool, nn.Sequential(conv, nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True))])


def random_block(draw: random.Random) -> nn.Module:
    kernel, stride = (draw.randint(1, 4), draw.randint(1, 4)), (draw.randint(1, 2), draw.randint(1, 2))
    padding, dilation = (draw.randint(0, kernel[0] // 2), draw.randint(0, kernel[1] // 2)), draw.randint(1, 2)
    kind = draw.choice(["conv", "max", "avg", "residual", "residual", "concatenation", "functional", "larger"])
    match kind:
        case "conv":
            return nn.Conv2d(WIDTH, WIDTH, kernel, stride, padding, dilation, bias=False)
        case "max":
            return nn.MaxPool2d(kernel, stride, padding, dilation)
        case "avg":
            return nn.AvgPool2d(kernel, stride, padding)
        case "residual":
            shortcut = nn.AvgPool2d(1, stride) if max(stride) > 1 else nn.Identity()
            strided = nn.Conv2d(WIDTH, WIDTH, 3, stride, 1, bias=False)
            return Residual(nn.Sequential(same_size(draw), strided), nn.Sequential(shortcut, same_size(draw)))
        case "concatenation":
            return Concatenation(*(same_size(draw) for _ in range(draw.randint(2, 3))))
        case "functional":
            return Functional(draw.randint(0, 2), draw.randint(0, 2))
    larger = [
        nn.ConvTranspose2d(WIDTH, WIDTH, kernel, stride, bias=False),
        nn.ConvTranspose2d(WIDTH, WIDTH, (3, 4), 2, padding=1, output_padding=(1, 0), dilation=(2, 1), bias=False),
        *(nn.Upsample(scale_factor=2, mode=mode) for mode in ("nearest", "bilinear", "bicubic")),
        nn.Sequential(nn.Conv2d(WIDTH, 4 * WIDTH, 2, bias=False), nn.PixelShuffle(2)),
    ]
    return nn.Sequential(draw.choice(larger), nn.ReLU())


def random_net(seed: int) -> nn.Sequential:
    draw = random.Random(seed)
    net = nn.Sequential(*(random_block(draw) for _ in range(draw.randint(2, 3)))).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(0.5, 1).div_(parameter[0].numel())  # positive, so that nothing cancels
    return net


def without_maxima(module: nn.Module) -> nn.Module:
    """Replaces max-pooling by sums, inside the module."""
    for name, child in module.named_children():
        setattr(module, name, SumPool(child) if isinstance(child, nn.MaxPool2d) else without_maxima(child))
    return module


Box = tuple[int, int, int, int]


def measured_box(output: Tensor, image: Tensor, row: int, column: int) -> Box | None:
    """The smallest box around the pixels that have a gradient from a unit, xyxy."""
    unit = output[0, :, row, column]
    weights = torch.arange(1.0, 1 + len(unit)).to(unit)  # different ones, as the sum of a softmax has no gradient
    (gradient,) = torch.autograd.grad(unit @ weights, image, retain_graph=True)
    rows, columns = (gradient[0].abs().sum(dims).nonzero()[:, 0].tolist() for dims in ((0, 2), (0, 1)))
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if rows else None


def inside(box: Box | None, height: int, width: int) -> bool:
    return box is None or (min(box) >= 0 and box[2] <= width and box[3] <= height)


@pytest.mark.parametrize("seed", range(50))
def test_fields_of_random_nets_are_those_that_the_gradient_shows(seed):
    net, height, width = random_net(seed), 32, 40
    while True:  # until the units in the middle do not see the border
        layer = receptive_field(net, (WIDTH, height, width))[-1]
        units = [(layer.out[0] // 2 + i, layer.out[1] // 2 + i) for i in range(8)]  # of all phases
        boxes = [layer.box(*unit) for unit in units]
        if min(layer.out) > 16 and all(inside(box, height, width) for box in boxes):
            break
        height, width = 3 * height // 2, 3 * width // 2
    image = torch.ones(1, WIDTH, height, width, dtype=torch.float64, requires_grad=True)
    output = without_maxima(net)(image)
    assert tuple(output.shape[2:]) == layer.out
    found = [measured_box(output, image, *unit) for unit in units]
    assert boxes == found
    assert layer.field == tuple(max(box[3 - i] - box[1 - i] for box in found if box) for i in (0, 1))


def by_name(net: nn.Module, shape: tuple[int, int, int], **options) -> dict[str, Layer]:
    return {layer.name: layer for layer in receptive_field(net, shape, **options)}


def on_meta(make) -> nn.Module:
    with torch.device("meta"):
        return make()


class TestPublishedValues:
    """Araujo et al. 2019, table 1."""

    @pytest.mark.parametrize(
        ("make", "name", "field", "jump"),
        [
            (models.alexnet, "features.12", 195, 32),
            (models.vgg16, "features.30", 212, 32),
            (models.resnet50, "layer4.2.relu", 427, 32),  # torchvision's has the stride in the 3x3 convolution
        ],
    )
    def test_torchvision_nets(self, make, name, field, jump):
        layer = by_name(on_meta(make), (3, 224, 224))[name]
        assert (layer.field, layer.jump) == ((field, field), (jump, jump))
        assert layer.out == ((6, 6) if make is models.alexnet else (7, 7))

    def test_resnet_50_with_the_stride_in_the_first_convolution_of_a_block(self):
        net = on_meta(models.resnet50)
        for block in net.modules():
            if isinstance(block, Bottleneck):
                block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
        layers = by_name(net, (3, 224, 224))
        assert layers["layer4.2.relu"].field == (483, 483)
        assert layers["avgpool"].field == (483 + 6 * 32,) * 2

    def test_each_layer_has_its_numbers(self):
        layers = receptive_field(models.alexnet().features, (3, 224, 200))
        assert [layer.name for layer in layers] == [str(i) for i in range(13)]
        first, pool = layers[0], layers[2]
        assert first[1:8] == ((11, 11), (4, 4), (1, 1), (2, 2), (4, 4), (11, 11), (55, 49))
        assert pool[1:8] == ((3, 3), (2, 2), (1, 1), (0, 0), (8, 8), (19, 19), (27, 24))
        assert first.box(0, 1) == (2, -2, 13, 9)


class Tokens(nn.Module):
    """Patches, a class token, positions, self-attention, the class token's output."""

    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        self.by_hand = by_hand
        self.project = nn.Conv2d(3, 8, 4, stride=4)
        self.token, self.position = nn.Parameter(torch.zeros(1, 1, 8)), nn.Parameter(torch.zeros(1, 49, 8))
        self.norm, self.attention, self.head = nn.LayerNorm(8), nn.MultiheadAttention(8, 2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] % 4:
            raise ValueError(f"the width is {x.shape[-1]}: expected a multiple of 4")
        tokens = self.project(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.position
        q = self.norm(tokens)
        mixed = (q @ q.mT).softmax(-1) @ q if self.by_hand else self.attention(q, q, q)[0]
        return self.head((tokens + mixed)[:, 0])


class Squeeze(nn.Module):
    """A map, scaled by its mean over the image, which each channel has for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * x.mean((2, 3), keepdim=True)


class Rolled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.roll(1, 2)


class Gate(nn.Module):
    """Depends on values, which tracing does not know."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


class Keeping(nn.Module):
    """Remembers its last input, as some modules do, and counts its calls."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside, self.calls, self.last = inside, 0, None

    def forward(self, x: Tensor) -> Tensor:
        self.calls, self.last = self.calls + 1, x
        return self.inside(x)


class TestWholeImage:
    @pytest.mark.parametrize("by_hand", [False, True])
    def test_attention_sees_what_its_input_sees_and_says_so(self, by_hand):
        layers = by_name(Tokens(by_hand), (3, 26, 32))  # the last two rows are cut off
        assert layers["project"].field == layers["norm"].field == (4, 4)
        assert layers["add_1"].field == layers["head"].field == (24, 32)
        assert layers["add_1"].out == (6, 8), "the tokens, each of which sees everything"
        assert "all positions" in layers["matmul" if by_hand else "attention"].note

    def test_so_does_a_linear_layer_on_flattened_maps(self):
        layer = by_name(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2)), (3, 8, 8))["2"]
        assert (layer.field, layer.kernel, layer.out, layer.jump) == ((8, 8), (6, 6), (1, 1), (0, 0))
        assert layer.box(0, 0) == (0, 0, 8, 8)
        assert "all positions" in layer.note

    def test_a_linear_layer_on_pooled_maps_or_on_channels_keeps_the_field(self):
        net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        layers = by_name(net, (3, 16, 16))
        assert layers["1"].field == layers["3"].field == (18, 18)
        assert not layers["3"].note
        layers = by_name(on_meta(models.convnext_tiny), (3, 64, 64))
        assert layers["features.1.0.block.5"].field == (28, 28)  # linear layers after kernels of 4x4 and 7x7

    @pytest.mark.parametrize(
        "norm", [nn.GroupNorm(1, 4), nn.InstanceNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False)]
    )
    def test_statistics_over_the_image_see_all_of_it_unless_left_out(self, norm):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Conv2d(4, 4, 3))
        layers = by_name(net, (3, 16, 16))
        assert [layers[name].field for name in "012"] == [(3, 3), (16, 16), (16, 16)]
        assert "statistics" in layers["1"].note
        assert by_name(net, (3, 16, 16), pointwise=(type(norm),))["2"].field == (5, 5)

    def test_a_scale_from_the_mean_of_the_maps_sees_everything(self):
        layer = receptive_field(Squeeze(), (WIDTH, 12, 16))[-1]
        assert layer.out == (12, 16)
        image = torch.ones(1, WIDTH, 12, 16, requires_grad=True)
        net = Squeeze()
        nn.init.ones_(net.conv.weight)
        assert measured_box(net(image), image, 6, 7) == (0, 0, 16, 12)
        assert layer.box(6, 7) == (-1, -1, 17, 13)  # with the padding, as everywhere

    def test_what_is_not_known_is_named(self):
        layer = receptive_field(Rolled(), (1, 8, 8))[-1]
        assert layer.field == (8, 8)
        assert "roll is not followed" in layer.note


@pytest.mark.parametrize(
    "net",
    [
        nn.AdaptiveAvgPool2d((5, 3)),
        nn.Upsample(size=(23, 31), mode="nearest"),
        nn.Upsample(scale_factor=(1.5, 2), mode="nearest-exact"),
        nn.Upsample(size=(19, 40), mode="bilinear"),
        nn.Upsample(size=(25, 33), mode="bilinear", align_corners=True),
        nn.Upsample(size=(9, 11), mode="area"),
        nn.LPPool2d(2, (3, 2)),
        nn.PixelUnshuffle(2),
        nn.Sequential(nn.ZeroPad2d((1, 2, 0, 3)), nn.ChannelShuffle(2), nn.Softmax(1)),
        nn.Sequential(nn.Conv2d(WIDTH, 4, 1), nn.GLU(1), nn.PReLU(), nn.LocalResponseNorm(2)),
    ],
    ids=lambda net: " ".join(str(net).split()),
)
def test_other_layers_see_what_the_gradient_shows(net):
    image = torch.rand(1, WIDTH, 16, 22, dtype=torch.float64, requires_grad=True)
    layer = receptive_field(net, (WIDTH, 16, 22))[-1]
    output = net.double()(image)
    assert tuple(output.shape[2:]) == layer.out
    for row in range(2, layer.out[0] - 5):
        columns = range(2, layer.out[1] - 5)
        assert [measured_box(output, image, row, i) for i in columns] == [layer.box(row, i) for i in columns]


def test_maxima_see_what_means_see():
    for theirs, ours in ((nn.AdaptiveAvgPool2d(5), nn.AdaptiveMaxPool2d(5)), (nn.AvgPool2d(3, 2), nn.MaxPool2d(3, 2))):
        assert receptive_field(theirs, (3, 16, 13))[0].axes == receptive_field(ours, (3, 16, 13))[0].axes


def test_the_net_stays_as_it_is():
    net = Keeping(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    attributes = set(vars(net))
    assert receptive_field(net, (3, 8, 8))[-1].field == (3, 3)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert (set(vars(net)), net.calls, net.last) == (attributes, 0, None)
    assert all(parameter.grad is None for parameter in net.parameters())


class TestBadInput:
    def test_code_that_depends_on_values_is_named_and_may_be_a_leaf(self):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), Gate(), nn.Conv2d(4, 4, 3))
        with pytest.raises(ValueError, match=r"test_receptive_field.py:\d+, `if x.sum\(\) > 0:`.*as a leaf") as error:
            receptive_field(net, (3, 8, 8))
        assert "\n" not in str(error.value)
        layers = by_name(net, (3, 8, 8), leaves=(Gate,))
        assert [layers[name].field for name in "012"] == [(3, 3), (8, 8), (8, 8)]
        assert "Gate is not followed" in layers["1"].note
        assert by_name(net, (3, 8, 8), pointwise=(Gate,))["2"].field == (5, 5)
        on_meta_device = on_meta(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Gate(), nn.Conv2d(4, 4, 3)))
        assert by_name(on_meta_device, (3, 8, 8), leaves=(Gate,))["2"].field == (8, 8)
        assert next(on_meta_device.parameters()).is_meta

    @pytest.mark.parametrize(
        ("net", "shape", "parts"),
        [
            (
                nn.Sequential(nn.Conv2d(3, 4, 3)),
                (1, 8, 8),
                ["1x8x8", "conv2d in 0 got 1x8x8", "expected input[2, 1, 8, 8] to have 3"],
            ),
            (models.AlexNet(), (3, 32, 32), ["AlexNet", "3x32x32", "max_pool2d in features.12", "got 256x1x1"]),
            (Tokens(False), (3, 24, 30), ["Tokens", "3x24x30", "the width is 30: expected a multiple of 4"]),
            (nn.Identity(), (3, 0, 8), ["(3, 0, 8)", "1 or more"]),
            (nn.Identity(), (3, 8), ["(3, 8)", "(channels, height, width)"]),
        ],
    )
    def test_sizes_that_the_net_cannot_take(self, net, shape, parts, caplog):
        with pytest.raises(ValueError, match="expected") as error:
            receptive_field(net, shape)
        assert all(part in str(error.value) for part in parts), error.value
        assert not caplog.records
